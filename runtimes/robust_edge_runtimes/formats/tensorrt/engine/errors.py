"""The error of everything that ships as build_engine.py."""


class EngineError(Exception):
    """What is missing or failed, and the way out, in one line."""
