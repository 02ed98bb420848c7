"""Modules that offer what each TensorRT version's Python API offers of what we may use, and nothing else.

They stand in for TensorRT where there is no GPU. A method that a version does not have is an AttributeError here
as there. Engines run the ONNX file on ONNX Runtime, reading and writing through the addresses that they were given.
"""

from __future__ import annotations

import ctypes
import json
import types

import numpy as np

VERSIONS = ("8.2.1.9", "8.5.2.2", "8.6.1", "10.3.0", "10.16.0", "11.1.0")


def number(version):
    return tuple(int(part) for part in version.split(".")[:2])


class Cudart:
    """libcudart in host memory; every address is one that was allocated, every stream one that was made."""

    def __init__(self):
        self.memory, self.streams, self.log = {}, set(), []

    def cudaMalloc(self, pointer, size):
        buffer = ctypes.create_string_buffer(size.value)
        pointer._obj.value = ctypes.addressof(buffer)
        self.memory[pointer._obj.value] = buffer
        return 0

    def cudaFree(self, pointer):
        del self.memory[pointer.value]
        return 0

    def cudaMemcpy(self, target, source, size, kind):
        device = target if kind == 1 else source
        if device.value not in self.memory or size.value > len(self.memory[device.value]):
            return 1
        ctypes.memmove(target, source, size.value)
        return 0

    def cudaStreamCreate(self, pointer):
        pointer._obj.value = 1000 + len(self.streams)
        self.streams.add(pointer._obj.value)
        return 0

    def cudaStreamSynchronize(self, stream):
        self.log.append("synchronize")
        return 0 if stream.value in self.streams else 1

    def cudaStreamDestroy(self, stream):
        self.streams.remove(stream.value)
        return 0

    def cudaDeviceGetAttribute(self, pointer, attribute, device):
        pointer._obj.value = {75: 8, 76: 7, 16: 16}[attribute]
        return 0


def flags(**values):
    return types.SimpleNamespace(**values)


class Calls(list):
    """What was called on the module since it was made, in order."""


