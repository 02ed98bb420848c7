"""Networks, chosen by name or built by the user's function, with normalisation inside the model."""

from robust_edge.models.normalized import Normalized
from robust_edge.models.spec import ARCHITECTURES, ModelSpec, build_model

__all__ = ["ARCHITECTURES", "ModelSpec", "Normalized", "build_model"]
