"""A folder of photographs: decoded, from the cache, checked, and a second run of many files.

    python benchmarks/photographs.py [--files 5000] [--small 50000] [--rounds 3]

The photographs are made: JPEGs of 1200 x 900, quality 90, of gradients, texture and grain. An epoch
of 224 x 224, shuffled, on one core, is timed in turn, A B C A B C: by hand with Pillow's full
decoding, by mlkit without a cache, by mlkit with one. Then come the time in which the cache is made
by all cores, and a folder of many small files, whose second run is timed from `prepare_data` to its
end. The ratios of the medians, of images in a second of CPU, and the seconds of the second run are
to keep the --limits; the exit code is 1 if one does not.
"""
import argparse
import os
import resource
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from mlkit.data.folder import ImageFolder

CORES = os.sched_getaffinity(0)
SIZE, BATCH, DIFFERENT = (224, 224), 64, 50  # photographs; the others are copies under other names


def photograph(rng: np.random.Generator, w: int = 1200, h: int = 900) -> Image.Image:
    def rough(rows, columns):
        image = Image.fromarray(rng.integers(0, 256, (rows, columns, 3), np.uint8))
        return np.asarray(image.resize((w, h), Image.Resampling.BICUBIC), np.float32)
    pixels = rough(7, 9) * 0.75 + rough(h // 12, w // 12) * 0.25
    pixels += rng.normal(0, 4, (h, w, 1)).astype(np.float32)
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def make_photographs(root: Path, n: int) -> None:
    rng = np.random.default_rng(0)
    for i in range(n):
        path = root / "train" / "ab"[i % 2] / f"{i:06}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        if i < DIFFERENT: photograph(rng).save(path, quality=90)
        else: shutil.copyfile(root / "train" / "ab"[i % 2] / f"{i % DIFFERENT:06}.jpg", path)
        os.utime(path, (0, 10**9))  # what was changed just now is not remembered


def make_small(root: Path, n: int) -> None:
    rng = np.random.default_rng(0)
    for i in range(n):
        path = root / "train" / str(i % 10) / f"{i:06}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (16, 16), np.uint8)).save(path)
        os.utime(path, (0, 10**9))


def by_hand(paths: list[str]) -> None:
    "What a loop without any library does: decode in full, resize, normalise."
    order = torch.randperm(len(paths)).tolist()
    for start in range(0, len(paths), BATCH):
        batch = []
        for i in order[start:start + BATCH]:
            with Image.open(paths[i]) as image:
                image = image.convert("RGB").resize(SIZE[::-1], Image.Resampling.BILINEAR)
            batch.append(torch.from_numpy(np.array(image)).permute(2, 0, 1))
        torch.stack(batch).float().div_(255).sub_(0.5).div_(0.5)


def epoch(data: ImageFolder) -> None:
    for _ in data.train_dataloader(): pass


def spent() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def timed(f, *args) -> tuple[float, float]:
    "Seconds on the clock, and of CPU."
    start, cpu = time.perf_counter(), spent()
    f(*args)
    return time.perf_counter() - start, spent() - cpu


def main() -> bool:
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("--files", type=int, default=5000, help="photographs (default: 5000)")
    p.add_argument("--small", type=int, default=50_000, help="small files (default: 50000)")
    p.add_argument("--rounds", type=int, default=3, help="(default: 3)")
    p.add_argument("--folder", help="where the pictures are made (default: a temporary one)")
    p.add_argument("--limits", type=float, nargs=3, default=(1.9, 20, 2),
                   help="draft / full, cache / full, seconds of the second run (default: 1.9 20 2)")
    args = p.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        os.environ["HOME"] = os.environ["USERPROFILE"] = folder  # where mlkit remembers
        root = Path(folder) / "photographs"
        make_photographs(root, args.files)
        made = dict(size=SIZE, batch_size=BATCH, val_size=1, mean=0.5, std=0.5)
        plain = ImageFolder(str(root), **made)
        plain.setup()
        os.sched_setaffinity(0, CORES)
        check, _ = timed(plain.content)
        cached = ImageFolder(str(root), cache=str(Path(folder) / "cache"), **made)
        build, _ = timed(cached.prepare_data)
        os.sched_setaffinity(0, {min(CORES)})
        one, _ = timed(lambda: ImageFolder(str(root), cache=str(Path(folder) / "one"),
                                                 **made).prepare_data())
        again, _ = timed(ImageFolder(str(root), **made).prepare_data)
        n, paths = len(plain.rows["train"]), [plain.paths[i] for i in plain.rows["train"]]
        sides = {"Pillow, in full": lambda: by_hand(paths), "mlkit": lambda: epoch(plain),
                 "mlkit, cached": lambda: epoch(cached)}
        for data in (plain, cached): next(iter(data.train_dataloader()))
        found: dict = {name: [] for name in sides}
        for _ in range(args.rounds):
            for name, f in sides.items(): found[name].append(timed(f))
        small = Path(folder) / "small"
        make_small(small, args.small)
        os.sched_setaffinity(0, CORES)
        first, second = [timed(ImageFolder(str(small)).prepare_data)[0] for _ in range(2)]
    print(f"{args.files:,} photographs: looked at in {check:.1f} s, again in {again:.2f} s; "
          f"cached in {build:.1f} s by {len(CORES)} cores, {one:.1f} s by one")
    middle = {}
    for name, ts in found.items():
        middle[name] = statistics.median(cpu for _, cpu in ts)
        wall = n / statistics.median(t for t, _ in ts)
        print(f"{name:16} {wall:8.0f} images/s, {n / middle[name]:8.0f} a second of CPU")
    full = middle["Pillow, in full"]
    ratios = full / middle["mlkit"], full / middle["mlkit, cached"]
    print(f"{args.small:,} small files: first run {first:.1f} s, second run {second:.2f} s")
    draft, cache, most = args.limits
    print(f"draft / full {ratios[0]:.2f} (limit {draft:g}), cache / full {ratios[1]:.1f} "
          f"(limit {cache:g}), second run {second:.2f} s (limit {most:g})")
    return ratios[0] < draft or ratios[1] < cache or second > most


if __name__ == "__main__": sys.exit(main())
