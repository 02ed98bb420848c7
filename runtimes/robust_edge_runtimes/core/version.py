"""The version of the distribution; all three packages have the same."""

__version__ = "0.2.0.dev0"
