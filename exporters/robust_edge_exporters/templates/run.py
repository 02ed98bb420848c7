#!/usr/bin/env python3
"""Use this bundle on its own: predict, prepare, bench, replay. Needs $needs, nothing else.

    python3 run.py predict image.png [...]   pictures need pillow (8 or newer), .npy arrays do not
    python3 run.py prepare image.png OUT     the pixels that the network takes: OUT.ppm or OUT.pgm for a picture, any
                                             other name for float32 (C, H, W) in [0, 1], as C programs read it
    python3 run.py bench [--threads N]       latency of one image and of 100
    python3 run.py replay                    score the stored attack images; exit 1 if the drop is over a point,
                                             or the logits are not the checkpoint's, or not those that
                                             this file gave where it was exported

Exit codes: 0 pass, 1 failed, 2 usage, 3 backend missing, 4 bundle damaged, 130 interrupted.
"""

import argparse
import hashlib
import io
import json
import os
import sys
import time
import warnings
from pathlib import Path
from typing import Any, List, Mapping, Optional, Tuple, Union

sys.dont_write_bytecode = True  # nothing but what was exported lies in this folder
MAX_THREADS = 1024
HERE = os.path.dirname(os.path.abspath(__file__))


def fail(code, text):
    print("error: " + text, file=sys.stderr)
    sys.exit(code)


try:
    import numpy as np
except ImportError:
    fail(3, "numpy is missing: python3 -m pip install -r requirements.txt")


# $backend


