"Panodepth: exact rooms, a closed seam, bad files by name, a model far better than the mean depth."
import base64
import math
import multiprocessing
import shutil
import signal
import subprocess
import sys
import time
import zlib
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("mlkit.recipes.panodepth")
import torch
from PIL import Image

from mlkit.all import Run, build, evaluate, load_config, load_run, train
from mlkit.cli import mlkit_train
from mlkit.model.augment import RandomFlip
from mlkit.recipes.panodepth import (
    MAE,
    RMSE,
    TRIPOD,
    CircularConv2d,
    Delta1,
    PanoBackbone,
    PanoData,
    PanoDepth,
    RandomTurn,
    cast_rays,
    half_if_gpu,
    known_l1,
    list_pairs,
    photograph,
    place_camera,
    poly_decay,
    random_room,
    ray_directions,
    read_depth,
    read_exr,
    room_points,
    write_exr,
    write_rooms,
)
from shell import job

ROOT = Path(__file__).resolve().parent.parent
CONFIG = str(ROOT / "configs" / "panodepth.yaml")
SMALL = ["trainer.accelerator=cpu", "trainer.max_epochs=1", "model.net.backbone.widths=[8,16]",
         "callbacks.progress=null"]


@pytest.fixture(scope="module")
def few(tmp_path_factory) -> Path:
    "A folder with 14 rooms, to be read."
    folder = tmp_path_factory.mktemp("few") / "rooms"
    write_rooms(folder, 14)
    return folder


@pytest.fixture
def mine(few, tmp_path) -> Path:
    "A copy of it, to be spoilt."
    return Path(shutil.copytree(few, tmp_path / "mine"))


def a_room(seed: int):
    rng = np.random.default_rng(seed)
    room = random_room(rng)
    return room, place_camera(room, rng)


# The rooms

def test_rays_in_an_empty_room_have_a_closed_form():
    width, depth, height, (x, y, z) = 5.0, 3.5, 2.7, (1.2, 2.3, 1.6)
    found, _, axis = cast_rays(np.array([x, y, z]), ray_directions(24, 48),
                               np.array([[[0, 0, 0], [width, depth, height]]]))
    for i in range(24):
        up = math.radians(90 - (i + 0.5) * 180 / 24)
        for j in range(48):
            left = math.radians(180 - (j + 0.5) * 360 / 48)
            cos, sin = math.cos(left), math.sin(left)
            wall = min(((width - x) if cos > 0 else -x) / cos,
                       ((depth - y) if sin > 0 else -y) / sin) / math.cos(up)
            end = ((height - z) if up > 0 else -z) / math.sin(up)
            assert found[i, j] == pytest.approx(min(wall, end), abs=1e-6)
            assert (axis[i, j] == 2) == (end < wall)


@pytest.mark.parametrize("seed", range(5))
def test_rays_in_a_furnished_room_end_at_what_they_meet_first(seed):
    room, camera = a_room(seed)
    rays = ray_directions(32, 64).reshape(3, -1)
    distance, box, axis = cast_rays(camera, rays, room.boxes)
    assert len(room.boxes) > 2 and len(set(box.tolist())) > 2
    for ray, d, b, a in zip(rays.T, distance, box, axis):
        end = camera + d * ray
        assert abs(room.boxes[b, :, a] - end[a]).min() < 1e-6
        for low, high in room.boxes[1:]:  # which part of the way there lies in this box?
            enter, leave = 0.0, d
            for k in range(3):
                ends = sorted([(low[k] - camera[k]) / ray[k], (high[k] - camera[k]) / ray[k]])
                enter, leave = max(enter, ends[0]), min(leave, ends[1])
            assert leave - enter < 1e-6


