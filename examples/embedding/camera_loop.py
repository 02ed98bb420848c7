"""Classify the frames of a camera within a latency budget: always the newest one; older waiting frames are dropped.

    python camera_loop.py bundle/ --fps 30 --seconds 5              # frames of noise
    python camera_loop.py bundle/ --frames pictures/ --budget-ms 20 # the pictures of a folder, again and again

A frame's latency counts from when the camera had it to when its class is known, waiting included. A frame over the
budget is missed: its result came too late to act on. Put your camera in place of `frames`.
"""

import argparse
import dataclasses
import itertools
import sys
import time
from pathlib import Path

import numpy as np

from robust_edge_runtimes import RobustEdgeError, load


@dataclasses.dataclass
class Tally:
    """Numbers of processed and dropped frames; times in seconds."""

    latencies: list
    dropped: int = 0
    missed: int = 0

    def line(self) -> str:
        p50, p90 = (1e3 * np.percentile(self.latencies, q) for q in (50, 90))
        answered = len(self.latencies)
        return (
            f"{answered + self.dropped} frames: {answered} answered, {self.dropped} dropped, {self.missed} missed; "
            f"p50 {p50:.2f} ms, p90 {p90:.2f} ms"
        )


def watch(model, frames, *, fps: float, seconds: float, budget_s: float, clock=time.perf_counter, sleep=time.sleep):
    """Classify the newest frame until the time is over.

    Args:
        frames: an iterator of (C, H, W) float32 in [0, 1]; frame k arrives k / fps after the start.
    """
    tally, start, last = Tally([]), clock(), -1
    total = max(1, round(seconds * fps))
    while last + 1 < total:
        newest = min(int((clock() - start) * fps), total - 1)
        if newest <= last:
            sleep(max(0.0, start + (last + 1) / fps - clock()))
            continue
        tally.dropped += newest - last - 1
        frame = next(itertools.islice(frames, newest - last - 1, None))
        last = newest
        model.classify(frame)
        latency = clock() - (start + newest / fps)
        tally.latencies.append(latency)
        tally.missed += latency > budget_s
    return tally


def pictures(folder: Path, model):
    """Yield the images of a folder in an endless loop."""
    paths = sorted(path for path in folder.glob("*") if path.is_file())
    if not paths:
        raise SystemExit(f"{folder} holds no pictures")
    return itertools.cycle([model.read(path) for path in paths])


def noise(shape):
    """Yield random frames in place of a camera."""
    random = np.random.default_rng(0)
    while True:
        yield random.random(shape, dtype=np.float32)


def positive(text: str) -> float:
    """Parse a number above 0, as an argument type of argparse."""
    number = float(text)
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not a number above 0")
    return number


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--frames", type=Path, help="a folder of pictures; noise without it")
    parser.add_argument("--fps", type=positive, default=30.0)
    parser.add_argument("--seconds", type=positive, default=5.0)
    parser.add_argument("--budget-ms", type=positive, help="one frame's time by default")
    given = parser.parse_args()
    budget_s = 1 / given.fps if given.budget_ms is None else given.budget_ms / 1e3
    with load(given.bundle) as model:
        shape = model.manifest.input.shape[1:]
        frames = noise(shape) if given.frames is None else pictures(given.frames, model)
        model.classify(np.zeros(shape, np.float32))  # the first inference is slower; let it be none of the camera's
        tally = watch(model, frames, fps=given.fps, seconds=given.seconds, budget_s=budget_s)
    print(f"{tally.line()}; budget {1e3 * budget_s:.2f} ms")


if __name__ == "__main__":
    try:
        main()
    except RobustEdgeError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