class Model:
    """The artifact of this folder, its files checked first."""

    def __init__(self, threads=1):
        check_files()
        self.manifest = read_manifest()
        path = os.path.join(HERE, self.manifest["artifact"]["file"])
        self.infer = open_model(path, self.manifest, threads)

    def logits(self, images):
        """(N, C, H, W) float32 in [0, 1] to (N, K) float32, in the artifact's own batches."""
        size = self.manifest["input"]["shape"][0]
        if size is None:
            return self.infer(np.ascontiguousarray(images))
        filled = images[np.minimum(np.arange(-(-len(images) // size) * size), len(images) - 1)]
        parts = [self.infer(np.ascontiguousarray(filled[i : i + size])) for i in range(0, len(filled), size)]
        return np.concatenate(parts)[: len(images)]


def check_files():
    """Compare every file with SHA256SUMS."""
    try:
        with open(os.path.join(HERE, "SHA256SUMS"), encoding="utf-8") as file:
            sums = [line.rstrip("\n").split("  ", 1) for line in file]
        if not {"manifest.json", "golden.npz"} <= {name for _, name in sums}:
            fail(4, "SHA256SUMS does not list every file; copy the bundle again")
        for digest, name in sums:
            with open(os.path.join(HERE, name), "rb") as file:
                if hashlib.sha256(file.read()).hexdigest() != digest:
                    fail(4, name + " is not the file that was exported; copy the bundle again")
    except (OSError, ValueError) as cause:
        fail(4, "the bundle is damaged: {}; copy it again".format(cause))


def read_manifest():
    with open(os.path.join(HERE, "manifest.json"), encoding="utf-8") as file:
        return json.load(file)


def golden():
    return np.load(os.path.join(HERE, "golden.npz"), allow_pickle=False)


# $pictures


def read_image(path, manifest):
    """(C, H, W) float32 in [0, 1], prepared as in the training."""
    shape = manifest["input"]["shape"][1:]
    try:
        if path.endswith(".npy"):
            array = np.load(path, allow_pickle=False)
            array = array.astype(np.float32) / np.float32(255 if array.dtype == np.uint8 else 1)
        elif shape[0] not in MODES:
            fail(2, "{} is a picture, the model takes {} channels; pass a .npy file".format(path, shape[0]))
        else:
            array = read_picture(path, shape[0], manifest.get("preprocessing") or {}).astype(np.float32)
            array /= np.float32(255)
    except ImportError:
        fail(3, "reading " + path + " needs pillow: pip install pillow; .npy files do not")
    except PictureError as cause:
        fail(2, "{} {}".format(path, cause))
    except Exception as cause:  # numpy raises many exception classes
        fail(2, "{} cannot be read as an array: {}".format(path, cause))
    if list(array.shape) != list(shape):
        fail(2, "{} is {}, the model takes {}; resize it first".format(path, array.shape, tuple(shape)))
    if not (array.min() >= 0 and array.max() <= 1):
        fail(2, "{}: pixels must lie in [0, 1] (or be uint8)".format(path))
    return array.astype(np.float32)


def prepare(args):
    check_files()
    image = read_image(args.image, read_manifest())
    if not args.out.endswith((".ppm", ".pgm")):
        content = image.astype("<f4").tobytes()
    else:
        kind, levels = "P5" if len(image) == 1 else "P6", np.rint(image * 255).astype(np.uint8)
        header = "{}\n{} {}\n255\n".format(kind, image.shape[2], image.shape[1])
        content = header.encode() + levels.transpose(1, 2, 0).tobytes()
    with open(args.out, "wb") as file:
        file.write(content)
    return 0


def predict(args):
    model = Model(args.threads)
    for path in args.images:
        row = model.logits(read_image(path, model.manifest)[None])[0].astype(np.float64)
        probabilities = np.exp(row - row.max())
        probabilities /= probabilities.sum()
        best = int(probabilities.argmax())
        print("{}  {}  {:.3f}".format(path, model.manifest["classes"][best], probabilities[best]))
    return 0


def bench(args):
    model = Model(args.threads)
    clean = golden()["clean"]
    for count in (1, 100):
        batch = np.ascontiguousarray(clean[np.arange(count) % len(clean)])
        samples, end = [], time.perf_counter() + 2
        model.logits(batch)
        while len(samples) < 10 or time.perf_counter() < end:
            start = time.perf_counter()
            model.logits(batch)
            samples.append((time.perf_counter() - start) * 1e3)
        p50, p90, p99 = np.percentile(samples, (50, 90, 99))
        print(
            "{:4d} image(s)  p50 {:.3f} ms  p90 {:.3f} ms  p99 {:.3f} ms  n {}".format(
                count, p50, p90, p99, len(samples)
            )
        )
    return 0


# $closeness


def alike(logits, data, precision, whose=""):
    """Compare logits with stored ones; print the largest error, and how many images exceed the tolerance, if any."""
    stored = np.concatenate([data[whose + "clean_logits"], data[whose + "attacked_logits"]])
    errors, tolerance = relative_errors(logits, stored), float(data[whose + "tolerance"])
    above, most = number_above(errors, tolerance), most_above(len(errors), precision)
    what = (
        "        within {:.2g} of this file's own at export"
        if whose
        else "logits  within {:.2g} of the checkpoint's (relative)"
    )
    line = what.format(errors.max()) + ", tolerance {:.2g}".format(tolerance)
    print(line + (", which {} of {} images exceed; {} may".format(above, len(errors), most) if above else ""))
    return above <= most


def replay(args):
    model = Model(args.threads)
    data = golden()
    labels = data["labels"]
    logits = np.concatenate([model.logits(data["clean"]), model.logits(data["attacked"])])
    clean, attacked = logits.argmax(1).reshape(2, -1) == labels
    robust = clean & attacked
    expected = data["clean_logits"].argmax(1) == labels
    expected_robust = expected & (data["attacked_logits"].argmax(1) == labels)
    failed = not len(labels)
    for name, mine, theirs in (("clean", clean, expected), ("robust", robust, expected_robust)):
        drop = 100.0 * (theirs.mean() - mine.mean())
        failed = failed or not drop <= 1.0
        print("{:6s}  checkpoint {:.1f}%  here {:.1f}%".format(name, 100 * theirs.mean(), 100 * mine.mean()))
    precision = model.manifest["artifact"]["precision"]
    failed = not alike(logits, data, precision) or failed
    if "artifact_tolerance" in data.files:
        failed = not alike(logits, data, precision, "artifact_") or failed
    print("FAIL" if failed else "PASS", "on", len(labels), "images")
    return 1 if failed else 0


def thread_count(text):
    """CPU threads of one inference."""
    count = int(text)
    if not 1 <= count <= MAX_THREADS:
        raise argparse.ArgumentTypeError("threads must be 1 to {}, not {}".format(MAX_THREADS, count))
    return count


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command")
    for function in (predict, prepare, bench, replay):
        command = commands.add_parser(function.__name__)
        command.set_defaults(function=function)
        if function is predict:
            command.add_argument("images", nargs="+")
        if function is prepare:
            command.add_argument("image")
            command.add_argument("out")
        else:
            command.add_argument("--threads", type=thread_count, default=1)
    args = parser.parse_args()
    if args.command is None:
        parser.error("name a command: predict, prepare, bench or replay")
    code = args.function(args)
    sys.stdout.flush()
    return code


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:  # the reader has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except OSError as cause:
        try:
            sys.stdout.flush()
        except OSError:  # Python would try once more at exit, and end with another code
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        fail(2, "{}".format(cause))
