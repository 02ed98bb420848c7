"""ONNX on ONNX Runtime's CUDA provider."""
