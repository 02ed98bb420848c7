#!/usr/bin/env python3
"""Build, keep and run the TensorRT engine of a bundle, on TensorRT 8.2, 8.5, 8.6, 10 and 11.

    python3 build_engine.py [--workspace MiB] [--max-batch N] [--force]

Stands in every TensorRT bundle as build_engine.py and is the runtime's own code, so it needs numpy and TensorRT
alone and runs on Python 3.6. An engine fits one GPU type and one TensorRT version; it is kept under a key of all
that it depends on, in $ROBUST_EDGE_CACHE or ~/.cache/robust-edge.
"""

import argparse
import ctypes
import ctypes.util
import hashlib
import json
import os
import sys
import tempfile
import threading

try:
    import numpy as np
except ImportError:
    if __name__ != "__main__":
        raise
    print("error: numpy is missing: python3 -m pip install -r requirements.txt", file=sys.stderr)
    sys.exit(3)

WORKSPACE_MIB = 1024
TO_DEVICE, TO_HOST = 1, 2
COMPUTE_MAJOR, COMPUTE_MINOR, PROCESSORS = 75, 76, 16  # cudaDeviceAttr
LIBRARIES = ("libcudart.so", "libcudart.so.13", "libcudart.so.12", "libcudart.so.11.0", "libcudart.so.10.2")


class EngineError(Exception):
    """What is missing or failed, and the way out, in one line."""


class Settings:
    """What an engine is made from.

    Attributes:
        onnx: path of the ONNX file.
        calibration: path of the int8 ranges, or None.
        shape: (C, H, W).
        batch: the file's fixed number of images, or None.
        flags: builder flags by name, for example FP16.
        typed: the file holds its precision, so the network is built strongly typed where TensorRT can.
        max_batch: largest number of images of one call where the file takes any.
        workspace: MiB that the builder may use.
        asked: which of the last two somebody asked for. The others are those of the engine that is kept, if one is:
            what the device could build once is what it runs from then on.
    """

    def __init__(self, onnx, shape, names, flags=(), calibration=None, batch=None, typed=False, max_batch=100,
                 workspace=WORKSPACE_MIB, asked=(), cache=None):  # fmt: skip
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
    def of_bundle(cls, folder, workspace=None, max_batch=None):
        """The settings that the bundle's manifest.json and engine.json describe, or those that are asked for."""
        wanted = {"workspace": workspace, "max_batch": max_batch}
        asked = [name for name in sorted(wanted) if wanted[name] is not None]
        try:
            with open(os.path.join(folder, "manifest.json"), encoding="utf-8") as file:
                manifest = json.load(file)
            with open(os.path.join(folder, "engine.json"), encoding="utf-8") as file:
                recipe = json.load(file)
            calibration = recipe["calibration"] and os.path.join(folder, os.path.basename(recipe["calibration"]))
            batch, shape = manifest["input"]["shape"][0], manifest["input"]["shape"][1:]
            max_batch, workspace = max_batch or recipe["max_batch"], workspace or recipe["workspace_mib"]
            return cls(
                os.path.join(folder, os.path.basename(manifest["artifact"]["file"])),
                [int(size) for size in shape],
                (manifest["input"]["name"], manifest["output"]["name"]),
                flags=[str(flag) for flag in recipe["flags"]],
                calibration=calibration,
                batch=None if batch is None else int(batch),
                typed=bool(recipe["typed"]),
                max_batch=_positive(max_batch),
                workspace=_positive(workspace),
                asked=asked,
            )
        except (OSError, ValueError, KeyError, TypeError, AttributeError, argparse.ArgumentTypeError) as cause:
            raise EngineError("{} holds no TensorRT recipe: {!r}; export it again".format(folder, cause))

    def batches(self):
        """Numbers of images that get a profile of their own: one, and the most."""
        if self.batch is not None:
            return (self.batch,)
        return (1,) if self.max_batch == 1 else (1, self.max_batch)

    def facts(self, version, gpu):
        """All that decides whether an engine fits and what it computes, as plain values."""
        return {
            "onnx": sha256_of(self.onnx),
            "calibration": self.calibration and sha256_of(self.calibration),
            "tensorrt": version,
            "gpu": gpu,
            "flags": sorted(self.flags),
            "typed": self.typed,
        }

    def choices(self):
        """How the engine was built, which does not change what it computes."""
        return {"max_batch": self.max_batch, "workspace": self.workspace}


