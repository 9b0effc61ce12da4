"""`predict`: what a model is given, what it takes, what it answers; with the run's folder alone."""
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import pytorch_lightning as pl
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Subset, TensorDataset

from mlkit.base.errors import NotFound, UserError
from mlkit.cli import mlkit_predict
from mlkit.data.base import ImageData
from mlkit.data.images import decode_image
from mlkit.run.folder import Run
from mlkit.train import train
from mlkit.use import predict, trained

HERE = __name__.rpartition(".")[2]
X = torch.randn(12, 4, generator=torch.Generator().manual_seed(0))
NAMES = ["ant", "bee", "cat"]


@pytest.fixture(scope="module", autouse=True)
def tests_are_importable():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(Path(__file__).parent))
        yield


class Rows(pl.LightningDataModule):
    "Reads its file as soon as it is made."
    def __init__(self, root: str):
        super().__init__()
        self.x = torch.from_numpy(np.load(root))

    def batches(self, x: Tensor): return DataLoader(TensorDataset(x, x.sum(1, keepdim=True)), 5)
    def train_dataloader(self): return self.batches(self.x)
    def predict_dataloader(self): return self.batches(self.x)


class Named(Rows):
    def facts(self): return dict(classes=NAMES)


class Bare(Rows):
    def predict_dataloader(self): return [DataLoader(self.x, 5), DataLoader(self.x[:3], 2)]


class None_(Rows):
    predict_dataloader = pl.LightningDataModule.predict_dataloader


class Net(pl.LightningModule):
    def __init__(self, k: int = 1):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, k))

    def forward(self, x): return self.net(x)
    def training_step(self, batch, i):
        return F.mse_loss(self.net(batch[0]).mean(1, keepdim=True), batch[1])
    def configure_optimizers(self): return torch.optim.SGD(self.parameters(), 0.01)


class TakesFirst(Net):
    def predict_step(self, batch, i): return self(batch[0])


class TakesPair(Net):
    def predict_step(self, batch, i):
        x, _ = batch
        return self(x)


class TakesTensor(Net):
    def predict_step(self, x, i): return self(x)


class TakesAny(Net):
    def predict_step(self, batch, i):
        return self(batch[0] if isinstance(batch, (tuple, list)) else batch)


class TakesAlone(Net):
    def predict_step(self, batch): return self(batch[0])  # pyright: ignore


class TakesDict(Net):
    def predict_step(self, batch, i): return self(batch["x"])


@dataclass
class Found:
    logits: Tensor
    texts: list


class Heads(Net):
    def predict_step(self, batch, i):
        out = self(batch[0])
        return Found(out, [f"row {i}" for i in range(len(out))])


class Texts(Net):
    def predict_step(self, batch, i): return [dict(box=o[:2]) for o in batch[0]]


class Maps(Net):
    def predict_step(self, batch, i): return self(batch[0])[..., None, None].expand(-1, -1, 2, 3)


class Chances(Net):
    def predict_step(self, batch, i): return self(batch[0]).softmax(1)


class Numbers(Net):
    def predict_step(self, batch, i): return self(batch[0]).argmax(1)


class Mean(Net):
    def predict_step(self, batch, i): return self(batch[0]).mean()


class Broken(Net):
    def predict_step(self, batch, i): return self(batch[0] @ torch.ones(9, 9))


class Mute(Net):
    forward = pl.LightningModule.forward


def run_of(folder: Path, model: str = "Net", data: str = "Rows", trainer: dict | None = None,
           **kwargs) -> Path:
    "A run whose data is gone."
    np.save(folder / "x.npy", X.numpy())
    run = train(dict(
        name="a", runs=str(folder), model=dict(_target_=f"{HERE}.{model}", **kwargs),
        data=dict(_target_=f"{HERE}.{data}", root=str(folder / "x.npy")),
        trainer=dict(max_epochs=1, accelerator="cpu", **(trainer or {})),
        callbacks=dict(progress=None, checkpoint=dict(monitor=None))))
    (folder / "x.npy").unlink()
    return run.dir


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path: return run_of(tmp_path_factory.mktemp("runs"))


