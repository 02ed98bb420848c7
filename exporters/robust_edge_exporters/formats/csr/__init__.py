"""Checkpoint to TorchScript with sparse CSR weights."""
