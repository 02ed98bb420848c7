"""How right a network is, clean and under attack."""
