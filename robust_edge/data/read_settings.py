"""The settings of a run's images that a function which reads a data set is given."""

from __future__ import annotations

import dataclasses

from robust_edge.settings.setting import check, setting

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
    resize: int | None = setting(
        None, "side in pixels to which every image of a folder is resized; null keeps their size", range="[1, inf)"
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

    def stays(self, pixels: int) -> bool:
        """Whether images with a total of `pixels` bytes are kept in memory."""
        return self.resident if isinstance(self.resident, bool) else pixels <= self.resident_mib << 20
