"""Pictures from outside: damaged behind good checksums, of other formats than their names say."""
import io
import os
import random
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import EpsImagePlugin, Image, ImageOps
from torch.utils.data import DataLoader

from mlkit.base.errors import UserError, one_line
from mlkit.data.folder import ImageFolder
from mlkit.data.images import FORMATS, check_image, checked_image, decode_image, decode_mask
from mlkit.recipes.panodepth import read_depth, read_pair

NOISE = np.random.default_rng(0).integers(0, 256, (24, 20, 3), np.uint8)
SAVED = dict(png={}, jpeg=dict(quality=90), gif={}, tiff=dict(compression="tiff_lzw"), bmp={},
             webp=dict(lossless=True), ppm={}, jpeg2000={})


def saved(format: str, **kwargs) -> bytes:
    out = io.BytesIO()
    Image.fromarray(NOISE).save(out, format, **kwargs)
    return out.getvalue()


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(lines: bytes, w: int = 20, h: int = 24, color: int = 2, pack=zlib.compress) -> bytes:
    "A PNG whose checksums are right, whatever its pixels."
    head = struct.pack(">2I5B", w, h, 8, color, 0, 0, 0)
    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", pack(lines))
            + chunk(b"IEND", b""))


ROWS = b"".join(b"\0" + row.tobytes() for row in NOISE)
JPEG, SCAN = saved("jpeg", quality=90), saved("jpeg", quality=90).index(b"\xff\xda")
BAD_PIXELS = {
    "rows are missing": png(ROWS[:500]),
    "no pixel": png(b""),
    "no filter of that number": png(b"\x09" + ROWS[1:]),
    "no deflate": png(ROWS, pack=lambda o: o),
    "a byte of the stream": png(ROWS, pack=lambda o: zlib.compress(o)[:99] + b"\xff" * 9),
    "half a stream": png(ROWS, pack=lambda o: zlib.compress(o)[:300]),
    "a size that is not": png(ROWS, w=2000, h=2400),
    "a palette that is not": png(ROWS[:1] * 9, color=3),
    "a size of zero": png(ROWS, w=0),
    "a bomb": png(b"", w=60_000, h=60_000),
    "JPEG without its scan": JPEG[:SCAN] + b"\xff\xd9",
    "JPEG cut": JPEG[:SCAN + 40],
    "JPEG without tables": JPEG[:2] + JPEG[SCAN:],
    "GIF cut": saved("gif")[:-400], "BMP cut": saved("bmp")[:-400], "PPM cut": saved("ppm")[:-400],
    "WebP cut": saved("webp", lossless=True)[:-400],
    "TIFF cut": saved("tiff")[:-400], "JPEG 2000 cut": saved("jpeg2000")[:60],
}


@pytest.mark.parametrize("name", BAD_PIXELS)
def test_bad_pixels_behind_good_checksums(tmp_path, name):
    for label in "ab":
        (tmp_path / "train" / label).mkdir(parents=True)
        for i in range(3): Image.fromarray(NOISE).save(tmp_path / "train" / label / f"{i}.png")
    bad = tmp_path / "train" / "b" / "1.png"
    bad.write_bytes(BAD_PIXELS[name])
    data = ImageFolder(str(tmp_path), size=(8, 8), batch_size=2, val_size=1)
    for read in (data.prepare_data, lambda: decode_image(bad, "RGB", (8, 8))):
        with pytest.raises(UserError, match=r"b/1.png: not an image that can be read \(\S") as e:
            read()
        assert "\n" not in str(e.value)


