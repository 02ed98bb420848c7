"""The int8 engine: its arithmetic, the graph of integers that it makes of a float graph, and the naive reference."""
