"""Checkpoint to generated C."""
