"What a notebook shows badly: broken files, mirrors that misbehave, ranks, workers and caches."
import gzip
import hashlib
import importlib.util
import io
import json
import os
import pickle
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Thread

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from PIL import Image
from torch.utils.data import DataLoader

from mlkit.base.errors import UserError
from mlkit.data import files as files_room
from mlkit.data import loader as loader_room
from mlkit.data.folder import ImageFolder
from mlkit.data.images import (
    IDX_FILES,
    SAMPLES,
    check_image,
    decode_image,
    read_idx,
    read_idx_pair,
    read_npy,
    show_images,
)
from mlkit.data.loader import ArrayLoader, EpochSampler, stratified_split
from mlkit.data.mnist import MNIST, datasets, fetch
from mlkit.run.reads import Reads


def line_of(error, *parts):
    "The error is one line, and says these things."
    text = str(error.value)
    assert "\n" not in text and len(text) < 500
    for part in parts: assert str(part) in text, text
    return text


# IDX files

IMAGES = np.arange(5 * 28 * 28, dtype=np.uint32).reshape(5, 28, 28).astype(np.uint8)


def write_idx(path, array):
    "uint8 alone; gzipped if the name ends in .gz, with no time in it."
    head = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes()
    data = head + array.astype(np.uint8).tobytes()
    path.write_bytes(gzip.compress(data, mtime=0) if path.suffix == ".gz" else data)


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_every_truncation_is_noticed(tmp_path, suffix):
    path = tmp_path / f"images{suffix}"
    write_idx(path, IMAGES)
    raw = path.read_bytes()
    cuts = [0, 1, 2, 3, 4, 9, 12, 15, 16, 17, 30, len(raw) // 2]
    for n in cuts + [len(raw) - k for k in (9, 8, 4, 1)]:
        path.write_bytes(raw[:n])
        with pytest.raises(UserError) as error: read_idx(path)
        line_of(error, path, "delete it and fetch it again")
    path.write_bytes(raw)
    assert (read_idx(path) == IMAGES).all()


def test_truncation_says_how_much_is_missing(tmp_path):
    path = tmp_path / "images"
    write_idx(path, IMAGES)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(UserError) as error: read_idx(path)
    line_of(error, "truncated", f"promises {16 + IMAGES.size:,} bytes", "holds 1,000")


def test_other_damage(tmp_path):
    path = tmp_path / "images"
    write_idx(path, IMAGES)
    path.write_bytes(path.read_bytes() + b"more")
    with pytest.raises(UserError, match="damaged"): read_idx(path)
    path.write_bytes(b"\x00\x00\x08\x03" + b"\xff" * 12)  # it promises more than any memory
    with pytest.raises(UserError, match="truncated"): read_idx(path)
    path.write_bytes(gzip.compress(b"\x00\x00\x07\x01" + bytes(8)))
    with pytest.raises(UserError, match="not an IDX file"): read_idx(path)
    with pytest.raises(OSError): read_idx(tmp_path / "nowhere")


def test_what_it_is_not_what_it_is_called(tmp_path):
    write_idx(tmp_path / "a.gz", IMAGES)
    (tmp_path / "a.gz").rename(tmp_path / "a")
    write_idx(tmp_path / "b", IMAGES)
    (tmp_path / "b").rename(tmp_path / "b.gz")
    for name in ("a", "b.gz"): assert (read_idx(tmp_path / name) == IMAGES).all()


def test_npy_files_are_read_by_many_threads(tmp_path):
    for i in range(8): np.save(tmp_path / f"{i}.npy", np.full((4, 4), i))
    with ThreadPoolExecutor(8) as pool:
        arrays = pool.map(lambda i: read_npy(tmp_path / f"{i % 8}.npy"), range(4000))
        for i, array in enumerate(arrays): assert array[0, 0] == i % 8


# The samples

@pytest.mark.parametrize("name", ["mnist", "fashion_mnist"])
def test_samples(name):
    for (images, labels), n in zip((IDX_FILES[:2], IDX_FILES[2:]), (6000, 1000)):
        x, y = read_idx_pair(*(SAMPLES / name / f"{o}.gz" for o in (images, labels)))
        assert x.shape == (n, 28, 28) and set(y) == set(range(10))
        assert len(np.unique(y[:50])) >= 8  # in a random order
        for o in (images, labels):
            assert (SAMPLES / name / f"{o}.gz").read_bytes()[4:8] == bytes(4)  # no time stamp
    train, test = (read_idx(SAMPLES / name / f"{o}.gz").reshape(-1, 784) for o in IDX_FILES[::2])
    shared = {o.tobytes() for o in train} & {o.tobytes() for o in test}
    assert len(shared) <= 1


def test_samples_are_small_and_documented():
    assert sum(o.stat().st_size for o in SAMPLES.glob("*/*")) < 5_000_000
    readme = (SAMPLES / "README.md").read_text(encoding="utf-8")
    assert all(o in readme for o in ("CC BY-SA 3.0", "MIT", "a split of ours", "draw_samples.py"))


def test_draw_samples_is_reproducible(tmp_path):
    script = Path(__file__).parent.parent / "benchmarks/draw_samples.py"
    spec = importlib.util.spec_from_file_location("draw_samples", script)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    for out in ("a", "b"): module.draw(SAMPLES / "mnist", tmp_path / out, 600, 100)
    for name in IDX_FILES:
        first, second = (tmp_path / o / f"{name}.gz" for o in "ab")
        assert first.read_bytes() == second.read_bytes()
    folders = (tmp_path / "a", SAMPLES / "mnist")
    drawn, full = (np.bincount(read_idx(o / f"{IDX_FILES[1]}.gz")) for o in folders)
    assert np.abs(drawn - full / 10).max() < 1


@pytest.mark.parametrize("n", [1, 7, 50, 99])
def test_stratified_split_is_exact(n):
    labels = np.repeat([3, 5, 9], [50, 30, 20])
    rest, held = stratified_split(labels, n, seed=1)
    assert len(held) == n and sorted(torch.cat([rest, held]).tolist()) == list(range(100))
    for c, k in ((3, 50), (5, 30), (9, 20)): assert abs((labels[held] == c).sum() - k * n / 100) < 1
    assert n in (1, 99) or held.tolist() != stratified_split(labels, n, seed=2)[1].tolist()


# Shuffling and loading

def test_order_depends_on_seed_and_epoch_alone():
    def order(seed, epoch):
        sampler = EpochSampler(500, seed)
        sampler.set_epoch(epoch)
        return tuple(sampler)
    orders = {(s, e): order(s, e) for s in range(4) for e in range(4)}
    assert len(set(orders.values())) == 16
    state = torch.get_rng_state()
    assert orders[2, 3] == order(2, 3) and torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize("n,world,batch_size", [(100, 2, 8), (101, 3, 8), (257, 2, 128),
                                                (7, 4, 2), (3, 2, 64)])
@pytest.mark.parametrize("shuffle", [True, False])
def test_ranks_share(monkeypatch, n, world, batch_size, shuffle):
    shares, batches = [], []
    for rank in range(world):
        monkeypatch.setattr(loader_room, "_world", lambda: (world, rank))
        loader = ArrayLoader(torch.arange(n), batch_size, shuffle, seed=3)
        loader.sampler.set_epoch(1)
        got = list(loader)
        assert len(got) == len(loader) and all(0 < len(b) <= batch_size for b in got)
        shares.append(torch.cat(got).tolist())
        batches.append(len(got))
        # a DataLoader is served as many: equally many to learn from; to be measured, none twice
        expected = -(-n // world) if shuffle else len(range(rank, n, world))
        assert len(list(EpochSampler(n, shuffle=shuffle))) == expected
    served = sorted(sum(shares, []))
    assert len(set(batches)) == 1
    assert sorted(set(served)) == list(range(n))
    if shuffle: assert {len(s) for s in shares} == {-(-n // world)}
    else: assert served == list(range(n))  # no image counts twice


def test_array_loader_shapes():
    x, y = torch.arange(10), {"a": torch.arange(10) * 2, "b": (torch.arange(10) * 3,)}
    loader = ArrayLoader((x, y), 4, drop_last=True, rows=torch.tensor([9, 8, 7, 6, 5]))
    (xb, yb), = list(loader)
    assert len(loader) == 1 and xb.tolist() == [9, 8, 7, 6]
    assert yb["b"][0].tolist() == [27, 24, 21, 18]
    loader = ArrayLoader(x, 4, transform=lambda b: -b)
    assert [len(b) for b in loader] == [4, 4, 2] and next(iter(loader)).tolist() == [0, -1, -2, -3]
    with pytest.raises(UserError, match="one length"): ArrayLoader((x, {"a": x[:3]}), 4)
    elsewhere = ArrayLoader(torch.zeros(10, 2, device="meta"), 4)
    assert next(iter(elsewhere)).device.type == "meta"  # gathered where it lies


# Fetching

class Mirror:
    "A local server; `faults` maps the first part of a path to what goes wrong there."
    def __init__(self, files):
        self.files, self.asked, self.release = files, [], Event()
        mirror = self
        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *args): pass
            def do_GET(self): mirror.answer(self, *self.path.strip("/").split("/"))
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        Thread(target=self.server.serve_forever, daemon=True).start()

    def answer(self, request, fault, name):
        self.asked.append(fault)
        data = self.files[name]
        if fault.startswith("silent"): return self.release.wait(10)
        if fault == "missing": return request.send_error(404)
        if fault == "flaky" and self.asked.count("flaky") == 1: return request.send_error(503)
        if fault == "changed": data = data[:-1] + bytes([data[-1] ^ 1])
        if fault == "garbage": return request.wfile.write(b"\x00\x01 this is not HTTP \r\n\r\n")
        request.send_response(200)
        if fault != "unsized": request.send_header("Content-Length", str(len(data)))
        request.end_headers()
        request.wfile.write(data[:len(data) // 2] if fault in ("broken", "unsized") else data)


@pytest.fixture
def mirror():
    mirror = Mirror({"file": bytes(range(256)) * 1000})
    yield mirror
    mirror.release.set()
    mirror.server.shutdown()


def fetch_from(mirror, folder, *faults, seconds=4.0):
    return fetch("file", [f"{mirror.url}/{fault}" for fault in faults], folder,
                 hashlib.md5(mirror.files["file"]).hexdigest(), seconds)


@pytest.mark.parametrize("faults", [
    ["fine"], ["flaky"], ["missing", "fine"], ["broken", "changed", "garbage", "fine"],
    ["unsized", "fine"]])
def test_fetch_gets_it_in_the_end(tmp_path, mirror, faults):
    path = fetch_from(mirror, tmp_path / "new", *faults)
    assert path.read_bytes() == mirror.files["file"]
    assert [o.name for o in path.parent.iterdir()] == ["file"]


@pytest.mark.parametrize("fault,why", [
    ("missing", "404"), ("broken", "broke after 128,000 of 256,000 bytes"),
    ("changed", "known hash"), ("unsized", "known hash"), ("garbage", "")])
def test_fetch_fails_in_one_line_and_leaves_nothing(tmp_path, mirror, fault, why):
    with pytest.raises(UserError) as error: fetch_from(mirror, tmp_path, fault)
    line_of(error, "file could not be fetched from", mirror.url, why)
    assert mirror.asked == [fault] * 2 and not list(tmp_path.iterdir())


def test_silent_mirrors_do_not_keep_us_waiting(tmp_path, mirror):
    start = time.monotonic()
    with pytest.raises(UserError) as error:
        fetch_from(mirror, tmp_path, "silent", "silent-too", seconds=0.5)
    line_of(error, "/silent (no answer in 0.5 s)", "/silent-too (no answer in 0.5 s)")
    assert mirror.asked == ["silent", "silent-too"]  # and not a second time
    assert time.monotonic() - start < 3
    assert fetch_from(mirror, tmp_path, "silent", "fine", seconds=0.5).exists()


def test_splits_that_leave_nothing_to_train_on(tmp_path):
    from PIL import Image
    for i in range(20):
        (tmp_path / "ab"[i % 2]).mkdir(exist_ok=True)
        Image.new("L", (8, 8), i).save(tmp_path / "ab"[i % 2] / f"{i}.png")
    with pytest.raises(UserError, match="val and test of 10 images each leave none for train"):
        ImageFolder(str(tmp_path), val_size=0.5).setup()


def test_no_network_says_so_soon():
    "The public mirrors, four seconds each and a pause: never more than fifteen."
    assert max(len(o["mirrors"]) for o in datasets().values()) * 4.0 + 0.5 < 15


@pytest.mark.parametrize("url", ["http://no-such-host.invalid", "nonsense://x",
                                 "http://127.0.0.1:9"])
def test_unreachable(tmp_path, url):
    data = MNIST(source="full", root=str(tmp_path), mirrors=[url])
    with pytest.raises(UserError) as error: data.prepare_data()
    line_of(error, "train-images-idx3-ubyte.gz", url, tmp_path, "put it into", "source: sample")


def test_no_mirror_at_all(tmp_path):
    data = MNIST(source="full", root=str(tmp_path), mirrors=[])
    with pytest.raises(UserError) as error: data.prepare_data()
    line_of(error, "no mirror is given", "source: sample")


# MNIST

@pytest.fixture
def full(tmp_path):
    "A small set in the four files of a full one."
    for images, labels, n in ((*IDX_FILES[:2], 200), (*IDX_FILES[2:], 50)):
        write_idx(tmp_path / f"{images}.gz", read_idx(SAMPLES / "mnist" / f"{images}.gz")[:n])
        write_idx(tmp_path / labels, read_idx(SAMPLES / "mnist" / f"{labels}.gz")[:n])
    return tmp_path


def test_full_from_files_gzipped_or_not(full):
    data = MNIST(source="full", root=str(full), val_size=20, mirrors=[])
    data.prepare_data()
    assert {k: len(v) for k, v in data.rows.items()} == {"train": 180, "val": 20, "test": 50}
    y = torch.cat([y for _, y in data.test_dataloader()])
    assert y.tolist() == read_idx(full / IDX_FILES[3]).tolist()


def test_full_fetches_only_what_is_missing(full, monkeypatch):
    name = f"{IDX_FILES[2]}.gz"
    mirror = Mirror({name: (full / name).read_bytes()})
    md5 = hashlib.md5(mirror.files[name]).hexdigest()
    monkeypatch.setitem(datasets()["mnist"], "md5", [md5] * 4)
    (full / name).unlink()
    MNIST(source="full", root=str(full), mirrors=[f"{mirror.url}/fine/"]).prepare_data()
    assert mirror.asked == ["fine"] and (full / name).read_bytes() == mirror.files[name]
    mirror.server.shutdown()


def test_full_with_a_bad_checksum(full):
    name = f"{IDX_FILES[0]}.gz"
    mirror = Mirror({name: (full / name).read_bytes()})
    (full / name).unlink()
    data = MNIST(source="full", root=str(full), mirrors=[f"{mirror.url}/fine"])
    with pytest.raises(UserError) as error: data.setup()
    line_of(error, name, "known hash", "source: sample")
    assert not (full / name).exists()
    mirror.server.shutdown()


def test_full_with_wrong_files(full):
    def error_of():
        data = MNIST(source="full", root=str(full), mirrors=[])
        with pytest.raises(UserError) as error: data.prepare_data()
        return error
    images, labels = full / f"{IDX_FILES[0]}.gz", full / IDX_FILES[1]
    x, y = read_idx(images), read_idx(labels)
    write_idx(labels, y + 3)
    line_of(error_of(), labels, "labels from 0 to 9")
    write_idx(labels, y[:-1])
    line_of(error_of(), images, labels, "200 images", "199 in")
    write_idx(labels, y)
    write_idx(images, x[:, :14])
    line_of(error_of(), images, "(200, 14, 28)")
    write_idx(images, y)
    line_of(error_of(), images, "images (N, H, W) of type uint8 are expected")
    images.write_bytes(images.read_bytes()[:50])
    line_of(error_of(), images, "truncated")


def test_bad_arguments():
    for kwargs in (dict(name="emnist"), dict(source="half"), dict(val_size=0), dict(val_size=1.0),
                   dict(val_size=6000), dict(batch_size=0), dict(batch_size=-1),
                   dict(batch_size="64"), dict(val_size="0.1"), dict(seed="1"), dict(seed=-1)):
        with pytest.raises(UserError) as error: MNIST(**kwargs).prepare_data()
        line_of(error, *kwargs)
    with pytest.raises(UserError, match="mode='CMYK'"): ImageFolder("x", mode="CMYK")


def test_read_image_of_any_kind(tmp_path):
    data = MNIST()
    data.setup()
    pixels = data.images[5, 0].numpy()
    expected = data.normalize(data.images[5])
    Image.fromarray(pixels).convert("RGB").save(tmp_path / "rgb.png")
    Image.fromarray(pixels).convert("P").save(tmp_path / "palette.png")
    Image.fromarray(pixels.astype(np.uint16) * 257).save(tmp_path / "sixteen.png")
    for name in ("rgb", "palette", "sixteen"):
        assert data.read_image(tmp_path / f"{name}.png").equal(expected), name
    Image.fromarray(pixels.repeat(4, 0).repeat(4, 1)).save(tmp_path / "big.jpg", quality=95)
    assert (data.read_image(tmp_path / "big.jpg") - expected).abs().mean() < 0.2
    with pytest.raises(FileNotFoundError) as error: data.read_image(tmp_path / "nowhere.png")
    line_of(error, "nowhere.png")
    (tmp_path / "text.png").write_text("text")
    with pytest.raises(UserError) as error: data.read_image(tmp_path / "text.png")
    line_of(error, "text.png", "not an image")


# ImageFolder

def picture(i, size=(20, 30), mode="RGB"):
    rng = np.random.default_rng(i)
    return Image.fromarray(rng.integers(0, 256, (*size, 3), dtype=np.uint8)).convert(mode)


@pytest.fixture
def folder(tmp_path):
    "Two classes, 12 images each, of several kinds."
    for c in "ab":
        (tmp_path / "train" / c).mkdir(parents=True)
        for i in range(12):
            name = f"{i:02}" + (".png", ".jpg", ".JPEG", ".PNG")[i % 4]
            image = picture(i + ord(c) * 100, mode="L" if i == 4 else "RGB")
            image.save(tmp_path / "train" / c / name)
    (tmp_path / "train/a/.hidden.png").write_text("not looked at")
    (tmp_path / "train/a/notes.txt").write_text("not looked at")
    (tmp_path / "train/.ipynb_checkpoints").mkdir()
    return tmp_path


def make(folder, **kwargs):
    return ImageFolder(str(folder), **(dict(size=(16, 24), batch_size=5, val_size=4) | kwargs))


def epoch_of(data, epoch=0):
    loader = data.train_dataloader()
    loader.sampler.set_epoch(epoch)
    return list(loader)


def same(first, second):
    pairs = zip(first, second)
    return len(first) == len(second) and all(a.equal(c) and b.equal(d) for (a, b), (c, d) in pairs)


def test_folder(folder):
    data = make(folder)
    data.prepare_data()
    assert data.classes == ["a", "b"] and data.in_shape == (3, 16, 24)
    assert {k: len(v) for k, v in data.rows.items()} == {"train": 16, "val": 4, "test": 4}
    x, y = next(iter(data.val_dataloader()))
    assert x.shape == (4, 3, 16, 24) and x.dtype == torch.float32 and y.dtype == torch.int64
    assert -1 <= x.min() < -0.5 and 0.5 < x.max() <= 1
    assert x[0].equal(data.read_image(data.paths[data.rows["val"][0]]))
    assert make(folder, mode="L").in_shape == (1, 16, 24)


def test_folder_mean_and_std_by_channel(folder):
    plain, own = make(folder, mean=0.0, std=1.0), make(folder, mean=[0.1, 0.2, 0.3], std=(1, 2, 4))
    path = folder / "train/a/00.png"
    mean, std = torch.tensor([0.1, 0.2, 0.3]).view(3, 1, 1), torch.tensor([1, 2, 4]).view(3, 1, 1)
    assert torch.allclose(own.read_image(path), (plain.read_image(path) - mean) / std, atol=1e-6)


def test_classes_directly_in_the_root(folder):
    flat, nested = make(folder / "train"), make(folder)
    assert flat.classes == nested.classes and same(epoch_of(flat), epoch_of(nested))


def test_folders_of_their_own(folder):
    for split in ("val", "test"):
        (folder / split / "b").mkdir(parents=True)
        picture(7).save(folder / split / "b" / f"{split}.png")
    data = make(folder)
    data.prepare_data()
    assert {k: len(v) for k, v in data.rows.items()} == {"train": 24, "val": 1, "test": 1}
    names = [Path(data.paths[data.rows[k][0]]).name for k in ("val", "test")]
    assert names == ["val.png", "test.png"]
    assert next(iter(data.test_dataloader()))[1].tolist() == [1]


def test_folder_errors(folder):
    def error_of(root, kind=ValueError):
        with pytest.raises(kind) as error: make(root).prepare_data()
        return error
    line_of(error_of(folder / "nowhere", FileNotFoundError), folder / "nowhere", "no such folder")
    line_of(error_of(folder / "train/a"), folder / "train/a", "no class folder")
    (folder / "val/c").mkdir(parents=True)
    line_of(error_of(folder), folder / "val/c", "empty")
    picture(1).save(folder / "val/c/1.png")
    line_of(error_of(folder), folder / "val/c", "a class that")
    (folder / "val/c").rename(folder / "val/b")
    make(folder).prepare_data()
    (folder / "train").rename(folder / "training")
    line_of(error_of(folder), folder, "no folder train")


@pytest.mark.parametrize("cache", [False, True])
def test_broken_images_are_named_before_training(folder, cache):
    cache = str(folder / "cache") if cache else False
    for name, data in {"00.png": b"text", "01.jpg": None, "03.PNG": None, "02.JPEG": b""}.items():
        path = folder / "train/a" / name
        good = path.read_bytes()
        if data is None: data = good[:-30]
        path.write_bytes(data)
        with pytest.raises(UserError) as error: make(folder, cache=cache).prepare_data()
        line_of(error, path, "not an image")
        path.write_bytes(good)
    make(folder, cache=cache).prepare_data()


def test_check_image_agrees_with_decoding(tmp_path):
    "Cut anywhere or changed anywhere, what decoding could not read, the quick check finds."
    for name in ("a.png", "a.jpg", "a.gif"):
        buffer = io.BytesIO()
        picture(3, (64, 64)).save(buffer, {"png": "PNG", "jpg": "JPEG", "gif": "GIF"}[name[2:]])
        data, path = buffer.getvalue(), tmp_path / name
        for n in [0, 5, 20, 100, len(data) // 3, len(data) // 2, len(data) - 12, len(data) - 2]:
            path.write_bytes(data[:n])
            try: decode_image(path, "RGB", (64, 64))
            except ValueError:
                with pytest.raises(UserError): check_image(path)
        rng = np.random.default_rng(0)
        for _ in range(100):
            changed = bytearray(data)
            for at in rng.integers(0, min(len(data), 800), 3): changed[at] = rng.integers(256)
            path.write_bytes(changed)
            try: decode_image(path, "RGB", (64, 64))
            except ValueError:
                with pytest.raises(UserError): check_image(path)
        path.write_bytes(data + b"\xff\xda trailing")  # whole all the same
        assert len(check_image(path)) == 64


def test_exif_orientation(tmp_path):
    image = Image.new("L", (40, 20))
    image.paste(255, (0, 0, 10, 20))
    exif = Image.Exif()
    exif[0x0112] = 6  # turned: to be shown a quarter clockwise
    image.save(tmp_path / "turned.jpg", exif=exif)
    pixels = decode_image(tmp_path / "turned.jpg", "L", (40, 20))[0]
    assert pixels[:8].float().mean() > 240 and pixels[12:].float().mean() < 15


@pytest.mark.parametrize("kwargs", [
    dict(num_workers=2), dict(cache="cache"), dict(cache="cache", num_workers=2)])
def test_workers_and_cache_serve_the_same(folder, kwargs):
    if "cache" in kwargs: kwargs["cache"] = str(folder / kwargs["cache"])
    plain, other = make(folder), make(folder, **kwargs)
    for epoch in (0, 1): assert same(epoch_of(plain, epoch), epoch_of(other, epoch))
    assert not same(epoch_of(plain, 0), epoch_of(plain, 1))
    assert plain.fingerprint() == other.fingerprint()


def test_workers_leave_the_random_state_alone(folder):
    data, state = make(folder, num_workers=1), torch.get_rng_state()
    epoch_of(data)
    assert torch.equal(state, torch.get_rng_state())


def test_fingerprint(folder, tmp_path_factory):
    import shutil
    first = make(folder).fingerprint()
    assert first == make(folder).fingerprint() and len(first) == 64
    copy = tmp_path_factory.mktemp("copy") / "elsewhere"
    shutil.copytree(folder, copy)
    assert make(copy).fingerprint() == first  # names count, places and dates do not
    assert make(folder, seed=1).fingerprint() != first
    assert make(folder, size=(8, 8)).fingerprint() != first
    (copy / "train/a/00.png").rename(copy / "train/b/zz.png")
    assert make(copy).fingerprint() != first


# The cache

KEPT = [".checked", ".json", ".npy"]  # what was found of the files, the note, the pixels


def cached_file(folder): return next((folder / "cache").glob("*.npy"))


@pytest.fixture
def cached(folder, monkeypatch):
    "Make a module with a cache; `decoded` counts the images that were decoded."
    decoded = []
    real = files_room.checked_image
    def counted(path, mode, *how):
        decoded.extend([path] * bool(how))
        return real(path, mode, *how)
    monkeypatch.setattr(files_room, "checked_image", counted)
    def open_it(**kwargs):
        decoded.clear()
        data = make(folder, cache=str(folder / "cache"), **kwargs)
        data.prepare_data()
        return data, len(decoded)
    return open_it


def test_a_cache_is_filled_once(cached, folder):
    assert cached()[1] == 24
    data, decoded = cached()
    assert decoded == 0 and isinstance(data.train_dataloader(), ArrayLoader)
    assert sorted(o.suffix for o in (folder / "cache").iterdir()) == KEPT
    assert cached(seed=5, batch_size=3)[1] == 0  # neither changes the pixels
    assert cached(mode="L")[1] == 24 and cached(size=(8, 8))[1] == 24 and cached()[1] == 0


@pytest.mark.parametrize("change", ["add", "touch", "remove", "rename"])
def test_a_stale_cache_is_rebuilt(cached, folder, change):
    cached()
    path = folder / "train/a/00.png"
    if change == "add": picture(99).save(folder / "train/b/99.png")
    if change == "touch": os.utime(path, ns=(1, 1))
    if change == "remove": path.unlink()
    if change == "rename": path.rename(folder / "train/a/0x.png")
    data, decoded = cached()
    assert decoded == len(data.images) == {"add": 25, "remove": 23}.get(change, 24)
    assert len(list((folder / "cache").iterdir())) == 3  # in place of the old one


@pytest.mark.parametrize("suffix", [".npy", ".json"])
@pytest.mark.parametrize("damage", ["gone", "empty", "cut", "flipped", "garbage"])
def test_a_damaged_cache_is_rebuilt(cached, folder, suffix, damage):
    first, _ = cached()
    images = first.images.clone()
    path = cached_file(folder).with_suffix(suffix)
    data = bytearray(path.read_bytes())
    path.unlink()  # not in place: the first module still has the old one mapped
    if damage == "empty": path.write_bytes(b"")
    if damage == "cut": path.write_bytes(data[:len(data) // 2])
    if damage == "garbage": path.write_bytes(b"[1, 2]")
    if damage == "flipped":
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
    second, decoded = cached()
    assert decoded == 24 and second.images.equal(images) and cached()[1] == 0


def test_a_kill_while_writing_leaves_the_old_cache(cached, folder, monkeypatch):
    first, _ = cached()
    note = cached_file(folder).with_suffix(".json").read_text()
    os.utime(folder / "train/a/00.png", ns=(1, 1))
    def killed(*args): raise KeyboardInterrupt
    with monkeypatch.context() as patch:
        patch.setattr(zlib, "crc32", killed)
        with pytest.raises(KeyboardInterrupt): cached()
    assert sorted(o.suffix for o in (folder / "cache").iterdir()) == KEPT
    assert cached_file(folder).with_suffix(".json").read_text() == note


def looked_at(folder, monkeypatch, **kwargs):
    "The files that a module reads to check them, in its order; what they are like; the module."
    seen, real = [], files_room.checked_image
    def noted(path, *how):
        seen.append(path)
        return real(path, *how)
    with monkeypatch.context() as patch:
        patch.setattr(files_room, "checked_image", noted)
        data = make(folder, **kwargs)
        data.prepare_data()
    return [Path(o).relative_to(folder).as_posix() for o in sorted(seen)], data.fingerprint(), data


@pytest.mark.parametrize("cache", [False, True])
def test_a_file_is_looked_at_once(folder, monkeypatch, tmp_path_factory, cache):
    home, whole = tmp_path_factory.mktemp("home"), make(folder).fingerprint()
    for name in ("HOME", "USERPROFILE"): monkeypatch.setenv(name, str(home))
    if not cache: assert len(looked_at(folder, monkeypatch)[0]) == 24  # little is not remembered
    assert not any(home.iterdir())
    if not cache: Image.new("RGB", (3000, 2000)).save(folder / "train/a/large.PNG", "BMP")
    whole = make(folder).fingerprint() if not cache else whole
    for i, path in enumerate(sorted(folder.rglob("*.*"))): os.utime(path, ns=(0, i * 10**9))
    for n in (24 + (not cache), 0):
        seen, digest, data = looked_at(folder, monkeypatch, cache=cache)
        assert len(seen) == n and digest == whole
    with Reads() as reads: make(folder, cache=cache).prepare_data()
    assert {*data.paths} <= {*reads.files}  # what is known counts as read
    assert len(looked_at(folder, monkeypatch, cache=cache, mode="L")[0]) == 24 + (not cache)
    changed = folder / "train/b/03.PNG"
    size, last = changed.stat().st_size, changed.stat().st_mtime_ns
    picture(77, (21, 30)).save(changed)
    assert changed.stat().st_size != size
    os.utime(changed, ns=(0, last))  # another size alone
    seen, digest, _ = looked_at(folder, monkeypatch, cache=cache)
    assert {"train/b/03.PNG"} <= {*seen} and (cache or len(seen) == 1) and digest != whole
    file = next((home / ".cache/mlkit").glob("*.checked"))
    for o in (home / ".cache/mlkit").glob("*.checked"): o.write_bytes(b"0" * 99)  # damaged
    assert looked_at(folder, monkeypatch, cache=cache)[1] == digest
    file.parent.joinpath("x").touch()
    changed.write_bytes(changed.read_bytes()[:-40])
    (folder / "train/b/07.PNG").write_bytes(b"")
    for _ in range(2):
        with pytest.raises(UserError, match="b/03.PNG: not an image"):
            make(folder, cache=cache).prepare_data()
    assert not [o for o in file.parent.iterdir() if "tmp" in o.name]


def test_writing_to_a_batch_does_not_reach_the_cache(cached):
    data, _ = cached()
    before = data.images[0].clone()
    data.images[0] = 0
    assert cached()[0].images[0].equal(before)


def test_a_cache_that_cannot_be_written(folder):
    (folder / "file").write_text("in the way")
    data = make(folder, cache=str(folder / "file/cache"))
    with pytest.raises(UserError) as error: data.prepare_data()
    line_of(error, folder / "file")


def plain(path):
    "The content of a file that may be gzipped."
    return gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()


def test_without_a_folder_things_go_to_the_users_cache(folder, full, tmp_path_factory, monkeypatch):
    home = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("USERPROFILE", str(home))
    make(folder, cache=True).prepare_data()
    assert sorted(o.suffix for o in (home / ".cache/mlkit").iterdir()) == KEPT
    mirror = Mirror({f"{name}.gz": gzip.compress(plain(o), mtime=0)
                     for name in IDX_FILES for o in full.glob(f"{name}*")})
    md5 = [hashlib.md5(mirror.files[f"{name}.gz"]).hexdigest() for name in IDX_FILES]
    monkeypatch.setitem(datasets()["mnist"], "md5", md5)
    MNIST(source="full", mirrors=[f"{mirror.url}/fine"]).prepare_data()
    names = sorted(o.name for o in (home / ".cache/mlkit/mnist").iterdir())
    assert names == sorted(f"{o}.gz" for o in IDX_FILES)
    mirror.server.shutdown()


def test_a_relative_folder_is_the_projects(monkeypatch, root, tmp_path):
    monkeypatch.chdir(root / "nbs")  # where a notebook runs
    assert ImageFolder("data/no/where").root == root / "data/no/where"
    assert MNIST(source="full", root="data/no/where").root == root / "data/no/where"
    assert ImageFolder("images").root == Path("images")  # it is here
    monkeypatch.chdir(tmp_path)  # no project
    assert ImageFolder("data/no/where").root == Path("data/no/where")


# With Lightning

class Tiny(pl.LightningModule):
    def __init__(self, n):
        super().__init__()
        self.net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(n, 4))
        self.seen = []

    def training_step(self, batch, i):
        self.seen.append((self.current_epoch, *batch[1].tolist()))
        return torch.nn.functional.cross_entropy(self.net(batch[0]), batch[1] % 4)

    def validation_step(self, batch, i): self.net(batch[0])
    test_step = validation_step
    def predict_step(self, batch, i): return batch[1]
    def configure_optimizers(self): return torch.optim.SGD(self.parameters(), 0.01)


def trainer(**kwargs):
    quiet = dict(logger=False, enable_checkpointing=False, enable_progress_bar=False,
                 enable_model_summary=False)
    return pl.Trainer(**(dict(max_epochs=2, accelerator="cpu", devices=1) | quiet | kwargs))


@pytest.mark.parametrize("kind", ["mnist", "files", "cache"])
def test_fit_test_predict(folder, kind):
    def make_it():
        if kind == "mnist": return MNIST(batch_size=500)
        return make(folder, cache=str(folder / "cache") if kind == "cache" else False)
    data = make_it()
    first, again = Tiny(int(np.prod(data.in_shape))), Tiny(int(np.prod(data.in_shape)))
    trainer().fit(first, data)
    trainer().test(first, data)
    predicted = torch.cat(trainer().predict(first, data))
    assert predicted.equal(data.targets[data.rows["test"]])
    trainer().fit(again, make_it())
    assert first.seen == again.seen  # twice in one process
    epochs = [[o[1:] for o in first.seen if o[0] == e] for e in (0, 1)]
    assert epochs[0] != epochs[1] and sorted(sum(epochs[0], ())) == sorted(sum(epochs[1], ()))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["mnist", "files"])
def test_overfitting_sees_the_same_batches(folder, kind):
    data = MNIST(batch_size=50) if kind == "mnist" else make(folder)
    net = Tiny(int(np.prod(data.in_shape)))
    trainer(overfit_batches=1).fit(net, data)
    assert [o[1:] for o in net.seen][:1] == [o[1:] for o in net.seen][1:]


def test_using_a_model_needs_no_data(folder):
    data = make(folder)
    facts = data.facts()
    assert json.loads(json.dumps(facts)) == facts == dict(
        classes=["a", "b"], in_shape=[3, 16, 24], mean=[0.5] * 3, std=[0.5] * 3,
        resize="squash")
    picture = folder / "train/a/00.png"
    assert make("gone").read_image(picture).equal(data.read_image(picture))


@pytest.mark.parametrize("resize", ["squash", "crop", "pad"])
def test_what_gives_way_in_a_folder_of_pictures(tmp_path, resize):
    for name in ("a", "b"):
        (tmp_path / "p" / name).mkdir(parents=True)
        for i, (h, w) in enumerate([(40, 10), (10, 40), (20, 20), (1, 50)]):
            ramp = np.linspace(100, 255, h * w).astype("u1").reshape(h, w)
            Image.fromarray(ramp).save(tmp_path / "p" / name / f"{i}.png")
    def made(**kwargs):
        return ImageFolder(str(tmp_path / "p"), (16, 16), "L", 8, 1, resize=resize, **kwargs)
    plain, cached = made(), made(cache=str(tmp_path / "cache"))
    for data in (plain, cached): data.setup()
    want = torch.stack([decode_image(o, "L", (16, 16), resize) for o in plain.paths])
    assert torch.equal(cached.images, want) and cached.facts()["resize"] == resize
    x, _ = next(iter(cached.val_dataloader()))
    assert torch.equal(x[0], plain.read_image(plain.paths[plain.rows["val"][0]]))
    assert torch.equal(x, next(iter(plain.val_dataloader()))[0])
    assert plain.fingerprint() == cached.fingerprint()
    black = want.flatten(1).min(1).values == 0
    assert black.tolist() == [resize == "pad" and i % 4 != 2 for i in range(8)]
    other = ImageFolder(str(tmp_path / "p"), (16, 16), "L", 8, 1, cache=str(tmp_path / "cache"))
    other.setup()
    assert torch.equal(other.images, want) == (resize == "squash")
    assert (other.fingerprint() == plain.fingerprint()) == (resize == "squash")


def test_another_way_to_resize_is_refused():
    with pytest.raises(UserError, match="resize='fill': squash, crop, pad are expected"):
        ImageFolder("x", resize="fill")  # pyright: ignore


def test_modules_can_be_sent_to_another_process(folder):
    for data in (MNIST(), make(folder), make(folder, cache=str(folder / "cache"))):
        data.setup()
        again = pickle.loads(pickle.dumps(data))
        assert again.fingerprint() == data.fingerprint() and same(epoch_of(again), epoch_of(data))


def test_loader_is_torchs_own_without_a_cache(folder):
    loader = make(folder, num_workers=1).train_dataloader()
    assert isinstance(loader, DataLoader) and isinstance(loader.sampler, EpochSampler)


# Pictures

def test_show_images_and_batch(folder, tmp_path):
    images = [torch.randn(3, 8, 8) * 3, np.zeros((8, 8))]
    figure = show_images(images, [1, "two"], ["red", "green"], ncols=1)
    assert [ax.get_title() for ax in figure.axes] == ["1", "two"] and len(figure.axes) == 2
    assert figure.axes[0].title.get_color() == "red"
    drawn = figure.axes[0].images[0].get_array()
    assert drawn.shape == (8, 8, 3) and drawn.min() >= 0 and drawn.max() <= 1
    for data in (MNIST("fashion_mnist"), make(folder), make(folder, cache=str(folder / "cache"))):
        figure = data.show_batch(6)
        titles = [ax.get_title() for ax in figure.axes if ax.images]
        expected = torch.cat([y for _, y in epoch_of(data)])[:6]
        assert titles == [data.classes[t] for t in expected]  # what training sees first
        figure.savefig(tmp_path / "batch.png")
