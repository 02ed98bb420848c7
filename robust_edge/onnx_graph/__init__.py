"""ONNX graphs as torch modules: differentiable, node by node."""
