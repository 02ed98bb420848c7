"""Open the engine in the cache for this device, or build it and store it there."""

import hashlib
import json
import tempfile
from pathlib import Path
from typing import Any, Callable, Dict, Optional

from robust_edge_runtimes.core.files import write_atomic
from robust_edge_runtimes.formats.cuda.errors import EngineError
from robust_edge_runtimes.formats.cuda.library import Cuda
from robust_edge_runtimes.formats.tensorrt.engine.build import build, import_tensorrt
from robust_edge_runtimes.formats.tensorrt.engine.execute import Engine
from robust_edge_runtimes.formats.tensorrt.engine.settings import Settings


def open_engine(
    settings: Settings,
    log: Callable[[str], Any] = print,
    force: bool = False,
    cuda: Optional[Cuda] = None,
    trt: Any = None,
) -> Engine:
    """Load the engine for this device; build it if the cache has none.

    Args:
        settings: the ONNX file and the build settings.
        log: called with a message before a build that takes minutes.
        force: build even if the cache has an engine.
        cuda: the CUDA runtime; None to load it.
        trt: the tensorrt module; None to import it.

    Raises:
        EngineError: TensorRT or CUDA is missing, the build failed, or the cache folder is not writable.
    """
    trt = trt or import_tensorrt()
    cuda = cuda or Cuda()
    try:
        facts = settings.facts(trt.__version__, cuda.gpu())
    except OSError as cause:
        raise EngineError(f"the bundle is damaged: {cause}; copy it again") from cause
    key = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:32]
    path = settings.cache / f"{key}.engine"
    data = None if force else _read_cached(path, facts, settings, log)
    if data is None:
        log(f"building the engine for {facts['gpu']} on TensorRT {trt.__version__}: this takes minutes, once")
        data = _build_and_store(path, facts, settings, trt)
    return Engine(trt, cuda, settings, data)


def _build_and_store(path: Path, facts: Dict[str, Any], settings: Settings, trt: Any) -> bytes:
    """Build an engine and store it with a JSON note; the folder is created first, since the build takes minutes."""
    try:
        settings.cache.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=str(settings.cache)).close()
        data = build(trt, settings, settings.cache / f"{trt.__version__}-{facts['gpu']}.timings")
        write_atomic(path, data)
        note = dict(facts, engine=hashlib.sha256(data).hexdigest(), **settings.choices())
        write_atomic(_note_of(path), json.dumps(note, indent=2, sort_keys=True))
    except OSError as cause:
        raise EngineError(
            f"the engine cannot be written to {settings.cache} ({cause}); set ROBUST_EDGE_CACHE to a writable folder"
        ) from cause
    return data


def _read_cached(path: Path, facts: Dict[str, Any], settings: Settings, log: Callable[[str], Any]) -> Optional[bytes]:
    """The bytes of the cached engine, if it was built for these facts and with the settings that the user set.

    Settings that the user did not set become those that the engine was built with.
    """
    try:
        data = path.read_bytes()
        note = json.loads(_note_of(path).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    choices = {name: note.get(name) for name in settings.choices()} if isinstance(note, dict) else {}
    complete = all(isinstance(value, int) and value > 0 for value in choices.values())
    if not complete or note != dict(facts, engine=hashlib.sha256(data).hexdigest(), **choices):
        log(f"{path} is damaged or was built on another device; it is built again")
        return None
    if any(choices[name] != getattr(settings, name) for name in settings.asked):
        return None
    settings.max_batch, settings.workspace = int(note["max_batch"]), int(note["workspace"])
    return data


def _note_of(path: Path) -> Path:
    return path.with_name(f"{path.name}.json")
