"""Checkpoint to artifact to bundle: what a target can run, and proof that it still computes the same."""
