"""Draw the samples that are part of the package, from the full sets.

    python benchmarks/draw_samples.py --source DIR [--out mlkit/samples]

DIR holds mnist/ and fashion_mnist/ with the four IDX files of each, gzipped or not. The same files
in give the same files out, byte for byte (with the same zlib).
"""
import argparse
import gzip
from pathlib import Path

import numpy as np

from mlkit.data.images import IDX_FILES, SAMPLES, read_idx_pair
from mlkit.data.loader import stratified_split
from mlkit.data.mnist import datasets

SEED = 20260101


def write_idx(path: Path, array: np.ndarray) -> None:
    "Write bytes as an IDX file, gzipped if the name ends in .gz; the time in it is left at zero."
    head = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes()
    data = head + array.astype(np.uint8).tobytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(data, mtime=0) if path.suffix == ".gz" else data)


def draw(
    source: Path,   # holds the four IDX files of one set
    out: Path,      # where the sample's four files go
    n_train: int = 6000,
    n_test: int = 1000,
) -> None:
    """Draw `n_train` and `n_test` images, every class in its proportion, and write them in a
    random order."""
    for (images_name, labels_name), n in zip((IDX_FILES[:2], IDX_FILES[2:]), (n_train, n_test)):
        paths = [source / f"{images_name}.gz", source / f"{labels_name}.gz"]
        images, labels = read_idx_pair(*(path if path.exists() else path.with_suffix("")
                                         for path in paths))
        rows = np.random.default_rng(SEED).permutation(stratified_split(labels, n, SEED)[1].numpy())
        write_idx(out / f"{images_name}.gz", images[rows])
        write_idx(out / f"{labels_name}.gz", labels[rows])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=SAMPLES)
    args = parser.parse_args()
    for name in datasets(): draw(args.source / name, args.out / name)
    for path in sorted(args.out.glob("*/*.gz")): print(f"{path.stat().st_size:>9,}  {path}")
