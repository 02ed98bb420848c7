"""Classify the images of a folder with a bundle, one line of CSV each; needs numpy, Pillow and the backend, no torch.

    python classify_folder.py bundle/ pictures/ > answers.csv

Pictures of any size are prepared as in the training. Images that cannot be read are listed on stderr and the others are
classified; the exit code is 1 in this case.
"""

import argparse
import csv
import sys
from pathlib import Path

from robust_edge_runtimes import RobustEdgeError, load

SUFFIXES = {".npy", ".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm"}


def classify(bundle: Path, folder: Path, out) -> int:
    """Write path, label and probability; return the number of images that could not be read."""
    pictures = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)
    if not pictures:
        raise SystemExit(f"{folder} holds no pictures ({', '.join(sorted(SUFFIXES))})")
    failures = 0
    rows = csv.writer(out)
    with load(bundle) as model:
        rows.writerow(["image", "label", "probability"])
        for path in pictures:
            try:
                label, probability = model.classify(model.read(path))
            except RobustEdgeError as error:
                print(error, file=sys.stderr)
                failures += 1
                continue
            rows.writerow([path.relative_to(folder), label, f"{probability:.4f}"])
    return failures


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bundle", type=Path)
    parser.add_argument("folder", type=Path)
    given = parser.parse_args()
    try:
        sys.exit(1 if classify(given.bundle, given.folder, sys.stdout) else 0)
    except RobustEdgeError as error:  # one line that says what happened and the way out
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
