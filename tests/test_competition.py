"""Three small projects, from somebody's files to a submission: how much is written by hand, and
how good what comes of it is."""
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from sklearn.datasets import load_breast_cancer
from sklearn.metrics import roc_auc_score

from mlkit.data.mnist import MNIST

TABLE = """\
defaults: [data: table, model: tabular]
data:
  train: train.csv
  test: test.csv
  target: benign
  id: id
  batch_size: 32
trainer: {max_epochs: 10, accelerator: cpu}
callbacks: {progress: null}
"""
TABLE_CELL = """\
from mlkit.all import *
found = folds("cfg.yaml", 5)
table = out_of_fold(found)
filled = submission(predict(found, probabilities=True), "sample_submission.csv", "submission.csv")
"""
IMAGES = """\
defaults: [data: image_table, model: classifier, scheduler: one_cycle]
data:
  train: train.csv
  test: test.csv
  images: file
  target: kind
  mode: L
  size: [28, 28]
model:
  net: {_target_: mlkit.model.nets.ConvNet, in_channels: 1, num_classes: "${data.num_classes}"}
  augment: {_target_: mlkit.model.augment.RandomFlip}
optimizer: {lr: 0.01}
trainer: {max_epochs: 6, accelerator: cpu}
callbacks: {progress: null}
"""
IMAGES_CELL = """\
from mlkit.all import *
found = folds("cfg.yaml", 3)
table = out_of_fold(found, tta="flip")
filled = submission(predict(found, tta="flip"), "sample_submission.csv", "submission.csv")
"""


def written(text: str) -> int: return sum(bool(o.strip()) for o in text.splitlines())


def carry_out(folder: Path, config: str, cell: str) -> dict:
    assert written(config) <= 15 and written(cell) <= 5
    (folder / "cfg.yaml").write_text(config)
    found: dict = {}
    exec(cell, found)
    return found


@pytest.mark.slow
def test_a_table(tmp_path, monkeypatch, figure):
    monkeypatch.chdir(tmp_path)
    whole = load_breast_cancer(as_frame=True).frame.rename(columns={"target": "benign"})
    whole = whole.rename_axis("id").sample(frac=1, random_state=0)
    known, hidden = whole[:450], whole[450:]
    known.to_csv("train.csv")
    hidden.drop(columns="benign").to_csv("test.csv")
    hidden[["benign"]].assign(benign=0.5).to_csv("sample_submission.csv")
    found = carry_out(tmp_path, TABLE, TABLE_CELL)
    table, filled = found["table"], pd.read_csv("submission.csv", index_col="id")
    assert sorted(table.index) == sorted(known.index)
    aurocs = [roc_auc_score(table.target, table.probability_1),
              roc_auc_score(hidden.benign, filled.benign)]
    figure("breast cancer: AUROC {:.4f} out of fold, {:.4f} of the submission".format(*aurocs))
    assert min(aurocs) >= 0.99 and [*filled.index] == [*hidden.index]


@pytest.mark.slow
def test_pictures_in_a_csv(tmp_path, monkeypatch, figure):
    monkeypatch.chdir(tmp_path)
    data = MNIST("fashion_mnist")
    data.prepare_data()
    kinds, rows = ["Ankle boot", "Bag", "Sandal", "Trouser"], []
    os.mkdir("img")
    for i in np.random.default_rng(0).permutation(len(data.images)):
        kind = data.classes[data.targets[i]]
        if kind not in kinds: continue
        Image.fromarray(data.images[i, 0].numpy()).save(file := f"img/{i:05}.png")
        rows.append((file, kind))
    whole = pd.DataFrame(rows, columns=["file", "kind"])
    known, hidden = whole[400:], whole[:400]
    known.to_csv("train.csv", index=False)
    hidden[["file"]].to_csv("test.csv", index=False)
    hidden[["file"]].assign(kind="").to_csv("sample_submission.csv", index=False)
    found = carry_out(tmp_path, IMAGES, IMAGES_CELL)
    table, filled = found["table"], pd.read_csv("submission.csv")
    assert sorted(table.index) == sorted(known.file)
    accs = [(table.target == table.label).mean(),
            (filled.kind.to_numpy() == hidden.kind.to_numpy()).mean()]
    figure("clothes: accuracy {:.4f} out of fold, {:.4f} of the submission".format(*accs))
    assert min(accs) >= 0.97
