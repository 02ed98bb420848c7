"""Verify an exported artifact on the host, in the modes of the device and in those that need torch."""
