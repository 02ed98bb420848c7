"""Import a state dict: the weights of an architecture that is named."""

from __future__ import annotations

from robust_edge.importing.source import Request, Source
from robust_edge.models.spec import build_network
from robust_edge.models.state_dict import load_state_dict
from robust_edge_runtimes.core.errors import InputError


def read_state_dict(request: Request) -> Source:
    """Build the architecture and load the file into it; nothing is unpickled but tensors.

    Raises:
        InputError: no images are given, or the file does not fit.
    """
    assert request.arch is not None  # by `require_source`
    if request.shape is None or request.classes is None:
        raise InputError(f"{request.path} holds weights only; name the images of the network in data.dataset")
    network = build_network(request.arch, request.classes, request.shape[0])
    notes = load_state_dict(network, request.path, arch=request.arch, classes=request.named)
    return Source(network=network.eval(), arch=request.arch, shape=request.shape, classes=request.classes, notes=notes)
