"""The exception class of build_engine.py."""


class EngineError(Exception):
    """Something is missing or failed; the message says in one line what to do."""
