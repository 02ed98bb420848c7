"""Devices and processes that share a training or an evaluation."""