def module(version, *, calls=None, parses=True, builds=True, known_timings=()):
    """A stand-in for `import tensorrt`.

    Args:
        version: one of VERSIONS.
        calls: a list that gets (name, value) of what matters.
        parses: False makes the parser fail with one error.
        builds: False makes the builder return None.
        known_timings: timing caches that set_timing_cache accepts beside an empty one.
    """
    import onnxruntime

    release = number(version)
    calls = Calls() if calls is None else calls

    class Logger:
        WARNING = 1

        def __init__(self, level):
            assert level == 1

    class Network:
        pass

    class Profile:
        def __init__(self):
            self.shapes = {}

        def set_shape(self, name, least, best, most):
            assert all(a <= b <= c for a, b, c in zip(least, best, most, strict=True))
            self.shapes[name] = (least, best, most)

    class Timings:
        def __init__(self, blob):
            self.blob = blob

        def serialize(self):
            return memoryview(self.blob + b"+")

    class Config:
        def __init__(self):
            self.flags, self.profiles, self.timings = [], [], None
            if release <= (8, 2):
                self.max_workspace_size = 0
            if release < (11, 0):
                self.int8_calibrator = None

        if release >= (8, 4):

            def set_memory_pool_limit(self, pool, size):
                calls.append((f"workspace {pool}", size))

        def set_flag(self, flag):
            self.flags.append(flag)

        def add_optimization_profile(self, profile):
            self.profiles.append(profile)
            return len(self.profiles) - 1

        def create_timing_cache(self, blob):
            return Timings(bytes(blob))

        def set_timing_cache(self, timings, ignore_mismatch):
            assert ignore_mismatch is False
            accepted = timings.blob == b"" or timings.blob in known_timings
            self.timings = timings if accepted else self.timings
            calls.append(("timings", timings.blob if accepted else None))
            return accepted

        def get_timing_cache(self):
            return self.timings

        def __setattr__(self, name, value):
            settable = {"flags", "profiles", "timings"} | ({"max_workspace_size"} if release <= (8, 2) else set())
            settable |= {"int8_calibrator"} if release < (11, 0) else set()
            if name not in settable:
                raise AttributeError(name)
            if name in ("max_workspace_size",) and value:
                calls.append(("max_workspace_size", value))
            object.__setattr__(self, name, value)

    class Builder:
        def __init__(self, logger):
            assert isinstance(logger, Logger)

        def create_network(self, wanted):
            calls.append(("network", wanted))
            if release < (10, 0):
                assert wanted & 1, "without EXPLICIT_BATCH the ONNX parser refuses to work"
            return Network()

        def create_builder_config(self):
            return Config()

        def create_optimization_profile(self):
            return Profile()

        def build_serialized_network(self, network, config):
            if not builds:
                return None
            calls.append(("flags", sorted(config.flags)))
            calibration = None
            if release < (11, 0) and config.int8_calibrator is not None:
                calibration = config.int8_calibrator.read_calibration_cache().decode()
                assert config.int8_calibrator.get_batch_size() == 1
                assert config.int8_calibrator.get_batch(["images"]) is None
                calls.append(("calibration", calibration))
            shapes = [{name: shape for name, shape in p.shapes.items()} for p in config.profiles]
            head = json.dumps({"version": version, "profiles": shapes}).encode()
            return memoryview(head + b"\n" + network.onnx)

    class OnnxParser:
        def __init__(self, network, logger):
            self.network = network
            self.num_errors = 0 if parses else 1

        def parse(self, blob):
            self.network.onnx = blob
            return parses

        def get_error(self, i):
            return ["In node 3: UNSUPPORTED_NODE"][i]

    class Context:
        def __init__(self, engine):
            self.engine, self.profile, self.shape = engine, None if engine.contexts else 0, None
            self.addresses = {}
            engine.contexts += 1
            if self.profile == 0 and not engine.profiles:
                self.shape = engine.fixed

        def set_optimization_profile_async(self, profile, stream):
            assert profile < len(self.engine.profiles)
            self.profile = profile
            return True

        def _set(self, shape):
            least, _, most = self.engine.profiles[self.profile]["images"]
            assert all(a <= b <= c for a, b, c in zip(least, shape, most, strict=True)), (shape, self.profile)
            self.shape = tuple(shape)
            return True

        def _run(self, source, target):
            images = np.empty(self.shape, np.float32)
            ctypes.memmove(images.ctypes.data, source, images.nbytes)
            (logits,) = self.engine.session.run(None, {"images": images})
            ctypes.memmove(target, logits.ctypes.data, logits.nbytes)
            return True

        if release < (10, 0):

            def _index(self, index):
                assert index // 2 == self.profile, "the index belongs to another profile"
                return index % 2

            def set_binding_shape(self, index, shape):
                assert self._index(index) == 0
                return self._set(shape)

            def get_binding_shape(self, index):
                return (self.shape[0], self.engine.classes) if self._index(index) else self.shape

            def execute_async_v2(self, bindings, stream_handle):
                assert len(bindings) == self.engine.num_bindings
                calls.append(("run", "v2"))
                mine = bindings[2 * self.profile : 2 * self.profile + 2]
                return self._run(*mine)

        if release >= (8, 5):

            def set_input_shape(self, name, shape):
                assert name == "images"
                return self._set(shape)

            def get_tensor_shape(self, name):
                return {"images": self.shape, "logits": (self.shape[0], self.engine.classes)}[name]

            def set_tensor_address(self, name, address):
                self.addresses[name] = address
                return True

            def execute_async_v3(self, stream_handle):
                calls.append(("run", "v3"))
                return self._run(self.addresses["images"], self.addresses["logits"])

    class Engine:
        def __init__(self, head, blob):
            self.profiles, self.contexts = head["profiles"], 0
            self.session = onnxruntime.InferenceSession(blob, providers=["CPUExecutionProvider"])
            self.fixed = tuple(self.session.get_inputs()[0].shape)
            self.classes = self.session.get_outputs()[0].shape[1]
            if release < (10, 0):
                self.num_bindings = 2 * max(len(self.profiles), 1)
            if release >= (8, 5):
                self.num_io_tensors = 2

        def create_execution_context(self):
            return Context(self)

        if release < (10, 0):

            def get_binding_index(self, name):
                return ["images", "logits"].index(name)

    class Runtime:
        def __init__(self, logger):
            assert isinstance(logger, Logger)

        def deserialize_cuda_engine(self, data):
            head, _, blob = data.partition(b"\n")
            head = json.loads(head)
            return Engine(head, blob) if head["version"] == version else None

    network_flags = {} if release >= (11, 0) else {"EXPLICIT_BATCH": 0}
    if release >= (10, 0):
        network_flags["STRONGLY_TYPED"] = 1
    builder_flags = {"SPARSE_WEIGHTS": "SPARSE_WEIGHTS", "TF32": "TF32"}
    if release < (11, 0):
        builder_flags.update(FP16="FP16", INT8="INT8")
    found = types.SimpleNamespace(
        __version__=version,
        Logger=Logger,
        Builder=Builder,
        OnnxParser=OnnxParser,
        Runtime=Runtime,
        NetworkDefinitionCreationFlag=flags(**network_flags),
        BuilderFlag=flags(**builder_flags),
    )
    if release >= (8, 4):
        found.MemoryPoolType = flags(WORKSPACE="WORKSPACE")
    if release < (11, 0):
        found.IInt8EntropyCalibrator2 = type("IInt8EntropyCalibrator2", (), {"__init__": lambda self: None})
    return found
