"""Attack the file that ships, on the host: the modes that need torch, beside those that a device can run."""
