"""The interface of all runtimes, and the input checks that they share."""

from __future__ import annotations

import abc
import dataclasses
import functools
import os
import threading
from pathlib import Path
from types import TracebackType
from typing import Callable, Optional, Protocol, Set, Tuple, Type, TypeVar, Union

import numpy as np

from robust_edge_runtimes.core.batches import filled, in_batches
from robust_edge_runtimes.core.errors import BundleError, InputError
from robust_edge_runtimes.core.images import read_image
from robust_edge_runtimes.core.limits import TimeLimit, to_be_limited
from robust_edge_runtimes.core.manifest import Manifest

MAX_THREADS = 1024
Self = TypeVar("Self", bound="BaseRuntime")


@dataclasses.dataclass(frozen=True)
class RuntimeInfo:
    """The backend in use, its version, its device and its execution provider."""

    backend: str
    version: str
    device: str
    provider: str
    threads: int


class Runtime(Protocol):
    """Images in, logits out. Third-party runtimes may implement this; those of this package derive from BaseRuntime."""

    @property
    def info(self) -> RuntimeInfo:
        """The backend in use; available once the runtime is open."""

    def infer(self, images: np.ndarray) -> np.ndarray:
        """Compute logits: (N, C, H, W) float32 in [0, 1] to (N, K) float32."""

    def close(self) -> None:
        """Free the resources; a second call does nothing."""


