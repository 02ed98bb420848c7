"""Attack the file that ships, on the host: the modes that need torch, beside those that a device can run."""

from robust_edge.verification.verify import VerifySettings, verify_bundle

__all__ = ["VerifySettings", "verify_bundle"]
