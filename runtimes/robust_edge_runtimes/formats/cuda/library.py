"""The functions of the CUDA runtime library that inference needs, called through ctypes: no package to install."""

import ctypes
import ctypes.util
from typing import Any

from robust_edge_runtimes.formats.cuda.errors import EngineError

TO_DEVICE, TO_HOST = 1, 2  # cudaMemcpyKind
COMPUTE_MAJOR, COMPUTE_MINOR, PROCESSORS = 75, 76, 16  # cudaDeviceAttr
LIBRARIES = ("libcudart.so", "libcudart.so.13", "libcudart.so.12", "libcudart.so.11.0", "libcudart.so.10.2")


class Cuda:
    """The CUDA runtime library of this machine.

    Raises:
        EngineError: there is none; from every method, CUDA reports an error.
    """

    def __init__(self) -> None:
        self._library = self._open()

    @staticmethod
    def _open() -> Any:
        found = ctypes.util.find_library("cudart")
        for name in LIBRARIES + ((found,) if found else ()):
            try:
                return ctypes.CDLL(name)
            except OSError:
                continue
        raise EngineError("libcudart is not found; add CUDA's lib64 folder to LD_LIBRARY_PATH")

    def _call(self, name: str, *arguments: Any) -> None:
        code = getattr(self._library, name)(*arguments)
        if code:
            raise EngineError(f"{name} failed with CUDA error {code}")

    def allocate(self, size: int) -> int:
        """Device memory of `size` bytes, as an address."""
        pointer = ctypes.c_void_p()
        self._call("cudaMalloc", ctypes.byref(pointer), ctypes.c_size_t(size))
        return int(pointer.value or 0)

    def free(self, address: int) -> None:
        """Free device memory."""
        self._call("cudaFree", ctypes.c_void_p(address))

    def upload(self, address: int, array: Any) -> None:
        """Copy a contiguous array to the device."""
        source = array.ctypes.data_as(ctypes.c_void_p)
        self._call("cudaMemcpy", ctypes.c_void_p(address), source, ctypes.c_size_t(array.nbytes), TO_DEVICE)

    def download(self, array: Any, address: int) -> None:
        """Copy from the device into a contiguous array."""
        target = array.ctypes.data_as(ctypes.c_void_p)
        self._call("cudaMemcpy", target, ctypes.c_void_p(address), ctypes.c_size_t(array.nbytes), TO_HOST)

    def stream(self) -> int:
        """A new stream, as a handle."""
        handle = ctypes.c_void_p()
        self._call("cudaStreamCreate", ctypes.byref(handle))
        return int(handle.value or 0)

    def synchronize(self, stream: int) -> None:
        """Wait until the stream is done."""
        self._call("cudaStreamSynchronize", ctypes.c_void_p(stream))

    def destroy(self, stream: int) -> None:
        """Destroy a stream."""
        self._call("cudaStreamDestroy", ctypes.c_void_p(stream))

    def gpu(self) -> str:
        """Compute capability and number of processors: GPUs that differ in them do not share engines."""
        values = []
        for attribute in (COMPUTE_MAJOR, COMPUTE_MINOR, PROCESSORS):
            value = ctypes.c_int()
            self._call("cudaDeviceGetAttribute", ctypes.byref(value), attribute, 0)
            values.append(value.value)
        return "sm{}{}-{}".format(*values)
