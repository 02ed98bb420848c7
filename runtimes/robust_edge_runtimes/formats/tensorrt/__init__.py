"""TensorRT engines, built on the device."""