def cache_folder():
    """$ROBUST_EDGE_CACHE, or robust-edge in the user's cache folder."""
    base = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return os.environ.get("ROBUST_EDGE_CACHE") or os.path.join(base, "robust-edge")


def sha256_of(path):
    """64 hex digits."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


class Cuda:
    """The six functions of the CUDA runtime that inference needs, through ctypes: no package to install."""

    def __init__(self):
        self._library = self._open()

    @staticmethod
    def _open():
        found = ctypes.util.find_library("cudart")
        for name in LIBRARIES + ((found,) if found else ()):
            try:
                return ctypes.CDLL(name)
            except OSError:
                continue
        raise EngineError("libcudart is not found; add CUDA's lib64 folder to LD_LIBRARY_PATH")

    def _call(self, name, *arguments):
        code = getattr(self._library, name)(*arguments)
        if code:
            raise EngineError("{} failed with CUDA error {}".format(name, code))

    def allocate(self, size):
        """Device memory of `size` bytes, as an address."""
        pointer = ctypes.c_void_p()
        self._call("cudaMalloc", ctypes.byref(pointer), ctypes.c_size_t(size))
        return pointer.value

    def free(self, address):
        """Give device memory back."""
        self._call("cudaFree", ctypes.c_void_p(address))

    def upload(self, address, array):
        """Copy a contiguous array to the device."""
        source = array.ctypes.data_as(ctypes.c_void_p)
        self._call("cudaMemcpy", ctypes.c_void_p(address), source, ctypes.c_size_t(array.nbytes), TO_DEVICE)

    def download(self, array, address):
        """Copy from the device into a contiguous array."""
        target = array.ctypes.data_as(ctypes.c_void_p)
        self._call("cudaMemcpy", target, ctypes.c_void_p(address), ctypes.c_size_t(array.nbytes), TO_HOST)

    def stream(self):
        """A new stream, as a handle."""
        handle = ctypes.c_void_p()
        self._call("cudaStreamCreate", ctypes.byref(handle))
        return handle.value

    def synchronize(self, stream):
        """Wait until the stream is done."""
        self._call("cudaStreamSynchronize", ctypes.c_void_p(stream))

    def destroy(self, stream):
        """Give a stream back."""
        self._call("cudaStreamDestroy", ctypes.c_void_p(stream))

    def gpu(self):
        """Compute capability and number of processors: GPUs that differ in them do not share engines."""
        values = []
        for attribute in (COMPUTE_MAJOR, COMPUTE_MINOR, PROCESSORS):
            value = ctypes.c_int()
            self._call("cudaDeviceGetAttribute", ctypes.byref(value), attribute, 0)
            values.append(value.value)
        return "sm{}{}-{}".format(*values)


def import_tensorrt():
    """The tensorrt module of this Python."""
    try:
        import tensorrt
    except ImportError as cause:
        raise EngineError(
            "this bundle runs on TensorRT, whose Python module is not here ({}): on a Jetson use the system's python3, "
            "elsewhere pip install tensorrt".format(cause)
        )
    return tensorrt


def build(trt, settings, timing_cache=None):
    """Serialize an engine.

    Args:
        trt: the tensorrt module, any version from 8.2 to 11.
        settings: what to build.
        timing_cache: path of a file that is read if it exists and written afterwards.

    Returns:
        The engine's bytes.
    """
    logger = trt.Logger(trt.Logger.WARNING)
    builder = trt.Builder(logger)
    network = builder.create_network(_network_flags(trt, settings))
    parser = trt.OnnxParser(network, logger)
    with open(settings.onnx, "rb") as file:
        parsed = parser.parse(file.read())
    if not parsed:
        errors = "; ".join(str(parser.get_error(i)) for i in range(parser.num_errors))
        raise EngineError("TensorRT {} cannot read {}: {}".format(trt.__version__, settings.onnx, errors))
    config = builder.create_builder_config()
    _limit_workspace(trt, config, settings.workspace << 20)
    calibrator = _set_flags(trt, config, settings)  # the config holds no reference to it
    if settings.batch is None:
        for batch in settings.batches():
            profile = builder.create_optimization_profile()
            profile.set_shape(
                settings.input, (1,) + settings.shape, (batch,) + settings.shape, (batch,) + settings.shape
            )
            config.add_optimization_profile(profile)
    timings = _read_timings(config, timing_cache)
    data = builder.build_serialized_network(network, config)
    del calibrator
    if data is None:
        raise EngineError(
            "TensorRT {} could not build an engine; where memory is short, add swap and try --workspace 256".format(
                trt.__version__
            )
        )
    if timings is not None:
        write_atomic(timing_cache, bytes(config.get_timing_cache().serialize()))
    return bytes(data)


def _network_flags(trt, settings):
    """EXPLICIT_BATCH is required on 8.x, means nothing on 10 and is gone in 11; typing begins with 10."""
    wanted = ["EXPLICIT_BATCH"] + (["STRONGLY_TYPED"] if settings.typed else [])
    flags = 0
    for name in wanted:
        flag = getattr(trt.NetworkDefinitionCreationFlag, name, None)
        if flag is not None:
            flags |= 1 << int(flag)
    return flags


def _limit_workspace(trt, config, size):
    if hasattr(config, "set_memory_pool_limit"):  # 8.4 and newer
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, size)
    else:
        config.max_workspace_size = size


def _set_flags(trt, config, settings):
    for name in settings.flags:
        flag = getattr(trt.BuilderFlag, name, None)
        if flag is None:
            raise EngineError(
                "TensorRT {} has no flag {}: from 11 on the precision stands in the ONNX file; export for a target "
                "of this version".format(trt.__version__, name)
            )
        config.set_flag(flag)
    if settings.calibration is None:
        return None
    calibrator = _calibrator(trt, settings.calibration)
    config.int8_calibrator = calibrator
    return calibrator


def _calibrator(trt, path):
    """Serves the ranges that were read from training images when the bundle was exported."""
    with open(path, "rb") as file:
        ranges = file.read().split(b"\n", 1)[1]
    cache = "TRT-{}-EntropyCalibration2\n".format(version_number(trt.__version__)).encode() + ranges

    class Calibrator(trt.IInt8EntropyCalibrator2):
        def __init__(self):
            trt.IInt8EntropyCalibrator2.__init__(self)

        def get_batch_size(self):
            return 1

        def get_batch(self, *names):
            return None

        def read_calibration_cache(self):
            return cache

        def write_calibration_cache(self, data):
            return None

    return Calibrator()


def version_number(version):
    """8.5.2 is 8502, 10.3.0 is 100300: TensorRT widened the fields with 10."""
    major, minor, patch = (int(part) for part in (version.split(".") + ["0", "0"])[:3])
    return major * (10000 if major >= 10 else 1000) + minor * 100 + patch


def _read_timings(config, path):
    if path is None:
        return None
    known = b""
    if os.path.isfile(path):
        with open(path, "rb") as file:
            known = file.read()
    timings = config.create_timing_cache(known)
    if not config.set_timing_cache(timings, False):  # of another GPU or version: start empty
        timings = config.create_timing_cache(b"")
        config.set_timing_cache(timings, False)
    return timings


class Engine:
    """A loaded engine: one context, buffers and stream for each profile. Calls of several threads take turns."""

    def __init__(self, trt, cuda, settings, data):
        self._trt, self._cuda, self._settings = trt, cuda, settings
        self._lock = threading.Lock()
        self._runtime = trt.Runtime(trt.Logger(trt.Logger.WARNING))
        self._engine = self._runtime.deserialize_cuda_engine(data)
        if self._engine is None:
            raise EngineError("TensorRT {} cannot load the engine; build it again with --force".format(trt.__version__))
        self._slots = [
            _Slot(trt, cuda, self._engine, settings, profile, batch) for profile, batch in enumerate(settings.batches())
        ]
        self.classes = self._slots[0].classes
        self.version = trt.__version__

    def infer(self, images):
        """(N, C, H, W) float32 to (N, K) float32; N above the largest profile runs in parts."""
        with self._lock:
            if not self._slots:
                raise EngineError("the engine was closed meanwhile")
            most = self._slots[-1].batch
            parts = [self._part(images[i : i + most]) for i in range(0, len(images), most)]
        return np.concatenate(parts)

    def _part(self, images):
        fitting = [slot for slot in self._slots if len(images) <= slot.batch]
        return fitting[0].infer(np.ascontiguousarray(images, dtype=np.float32))

    def close(self):
        """Free all, once no call runs; contexts go before the engine, the engine before the runtime."""
        with self._lock:
            for slot in self._slots:
                slot.close()
            self._slots = []
            self._engine = None
            self._runtime = None


class _Slot:
    """One profile: its context, its stream, its buffers."""

    def __init__(self, trt, cuda, engine, settings, profile, batch):
        self.batch = batch
        self._cuda, self._settings, self._profile = cuda, settings, profile
        self._named = hasattr(engine, "num_io_tensors")  # 8.5 and newer; binding indices before
        self._stream = cuda.stream()
        self._context = engine.create_execution_context()
        if self._context is None:
            raise EngineError("TensorRT could not make an execution context; the device is short of memory")
        if profile:
            self._context.set_optimization_profile_async(profile, self._stream)
            cuda.synchronize(self._stream)
        if not self._named:
            per_profile = engine.num_bindings // len(settings.batches())
            names = (settings.input, settings.output)
            self._bindings = [0] * engine.num_bindings
            self._indices = [engine.get_binding_index(name) + profile * per_profile for name in names]
        self.classes = self._shapes(batch)
        self._in = cuda.allocate(4 * batch * int(np.prod(settings.shape)))
        self._out = cuda.allocate(4 * batch * self.classes)

    def _shapes(self, batch):
        """Tell the context how many images come; returns the number of logits of one."""
        shape = (batch,) + self._settings.shape
        if self._named:
            if self._settings.batch is None:
                self._context.set_input_shape(self._settings.input, shape)
            return int(tuple(self._context.get_tensor_shape(self._settings.output))[1])
        if self._settings.batch is None:
            self._context.set_binding_shape(self._indices[0], shape)
        return int(tuple(self._context.get_binding_shape(self._indices[1]))[1])

    def infer(self, images):
        self._shapes(len(images))
        self._cuda.upload(self._in, images)
        if self._named:
            self._context.set_tensor_address(self._settings.input, self._in)
            self._context.set_tensor_address(self._settings.output, self._out)
            done = self._context.execute_async_v3(self._stream)
        else:
            self._bindings[self._indices[0]], self._bindings[self._indices[1]] = self._in, self._out
            done = self._context.execute_async_v2(self._bindings, self._stream)
        if not done:
            raise EngineError("TensorRT could not run {} image(s)".format(len(images)))
        self._cuda.synchronize(self._stream)
        logits = np.empty((len(images), self.classes), dtype=np.float32)
        self._cuda.download(logits, self._out)
        return logits

    def close(self):
        self._context = None
        self._cuda.free(self._in)
        self._cuda.free(self._out)
        self._cuda.destroy(self._stream)


def open_engine(settings, log=print, force=False, cuda=None, trt=None):
    """Load the engine for this device, building it where there is none.

    Args:
        settings: what the engine is made from.
        log: called with a line before minutes pass.
        force: build even if one is kept.
        cuda: the CUDA runtime; None opens it.
        trt: the tensorrt module; None imports it.

    Raises:
        EngineError: TensorRT or CUDA is missing, the build failed, or there is nowhere to keep the engine.
    """
    trt = trt or import_tensorrt()
    cuda = cuda or Cuda()
    try:
        facts = settings.facts(trt.__version__, cuda.gpu())
    except OSError as cause:
        raise EngineError("the bundle is damaged: {}; copy it again".format(cause))
    key = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:32]
    path = os.path.join(settings.cache, key + ".engine")
    data = None if force else _kept(path, facts, settings, log)
    if data is None:
        log("building the engine for {} on TensorRT {}: this takes minutes, once".format(facts["gpu"], trt.__version__))
        data = _built(path, facts, settings, trt)
    return Engine(trt, cuda, settings, data)


def _built(path, facts, settings, trt):
    """Build an engine and keep it beside a note of what it is; the folder is tried before minutes pass."""
    try:
        os.makedirs(settings.cache, exist_ok=True)
        tempfile.TemporaryFile(dir=settings.cache).close()
        timings = os.path.join(settings.cache, "{}-{}.timings".format(trt.__version__, facts["gpu"]))
        data = build(trt, settings, timings)
        write_atomic(path, data)
        note = dict(facts, engine=hashlib.sha256(data).hexdigest(), **settings.choices())
        write_atomic(path + ".json", json.dumps(note, indent=2, sort_keys=True).encode())
    except OSError as cause:
        raise EngineError(
            "no engine can be kept in {} ({}); set ROBUST_EDGE_CACHE to a folder that can be written".format(
                settings.cache, cause
            )
        )
    return data


def _kept(path, facts, settings, log):
    """The bytes of a kept engine, if they are those that were written for these facts and nobody asks for others.

    What was not asked for becomes what the engine was built with.
    """
    try:
        with open(path, "rb") as file:
            data = file.read()
        with open(path + ".json", encoding="utf-8") as file:
            note = json.load(file)
    except (OSError, ValueError):
        return None
    choices = {name: note.get(name) for name in settings.choices()} if isinstance(note, dict) else {}
    whole = all(isinstance(value, int) and value > 0 for value in choices.values())
    if not whole or note != dict(facts, engine=hashlib.sha256(data).hexdigest(), **choices):
        log("{} is damaged or of another device; it is built again".format(path))
        return None
    if any(choices[name] != getattr(settings, name) for name in settings.asked):
        return None
    settings.max_batch, settings.workspace = choices["max_batch"], choices["workspace"]
    return data


def write_atomic(path, data):
    """Write bytes so that the file is whole or absent."""
    handle, name = tempfile.mkstemp(dir=os.path.dirname(path) or ".", suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise


def _positive(text):
    try:
        number = int(text)
    except (TypeError, ValueError):
        number = 0
    if number < 1:
        raise argparse.ArgumentTypeError("{!r} is not a whole number of at least 1".format(text))
    return number


def main(arguments=None):
    """Build the engine of the folder that this file lies in."""
    parser = argparse.ArgumentParser(description="Build this bundle's TensorRT engine for this device and keep it.")
    parser.add_argument("--workspace", type=_positive, help="MiB that the builder may use; less where memory is short")
    parser.add_argument("--max-batch", type=_positive, help="largest number of images of one call")
    parser.add_argument("--force", action="store_true", help="build even if an engine is kept")
    args = parser.parse_args(arguments)
    try:
        folder = os.path.dirname(os.path.abspath(__file__))
        settings = Settings.of_bundle(folder, args.workspace, args.max_batch)
        open_engine(settings, force=args.force).close()
    except EngineError as cause:
        print("error: {}".format(cause), file=sys.stderr)
        return 3
    print("ready; python3 run.py replay checks it")
    return 0


if __name__ == "__main__":
    sys.exit(main())