class BaseRuntime(abc.ABC):
    """A context manager around one artifact; subclasses implement open_impl, infer_impl and close_impl.

    `infer` returns a new array that the caller owns; the input is never written to. Safe to call
    from several threads unless the subclass says otherwise. With `threads` above 1 it must be opened in the process
    that uses it: a child made by `fork`, as by multiprocessing on Linux, has none of the threads, and its
    `infer` raises InputError. The same holds where another thread was in `infer` at the moment of the fork.

    Args:
        path: the artifact.
        manifest: the bundle's manifest.
        threads: CPU threads of one inference, at least 1.

    Attributes:
        uses_threads: whether `threads` changes how the artifact is executed.
        compiles: whether opening compiles the artifact, which may take minutes.
        time_limit: of the artifact, in a command that limits the time of foreign files.
    """

    uses_threads = False
    compiles = False

    def __init__(self, path: Path, manifest: Manifest, *, threads: int = 1) -> None:
        if not 1 <= threads <= MAX_THREADS:
            raise InputError(f"threads must be 1 to {MAX_THREADS}, not {threads}")
        self.path = path
        self.manifest = manifest
        self.threads = threads
        self._info: Optional[RuntimeInfo] = None
        self._process = 0
        self._running: Set[Tuple[int, int]] = set()  # process and thread of every call of `infer` that has not ended
        self._lock = threading.RLock()
        self.time_limit = TimeLimit(str(path), BundleError)

    @property
    def exact(self) -> bool:
        """Whether every batch size, number of threads and build gives the same logits but for one float32 rounding."""
        return False

    @abc.abstractmethod
    def open_impl(self) -> RuntimeInfo:
        """Import the backend, load the artifact and return what runs it."""

    @abc.abstractmethod
    def infer_impl(self, images: np.ndarray) -> np.ndarray:
        """Compute logits: checked, contiguous (N, C, H, W) float32 to (N, K) float32."""

    @abc.abstractmethod
    def close_impl(self) -> None:
        """Free the backend's objects."""

    @property
    def info(self) -> RuntimeInfo:
        """The backend in use.

        Raises:
            InputError: the runtime is not open.
        """
        if self._info is None:
            raise self.not_open()
        return self._info

    def not_open(self) -> InputError:
        """The error of a use before open() or after close(), which another thread may call at any time."""
        return InputError(f"the runtime of {self.path.name} is not open; use it in a `with` block")

    def _check_usable(self) -> None:
        """Raise InputError where the runtime is not open, or its threads are those of another process."""
        self.info  # noqa: B018 - raises when the runtime is not open
        if self._lost_threads():
            used = f"loaded with {self.threads} threads" if self._has_threads else "in use"
            raise InputError(
                f"{self.path.name} was {used} before this process was forked, which has none of the threads; load it "
                "in the child, with threads=1, or start the child by `spawn`"
            )

    def _lost_threads(self) -> bool:
        """Whether a child made by fork would wait for threads of its parent, which runs its calls or holds a lock."""
        if self._process == os.getpid():
            return False
        calls = tuple(self._running)  # those of the parent are a copy, and never end
        return self._has_threads or any(process == self._process for process, _ in calls)

    @property
    def _has_threads(self) -> bool:
        return self.uses_threads and self.threads > 1

    def open(self: Self) -> Self:
        """Load the artifact; a second call does nothing.

        Raises:
            BackendUnavailable: the backend is not installed here.
            BundleError: the backend cannot read the artifact.
        """
        with self._lock:
            if self._info is None:
                with self.time_limit.opening(compiles=self.compiles):
                    self._info, self._process = self.open_impl(), os.getpid()
                if to_be_limited():
                    for _ in range(2):  # the first call also allocates
                        self._infer_in_time(self._grey())
        return self

    def _grey(self) -> np.ndarray:
        """One image, or as many as the artifact takes. The time of their call limits that of later ones."""
        shape = tuple(size or 1 for size in self.manifest.input.shape)
        return np.full(shape, sum(self.manifest.input_range) / 2, np.float32)

    def _infer_in_time(self, images: np.ndarray) -> np.ndarray:
        with self.time_limit.call(len(images)):
            return self.infer_impl(images)

    def close(self) -> None:
        """Free the artifact; a second call does nothing."""
        with self._lock:
            if self._info is not None:
                self._info = None
                if not self._lost_threads():
                    self.close_impl()

    def __enter__(self: Self) -> Self:
        return self.open()

    def __exit__(
        self,
        kind: Optional[Type[BaseException]],
        error: Optional[BaseException],
        trace: Optional[TracebackType],
    ) -> None:
        self.close()

    def infer(self, images: np.ndarray) -> np.ndarray:
        """Logits of a batch.

        Args:
            images: (N, C, H, W) float32 in [0, 1], N at least 1. Not normalised: the model normalises them.

        Returns:
            (N, K) float32 logits, a new array.

        Raises:
            InputError: `images` has another shape, type or range.
            BundleError: the artifact returned something other than (N, K) logits.
        """
        self._check_usable()
        batch = self._checked(images)
        call = (os.getpid(), threading.get_ident())
        self._running.add(call)
        try:
            logits = (self._infer_in_time if to_be_limited() else self.infer_impl)(batch)
        finally:
            self._running.discard(call)
        if logits.shape != (len(batch), len(self.manifest.classes)) or logits.dtype != np.float32:
            raise BundleError(
                f"{self.path.name} returned {logits.dtype}{list(logits.shape)}, but the manifest promises "
                f"float32{[len(batch), len(self.manifest.classes)]}; export it again"
            )
        return logits

    def prepare(self, images: np.ndarray) -> Callable[[], np.ndarray]:
        """Check a batch once and return a function that computes its logits without the checks.

        `bench` times this function: the checks take microseconds, which would distort the times of the fastest
        networks.

        Args:
            images: as for `infer`. Fewer images than a fixed batch size are padded with copies of the last image.
                As long as the function is used, they must not change and the runtime must stay open.

        Raises:
            InputError: as `infer`.
        """
        self._check_usable()
        fixed = self.manifest.input.shape[0]
        if fixed is not None and isinstance(images, np.ndarray) and images.ndim == 4 and 0 < len(images) < fixed:
            images = filled(images, fixed)
        return functools.partial(self.infer_impl, self._checked(images))

    def infer_all(self, images: np.ndarray) -> np.ndarray:
        """Logits of any number of images, whatever batch size the artifact was exported for.

        An artifact with a fixed batch size is called several times, the last batch padded with copies of the last
        image; any other is called once.

        Args:
            images: (N, C, H, W) float32 in [0, 1], N at least 1.

        Returns:
            (N, K) float32 logits, a new array.

        Raises:
            InputError, BundleError: as `infer`.
        """
        fixed = self.manifest.input.shape[0]
        if fixed is None or not isinstance(images, np.ndarray) or images.ndim != 4 or len(images) in (0, fixed):
            return self.infer(images)
        return in_batches(self.infer, images, fixed, fill=True)

    def read(self, source: Union[str, Path, bytes]) -> np.ndarray:
        """Read an image file as the network takes it.

        Args:
            source: path of a picture of any size, which is prepared as in the training and needs Pillow, or of a `.npy`
                file with the array itself; or the content of a picture file.

        Returns:
            (C, H, W) float32 in [0, 1], for `classify`.

        Raises:
            InputError: the file cannot be read, or does not give an image of the network's shape.
            BackendUnavailable: Pillow is not installed.
        """
        path = source if isinstance(source, bytes) else Path(source)
        return read_image(path, self.manifest.input.shape[1:], self.manifest.preprocessing)

    def classify(self, image: np.ndarray) -> Tuple[str, float]:
        """The most likely class of one image and its softmax probability.

        Args:
            image: (C, H, W) float32 in [0, 1].

        Raises:
            InputError: `image` has another shape, type or range.
            BundleError: the artifact returned a logit that is not finite, or something other than logits.
        """
        image = np.asarray(image)
        shape = self.manifest.input.shape[1:]
        if image.shape != shape:
            raise InputError(f"the image must be {shape} (channels, height, width), not {image.shape}")
        logits = self.infer_all(image[None])[0].astype(np.float64)
        if not np.isfinite(logits).all():
            raise BundleError(f"{self.path.name} returned NaN or infinity instead of finite logits; export it again")
        probabilities = np.exp(logits - logits.max())
        probabilities /= probabilities.sum()
        best = int(probabilities.argmax())
        return self.manifest.classes[best], float(probabilities[best])

    def _checked(self, images: np.ndarray) -> np.ndarray:
        fixed, *shape = self.manifest.input.shape
        if not isinstance(images, np.ndarray) or images.dtype != np.float32:
            kind = getattr(images, "dtype", type(images).__name__)
            scale = "" if getattr(images, "dtype", np.dtype(int)).kind == "f" else " / 255"
            raise InputError(f"images must be a float32 array, not {kind}; convert with x.astype('float32'){scale}")
        if list(images.shape[1:]) != shape or images.ndim != 4 or not len(images):
            raise InputError(f"images must be (N, {', '.join(map(str, shape))}), not {images.shape}")
        if fixed is not None and len(images) != fixed:
            raise InputError(f"this artifact takes exactly {fixed} images at a time, not {len(images)}; use infer_all")
        low, high = self.manifest.input_range
        least, most = float(images.min()), float(images.max())
        if not (least >= low and most <= high):  # written so that NaN fails too
            raise InputError(
                f"pixels must lie in [{low:g}, {high:g}], these lie in [{least:g}, {most:g}]; pass raw pixels "
                "divided by 255: the model normalises them itself"
            )
        return np.ascontiguousarray(images)
