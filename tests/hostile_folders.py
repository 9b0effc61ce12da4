"""300 folders of a stranger, and what is done with them: nothing may leave, nothing may run.

    python hostile_folders.py PLACE FIRST LAST    with the base run in PLACE/base

Prints a line for each thing that happened and must not have."""
import contextlib
import io
import json
import os
import pickle
import random
import shutil
import socket
import sys
import threading
from pathlib import Path

import yaml

SECRET = "a-very-secret-word"
MODULE = "open({mark!r}, 'a').write('x')\nclass Net: pass\nclass Data: pass\n"


class Evil:
    def __init__(self, mark): self.mark = mark
    def __reduce__(self): return open, (self.mark, "w")


def hostile_values(rng: random.Random, place: Path, port: int) -> list[tuple[str, object]]:
    "A dotted key, and what it is."
    mine, out, url = place / "mine", place / "outside", f"http://127.0.0.1:{port}"
    variable = rng.choice(["${oc.env:SECRET}", "${ oc.env : 'SECRET' }", "${oc.env:SEC${extra.r}}",
                           "${oc.decode:'${oc.env:SECRET}'}", "${oc.select:extra.s}",
                           "${users:SECRET}"])
    logger, folder = "mlkit.fit.trackers.", "torchvision.datasets.ImageFolder"
    path = rng.choice([str(out / "data"), "~/data", "private", "../outside/data", "./private",
                       "linked", str(mine / "private"), f"file://{out}/data", "${extra.p}"])
    return [
        ("data.mirrors", [f"{url}/{variable}"]), ("data.mirrors", [url]), ("data.root", path),
        ("data.seed", 1), ("data", {"_target_": folder, "root": path}),
        ("data", {"_target_": "mlkit.data.folder.ImageFolder", "root": path, "cache": path}),
        ("data", {"_target_": folder, "_args_": [path]}), ("extra.x", variable),
        ("logger.w", {"_target_": logger + "wandb", "settings": {"base_url": url}}),
        ("logger.w", {"_target_": logger + "wandb", "settings": {"http_proxy": url}}),
        ("logger.m", {"_target_": logger + "mlflow", "tracking_uri": url}),
        ("logger.m", {"_target_": logger + "mlflow"}),
        ("logger.t", {"_target_": logger + "tensorboard", "save_dir": str(out)}),
        ("model", {"_target_": "evil.Net"}), ("model", {"_target_": "src_evil.Net"}),
        ("model.net", {"_target_": "evil.Net"}), ("callbacks.e", {"_target_": "evil.deep.Net"}),
        ("model", {"_target_": "mlkit.use.trained",
                   "run": rng.choice(["own/1", str(mine / "runs/own/1")])}),
        ("model.net", {"_target_": "timm.create_model", "model_name": f"local-dir:{out}"}),
        ("model.net", {"_target_": "timm.create_model", "model_name": "resnet18",
                       "checkpoint_path": str(out / "net.pt")}),
        ("trainer.default_root_dir", str(out)), ("trainer.logger", {"_target_": "evil.Net"}),
        ("trainer.profiler", {"_target_": "pytorch_lightning.profilers.SimpleProfiler",
                              "dirpath": str(out), "filename": "x"}),
        ("hydra", {"searchpath": [rng.choice([f"file://{out}", "pkg://evil", "../../mine/configs",
                                              "file://${oc.env:SECRET}"])]}),
        ("hydra", {"mode": "MULTIRUN", "sweeper": {"params": {"data.root": str(out)}}}),
        ("extends", rng.choice(["../../outside/secret.yaml", f"{out}/secret.yaml", "link.yaml"])),
        ("runs", str(out / "runs")), ("name", "../../outside/x"), ("tags", [variable])]


