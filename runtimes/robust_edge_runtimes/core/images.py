"""Read image files as arrays for a runtime."""

from __future__ import annotations

from pathlib import Path
from typing import Optional, Tuple, Union

import numpy as np

from robust_edge_runtimes.core.errors import BackendUnavailable, InputError
from robust_edge_runtimes.core.pictures import MODES, PictureError, read_picture
from robust_edge_runtimes.core.preprocessing import Preprocessing


def read_image(
    source: Union[Path, bytes], shape: Tuple[Optional[int], ...], preprocessing: Optional[Preprocessing] = None
) -> np.ndarray:
    """Read one image.

    Args:
        source: path of a `.npy` file with (C, H, W) float32 in [0, 1] or uint8, or path or content of a picture file,
            which needs Pillow.
        shape: the (C, H, W) that the model takes. An array must have it.
        preprocessing: how pictures are scaled and cropped to it; None if they must have this size.

    Returns:
        (C, H, W) float32 in [0, 1].

    Raises:
        InputError: the file is missing or cannot be read, or the image has another size or pixels outside [0, 1].
        BackendUnavailable: the file is not `.npy`, and Pillow is not installed.
    """
    name = "the picture" if isinstance(source, bytes) else str(source)
    if isinstance(source, Path) and not source.is_file():
        raise InputError(f"{name} is not a file; give the path of an image")
    if isinstance(source, Path) and source.suffix == ".npy":
        array = _from_npy(source)
    else:
        array = _from_picture(source, name, shape[0], preprocessing or Preprocessing())
    if array.shape != shape:
        raise InputError(
            f"{name} is {array.shape} (channels, height, width), but this model takes {shape}; resize it first"
        )
    if not (array.min() >= 0 and array.max() <= 1):  # written so that NaN fails too
        raise InputError(
            f"{name} has pixels in [{array.min():g}, {array.max():g}]; save float32 in [0, 1], or uint8 in [0, 255]"
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


def _from_picture(
    source: Union[Path, bytes], name: str, channels: Optional[int], preprocessing: Preprocessing
) -> np.ndarray:
    if channels not in MODES:
        raise InputError(f"{name} is a picture, and this model takes {channels} channels; pass a .npy file")
    try:
        return _scaled(read_picture(source, channels, preprocessing.rules()))
    except ImportError as cause:
        raise BackendUnavailable(f"reading {name} needs Pillow: pip install pillow; or pass a .npy file") from cause
    except PictureError as cause:
        raise InputError(f"{name} {cause}") from cause


def _scaled(levels: np.ndarray) -> np.ndarray:
    pixels: np.ndarray = levels.astype(np.float32) / np.float32(255)
    return pixels
