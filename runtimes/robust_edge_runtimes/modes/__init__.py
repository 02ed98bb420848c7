"""Modes of verification: each attacks a subject in its own way and returns a measurement."""
