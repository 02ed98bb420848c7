"""Latency, cold start and energy of bundles."""
