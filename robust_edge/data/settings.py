"""The table of data sets, and the settings of a run's images."""

from __future__ import annotations

import dataclasses

from robust_edge.plugins import Row, summaries
from robust_edge.settings.setting import check, setting

DATASETS = {
    "digits": Row("robust_edge.data.digits:load_digits", "1,797 scans of 8×8, in the package"),
    "cifar10": Row("robust_edge.data.cifar:load_cifar10", "60,000 images of 32×32"),
    "cifar100": Row("robust_edge.data.cifar:load_cifar100", "the same in 100 classes"),
    "folder": Row("robust_edge.data.folder:load_folder", "train/CLASS/* and test/CLASS/*"),
}
OWN_DATASET = "package.module:function"
AUGMENTATIONS = {
    "crop": "pad an eighth of the side, 4 pixels at 32, and cut a window: the field's name for shift",
    "flip": "left to right",
    "rotate": "up to 15 degrees",
    "shift": "up to an eighth of the side",
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataConfig:
    """The images of a run."""

    dataset: str = setting(
        "digits", "name of the data set", flag="--dataset", choices=summaries(DATASETS), beside=OWN_DATASET
    )
    dir: str | None = setting(
        None, "folder in which the images of `folder` and of the CIFAR sets lie", flag="--data-dir"
    )
    download: bool = setting(False, "fetch a CIFAR set that is not in the folder yet", flag="--download")
    limit_train: int | None = setting(
        None, "use only this many training images, evenly over the classes", range="[1, inf)"
    )
    limit_test: int | None = setting(None, "the same for test images", range="[1, inf)")
    resize: int | None = setting(
        None, "side in pixels that every image of a folder is brought to; null takes them as they are", range="[1, inf)"
    )
    augment: tuple[str, ...] = setting((), "random changes of the training images", choices=AUGMENTATIONS)
    resident: bool | str = setting(
        "auto",
        "whether all images lie in the memory of the device that trains; `auto` where they take no more than "
        "`resident_mib`. Others are read by worker processes while the network trains",
        choices=["auto"],
        beside="true or false",
    )
    resident_mib: int = setting(
        4096, "MiB of pixels, training and test images together, one byte each", range="[0, inf)"
    )

    def __post_init__(self) -> None:
        check(self, "data")

    def stays(self, pixels: int) -> bool:
        """Whether images of so many bytes in all are held in memory."""
        return self.resident if isinstance(self.resident, bool) else pixels <= self.resident_mib << 20