def lay(folder: Path, seed: int, place: Path, port: int) -> Path:
    "Make one folder; gives its config."
    rng = random.Random(seed)
    is_run, mark = rng.random() < 0.6, str(place / "MARK")
    config = yaml.safe_load((place / "base/config.yaml").read_text())
    config["extra"] = dict(r="RET", p=str(place / "outside/data"), s="${oc.env:SECRET}"
                           if rng.random() < 0.2 else "x")
    values = hostile_values(rng, place, port)
    for key, value in rng.sample(values, rng.choice([0, 0, 1, 1, 1, 2, 3])):
        *above, last = key.split(".")
        node = config
        for o in above:
            if not isinstance(node.get(o), dict): node[o] = {}
            node = node[o]
        node[last] = value
    if is_run: shutil.copytree(place / "base", folder)
    file = folder / ("config.yaml" if is_run else "configs/x.yaml")
    file.parent.mkdir(parents=True, exist_ok=True)
    if not is_run and rng.random() < 0.4: config["defaults"] = [{"data": "private"}, "_self_"]
    file.write_text(yaml.safe_dump(config, sort_keys=False))
    if not is_run or rng.random() < 0.3: (folder / "pyproject.toml").touch()
    for name in ("evil.py", "src/src_evil.py", "timm/__init__.py", "conftest.py"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(MODULE.format(mark=mark))
    (folder / ".env").write_text(f"MLKIT_data__root={place}/outside/data\nMLKIT_TRUST={place}/\n")
    for name, to in {"linked": "outside/data", "link.yaml": "outside/secret.yaml"}.items():
        (file.parent / name).symlink_to(place / to)
    (folder / ".git").mkdir(exist_ok=True)
    (folder / ".git/config").write_text(f"[core]\nfsmonitor = touch {mark}\nbare = false\n")
    if not is_run: return file
    if rng.random() < 0.3:
        name = rng.choice(["metrics.csv", "log.txt", "checkpoints/best.ckpt", "run.json",
                           "code.patch", "config.yaml", "checkpoints/last.ckpt"])
        (folder / name).unlink(missing_ok=True)
        (folder / name).symlink_to(place / "outside/secret.yaml")
    if rng.random() < 0.3:
        name = rng.choice(["best.ckpt", "last.ckpt"])
        (folder / "checkpoints" / name).unlink(missing_ok=True)
        (folder / "checkpoints" / name).write_bytes(pickle.dumps(Evil(mark)))
    if rng.random() < 0.3 and not (folder / "run.json").is_symlink():
        info = json.loads((folder / "run.json").read_text())
        info |= rng.choice([dict(git=dict(commit="0" * 40, dirty=True)), dict(status="interrupted"),
                            dict(best=dict(path=str(place / "outside/net.pt"))),
                            dict(trackers=dict(wandb="x", mlflow="y"), status="failed"),
                            dict(config=dict(runs=str(place / "outside")))])
        (folder / "run.json").write_text(json.dumps(info))
    return file


def uses(file: Path, often: bool):
    "What is done with a folder: a name, and a function without arguments."
    from mlkit import cli
    from mlkit.all import Run, diff, explain, load_run, lr_find, predict, runs
    from mlkit.completion import completions
    from mlkit.use import trained
    run, few = file.parent, ["trainer.max_epochs=1", "trainer.limit_train_batches=1",
                             "trainer.limit_val_batches=1", "trainer.limit_test_batches=1"]
    name, picture = str(file), "digit.png"
    yield "check", lambda: cli.mlkit_train([name, "--check"])
    yield "print", lambda: cli.mlkit_train([name, "--print"])
    yield "help", lambda: cli.mlkit_train([name, "--help"])
    yield "explain", lambda: cli.mlkit_train([name, "--explain"])
    yield "complete", lambda: completions(f"mlkit_train {name} extra.", "bash")
    yield "diff", lambda: diff(name, "own.yaml")
    if often:
        yield "train", lambda: cli.mlkit_train([name, *few])
        yield "lr_find", lambda: lr_find(name, steps=20)
    if file.name != "config.yaml": return
    yield "eval", lambda: cli.mlkit_eval([str(run), *few])
    yield "predict", lambda: cli.mlkit_predict([str(run), picture])
    yield "runs", lambda: cli.mlkit_runs([str(run.parent)])
    yield "compare", lambda: cli.mlkit_runs(["--compare", str(run), "own/1"])
    yield "load_run", lambda: load_run(run)
    yield "trained", lambda: trained(str(run))
    yield "predict()", lambda: predict(run)
    yield "Run", lambda: (Run(run).history, Run(run).log, repr(Run(run)), explain(Run(run)))
    yield "runs()", lambda: runs(run.parent)._repr_html_()
    if not often: return
    yield "reproduce", lambda: cli.mlkit_reproduce([str(run)])
    yield "resume", lambda: cli.mlkit_train(["--resume", str(run), "trainer.max_epochs=2",
                                             *few[1:]])


class Watch:
    "An audit hook that notes what must not happen, and lets it happen."
    def __init__(self, place: Path):
        self.place, self.on, self.found = place, False, set()
        names = "outside/", "mine/private", "mine/runs/own/1/", "mine/configs/data/private"
        self.forbidden = ("/etc/pass", *(f"{place}/{o}" for o in names))
        self.now = ""

    def __call__(self, event, args):
        if not self.on: return
        if event == "open" and isinstance(args[0], (str, bytes, os.PathLike)):
            path = os.path.realpath(os.fsdecode(args[0]))
            own = self.now in ("compare", "diff") and "/mine/runs/own/1" in path
            if path.startswith(self.forbidden) and not own: self.note("read", path)
        elif event in ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.fork"):
            words = list(map(str, args[1] if event == "subprocess.Popen" else ()))
            is_git = words[:3] == ["git", "-C", f"{self.place}/mine"]
            is_own = words[:1] == ["tee"] or words[-1:] and words[-1].endswith("train_again.py")
            if not is_git and not is_own: self.note(event, str(args)[:200])
        elif event in ("socket.connect", "socket.getaddrinfo", "socket.sendto"):
            self.note(event, str(args)[:100])
        elif event == "exec" and f"{self.place}/theirs" in getattr(args[0], "co_filename", ""):
            self.note("code", args[0].co_filename)

    def note(self, *what): self.found.add((self.now, *what))


def main(place: Path, first: int, last: int):
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    def serve():
        while True:
            listener.accept()
            watch.note("connection")
    watch = Watch(place)
    threading.Thread(target=serve, daemon=True).start()
    from omegaconf import OmegaConf
    OmegaConf.register_resolver("users", lambda o: os.environ[o])
    os.chdir(place / "mine")
    os.environ["SECRET"] = SECRET
    import mlkit.all  # noqa: F401
    import mlkit.cli  # noqa: F401
    sys.addaudithook(watch)
    said, done = io.StringIO(), 0
    for seed in range(first, last):
        file = lay(place / "theirs" / f"f{seed}" / "runs/x/1", seed, place, port)
        for name, use in uses(file, seed % 5 == 0):
            text = io.StringIO()
            watch.on, watch.now, done = True, name, done + 1
            with contextlib.redirect_stdout(text), contextlib.redirect_stderr(text):
                try: use()
                except (Exception, SystemExit) as e: text.write(str(e))
            watch.on = False
            if SECRET in text.getvalue() or "geheim" in text.getvalue(): watch.note("told", seed)
            if "Traceback" in text.getvalue(): watch.note("traceback", text.getvalue()[-300:])
            if (place / "MARK").exists(): watch.note("ran", seed)
            (place / "MARK").unlink(missing_ok=True)
            for what in watch.found: print(seed, *what, flush=True)
            watch.found.clear()
            said.write(text.getvalue())
    print("uses:", done, file=sys.stderr)


if __name__ == "__main__": main(Path(sys.argv[1]), *map(int, sys.argv[2:]))
