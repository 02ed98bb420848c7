"""The run directory: reading and writing its files."""
