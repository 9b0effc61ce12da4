"Tables in whole runs: folds, numbers in their own unit, other rows, a mistake's line."
import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.datasets import load_breast_cancer, load_diabetes
from sklearn.metrics import mean_absolute_error, r2_score, roc_auc_score, root_mean_squared_error

from mlkit.base.errors import UserError
from mlkit.show.answers import answers
from mlkit.show.draw import show_batch, show_mistakes, show_results
from mlkit.train import train
from mlkit.use import evaluate, load_run, predict

SHORT = {"trainer": {"accelerator": "cpu"}, "callbacks": {"progress": None}}


def run_of(folder, model: str, data: dict, *overrides: str):
    groups = [{"data": "table"}, {"model": model}]
    return train(dict(SHORT, name=model, runs=str(folder / "runs"),
                      defaults=["default", *groups], data=data), *overrides)


def test_every_row_is_held_out_once_and_ranked_as_it_should_be(tmp_path):
    table = load_breast_cancer(as_frame=True).frame
    table["target"] = table.target.map({0: "malignant", 1: "benign"})
    table.to_csv(tmp_path / "all.csv", index=False)
    said = []
    for fold in range(5):
        data = dict(train=str(tmp_path / "all.csv"), target="target", folds=5, fold=fold,
                    batch_size=32)
        run = run_of(tmp_path, "tabular", data, "trainer.max_epochs=12")
        names = load_run(run).datamodule.names("val")
        held = table.iloc[names].drop(columns="target")
        said.append(predict(run, held, probabilities=True).table.set_axis(names))
    said = pd.concat(said).sort_index()
    assert [*said.index] == [*range(len(table))]
    assert roc_auc_score(table.target == "malignant", said.probability_malignant) > 0.99


def test_a_number_is_in_its_own_unit_everywhere(tmp_path):
    load_diabetes(as_frame=True).frame.to_csv(tmp_path / "all.csv", index=False)
    data = dict(train=str(tmp_path / "all.csv"), target="target", batch_size=32)
    run = run_of(tmp_path, "regression", data, "trainer.max_epochs=20")
    loaded = load_run(run)
    found = answers(loaded.model, loaded.datamodule, "val")
    true, says = found.target.numpy(), found.pred.numpy()
    measured = evaluate(run, stage="val")
    for name, f in (("mae", mean_absolute_error), ("rmse", root_mean_squared_error),
                    ("r2", r2_score)):
        assert measured[f"val/{name}"] == pytest.approx(f(true, says), rel=1e-5)
    rows = loaded.datamodule.table("val")
    assert (rows.target.to_numpy(np.float32) == true).all()
    assert predict(run, rows).table.value.to_numpy() == pytest.approx(says, rel=1e-5)
    assert found.table()[["bmi"]].shape == (44, 1)
    for show in (show_results, show_mistakes): assert show(found).axes
    assert len(show_batch(loaded.datamodule, 3).axes[0].tables[0].get_celld()) == 4 * 9


def test_prediction_needs_the_facts_alone_and_names_what_is_missing(tmp_path):
    table = pd.DataFrame(dict(id=[f"a{i}" for i in range(60)], x=np.arange(60.0),
                              town=["Ulm", "Bern", "Graz"] * 20))
    table["y"] = np.where(table.town == "Bern", "in", "out")
    table.to_csv(tmp_path / "all.csv", index=False)
    run = run_of(tmp_path, "tabular", dict(train=str(tmp_path / "all.csv"), target="y", id="id"),
                 "model.loss.weight=${data.class_weights}", "data.balanced=true")
    (tmp_path / "all.csv").unlink()
    assert [*predict(run, table.head(3)).table.index] == ["a0", "a1", "a2"]
    assert len(predict(run, table.drop(columns=["id", "y"])).table) == 60
    assert len(predict(run, dict(x=3, town="Oslo")).table) == 1
    table.drop(columns="town").to_csv(tmp_path / "new.csv", index=False)
    with pytest.raises(UserError, match="new.csv: no column 'town'"):
        predict(run, tmp_path / "new.csv")
    table.assign(x=["?"] + ["1"] * 59).to_csv(tmp_path / "new.csv", index=False)
    with pytest.raises(UserError, match="new.csv:2: x is '\\?', and a number is expected"):
        predict(run, tmp_path / "new.csv")


def test_several_targets_have_a_head_each(tmp_path):
    table = load_diabetes(as_frame=True).frame
    table["old"] = np.where(table.age > 0, "yes", "no")
    table.to_parquet(tmp_path / "all.parquet")
    heads = {"old": {"_target_": "torch.nn.CrossEntropyLoss"},
             "target": {"_target_": "torch.nn.MSELoss"}}
    config = dict(SHORT, name="both", runs=str(tmp_path / "runs"),
                  defaults=["default", {"data": "table"}, {"model": "tabular"}, "_self_"],
                  data=dict(train=str(tmp_path / "all.parquet"), target=["old", "target"]),
                  model=dict(loss=dict(heads, _target_=None), metrics=None,
                             target_scale="${data.target_scale}"))
    config["model"]["loss"] = dict(_target_="mlkit.model.losses.HeadsLoss", losses=heads)
    run = train(config, "~model.loss.weight", "trainer.max_epochs=3")
    found = predict(run, table.head(4)).table
    assert [*found.columns] == ["old", "old_probability", "target"]
    assert 50 < found.target.mean() < 300
    kinds = answers(run.model, run.datamodule, "val").heads
    assert {k: a.kind for k, a in kinds.items()} == {"old": "classes", "target": "numbers"}
    assert torch.isfinite(kinds["target"].loss).all()
