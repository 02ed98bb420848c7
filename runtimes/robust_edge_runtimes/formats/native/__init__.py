"""Generated C of the sparse engine."""