def answers(run: Path, x: Tensor = X) -> list[float]:
    with torch.inference_mode(): return trained(str(run)).net(x)[:, 0].tolist()


def value(found) -> list[float]: return found.table["value"].tolist()


TABLE = pd.DataFrame(X.numpy(), columns=list("abcd"), index=[f"r{i}" for i in range(12)])


@pytest.mark.parametrize("inputs", [
    X, X.numpy(), X.numpy().astype("f8"), X.numpy()[::-1][::-1], X.numpy().astype(">f4"), [*X],
    X.tolist(), TABLE, (X,), DataLoader(X.clone(), 5),  # pyright: ignore
    DataLoader(TensorDataset(X, X), batch_size=5), TensorDataset(X),
    Subset(TensorDataset(X, X), range(12))],
    ids=lambda o: type(o).__name__)
def test_arrays_tables_and_loaders_need_no_data(run, inputs):
    if isinstance(inputs, tuple): inputs = inputs[0]
    found = predict(run, inputs)
    assert value(found) == pytest.approx(answers(run), abs=1e-6) and not found.problems
    assert list(found.table) == ["value"]
    index = TABLE.index if inputs is TABLE else range(12)
    assert [*found.table.index] == [*index]


@pytest.mark.parametrize("name", ["x.npy", "x.npz", "x.pt", "x.csv", "x.parquet"])
def test_files_of_numbers(run, tmp_path, name, capsys):
    file = tmp_path / name
    if name == "x.npy": np.save(file, X.numpy())
    elif name == "x.npz": np.savez(file, x=X.numpy())
    elif name == "x.pt": torch.save(X, file)
    elif name == "x.csv": TABLE.to_csv(file, index=False)
    else: TABLE.to_parquet(file)
    if name == "x.npz":
        run = run_of(tmp_path, "TakesDict")
        assert value(predict(run, file)) == pytest.approx(answers(run), abs=1e-6)
        return
    assert value(predict(run, file)) == pytest.approx(answers(run), abs=1e-5)
    assert mlkit_predict([str(run), str(file)]) == 0
    assert capsys.readouterr().out.startswith(f"row,value\n{'r0' if 'parq' in name else 0},")
    file.write_bytes(b"no numbers, \0\n\"")
    assert mlkit_predict([str(run), str(file)]) == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert len(said) == 1 and (str(file) in said[0] or "column" in said[0])


@pytest.mark.parametrize("model", ["TakesFirst", "TakesPair", "TakesTensor", "TakesAny",
                                   "TakesAlone"])
def test_a_model_gets_an_array_as_it_wants_it(tmp_path, model):
    run = run_of(tmp_path, model, k=3)
    want = predict(run_of(tmp_path, k=3), X).table
    assert list(want) == ["value_0", "value_1", "value_2"]
    for n in (12, 3, 2, 1):  # as many as there are answers, too
        assert np.allclose(predict(run, X[:n]).table, want[:n], atol=1e-6)
    if model == "TakesPair":
        assert value(predict(run_of(tmp_path, model), (X, X))) == value(predict(
            run_of(tmp_path), X))


WHOLE = (3 * X).int()


@pytest.mark.parametrize("inputs, x", [
    (X[3], X[3:4]), (X[3].numpy(), X[3:4]), (X[3].tolist(), X[3:4]), (WHOLE, WHOLE),
    (WHOLE.tolist(), WHOLE), (WHOLE.short(), WHOLE), (WHOLE[2], WHOLE[2:3]), ({"x": X}, X)],
    ids=lambda o: f"{type(o).__name__}{len(o)}")
def test_what_an_array_may_be_meant_as(run, inputs, x):
    "One input without a batch's axis, whole numbers, the only array of several."
    assert value(predict(run, inputs)) == pytest.approx(answers(run, x.float()), abs=1e-5)


