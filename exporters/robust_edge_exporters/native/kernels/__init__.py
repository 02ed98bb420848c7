"""The kernels of the engine: one module and one header of csrc each, with one row in `table.py`."""
