"""The settings of a run's images that a function which reads a data set is given."""

from __future__ import annotations

import dataclasses
import re

from robust_edge.settings.setting import check, setting
from robust_edge_runtimes.core.decode import short_repr
from robust_edge_runtimes.core.errors import InputError
from robust_edge_runtimes.core.pictures import MODES, WHITE
from robust_edge_runtimes.core.preprocessing import INTERPOLATIONS, Preprocessing

AUGMENTATIONS = {
    "crop": "pad by an eighth of the side (4 pixels of 32) and crop at random; the same as shift",
    "flip": "left to right",
    "rotate": "up to 15 degrees",
    "shift": "up to an eighth of the side",
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReadSettings:
    """Settings of reading a data set: its place, limits, and whether images are kept in memory."""

    dataset: str = "digits"
    dir: str | None = setting(
        None, "folder of the image files, for `folder` and the CIFAR data sets", flag="--data-dir"
    )
    download: bool = setting(False, "download a CIFAR data set that is not in the folder yet", flag="--download")
    limit_train: int | None = setting(
        None, "use only this many training images, balanced over the classes", range="[1, inf)"
    )
    limit_test: int | None = setting(None, "the same for test images", range="[1, inf)")
    resize: int | str | None = setting(
        None,
        "size to which every picture of a folder is scaled, in pixels: `48x96` (height x width) or one length for "
        "squares; with `data.crop`, one length is that of the shorter side. null keeps the size",
        range="[1, inf)",
    )
    crop: int | str | None = setting(
        None,
        "size that is then cut from the middle: `224x192` or one length for squares; null: no crop",
        range="[1, inf)",
    )
    interpolation: str = setting("bilinear", "how pictures are scaled, by Pillow", choices=INTERPOLATIONS)
    background: tuple[int, ...] = setting(
        WHITE, "red, green and blue behind the transparent parts of pictures, each 0 to 255; white by default"
    )
    channels: int | None = setting(
        None,
        "with how many channels the pictures of a folder are read, 1 (grey) or 3 (colour); null: 1 if all of them are "
        "grey, else 3",
        range="[1, 3]",
    )
    augment: tuple[str, ...] = setting((), "random transformations of the training images", choices=AUGMENTATIONS)
    resident: bool | str = setting(
        "auto",
        "whether all images are kept in the memory of the training device; `auto`: if `resident_mib` is enough. "
        "Otherwise worker processes read them during the training",
        choices=["auto"],
        beside="true or false",
    )
    resident_mib: int = setting(
        4096,
        "largest size of all training and test images for `resident: auto`, in MiB at one byte per value",
        range="[0, inf)",
    )

    def __post_init__(self) -> None:
        check(self, "data")
        if self.channels not in (None, *MODES):
            raise InputError(f"data.channels must be 1 or 3; it is {self.channels}")
        problem = self.preprocessing.problem
        if problem is not None:
            raise InputError(f"data.{problem}; data.resize is {self.resize}, data.crop {self.crop}")

    @property
    def preprocessing(self) -> Preprocessing:
        """How the pictures of a folder are prepared."""
        resize, crop = _sides("resize", self.resize), _sides("crop", self.crop)
        shorter = isinstance(self.resize, int) and crop is not None
        return Preprocessing(
            resize=resize[:1] if resize is not None and shorter else resize,
            crop=crop,
            interpolation=self.interpolation,
            background=self.background,
        )

    def refuse_settings_of_pictures(self) -> None:
        """Raise InputError if a setting is given that only data sets of pictures of any size have."""
        usual = ReadSettings()
        for name in ("resize", "crop", "interpolation", "background", "channels"):
            value = getattr(self, name)
            if value != getattr(usual, name):
                raise InputError(
                    f"data.{name} is {value}, which is for pictures; the images of data set {self.dataset} stay as "
                    "they are. Leave it out, or use data.dataset=folder"
                )

    def stays(self, pixels: int) -> bool:
        """Whether images with a total of `pixels` bytes are kept in memory."""
        return self.resident if isinstance(self.resident, bool) else pixels <= self.resident_mib << 20


def _sides(name: str, value: int | str | None) -> tuple[int, ...] | None:
    """Height and width of a size; one length is both.

    Raises:
        InputError: it is no size.
    """
    if value is None or isinstance(value, int):
        return None if value is None else (value, value)
    found = re.fullmatch(r"(\d{1,9})x(\d{1,9})", value)
    if found is None:
        raise InputError(f"data.{name} must be a length or HEIGHTxWIDTH, such as 48x96; it is {short_repr(value)}")
    return int(found[1]), int(found[2])
