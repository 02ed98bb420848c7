"""Differentiable twins of artifacts: one module for each format that has one, and the table of them."""