@pytest.mark.parametrize("format", SAVED)
def test_what_passes_the_check_is_decoded(tmp_path, format):
    def signed(raw: bytearray):  # a PNG's checksums, as if nothing had happened
        at = 8
        while at + 12 + (n := int.from_bytes(raw[at:at + 4])) <= len(raw) - 12:
            raw[at + 8 + n:at + 12 + n] = struct.pack(">I", zlib.crc32(raw[at + 4:at + 8 + n]))
            at += 12 + n
    path, rng, whole = tmp_path / "a.png", random.Random(format), saved(format, **SAVED[format])
    path.write_bytes(whole)
    assert len(check_image(path)) == 64 and decode_image(path, "RGB", (8, 8)).shape == (3, 8, 8)
    for mode in ("L", "RGB"):
        for _ in range(60):
            raw = bytearray(whole)
            for _ in range(rng.choice((1, 1, 3, 20))):
                raw[rng.randrange(len(raw))] = rng.randrange(256)
            if format == "png": signed(raw)
            path.write_bytes(raw[:rng.choice((None, None, rng.randrange(len(raw))))])
            try: check_image(path, mode)
            except UserError: continue
            decode_image(path, mode, (8, 8))


EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n%%EOF\n"
PROGRAMS = {
    "EPS": EPS, "EPS of DOS": b"\xc5\xd0\xd3\xc6" + struct.pack("<6I", 30, 99, 0, 0, 0, 0) + EPS,
    "PDF": b"%PDF-1.4\n", "PostScript": b"%!PS\n%%BoundingBox: 0 0 9 9\nshowpage\n",
    "WMF": b"\xd7\xcd\xc6\x9a\0\0" + bytes(90), "XPM": b'/* XPM */\n"1 1 1 1",\n',
    "FITS": b"SIMPLE  =                    T" + bytes(3000), "PSD": b"8BPS\0\1" + bytes(90),
    "PCX": b"\x0a\5\1\10" + bytes(200), "SVG": b"<svg/>", "DDS": b"DDS " + bytes(200),
    "ICNS": b"icns\0\0\0\x10abcd\0\0\0\x08", "MPEG": b"\0\0\1\xb3" + bytes(90)}


@pytest.mark.parametrize("kind", PROGRAMS)
def test_no_program_is_started_for_a_picture(tmp_path, monkeypatch, kind):
    mark, gs = tmp_path / "mark", tmp_path / "bin" / "gs"
    gs.parent.mkdir()
    gs.write_text(f"#!/bin/sh\ntouch {mark}\n")
    gs.chmod(0o755)
    monkeypatch.setenv("PATH", str(gs.parent))
    monkeypatch.setattr(EpsImagePlugin, "gs_binary", None)
    for suffix in (".png", ".jpg", ".JPEG"):
        path = tmp_path / f"a{suffix}"
        path.write_bytes(PROGRAMS[kind])
        for read in (check_image, lambda o: decode_image(o, "L", (9, 9)),
                     lambda o: read_pair(o, o, (9, 9), 9.)):
            with pytest.raises(UserError, match="not an image that can be read"): read(path)
    with pytest.raises(UserError): read_depth(tmp_path / "a.png")
    assert not mark.exists()


def test_what_was_read_before_is_read_still(tmp_path):
    for format, options in SAVED.items():
        path = tmp_path / f"{format}.png"
        path.write_bytes(saved(format, **options))
        near = decode_image(path, "RGB", (24, 20)).float() - torch.tensor(NOISE).permute(2, 0, 1)
        assert near.abs().mean() < (90 if format in ("gif", "jpeg") else 1)
    for mode in ("1", "L", "P", "LA", "RGBA", "CMYK", "I;16"):
        image = Image.fromarray(NOISE).convert("L" if mode == "I;16" else mode)
        if mode == "I;16": image = image.convert("I").convert("I;16")
        file = tmp_path / f"mode.{'jpg' if mode == 'CMYK' else 'png'}"
        image.save(file)
        check_image(file)
        assert decode_image(file, "L", (8, 8)).shape == (1, 8, 8)


