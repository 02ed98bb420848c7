"""Devices, ranks and rows: how work is parted."""
