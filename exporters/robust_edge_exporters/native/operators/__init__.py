"""The operators of the engine: one module each, with one row in `table.py`."""
