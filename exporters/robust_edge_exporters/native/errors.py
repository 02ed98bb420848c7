"""The error of this exporter."""


class ExportError(ValueError):
    """The network can't be exported; the message names the node and the way out."""
