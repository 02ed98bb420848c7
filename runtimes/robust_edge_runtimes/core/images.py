"""Read image files as arrays for a runtime."""

from __future__ import annotations

from pathlib import Path
from typing import Tuple

import numpy as np

from robust_edge_runtimes.core.errors import BackendUnavailable, InputError


def read_image(path: Path, shape: Tuple[int, ...]) -> np.ndarray:
    """Read one image.

    Args:
        path: a `.npy` file with (C, H, W) float32 in [0, 1] or uint8, or any image file that Pillow reads.
        shape: the (C, H, W) that the model takes; an image of another size is an error and is not resized.

    Returns:
        (C, H, W) float32 in [0, 1].

    Raises:
        InputError: the file is missing or cannot be read, or the image has another size or pixels outside [0, 1].
        BackendUnavailable: the file is not `.npy`, and Pillow is not installed.
    """
    if not path.is_file():
        raise InputError(f"{path} is not a file; give the path of an image")
    array = _from_npy(path) if path.suffix == ".npy" else _from_image_file(path, shape[0])
    if array.shape != shape:
        raise InputError(
            f"{path} is {array.shape} (channels, height, width), but this model takes {shape}; resize it first"
        )
    if not (array.min() >= 0 and array.max() <= 1):  # written so that NaN fails too
        raise InputError(
            f"{path} has pixels in [{array.min():g}, {array.max():g}]; save float32 in [0, 1], or uint8 in [0, 255]"
        )
    return array


def _from_npy(path: Path) -> np.ndarray:
    try:
        with path.open("rb") as file:
            array: np.ndarray = np.lib.format.read_array(file, allow_pickle=False)
    except Exception as cause:  # numpy's header parser raises many exception classes
        raise InputError(f"{path} is not a plain .npy array: {cause}") from cause
    if array.dtype == np.uint8:
        return _scaled(array)
    if array.dtype != np.float32:
        raise InputError(f"{path} holds {array.dtype}; save float32 in [0, 1], or uint8")
    return np.asarray(array)


def _from_image_file(path: Path, channels: int) -> np.ndarray:
    try:
        from PIL import Image
    except ImportError as cause:
        raise BackendUnavailable(
            f"reading {path.name} needs Pillow: pip install pillow; or pass a .npy file"
        ) from cause
    try:
        with Image.open(path) as picture:
            mode = picture.mode
            pixels = np.asarray(picture.convert("L" if channels == 1 else "RGB"))
    except Exception as cause:  # each of Pillow's decoders raises exception classes of its own
        raise InputError(f"{path} cannot be read as an image: {cause}") from cause
    if mode[0] in "IF":  # Pillow clips these at 255 instead of scaling them
        raise InputError(f"{path} has more than 8 bits per channel (mode {mode}); save it with 8 bits, or as .npy")
    planes = pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)
    return _scaled(planes)


def _scaled(levels: np.ndarray) -> np.ndarray:
    pixels: np.ndarray = levels.astype(np.float32) / np.float32(255)
    return pixels
