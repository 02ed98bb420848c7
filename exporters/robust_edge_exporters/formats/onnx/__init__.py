"""Checkpoint to ONNX, fp32, fp16 or int8."""
