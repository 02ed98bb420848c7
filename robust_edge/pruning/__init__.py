"""Sparsity sets, projections onto them, and ADMM."""
