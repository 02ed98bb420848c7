"""Networks: the zoo, the user's own, and the normalisation that every one of them carries inside."""

from robust_edge.models.normalized import Normalized
from robust_edge.models.spec import ARCHITECTURES, ModelSpec, build_model

__all__ = ["ARCHITECTURES", "ModelSpec", "Normalized", "build_model"]
