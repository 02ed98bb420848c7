"""The exception class of the CUDA library and of build_engine.py."""


class EngineError(Exception):
    """Something is missing or failed; the message says in one line what to do."""
