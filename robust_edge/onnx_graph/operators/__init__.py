"""ONNX operators in torch: one function each, and the table of them."""
