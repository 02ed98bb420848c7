"""Algorithm 1: one run from random weights to a sparse, robust network."""