def in_full(path, mode, size, resize):
    "As `decode_image` without a draft, by Pillow's own functions."
    image = ImageOps.exif_transpose(Image.open(path)).convert(mode)
    if resize == "crop": image = ImageOps.fit(image, size[::-1], Image.Resampling.BILINEAR)
    if resize == "pad":
        scale = min(size[1] / image.width, size[0] / image.height)
        inner, whole = [max(1, round(o * scale)) for o in image.size], Image.new(mode, size[::-1])
        place = ((size[1] - inner[0]) // 2, (size[0] - inner[1]) // 2)
        whole.paste(image.resize(inner, Image.Resampling.BILINEAR), place)
        image = whole
    image = image.resize(size[::-1], Image.Resampling.BILINEAR)
    return torch.from_numpy(np.array(image)).view(*size, -1).permute(2, 0, 1)


@pytest.mark.parametrize("kind", ["png", "jpeg", "progressive", "CMYK", "L", "MPO"])
def test_a_draft_looks_like_the_whole(tmp_path, kind):
    rough = Image.fromarray(np.random.default_rng(1).integers(0, 256, (6, 8, 3), np.uint8))
    path, how = tmp_path / "a", dict(format="PNG" if kind == "png" else "JPEG", quality=90)
    if kind == "MPO": how |= dict(format="MPO", save_all=True, append_images=[rough])
    for w, h in ((601, 399), (37, 2100)):
        image = rough.resize((w, h)).convert(kind if kind in ("CMYK", "L") else "RGB")
        for orientation in (1, 2, 5, 6, 8):
            exif = Image.Exif()
            exif[0x0112] = orientation
            image.save(path, exif=exif, progressive=kind == "progressive", **how)
            for mode, size, resize in (("RGB", (64, 64), "squash"), ("L", (24, 50), "crop"),
                                       ("RGB", (99, 33), "pad"), ("L", (90, 90), "pad")):
                found = decode_image(path, mode, size, resize)
                apart = (found.float() - in_full(path, mode, size, resize)).abs()
                assert apart.mean() < 1 and (kind != "png" or apart.max() == 0)
                digest, pixels = checked_image(path, mode, size, resize)
                assert pixels.equal(found) and digest == check_image(path)


def test_a_mask_is_read_in_full(tmp_path):
    lines = np.zeros((900, 1200), np.uint8)
    lines[::5] = 255  # a draft would be grey, which is no class
    Image.fromarray(lines).save(tmp_path / "a.jpg", quality=100)
    assert (decode_mask(tmp_path / "a.jpg", 2, (90, 120)) == 1).all()  # of rows 5, 15, …


def test_a_workers_message_comes_first(tmp_path):
    for label in "ab":
        (tmp_path / "train" / label).mkdir(parents=True)
        for i in range(3): Image.fromarray(NOISE).save(tmp_path / "train" / label / f"{i}.png")
    data = ImageFolder(str(tmp_path), size=(8, 8), batch_size=2, val_size=1, num_workers=1)
    data.prepare_data()
    for path in tmp_path.rglob("*.png"): path.write_bytes(b"")  # after the check
    with pytest.raises(UserError) as e: next(iter(data.loader("train")))
    assert "\n" in e.value.args[0] and str(e.value).endswith(f" {', '.join(FORMATS)})")
    assert one_line(e.value).startswith(f"UserError: {tmp_path}{os.sep}train")


class Raises(list):
    def __getitem__(self, i): raise super().__getitem__(i)


RAISED = Raises.__getitem__.__code__.co_firstlineno


@pytest.mark.parametrize("error, says", [
    (KeyError("a"), "KeyError: 'a' ("), (ValueError("bad\nsize"), "ValueError: bad size ("),
    (RuntimeError(""), "RuntimeError:  ("), (OSError(2, "no"), "FileNotFoundError: [Errno 2] no"),
    (UnicodeDecodeError("utf-8", b"a", 0, 1, "x"), "UnicodeDecodeError: 'utf-8' codec can't"),
    (ZeroDivisionError("\x1b[2J"), r"ZeroDivisionError: \x1b[2J ("),
    (UserError("a.png: no"), "UserError: a.png: no (")])
def test_of_a_workers_errors_the_message_is_told(error, says):
    loader = DataLoader(Raises([error]), num_workers=1)
    with pytest.raises(Exception, match="worker process|a.png") as e: next(iter(loader))
    line = one_line(e.value)
    assert line.startswith(says) and line.endswith(f" ({Path(__file__).name}:{RAISED})")
