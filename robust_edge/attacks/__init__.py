"""Adversaries on torch networks."""
