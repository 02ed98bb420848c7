"""The base class of everything that intercepts the operators of a network while it runs."""

from __future__ import annotations

from torch.utils._python_dispatch import TorchDispatchMode


class EagerDispatchMode(TorchDispatchMode):
    """A TorchDispatchMode that torch.compile never meets, so that torch._dynamo need not be imported for it.

    Torch has no public way to say so. Where a release of torch does not have this hook, the method is not called, and
    the only difference is that the import of this module takes half a second longer.
    """

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Torch's hook: if true, torch imports torch._dynamo to keep it from compiling `__torch_dispatch__`."""
        return False
