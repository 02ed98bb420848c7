"""Checkpoint to ONNX for TensorRT, with a build recipe."""
