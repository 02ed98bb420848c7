"""Sparsity sets, projections onto them, and the alternating method that gets there."""
