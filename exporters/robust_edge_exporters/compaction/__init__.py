"""Removes channels that do not change the outputs of a network."""
