"""Read pictures as pixels: decoded, upright, opaque, in grey or colour, scaled and cropped.

Training, `predict` and the `run.py` of a bundle read pictures with these functions, so that all of them see the same
pixels; `run.py` holds a copy. So this file runs on Python 3.6. Pillow, 8 or newer, is imported when a picture is read.
"""

import io
from pathlib import Path
from typing import Any, List, Mapping, Tuple, Union

import numpy as np

FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")  # no other decoder of Pillow sees the bytes
MODES = {1: "L", 3: "RGB"}
GREY_MODES = ("1", "L", "LA", "I", "F")
ALPHA_MODES = ("RGBA", "LA", "PA")
DEEP_GREY = ("PNG", "PPM")  # formats whose pictures of 16 bits have mode I in some releases of Pillow
WHITE = (255, 255, 255)
MAX_PIXELS = 1 << 26  # of a scaled picture; a picture of one row would become very wide
ORIENTATION = 0x0112
UPRIGHT = {
    2: "FLIP_LEFT_RIGHT",
    3: "ROTATE_180",
    4: "FLIP_TOP_BOTTOM",
    5: "TRANSPOSE",
    6: "ROTATE_270",
    7: "TRANSVERSE",
    8: "ROTATE_90",
}
"""What turns a picture of each Exif orientation upright."""


class PictureError(Exception):
    """A picture cannot be used; the message follows its name."""


def read_picture(source: Union[bytes, str, Path], channels: int, rules: Mapping[str, Any]) -> np.ndarray:
    """Read a picture and prepare it.

    Args:
        source: path or content of the file.
        channels: 1 for grey, 3 for colour.
        rules: `preprocessing` of a manifest; without `resize` and `crop` the picture keeps its size.

    Returns:
        (C, H, W) uint8, a new array.

    Raises:
        PictureError: the file is of no format in FORMATS, is broken, or has more than 16 bits per channel.
        ImportError: Pillow is not installed.
    """
    from PIL import Image  # outside of `try`: its absence is another error than a broken picture

    try:
        with Image.open(_file(source), formats=FORMATS) as picture:
            picture.load()  # some formats are turned upright here, which removes the orientation
            turn = UPRIGHT.get(picture.getexif().get(ORIENTATION, 1))
            plain = _opaque(_eight_bits(picture), tuple(rules.get("background") or WHITE)).convert(MODES[channels])
            prepared = _framed(plain if turn is None else plain.transpose(_constant("Transpose", turn)), rules)
            pixels = np.array(prepared)
    except PictureError:
        raise
    except Exception as cause:  # each of Pillow's decoders raises exception classes of its own
        raise PictureError("cannot be read as an image: {}".format(cause)) from cause
    return pixels[None] if pixels.ndim == 2 else np.ascontiguousarray(pixels.transpose(2, 0, 1))


def is_grey(source: Union[bytes, str, Path]) -> bool:
    """Whether a picture has one channel and no palette, by its header.

    Raises:
        PictureError: as `read_picture`.
    """
    from PIL import Image

    try:
        with Image.open(_file(source), formats=FORMATS) as picture:
            return picture.mode in GREY_MODES or picture.mode.startswith("I;16")
    except Exception as cause:
        raise PictureError("cannot be read as an image: {}".format(cause)) from cause


def _file(source: Union[bytes, str, Path]) -> Any:
    return io.BytesIO(source) if isinstance(source, bytes) else str(source)


def _constant(group: str, name: str) -> Any:
    """A constant of Pillow, which has been in an enumeration since release 9.1."""
    from PIL import Image

    return getattr(getattr(Image, group, Image), name)


def _eight_bits(picture: Any) -> Any:
    """Scale 16 bits per channel to 8, rounded; Pillow itself would cut values off at 255."""
    from PIL import Image

    if picture.mode.startswith("I;16") or (picture.mode == "I" and picture.format in DEEP_GREY):
        levels = np.asarray(picture).astype(np.int64)
        return Image.fromarray(((levels * 255 + 32767) // 65535).astype(np.uint8))
    if picture.mode in ("I", "F"):
        raise PictureError(
            "has more than 16 bits per channel (mode {}); save it with 8 or 16 bits, or as .npy".format(picture.mode)
        )
    return picture


def _opaque(picture: Any, background: Tuple[int, ...]) -> Any:
    """Composite a picture that has transparent parts over the background."""
    from PIL import Image

    if picture.mode not in ALPHA_MODES and "transparency" not in picture.info:
        return picture
    layer = picture.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", layer.size, background + (255,)), layer)


def _framed(picture: Any, rules: Mapping[str, Any]) -> Any:
    """Scale, and crop from the middle."""
    resize, crop = rules.get("resize"), rules.get("crop")
    if resize:
        height, width = _scaled_size(picture, resize)
        interpolation = _constant("Resampling", (rules.get("interpolation") or "bilinear").upper())
        picture = picture.resize((width, height), interpolation)
    if crop:
        height, width = crop
        if picture.width < width or picture.height < height:
            raise PictureError(
                "is {}×{}, too small to crop {}×{} from it".format(picture.width, picture.height, width, height)
            )
        left, top = (round((have - want) / 2) for have, want in ((picture.width, width), (picture.height, height)))
        picture = picture.crop((left, top, left + width, top + height))
    return picture


def _scaled_size(picture: Any, resize: List[int]) -> Tuple[int, int]:
    """Height and width after scaling: those of `resize`, or of the same aspect with the one length as shorter side."""
    if len(resize) == 2:
        return resize[0], resize[1]
    shorter = min(picture.size)
    width, height = (side * resize[0] // shorter for side in picture.size)
    if width * height > MAX_PIXELS:
        raise PictureError("is {}×{}, too long to scale its shorter side".format(picture.width, picture.height))
    return height, width
