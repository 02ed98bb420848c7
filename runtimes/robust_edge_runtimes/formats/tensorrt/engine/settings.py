"""The inputs of a TensorRT build: the bundle's ONNX file and the settings in engine.json."""

import json
from pathlib import Path
from typing import Any, Dict, Optional, Sequence, Tuple, Union

from robust_edge_runtimes.core.files import cache_folder, sha256_of
from robust_edge_runtimes.formats.cuda.errors import EngineError

WORKSPACE_MIB = 1024
MAX_BATCH = 100


class Settings:
    """The ONNX file of an engine and the settings of its build.

    Attributes:
        onnx: the ONNX file.
        shape: (C, H, W).
        input: name of the images' tensor.
        output: name of the logits' tensor.
        flags: builder flags by name, for example FP16.
        calibration: the file with the int8 ranges, or None.
        batch: the file's fixed batch size, or None.
        typed: the precision is in the file, so the network is built strongly typed if TensorRT supports it.
        max_batch: largest number of images of one call, if the file has no fixed batch size.
        workspace: MiB that the builder may use.
        asked: which of `max_batch` and `workspace` the user set. The others are taken from the cached engine, if there
            is one, so that an engine that was once built on the device is used again.
        cache: the folder of built engines.
    """

    def __init__(
        self,
        onnx: Path,
        shape: Sequence[int],
        names: Tuple[str, str],
        *,
        flags: Sequence[str] = (),
        calibration: Optional[Path] = None,
        batch: Optional[int] = None,
        typed: bool = False,
        max_batch: int = MAX_BATCH,
        workspace: int = WORKSPACE_MIB,
        asked: Sequence[str] = (),
        cache: Optional[Path] = None,
    ) -> None:
        self.onnx = onnx
        self.shape = tuple(shape)
        self.input, self.output = names
        self.flags = tuple(flags)
        self.calibration = calibration
        self.batch = batch
        self.typed = typed
        self.max_batch = max_batch
        self.workspace = workspace
        self.asked = tuple(asked)
        self.cache = cache or cache_folder()

    @classmethod
    def of_bundle(
        cls, folder: Union[str, Path], workspace: Optional[int] = None, max_batch: Optional[int] = None
    ) -> "Settings":
        """The settings of the bundle's manifest.json and engine.json; those that are given replace them.

        Raises:
            EngineError: the files are missing, or hold something else.
        """
        folder = Path(folder)
        wanted = {"max_batch": max_batch, "workspace": workspace}
        try:
            manifest, recipe = _read_json(folder / "manifest.json"), _read_json(folder / "engine.json")
            calibration = recipe["calibration"]
            batch, shape = manifest["input"]["shape"][0], manifest["input"]["shape"][1:]
            return cls(
                folder / Path(manifest["artifact"]["file"]).name,
                [int(size) for size in shape],
                (manifest["input"]["name"], manifest["output"]["name"]),
                flags=[str(flag) for flag in recipe["flags"]],
                calibration=folder / Path(calibration).name if calibration else None,
                batch=None if batch is None else int(batch),
                typed=bool(recipe["typed"]),
                max_batch=positive(max_batch or recipe["max_batch"]),
                workspace=positive(workspace or recipe["workspace_mib"]),
                asked=[name for name, value in sorted(wanted.items()) if value is not None],
            )
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as cause:
            raise EngineError(f"{folder} holds no TensorRT recipe: {cause!r}; export it again") from cause

    def batches(self) -> Tuple[int, ...]:
        """Batch sizes with an optimization profile of their own: one image, and the largest number."""
        if self.batch is not None:
            return (self.batch,)
        return (1,) if self.max_batch == 1 else (1, self.max_batch)

    def facts(self, version: str, gpu: str) -> Dict[str, Any]:
        """Everything that an engine and its outputs depend on, as plain values."""
        return {
            "onnx": sha256_of(self.onnx),
            "calibration": self.calibration and sha256_of(self.calibration),
            "tensorrt": version,
            "gpu": gpu,
            "flags": sorted(self.flags),
            "typed": self.typed,
        }

    def choices(self) -> Dict[str, int]:
        """Build settings that do not change the outputs of the engine."""
        return {"max_batch": self.max_batch, "workspace": self.workspace}


def positive(value: Any) -> int:
    """The value as a whole number of at least 1.

    Raises:
        ValueError, TypeError: the value is not one.
    """
    number = int(value)
    if number < 1:
        raise ValueError(f"{value!r} is not a whole number of at least 1")
    return number


def _read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))