def test_depth_is_exact_and_unknown_behind_the_window():
    room, camera = a_room(0)
    rgb, depth = photograph(room, camera, (64, 128))
    distance, _, _ = cast_rays(camera, ray_directions(64, 128), room.boxes)
    assert rgb.shape == (64, 128, 3) and rgb.dtype == np.uint8
    window = depth == 0
    assert 0 < window.mean() < 0.2 and (rgb[window] == rgb[window][0]).all()
    assert np.allclose(depth[~window], distance[~window], atol=1e-6)
    points = room_points(depth) + camera
    assert np.isnan(points[window]).all()
    assert (points[~window] >= -1e-5).all() and (points[~window] <= room.boxes[0, 1] + 1e-5).all()
    assert np.nanmin(points[..., 2]) == pytest.approx(0, abs=1e-5) and camera[2] == TRIPOD


def test_the_same_seed_makes_the_same_files(few, tmp_path):
    write_rooms(tmp_path / "again", 14)
    write_rooms(tmp_path / "others", 14, seed=1)
    bytes_of = lambda root: {p.relative_to(root).as_posix(): p.read_bytes()
                             for p in root.rglob("*") if p.is_file()}
    assert bytes_of(few) == bytes_of(tmp_path / "again") and len(bytes_of(few)) == 3 + 14 * 2 * 2
    assert bytes_of(few).keys() == bytes_of(tmp_path / "others").keys()
    assert bytes_of(few) != bytes_of(tmp_path / "others")


def test_a_kill_leaves_nothing_half(tmp_path):
    making = multiprocessing.get_context("fork").Process(target=write_rooms,
                                                         args=(tmp_path / "rooms", 100_000))
    making.start()
    while not list(tmp_path.glob(".rooms.*/mp3d_rgbd/*/*_depth.exr")) and making.is_alive():
        time.sleep(0.05)
    making.kill()
    making.join()
    assert making.exitcode == -signal.SIGKILL and not (tmp_path / "rooms").exists()
    PanoData(str(tmp_path / "rooms"), sample=3).prepare_data()
    assert (tmp_path / "rooms" / "mp3d_scenes_test.txt").is_file()


# Files

# 8 x 16: Y in half floats, which counts up in eighths, and A in floats, all 1; ZIP.
# Written by OpenEXR 3.5.3's own library.
OPENEXR = zlib.decompress(base64.b85decode(
    "c-kw|H)LdDU|>kjNX*Mi%_#;lax#lc7*v5`jtn3f5MYGjNHB>k!jPPwTTql*T%4Johr$L)GN&Y#B!*|^rR0}0B;{8aWi"
    "kjbAOJrQvjcHTW^qAIVkJR!IhlE>{zWONMMx~L6ACgbQga-O3sRFyf)YzI^BK}|@)JuKSirg)?2D6&Qd9FF#yh9xl>oJ"
    "s8Kp6BAX$N|Bs?>vBm>QelFEWqhT@W<%)E34Ua<PaJdh(Ya}(238GINKCglKeMO?B1i_`*!ZjrD82Hu3gCMK~3j5=Nc3"
    "@cx$Ll}FnzArz*Z@$IE)YJ?J926L@{+5=OlA5qlm+|Y`3omk8E?r}}vVHN&?J5iQ39sT~)8Sb0-YGcW&!N_QR+TZ+tLh"
    "6^m>C|;WWNmnMq_pE"))


def test_exr_of_openexr_itself(tmp_path):
    (tmp_path / "theirs.exr").write_bytes(OPENEXR)
    assert (read_exr(tmp_path / "theirs.exr") == np.arange(128).reshape(8, 16) / 8).all()


