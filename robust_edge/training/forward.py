"""Call the network in training: precision, memory layout and compilation."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
from collections.abc import Iterator
from typing import TYPE_CHECKING, TypeVar

import torch
from torch import Tensor, nn

from robust_edge.config.training import ComputeConfig
from robust_edge.training.folded import FoldedNetwork
from robust_edge_runtimes.core.errors import InputError

if TYPE_CHECKING:
    from robust_edge.int8.simulation import Simulation

M = TypeVar("M", bound=nn.Module)
LAYOUTS = {True: torch.channels_last, False: torch.contiguous_format}


class Forward(nn.Module):
    """The network as training calls it: float32 pixels to float32 logits.

    With bf16, convolutions and matrix products run under autocast on float32 weights; normalisation, loss and the
    gradient with respect to the pixels stay float32.

    Attributes:
        network: the trained network itself, or its compiled form; its parameters and mode are shared.
        settled: False while the momenta of batch norm change from step to step. As each change would make torch.compile
            recompile, up to its limit, the network runs uncompiled meanwhile.
        simulation: called in place of the network, whose parameters it uses; in fp32 and uncompiled.
        folded: the network with folded batch norms, for `attacked`; None where there is none.
    """

    def __init__(self, network: nn.Module, config: ComputeConfig) -> None:
        super().__init__()
        self.plain = network
        self.network: nn.Module = torch.compile(network) if config.compile else network  # type: ignore[assignment]
        self.settled = True
        self.simulation: Simulation | None = None
        self.folded: FoldedNetwork | None = None
        self._attacked = False
        self.bf16 = config.precision == "bf16"
        self.layout = LAYOUTS[config.channels_last]

    def forward(self, images: Tensor) -> Tensor:
        """(N, C, H, W) float32 in [0, 1] to (N, K) float32 logits."""
        if self.simulation is not None:
            integers: Tensor = self.simulation(images)
            return integers
        images = images.contiguous(memory_format=self.layout)
        network = self.network if self.settled else self.plain
        if self._attacked and self.folded is not None:
            network = self.folded.graph
        with torch.autocast(images.device.type, torch.bfloat16, enabled=self.bf16):
            logits: Tensor = network(images)
        return logits.float()

    @contextlib.contextmanager
    def attacked(self) -> Iterator[Forward]:
        """Compute with folded batch norms inside the `with` block, in which the network must be in evaluation mode."""
        if self.folded is not None:
            self.folded.refresh()
        self._attacked = True
        try:
            yield self
        finally:
            self._attacked = False


def check_compute(config: ComputeConfig, device: torch.device) -> None:
    """Check that the device supports the precision.

    Raises:
        InputError: a GPU without bfloat16.
    """
    if config.precision == "bf16" and device.type == "cuda" and not torch.cuda.is_bf16_supported():
        name = torch.cuda.get_device_name(device)
        raise InputError(f"compute.precision bf16 needs a GPU that computes in bfloat16, {name} does not; use fp32")


def fitting(config: ComputeConfig, network: nn.Module, shape: tuple[int, ...]) -> ComputeConfig:
    """The settings, without `channels_last` if the network does not run on images and weights stored as NHWC.

    Code that calls `view` after a convolution needs NCHW.

    Args:
        config: the settings of the run.
        network: on the CPU; it is not changed, and neither is torch's random state.
        shape: (C, H, W).
    """
    if not config.channels_last:
        return config
    with torch.random.fork_rng(devices=[]):
        copied = place(copy.deepcopy(network), torch.device("cpu"), config).train()
        try:
            copied(torch.rand(2, *shape).contiguous(memory_format=torch.channels_last)).sum().backward()
        except Exception:  # the network is the user's; it may raise anything
            return dataclasses.replace(config, channels_last=False)
    return config


def place(network: M, device: torch.device, config: ComputeConfig) -> M:
    """Move the network to a device, its weights in the configured memory layout, which only tensors of 4 axes have."""
    network = network.to(device)
    for tensor in (*network.parameters(), *network.buffers()):
        if tensor.ndim == 4:
            # `contiguous` would leave a tensor of one channel as it is, on which kernels round differently
            tensor.data = tensor.data.to(memory_format=LAYOUTS[config.channels_last])
    return network
