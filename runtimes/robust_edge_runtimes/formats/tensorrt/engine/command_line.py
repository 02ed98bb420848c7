#!/usr/bin/env python3
"""Build, keep and run the TensorRT engine of a bundle, on TensorRT 8.2, 8.5, 8.6, 10 and 11.

    python3 build_engine.py [--workspace MiB] [--max-batch N] [--force]

Every TensorRT bundle contains this, joined with the modules that it imports, as build_engine.py, which needs only
numpy and TensorRT and runs on Python 3.6. An engine fits one GPU type and one TensorRT version; it is kept under a key
of all that it depends on, in $ROBUST_EDGE_CACHE or ~/.cache/robust-edge.
"""

import argparse
import sys
from pathlib import Path
from typing import Optional, Sequence

from robust_edge_runtimes.formats.cuda.errors import EngineError
from robust_edge_runtimes.formats.tensorrt.engine.open_engine import open_engine
from robust_edge_runtimes.formats.tensorrt.engine.settings import Settings, positive


def main(arguments: Optional[Sequence[str]] = None) -> int:
    """Build the engine of the folder that this file lies in."""
    parser = argparse.ArgumentParser(description="Build this bundle's TensorRT engine for this device and keep it.")
    parser.add_argument("--workspace", type=_positive, help="MiB that the builder may use; less where memory is short")
    parser.add_argument("--max-batch", type=_positive, help="largest number of images of one call")
    parser.add_argument("--force", action="store_true", help="build even if an engine is kept")
    args = parser.parse_args(arguments)
    try:
        settings = Settings.of_bundle(Path(__file__).resolve().parent, args.workspace, args.max_batch)
        open_engine(settings, force=args.force).close()
    except EngineError as cause:
        print(f"error: {cause}", file=sys.stderr)
        return 3
    print("ready; python3 run.py replay checks it")
    return 0


def _positive(text: str) -> int:
    try:
        return positive(text)
    except (TypeError, ValueError) as cause:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1") from cause


if __name__ == "__main__":
    sys.exit(main())
