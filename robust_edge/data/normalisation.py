"""Mean and standard deviation of pixels in [0, 1], and those of pixels from 0 to 255 in their place."""

from __future__ import annotations

from collections.abc import Sequence

from robust_edge_runtimes.core.errors import InputError

LARGEST = 255


def per_channel(
    mean: Sequence[float], std: Sequence[float], channels: int, names: tuple[str, str]
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation with one value for each channel.

    Args:
        mean, std: one value for all channels, or one for each.
        channels: C, of the images.
        names: of both, for the message.

    Raises:
        InputError: one of them has another number of values.
    """
    both = []
    for name, values in zip(names, (mean, std), strict=True):
        if len(values) not in (1, channels):
            raise InputError(f"{name} has {len(values)} values, the images have {channels} channels")
        both.append(tuple(values) * channels if len(values) == 1 else tuple(values))
    return both[0], both[1]


def refuse_large_means(mean: Sequence[float], std: Sequence[float], name: str, pair: str, joined: str = "{}") -> None:
    """Refuse a mean above 1, which pixels in [0, 1] cannot have, and show what is meant for them.

    A deviation above 1 is taken where the mean is not: the network may have been trained so.

    Args:
        mean, std: one value or one per channel.
        name: of the mean, for the message.
        pair: how both are written, with a place for each.
        joined: how the values of each are written, with a place for all.

    Raises:
        InputError: a mean is above 1.
    """
    if max(mean, default=0.0) <= 1:
        return
    divisor = LARGEST if max(std, default=1.0) >= 1 else 1  # 1/255 and 0.229 are for pixels in [0, 1] already
    values = ([value / LARGEST for value in mean], [value / divisor for value in std])
    shown, *both = (joined.format(",".join(f"{value:.6g}" for value in part)) for part in (mean, *values))
    raise InputError(
        f"{name} is {shown}, but pixels are in [0, 1]; give mean and std for such pixels, which are those for 0 to 255 "
        f"divided by {LARGEST}: {pair.format(*both)}"
    )