@pytest.mark.parametrize("shape", [(1, 2), (16, 32), (37, 74)])
def test_exr_round_trip(tmp_path, shape):
    depth = np.random.default_rng(0).uniform(0, 10, shape).astype(np.float32)
    depth[: len(depth) // 2] = 0  # packs well; the rest does not
    write_exr(tmp_path / "a.exr", depth)
    assert (read_depth(tmp_path / "a.exr") == depth).all()


def test_exr_cut_anywhere_is_named(tmp_path):
    path = tmp_path / "cut.exr"
    for n in range(len(OPENEXR)):
        path.write_bytes(OPENEXR[:n])
        with pytest.raises(ValueError, match="cut.exr: (a damaged|not an) OpenEXR file"):
            read_exr(path)


def test_stanfords_lists_and_16_bit_png(mine):
    rgb, exr = list_pairs(mine)["train"][0]
    depth = read_depth(exr)
    steps = np.where(depth == 0, 65535, (depth * 512).round()).astype(np.uint16)
    (mine / "area_1").mkdir()
    Image.fromarray(steps).save(mine / "area_1" / "d.png")
    shutil.copy(rgb, mine / "area_1" / "c.png")
    (mine / "scenes_train.txt").write_text("area_1/c.png area_1/d.png\n")
    data = PanoData(str(mine), sample=None)
    data.setup()
    assert len(data.rows["train"]) == 1 and len(data.rows["test"])
    read = data.targets[data.rows["train"]][0, 0].numpy()
    assert ((read == 0) == ((depth == 0) | (steps / 512 > 10))).all()
    assert abs(read - depth)[read > 0].max() <= 1 / 1024 + 1e-6


def test_batches_from_files_are_those_from_memory(few):
    size = dict(size=(32, 64), dmax=4.0, batch_size=16)
    memory, files = (PanoData(str(few), None, num_workers=n, **size) for n in (None, 0))
    loaders = []
    for data in (memory, files):
        data.prepare_data()
        data.setup("fit")
        loader = data.train_dataloader()
        loader.sampler.set_epoch(3)
        loaders.append(list(loader))
    assert len(loaders[0]) == len(loaders[1]) == 2 and files.images is None
    for (x, depth), (y, other) in zip(*loaders):
        assert x.equal(y) and depth.equal(other) and x.shape[1:] == (3, 32, 64)
        assert 0 < depth.max() <= 4
    assert memory.fingerprint() == files.fingerprint() != PanoData(str(few), None,
                                                                   dmax=5.0).fingerprint()


def spoil_nan(root, rgb, depth):
    write_exr(depth, np.full((64, 128), np.nan, np.float32))
    return f"{depth}: 8,192 of 8,192 depths are NaN, infinite or negative"

def spoil_npy(root, rgb, depth):
    path = depth.with_suffix(".npy")
    np.save(path, np.where(read_depth(depth) == 0, np.nan, 1))
    depth.unlink()
    return f"{path}: {np.isnan(np.load(path)).sum():,} of 8,192 depths are NaN"

def spoil_size(root, rgb, depth):
    write_exr(depth, np.ones((32, 64), np.float32))
    return f"{depth}: is 32 x 64, but {rgb.name} is 64 x 128"

def spoil_missing(root, rgb, depth):
    depth.unlink()
    return f"{depth}: no such file, the depth of {rgb.name}"

def spoil_text(root, rgb, depth):
    rgb.write_text("no picture")
    return f"{rgb}: not an image that can be read"

def spoil_cut(root, rgb, depth):
    rgb.write_bytes(rgb.read_bytes()[:3000])
    return f"{rgb}: not an image that can be read"

def spoil_square(root, rgb, depth):
    Image.new("RGB", (64, 64)).save(rgb)
    return f"{rgb}: is 64 x 64; a panorama is twice as wide as high"

def spoil_list(root, rgb, depth):
    (root / "scenes_val.txt").unlink()
    return f"{root / 'scenes_val.txt'}: no such file; it lists the scenes of val"

def spoil_scene(root, rgb, depth):
    shutil.rmtree(rgb.parent)
    return f"{rgb.parent}: no such folder, or no *rgb.png in it"

def spoil_split(root, rgb, depth):
    (root / "scenes_val.txt").write_text(rgb.parent.name)
    return f"{root / 'scenes_val.txt'}: {rgb.parent.name} is in scenes_train.txt, too"

def spoil_8_bit(root, rgb, depth):
    depth.unlink()
    Image.new("L", (128, 64)).save(depth.with_suffix(".png"))
    return f"{depth.with_suffix('.png')}: 16 bits a pixel are expected, not mode L"

SPOILT = [f for name, f in list(globals().items()) if name.startswith("spoil_")]


@pytest.mark.parametrize("spoil", SPOILT, ids=lambda f: f.__name__)
def test_a_bad_file_is_one_line(mine, tmp_path, capsys, spoil):
    message = spoil(mine, *list_pairs(mine)["train"][3])
    code = mlkit_train([CONFIG, *SMALL, f"data.root={mine}", "data.sample=null",
                        f"runs={tmp_path / 'runs'}"])
    line = capsys.readouterr().err
    assert code == 2 and line.count("\n") == 1 and message in line
    assert not (tmp_path / "runs").exists()


def test_all_bad_files_are_found(mine, tmp_path):
    pairs = list_pairs(mine)["train"]
    for rgb, depth in pairs[:3]: write_exr(depth, np.full((64, 128), np.nan, np.float32))
    with pytest.raises(ValueError, match=rf"{pairs[0][1].name}: .* \(and 2 more bad files\)"):
        PanoData(str(mine), None).prepare_data()
    with pytest.raises(FileNotFoundError, match="nowhere: no such folder"):
        PanoData(str(tmp_path / "nowhere"), None).prepare_data()
    with pytest.raises(ValueError, match="sample=2: at least 3 scenes"):
        PanoData(str(tmp_path / "two"), 2).prepare_data()
    with pytest.raises(ValueError, match="a panorama is twice as wide"): PanoData(size=(64, 64))


# The seam

def test_a_circular_convolution_has_no_seam():
    torch.manual_seed(0)
    x = torch.randn(2, 3, 16, 32)
    for kernel, stride, k in ((3, 1, 1), (3, 1, 13), (5, 1, 7), (3, 2, 2), (3, 2, 6)):
        conv = CircularConv2d(3, 4, kernel, stride)
        assert conv(x).shape[-2:] == (16 // stride, 32 // stride)
        assert (conv(x.roll(k, -1)) - conv(x).roll(k // stride, -1)).abs().max() < 1e-5
    conv = CircularConv2d(3, 4)
    plain = torch.nn.functional.conv2d(x, conv.weight, conv.bias, padding=1)
    assert torch.allclose(conv(x)[..., 1:-1, 1:-1], plain[..., 1:-1, 1:-1], atol=1e-5)
    assert not torch.allclose(conv(x)[..., 0], plain[..., 0], atol=0.1)  # another at the seam
    with pytest.raises(ValueError, match="kernel_size=4"): CircularConv2d(3, 4, 4)


def test_the_net_turns_with_the_camera():
    torch.manual_seed(0)
    net, x = PanoDepth(PanoBackbone((8, 16, 24)), dmax=7.0).eval(), torch.randn(2, 3, 32, 64)
    with torch.inference_mode():
        out = net(x)
        assert out.shape == (2, 1, 32, 64) and 0 < out.min() and out.max() < 7
        for k in (16, 32, 48): assert (net(x.roll(k, -1)) - out.roll(k, -1)).abs().max() < 1e-5
        assert (net(x.roll(16, -2)) - out.roll(16, -2)).abs().max() > 1e-3
        huge = net(1e4 * x)
        assert 0 <= huge.min() and huge.max() <= 7


def test_augmentation_takes_depth_along():
    torch.manual_seed(0)
    depth = torch.rand(64, 1, 4, 8)
    x, turned = RandomTurn()(depth.expand(-1, 3, -1, -1), depth)
    assert x.equal(turned.expand_as(x))
    shifts = [next(k for k in range(8) if turned[i].equal(depth[i].roll(-k, -1)))
              for i in range(64)]
    assert set(shifts) == set(range(8))
    x, mirrored = RandomFlip()(depth.expand(-1, 3, -1, -1), depth)
    assert x.equal(mirrored.expand_as(x)) and not mirrored.equal(depth)
    augment = build(load_config(CONFIG).model.augment)
    assert [type(t).__name__ for t in augment.transforms] == ["RandomTurn", "RandomFlip"]


# Loss, metrics, learning rate

def test_loss_and_metrics_are_those_of_a_plain_loop():
    rng = torch.Generator().manual_seed(0)
    batches = [(torch.rand(n, 1, 8, 16, generator=rng) * 10,
                torch.rand(n, 1, 8, 16, generator=rng) * 10) for n in (4, 1, 3)]
    metrics, errors, squares, right = (MAE(), RMSE(), Delta1()), [], [], []
    for pred, target in batches:
        target[torch.rand(target.shape, generator=rng) < 0.3] = 0
        mine = []
        for p, t in zip(pred.double().flatten().tolist(), target.double().flatten().tolist()):
            if t == 0: continue
            mine.append(abs(p - t))
            squares.append((p - t) ** 2)
            right.append(max(p / t, t / p) < 1.25)
        errors += mine
        assert known_l1(pred, target).item() == pytest.approx(sum(mine) / len(mine), abs=1e-6)
        for m in metrics: m.update(pred, target)
    mean = lambda values: sum(values) / len(values)
    wanted = mean(errors), math.sqrt(mean(squares)), mean(right)
    assert [m.compute().item() for m in metrics] == pytest.approx(wanted, abs=1e-6)
    halves = Delta1(), Delta1()
    for m, batch in zip(halves, (batches[:1], batches[1:])): [m.update(*b) for b in batch]
    total, pixels = sum(m.total for m in halves), sum(m.pixels for m in halves)
    assert total / pixels == metrics[2].compute()  # as over two devices


def test_what_is_not_known_teaches_nothing():
    pred, target = torch.rand(1, 1, 4, 8, requires_grad=True), torch.ones(1, 1, 4, 8)
    target[..., :3] = 0
    known_l1(pred, target).backward()
    assert (pred.grad[..., :3] == 0).all() and (pred.grad[..., 3:] != 0).all()
    assert known_l1(pred, torch.zeros_like(target)) == 0


def test_the_learning_rate_falls_along_the_polynomial_to_zero(few, tmp_path):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.5)
    decay = poly_decay(optimizer, 20, power=2.0)
    for step in range(25):
        assert optimizer.param_groups[0]["lr"] == pytest.approx(0.5 * max(0, 1 - step / 20) ** 2,
                                                                abs=1e-12)
        optimizer.step()
        decay.step()
    run = train(CONFIG, *SMALL, f"data.root={few}", "data.batch_size=4", f"runs={tmp_path}",
                "scheduler.scheduler.power=0.5")
    saved = torch.load(run.dir / "checkpoints" / "last.ckpt", weights_only=True)
    (state,) = saved["lr_schedulers"]
    assert saved["global_step"] == state["last_epoch"] == 6 and state["_last_lr"] == [0]


# What the trainer is told

def test_half_precision_where_the_device_has_it(few, tmp_path):
    assert half_if_gpu("gpu") == half_if_gpu("cuda") == "16-mixed"
    assert half_if_gpu("cpu") == "32-true"
    assert build(load_config(CONFIG, "trainer.accelerator=cpu").trainer.precision) == "32-true"
    assert build(load_config(CONFIG, "trainer.accelerator=gpu").trainer.precision) == "16-mixed"
    run = train(CONFIG, *SMALL, f"data.root={few}", f"runs={tmp_path}",
                "trainer.precision=bf16-mixed")
    assert run.model.trainer.precision == "bf16-mixed" and math.isfinite(run.metrics["test/mae"])
    with torch.autocast("cpu", torch.bfloat16): out = run.model(torch.zeros(1, 3, 64, 128))
    assert out.dtype == torch.float32  # metres are never halved


@pytest.mark.slow
def test_two_devices_are_ddp_by_themselves(few, tmp_path):
    (tmp_path / "go.py").write_text(
        "import sys\nfrom pytorch_lightning import Callback, Trainer\nfrom mlkit.cli import "
        "mlkit_train\nfit = Trainer.fit\n"
        "def told(self, *args, **kwargs):\n    print('fit with', type(self.strategy).__name__, "
        "self.world_size, flush=True)\n"
        "    return fit(self, *args, **kwargs)\nTrainer.fit = told\nsys.exit(mlkit_train())\n")
    words = [CONFIG, *SMALL, "trainer.devices=2", f"data.root={few}", f"runs={tmp_path / 'runs'}"]
    done = subprocess.run([sys.executable, tmp_path / "go.py", *words], cwd=ROOT,
                          capture_output=True, text=True,
                          timeout=300, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("fit with DDPStrategy 2") == 2
    (folder,) = tmp_path.glob("runs/panodepth/*")
    run = Run(folder)
    assert run.status == "done"
    alone = evaluate(folder, "trainer.devices=1")  # the sums of both processes are those of one
    assert {k: run.metrics[k] for k in ("test/mae", "test/rmse", "test/delta1")} == pytest.approx(
        {k: alone[k] for k in ("test/mae", "test/rmse", "test/delta1")}, abs=1e-5)


def logged_to(tmp_path) -> list[str]:
    return ["logger=panodepth_versions", f"logger.tensorboard.save_dir={tmp_path}/logs",
            "logger.tensorboard.name=rooms",
            "logger.tensorboard.version=wide"]


def test_hyperparameters_reach_tensorboard(few, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData
    train(CONFIG, *SMALL, *logged_to(tmp_path), f"data.root={few}", f"runs={tmp_path / 'runs'}",
          "optimizer.lr=0.0123")
    folder = tmp_path / "logs" / "rooms" / "wide"
    assert list(folder.glob("events.out.tfevents.*"))
    assert "optimizer.lr: 0.0123" in (folder / "hparams.yaml").read_text()
    events = EventAccumulator(str(folder))
    events.Reload()
    assert {"train/mae", "val/delta1", "test/rmse"} <= set(events.Tags()["scalars"])
    content = events.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
    hparams = HParamsPluginData.FromString(content).session_start_info.hparams
    assert hparams["optimizer.lr"].number_value == 0.0123
    assert hparams["data.dmax"].number_value == 10
    scheduler = hparams["scheduler.scheduler._target_"].string_value
    assert scheduler == "mlkit.recipes.panodepth.poly_decay"


def test_debug_makes_no_logger(few, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = train(CONFIG, *SMALL, "logger=panodepth_versions", "debug=fast", f"data.root={few}")
    loggers = run.model.trainer.loggers
    assert [type(o).__name__ for o in loggers] == ["CSVLogger"]  # the run's own
    assert not run.dir.exists() and not list(tmp_path.iterdir())


# The whole job

def mean_depth_baseline(data: PanoData) -> dict[str, float]:
    depths = data.targets[data.rows["train"]]
    mean = depths[depths > 0].mean()
    metrics = dict(mae=MAE(), delta1=Delta1())
    for _, depth in data.test_dataloader():
        for m in metrics.values(): m.update(mean.expand_as(depth), depth)
    return {name: m.compute().item() for name, m in metrics.items()}


@pytest.mark.slow
def test_the_job_from_the_shell(tmp_path, figure):
    run, seconds = job(tmp_path / "runs", "panodepth", f"data.root={tmp_path / 'rooms'}")
    figure(f"panodepth: test/delta1 {run.metrics['test/delta1']:.3f}, test/mae "
           f"{run.metrics['test/mae']:.3f} in {seconds:.0f} s")
    run = load_run(run.dir)
    run.datamodule.prepare_data()
    assert run.info["data"] == run.datamodule.fingerprint()
    baseline = mean_depth_baseline(run.datamodule)
    assert run.metrics["test/delta1"] >= 0.85 > baseline["delta1"]
    assert run.metrics["test/mae"] <= 0.5 * baseline["mae"]
    assert {f"{stage}/{name}" for stage in ("train", "val", "test")
            for name in ("loss", "mae", "rmse", "delta1")} <= set(run.metrics)
    data = run.datamodule
    rooms = {split: {data.pairs[i][0].parent for i in rows} for split, rows in data.rows.items()}
    assert not rooms["train"] & rooms["test"] and len(rooms["test"]) == 50
    rgb, exr = data.pairs[data.rows["test"][0]]
    with torch.inference_mode(): depth = run.model(run.datamodule.read_image(rgb)[None])
    truth = torch.from_numpy(read_depth(exr))[None, None]
    assert depth.is_inference() and depth.shape == truth.shape
    assert known_l1(depth, truth) < baseline["mae"]
