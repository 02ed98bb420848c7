"""Building: from the ONNX file and the recipe to the bytes of an engine, on TensorRT 8.2 to 11."""

import importlib
from pathlib import Path
from typing import Any, Optional

from robust_edge_runtimes.core.files import write_atomic
from robust_edge_runtimes.formats.cuda.errors import EngineError
from robust_edge_runtimes.formats.tensorrt.engine.settings import Settings


def import_tensorrt() -> Any:
    """The tensorrt module of this Python.

    Raises:
        EngineError: there is none.
    """
    try:
        return importlib.import_module("tensorrt")
    except ImportError as cause:
        raise EngineError(
            f"this bundle runs on TensorRT, whose Python module is not here ({cause}): on a Jetson use the system's "
            "python3, elsewhere pip install tensorrt"
        ) from cause


def build(trt: Any, settings: Settings, timing_cache: Optional[Path] = None) -> bytes:
    """Build an engine and serialize it.

    Args:
        trt: the tensorrt module, any version from 8.2 to 11.
        settings: what to build.
        timing_cache: a file that is read if it exists and written afterwards.

    Raises:
        EngineError: TensorRT cannot read the file, has no such flag, or cannot build an engine.
    """
    logger = trt.Logger(trt.Logger.WARNING)
    builder = trt.Builder(logger)
    network = builder.create_network(_network_flags(trt, settings))
    _parse(trt, trt.OnnxParser(network, logger), settings)
    config = builder.create_builder_config()
    _limit_workspace(trt, config, settings.workspace << 20)
    calibrator = _set_flags(trt, config, settings)  # kept until the engine is built: the config holds no reference
    if settings.batch is None:
        _add_profiles(builder, config, settings)
    timings = None if timing_cache is None else _read_timings(config, timing_cache)
    data = builder.build_serialized_network(network, config)
    del calibrator
    if data is None:
        raise EngineError(
            f"TensorRT {trt.__version__} could not build an engine; where memory is short, add swap and run "
            "`build_engine.py --workspace 256`"
        )
    if timing_cache is not None and timings is not None:
        write_atomic(timing_cache, bytes(config.get_timing_cache().serialize()))
    return bytes(data)


def version_number(version: str) -> int:
    """8.5.2 is 8502, 10.3.0 is 100300: TensorRT widened the fields with 10."""
    major, minor, patch = (int(part) for part in (version.split(".") + ["0", "0"])[:3])
    return major * (10000 if major >= 10 else 1000) + minor * 100 + patch


def _parse(trt: Any, parser: Any, settings: Settings) -> None:
    if not parser.parse(settings.onnx.read_bytes()):
        errors = "; ".join(str(parser.get_error(i)) for i in range(parser.num_errors))
        raise EngineError(f"TensorRT {trt.__version__} cannot read {settings.onnx}: {errors}")


def _network_flags(trt: Any, settings: Settings) -> int:
    """EXPLICIT_BATCH is required in 8.x, ignored in 10 and removed in 11; STRONGLY_TYPED exists from 10 on."""
    wanted = ["EXPLICIT_BATCH", "STRONGLY_TYPED"] if settings.typed else ["EXPLICIT_BATCH"]
    flags = 0
    for name in wanted:
        flag = getattr(trt.NetworkDefinitionCreationFlag, name, None)
        if flag is not None:
            flags |= 1 << int(flag)
    return flags


def _limit_workspace(trt: Any, config: Any, size: int) -> None:
    if hasattr(config, "set_memory_pool_limit"):  # 8.4 and newer
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, size)
    else:
        config.max_workspace_size = size


def _set_flags(trt: Any, config: Any, settings: Settings) -> Any:
    """Set the recipe's flags; returns the int8 calibrator, or None."""
    for name in settings.flags:
        flag = getattr(trt.BuilderFlag, name, None)
        if flag is None:
            raise EngineError(
                f"TensorRT {trt.__version__} has no flag {name}: from version 11 on the precision is in the ONNX file; "
                "export for a target of this version"
            )
        config.set_flag(flag)
    if settings.calibration is None:
        return None
    calibrator = _calibrator(trt, settings.calibration)
    config.int8_calibrator = calibrator
    return calibrator


def _calibrator(trt: Any, path: Path) -> Any:
    """A calibrator that returns the ranges that were computed at export, from training images."""
    ranges = path.read_bytes().split(b"\n", 1)[1]
    cache = f"TRT-{version_number(trt.__version__)}-EntropyCalibration2\n".encode() + ranges

    class Calibrator(trt.IInt8EntropyCalibrator2):  # type: ignore[misc]  # TensorRT has no types here
        def __init__(self) -> None:
            trt.IInt8EntropyCalibrator2.__init__(self)

        def get_batch_size(self) -> int:
            return 1

        def get_batch(self, *names: Any) -> None:
            return None

        def read_calibration_cache(self) -> bytes:
            return cache

        def write_calibration_cache(self, data: Any) -> None:
            return None

    return Calibrator()


def _add_profiles(builder: Any, config: Any, settings: Settings) -> None:
    for batch in settings.batches():
        least, most = (1,) + settings.shape, (batch,) + settings.shape
        profile = builder.create_optimization_profile()
        profile.set_shape(settings.input, least, most, most)
        config.add_optimization_profile(profile)


def _read_timings(config: Any, path: Path) -> Any:
    known = path.read_bytes() if path.is_file() else b""
    timings = config.create_timing_cache(known)
    if not config.set_timing_cache(timings, False):  # of another GPU or version: start empty
        timings = config.create_timing_cache(b"")
        config.set_timing_cache(timings, False)
    return timings
