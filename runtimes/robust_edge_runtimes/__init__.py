"""Open a bundle on the device, run it, time it and attack it: numpy and one backend, nothing else."""

__version__ = "0.1.0"