def test_what_an_array_may_be_meant_as_by_a_model_with_a_step(tmp_path):
    run = run_of(tmp_path, "TakesAny")
    for inputs, x in ((X[3], X[3:4]), (WHOLE, WHOLE), ({"x": WHOLE[2]}, WHOLE[2:3])):
        assert value(predict(run, inputs)) == pytest.approx(answers(run, x.float()), abs=1e-5)


def test_a_file_of_one_array_is_it(run, tmp_path, capsys):
    np.savez(tmp_path / "x.npz", X.numpy())
    assert value(predict(run, tmp_path / "x.npz")) == pytest.approx(answers(run), abs=1e-6)


def test_an_empty_cell_is_told(run, tmp_path, capsys):
    table = TABLE.reset_index(drop=True)
    table.iloc[[1, 3, 4, 7, 9], 2] = np.nan
    table.to_csv(tmp_path / "x.csv", index=False)
    assert mlkit_predict([str(run), str(tmp_path / "x.csv"), "-o", str(tmp_path / "y.csv")]) == 0
    assert capsys.readouterr().err.splitlines() == [
        *(f"row {i}: its answer is not a number: is a cell of its input empty?" for i in (1, 3, 4)),
        "and so in 2 more rows"]
    assert pd.read_csv(tmp_path / "y.csv")["value"].isna().sum() == 5


@pytest.mark.parametrize("end", [".xlsx", ".XLS", ".parquet", ".json"])
def test_an_answer_is_a_csv_file(run, tmp_path, end, capsys):
    out = tmp_path / f"out{end}"
    assert mlkit_predict([str(run), str(tmp_path / "x.npy"), "-o", str(out)]) == 2
    says = f"{out}: a CSV file is written, which {out}.csv would say\n"
    assert capsys.readouterr().err == says
    assert not out.exists()


def test_its_own_loader_is_asked(tmp_path):
    kinds = [("Net", "Rows"), ("TakesFirst", "Rows"), ("TakesPair", "Named"), ("Net", "Bare")]
    for model, data in kinds:
        run = run_of(tmp_path, model, data)
        with pytest.raises(UserError, match=r"config.yaml:\d+:\d+: data: .*No such file"):
            predict(run)
        np.save(tmp_path / "moved.npy", X.numpy())
        found = predict(run, None, f"data.root={tmp_path}/moved.npy")
        x = torch.cat([X, X[:3]]) if data == "Bare" else X
        assert value(found) == pytest.approx(answers(run, x), abs=1e-6)
        assert [*found.table.index] == [*range(len(x))]
        if data == "Bare": assert found.table["loader"].tolist() == [0] * 12 + [1] * 3
    run = run_of(tmp_path, data="None_")
    with pytest.raises(UserError, match="None_ has no predict_dataloader: give files, arrays"):
        predict(run, None, f"data.root={tmp_path}/moved.npy")


@pytest.mark.parametrize("model, columns", [
    ("Heads", ["logits", "texts"]), ("Texts", ["answer"]), ("Numbers", ["label"]),
    ("Chances", ["label", "probability"]), ("TakesFirst", ["label", "probability"]),
    ("Net", ["label", "probability"])])
def test_answers_of_many_kinds(tmp_path, model, columns):
    one = model in ("Heads", "Texts")
    run = run_of(tmp_path, model, "Named", k=1 if one else 3)
    table = predict(run, X).table
    assert list(table) == columns and len(table) == 12
    with torch.inference_mode(): logits = trained(str(run)).net(X)
    if model == "Heads": assert table["texts"][3] == "row 3" and table["logits"][3] == logits[3]
    if model == "Texts": assert table["answer"][0].startswith('{"box": [')
    if one: return
    best = logits.softmax(1).max(1)
    assert [*table["label"]] == [NAMES[i] for i in best.indices]
    if model == "Numbers": return
    assert [*table["probability"]] == pytest.approx(best.values.tolist(), abs=1e-6)
    every = predict(run, X, probabilities=True).table
    assert list(every) == [*columns, *(f"probability_{o}" for o in NAMES)]
    assert every.iloc[:, 2:].sum(axis=1).tolist() == pytest.approx([1] * 12, abs=1e-6)


