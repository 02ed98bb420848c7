"""Latency, cold start and energy."""
