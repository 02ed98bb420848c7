"""Checks, measurements and statistics of `verify`, and the verdict that follows from them."""