@pytest.mark.parametrize("classes", [3, 1.5, "abc", True, ["ant"], [], {"x": 1}, [[1], {}, None]])
def test_what_run_json_says_of_the_classes_may_be_anything(tmp_path, classes):
    run = run_of(tmp_path, "Net", "Named", k=3)
    Run(run).update(data_facts=dict(classes=classes))
    assert len(predict(run, X).table) == 12


def test_maps_are_kept_or_written(tmp_path, capsys):
    run = run_of(tmp_path, "Maps")
    found = predict(run, X)
    assert found.dense["answer"].shape == (12, 1, 2, 3) and len(found.table) == 12
    assert [*predict(run, TABLE).table.index] == [*TABLE.index]
    written = predict(run, TABLE, folder=tmp_path / "maps").table
    assert Path(written["answer"]["r3"]).name == "00003_r3_answer.npy"
    written = predict(run, X, folder=tmp_path / "maps")
    assert np.array_equal(np.load(written.table["answer"][3]), found.dense["answer"][3])
    np.save(tmp_path / "x.npy", X.numpy())
    assert mlkit_predict([str(run), str(tmp_path / "x.npy")]) == 2
    assert "-o OUT.csv" in capsys.readouterr().err
    assert mlkit_predict([str(run), str(tmp_path / "x.npy"), "-o", str(tmp_path / "o.csv")]) == 0
    rows = pd.read_csv(tmp_path / "o.csv")
    assert np.load(rows["answer"][11]).shape == (1, 2, 3)
    assert len(os.listdir(tmp_path / "o_files")) == 12


@pytest.mark.parametrize("model, inputs, says", [
    ("Net", [], "an empty list"), ("Net", X[:0], "rows are expected"), ("Net", 5, "rows are"),
    ("Net", [[1.0], [1.0, 2.0]], "no array can be made"), ("Net", (X, X[:2]), "there are 12, 2"),
    ("Net", TABLE.assign(b="t"), "column 'b' holds no numbers"), ("Net", "no.png", "no such file"),
    ("Mute", X, "Mute has no predict_step and no forward"),
    ("Mean", X, r"an answer for each of the 12 inputs .* tensor of shape \(\)")])
def test_what_cannot_be_asked_is_one_line(tmp_path, model, inputs, says):
    with pytest.raises(UserError, match=says) as e: predict(run_of(tmp_path, model), inputs)
    assert "\n" not in str(e.value)


def test_an_error_of_the_models_own_stays_what_it_is(tmp_path):
    with pytest.raises(RuntimeError, match="12x4 and 9x9"): predict(run_of(tmp_path, "Broken"), X)
    with pytest.raises(RuntimeError, match="12x3 and 4x8"): predict(run_of(tmp_path), X[:, :3])


def double(accelerator: str): return "64-true" if accelerator == "cpu" else "32-true"


def test_the_precision_of_the_run_counts(tmp_path):
    node = dict(_target_=f"{HERE}.double", accelerator="${trainer.accelerator}")
    run = run_of(tmp_path, "Bits", trainer=dict(precision=node))
    assert value(predict(run, X)) == [64.0] * 12


class Bits(Net):
    def predict_step(self, batch, i):
        return torch.full(batch[0].shape[:1], 8.0 * batch[0].element_size())


def test_only_the_model_of_a_config_has_to_be_right(run, tmp_path):
    other = shutil.copytree(run, tmp_path / "b" / run.name)
    for old, new in ((f"{HERE}.Rows", "gone.Data"), ("pytorch_lightning.Trainer", "gone.Trainer")):
        text = (other / "config.yaml").read_text()
        assert old in text
        (other / "config.yaml").write_text(text.replace(old, new))
    assert value(predict(other, X, trust=["gone"])) == value(predict(run, X))
    assert value(predict(other, X)) == value(predict(run, X))
    with pytest.raises(UserError, match="gone"): predict(other)
    with pytest.raises(UserError, match="model.k"): predict(other, X, "model.k=many")


