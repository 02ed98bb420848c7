"""Networks of 8-bit integers as torch modules: the integers of the int8 engine, with gradients."""
