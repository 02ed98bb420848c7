"""The network inside the wrappers that training scripts put around it."""

from __future__ import annotations

import warnings

from torch import nn
from torch.nn.utils import parametrizations, remove_spectral_norm, remove_weight_norm
from torch.nn.utils.spectral_norm import SpectralNorm, SpectralNormLoadStateDictPreHook
from torch.nn.utils.weight_norm import WeightNorm


def plain_network(network: nn.Module) -> nn.Module:
    """Take `torch.compile` and `DataParallel` off, and turn weight norm and spectral norm into parametrizations.

    `torch.nn.utils.weight_norm` and `spectral_norm` compute the weight in a hook, where no mask can hold its zeros;
    `torch.nn.utils.parametrizations` has both as parametrizations of the same weights.

    Args:
        network: changed in place.
    """
    network = _unwrapped(network)
    for parent in list(network.modules()):
        for name, child in list(parent.named_children()):
            if _unwrapped(child) is not child:
                setattr(parent, name, _unwrapped(child))
    for module in list(network.modules()):
        _parametrise(module)
    return network


def _unwrapped(network: nn.Module) -> nn.Module:
    while True:
        compiled = getattr(network, "_orig_mod", None)
        if isinstance(compiled, nn.Module):
            network = compiled
        elif isinstance(network, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
            network = network.module
        else:
            return network


def _parametrise(module: nn.Module) -> None:
    """Replace the hooks of a module that compute its weight by parametrizations that give the same weight."""
    for hook in list(module._forward_pre_hooks.values()):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch calls the older functions deprecated
            if isinstance(hook, WeightNorm):
                remove_weight_norm(module, hook.name)
                parametrizations.weight_norm(module, hook.name, hook.dim)
            elif isinstance(hook, SpectralNorm):
                _parametrise_spectral_norm(module, hook)


def _parametrise_spectral_norm(module: nn.Module, hook: SpectralNorm) -> None:
    own = [getattr(module, f"{hook.name}_{part}").detach() for part in ("orig", "u", "v")]
    remove_spectral_norm(module, hook.name)
    for key, loader in list(module._load_state_dict_pre_hooks.items()):
        if isinstance(getattr(loader, "hook", loader), SpectralNormLoadStateDictPreHook):
            del module._load_state_dict_pre_hooks[key]  # which torch leaves there
    parametrizations.spectral_norm(module, hook.name, hook.n_power_iterations, hook.eps, hook.dim)
    chain = module.get_submodule(f"parametrizations.{hook.name}")
    chain.load_state_dict(dict(zip(("original", "0._u", "0._v"), own, strict=True)))