# -- pictures

class Squares(ImageData):
    "Dark and bright pictures, as wide as high."
    classes, in_shape = ["dark", "bright"], (3, 8, 8)

    def __init__(self, gone: bool = False, resize: str = "pad"):
        super().__init__(8, 0, (0.5,) * 3, (0.5,) * 3)
        if gone: raise FileNotFoundError("the pictures")
        self.resize = resize  # pyright: ignore

    def read_data(self):
        y = torch.arange(40) % 2
        x = (y * 200)[:, None, None, None].expand(-1, 3, 8, 8).byte()
        return x, y, dict(zip(("train", "val", "test"), torch.arange(40).split([24, 8, 8])))


class OwnReader(Squares):
    def read_image(self, path): return super().read_image(path) * 0


@pytest.fixture(scope="module")
def seen(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("seen")
    return train(dict(
        name="s", runs=str(folder), data=dict(_target_=f"{HERE}.Squares"),
        defaults=[dict(model="classifier")],
        model=dict(net=dict(_target_="mlkit.model.nets.ConvNet", in_channels=3, num_classes=2)),
        trainer=dict(max_epochs=1, accelerator="cpu"), callbacks=dict(progress=None))).dir


def test_pictures_in_any_form_are_read_alike_without_the_data(seen, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (3, 8, 20, 3), np.uint8)
    images = [Image.fromarray(o) for o in pixels]
    (tmp_path / "new").mkdir()
    for i, o in enumerate(images): o.save(tmp_path / "new" / f"{i}.png")
    (tmp_path / "new" / "broken.png").write_text("none")
    (tmp_path / "new" / "table.csv").write_text("a\n1")
    first = predict(seen, tmp_path / "new", "data.gone=true", probabilities=True)
    assert [Path(o).name for o in first.table["file"]] == ["0.png", "1.png", "2.png"]
    assert len(first.problems) == 2 and first.table.shape == (3, 5)
    x = torch.stack([(decode_image(o, "RGB", (8, 8), "pad") / 127.5 - 1) for o in pixels])
    as_torch = torch.from_numpy(pixels).permute(0, 3, 1, 2)
    for same in (pixels, as_torch, as_torch.numpy(), images, x, x.numpy(), [*x]):
        table = predict(seen, same, probabilities=True).table
        assert np.allclose(table.iloc[:, -2:], first.table.iloc[:, -2:], atol=1e-5)
    assert np.allclose(predict(seen, x[0], probabilities=True).table.iloc[0, -2:].astype(float),
                       first.table.iloc[0, -2:].astype(float), atol=1e-5)
    for one in (images[0], pixels[0], as_torch[0], np.dstack([pixels[0], pixels[0][..., :1]]),
                [images[0], pixels[1][:, ::2]]):
        table = predict(seen, one, probabilities=True).table
        assert np.allclose(table.iloc[0, -2:].astype(float),
                           first.table.iloc[0, -2:].astype(float), atol=1e-5)
        assert len(table) == (2 if isinstance(one, list) else 1)
    assert list(predict(seen).table) == ["label", "probability"]
    with pytest.raises(NotFound): predict(seen, tmp_path / "nowhere")


def test_a_reader_of_ones_own_is_used(seen, tmp_path):
    other = shutil.copytree(seen, tmp_path / "b" / seen.name)
    text = (other / "config.yaml").read_text().replace("Squares", "OwnReader")
    (other / "config.yaml").write_text(text)
    info = (other / "run.json").read_text()
    (other / "run.json").write_text(info.replace('"resize"', '"unknown"'))
    Image.new("RGB", (8, 8), "white").save(tmp_path / "w.png")
    Image.new("RGB", (8, 8), "black").save(tmp_path / "b.png")
    white, black = predict(other, [tmp_path / "w.png", tmp_path / "b.png"]).table["probability"]
    assert white == black
    assert "resize" not in OwnReader().facts() and Squares().facts()["resize"] == "pad"
