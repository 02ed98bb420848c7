"""ONNX on ONNX Runtime's CPU provider."""
