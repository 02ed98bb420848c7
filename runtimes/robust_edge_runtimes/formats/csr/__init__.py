"""TorchScript with sparse CSR weights."""
