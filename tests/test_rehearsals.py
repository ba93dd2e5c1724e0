"""Whole rehearsals: each passes, and a fault in each step of each contract is named by it.

A step is first taken with a fault put in by hand, which it must name; then without, and it must
pass: so that the rehearsal goes on, and the next step has what it needs. They are slow.
"""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager as Fault
from pathlib import Path

import pytest

from kit import rehearsal
from kit.rehearsal import docker, estimate, kaggle, local, nsml
from kit.rehearsal.scene import Scene

pytestmark = pytest.mark.slow
UNCHECKED = "#!/bin/bash\necho 1,0.5 > $KIT_ROOT/data/output/output.csv\n"
EARLY = "    challenges.open_run(challenge, out=out, settings=chosen)\n"
PATIENCE = 1200.0  # s: other work may slow the machine that tests


@contextlib.contextmanager
def put(path: Path, text: str | bytes) -> Iterator[None]:
    """Put a file there, or other content into one that is there, for a while."""
    before = path.read_bytes() if path.is_file() else None
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    yield
    if before is None:
        path.unlink(missing_ok=True)
    else:
        path.write_bytes(before)


def edited(path: Path, old: str, new: str) -> Fault[None]:
    """Put other text in place of some that must be there."""
    text = path.read_text(encoding="utf-8")
    assert old in text, f"{old!r} is not in {path}"
    return put(path, text.replace(old, new))


@contextlib.contextmanager
def spoilt(path: Path) -> Iterator[None]:
    """Damage a file, and leave it to the kit to make it anew."""
    path.write_bytes(b"damaged")
    yield


@contextlib.contextmanager
def emptied(folder: Path) -> Iterator[None]:
    """Remove what a fault has left behind, afterwards."""
    (folder / "left_over.txt").parent.mkdir(parents=True, exist_ok=True)
    (folder / "left_over.txt").write_text("of before")
    yield
    shutil.rmtree(folder)


@contextlib.contextmanager
def large(megabytes: float) -> Iterator[None]:
    """Have the real run's networks be so large."""
    with pytest.MonkeyPatch.context() as patch:
        whole = estimate.of
        patch.setattr(estimate, "of", lambda *given: whole(*given) | {"megabytes": megabytes})
        yield


@contextlib.contextmanager
def slow(seconds: float) -> Iterator[None]:
    """Have the real run's predicting take so long, where a day is allowed."""
    with pytest.MonkeyPatch.context() as patch:
        whole, said = (
            estimate.of,
            {"predict_seconds": seconds, "limit_seconds": 86_400.0, "gpu": True},
        )
        patch.setattr(estimate, "of", lambda *given: whole(*given) | said)
        yield


Faults = dict[str, tuple[Callable[[], Fault[None]], str]]


def go(
    name: str, platform: str, contract: object, root: Path, faults: Callable[[Scene], Faults]
) -> None:
    """Take each step with its fault, which must be named, and then without."""
    scene = Scene.of(name, platform, root.resolve(), settings=[], end=time.monotonic() + PATIENCE)
    found, steps = faults(scene), contract.steps(scene)
    assert list(found) == [step for step, _ in steps], "a fault for each step"
    for step, call in steps:
        fault, said = found[step]
        with fault():
            done = rehearsal._go([(step, call)], scene, lambda *given: None)
        assert done[0].state == "failed", f"{step}: the fault was not seen: {done[0].said}"
        assert said in f"{done[0].said} {done[0].remedy}", done[0]
        (right,) = rehearsal._go([(step, call)], scene, lambda *given: None)
        assert right.state == "ok", right


def test_help2019_on_docker(tmp_path: Path) -> None:
    def faults(scene: Scene) -> Faults:
        root = scene.root
        train, infer = root / "work" / "train.sh", root / "work" / "inference.sh"
        output = root / "data" / "output" / "output.csv"
        return {
            "data": (lambda: emptied(root / "drawn"), "the folder holds something else"),
            "bundle": (lambda: emptied(root / "work"), "the bundle's folder is not empty"),
            "scripts": (lambda: edited(train, "\n", "\r\n"), "line ends are CRLF"),
            "install": (lambda: put(root / "work" / "SHA256SUMS", "0  train.sh\n"),
                        "a file did not arrive as it was sent"),
            "train": (lambda: edited(train, "exec", "touch ../data/train/new.txt\nexec"),
                      "train.sh failed"),
            "inference": (lambda: edited(infer, "/data/output/output.csv", "/data/output.csv"),
                          "must write /data/output/output.csv"),
            "score": (lambda: put(output, "\n".join(output.read_text().splitlines()[:-1]) + "\n"),
                      "1 missing"),
            "a slide that fails": (lambda: edited(infer, "--failed-score 0.5", ""),
                                   "must hand --failed-score to kit predict"),
            "a damaged model": (lambda: put(infer, UNCHECKED),
                                "a damaged model was not refused"),
            "estimate": (lambda: slow(86_401), "predicting would take longer"),
        }  # fmt: skip

    go("help2019", "docker", docker, tmp_path, faults)


def test_khd2020_on_nsml(tmp_path: Path) -> None:
    def faults(scene: Scene) -> Faults:
        root, upload = scene.root, scene.root / "upload"
        hooks = upload / "kit" / "platforms" / "_nsml_run.py"
        session = upload / "kit" / "platforms" / "nsml.py"
        return {
            "data": (lambda: emptied(root / "drawn"), "the folder holds something else"),
            "upload": (lambda: emptied(upload), "the bundle's folder is not empty"),
            "train": (lambda: edited(session, "    save, load, infer",
                                     f"{EARLY}    save, load, infer"),
                      "nothing may be read before nsml.paused is called"),
            "order": (lambda: edited(root / "log.jsonl", '"bind"', '"paused"'), "another order"),
            "figures": (lambda: edited(root / "log.jsonl", '"values": {', '"values": {}, "x": {'),
                        "no figure was reported"),
            "checkpoint": (lambda: put(root / "checkpoints" / "complete" / "pixels.keras",
                                       bytes(301_000_000)), "too large for NSML"),
            "submit": (lambda: edited(hooks, "for case in ids]", "for case in ids[::-1]]"),
                       "infer does not keep the order"),
            "evaluation": (lambda: put(root / "predictions.txt", "1 benign\n"),
                           "the evaluation failed"),
            "an older stub": (lambda: edited(hooks, "    if path.is_file():\n            with",
                                             "    if False:\n            with"),
                              "main.py --mode test failed"),
            "estimate": (lambda: large(301), "too large for nsml"),
        }  # fmt: skip

    go("khd2020", "nsml", nsml, tmp_path, faults)


def test_rsna2021_on_kaggle(tmp_path: Path) -> None:
    def faults(scene: Scene) -> Faults:
        root, push = scene.root, scene.root / "push"
        answer = root / "kaggle" / "working" / "submission.csv"
        there = "kit/bundles/there.py"
        return {
            "data": (lambda: emptied(root / "drawn"), "the folder holds something else"),
            "run": (lambda: put(root / "data" / "rsna2021" / "train_labels.csv", "a,b\n1,2\n"),
                    "kit run failed"),
            "bundle": (lambda: emptied(push), "the bundle's folder is not empty"),
            "rules": (lambda: edited(push / "kernel-metadata.json", '"enable_internet": false',
                                     '"enable_internet": true'), "internet"),
            "inputs": (lambda: put(push / "kernel-metadata.json", "{}"), "not attached"),
            "notebook": (lambda: damaged(root / "kaggle" / "input"), "the notebook failed"),
            "score": (lambda: put(answer, answer.read_text().replace("BraTS21ID", "id")),
                      "wrong header"),
            "a hidden test": (lambda: in_environment(root, there, answer),
                              "two rows get other answers"),
            "estimate": (lambda: slow(86_401), "predicting would take longer"),
        }  # fmt: skip

    go("rsna2021", "kaggle", kaggle, tmp_path, faults)


@contextlib.contextmanager
def damaged(inputs: Path) -> Iterator[None]:
    """Let a network arrive damaged."""
    network = next(inputs.rglob("*.keras"))
    with put(network, network.read_bytes()[:-1]):
        yield


@contextlib.contextmanager
def in_environment(root: Path, name: str, answer: Path) -> Iterator[None]:
    """Have the kit that the wheel brought answer with ranks from 0 to 1; the answer comes back."""
    path = next((root / "python").rglob(name))
    add = (
        "    import pandas as pd\n"
        "    rows = pd.read_csv(target, dtype={0: str})\n"
        "    rank = rows.iloc[:, 1].rank() - 1\n"
        "    rows.iloc[:, 1] = rank / max(1, rank.max())\n"
        "    rows.to_csv(target, index=False, lineterminator='\\n')\n"
        "    return target\n"
    )
    with edited(path, "    return target\n", add), put(answer, answer.read_bytes()):
        yield


def test_idc_patches_on_a_laptop(tmp_path: Path) -> None:
    def faults(scene: Scene) -> Faults:
        root = scene.root
        labels = root / "data" / "patches" / "idc" / "labels.csv"
        return {
            "data": (lambda: emptied(root / "drawn"), "the folder holds something else"),
            "run": (lambda: put(labels, "path,label\n"), "kit run failed"),
            "resume": (lambda: spoilt(next(root.glob("run/models/*.keras"))),
                       "the same command trained again"),
            "predict": (lambda: put(root / "run" / "ensemble.json", "{}"), "kit predict failed"),
            "score": (lambda: edited(root / "later.csv", "\n", "\r\n"), "line ends are CRLF"),
            "estimate": (lambda: slow(86_401), "predicting would take longer"),
        }  # fmt: skip

    go("idc_patches", "local", local, tmp_path, faults)


@pytest.mark.parametrize(
    ("name", "platform"),
    [("khd2019", "nsml"), ("idc_patches", "docker"), ("idc_patches", "nsml"),
     ("idc_patches", "kaggle")],
)  # fmt: skip
def test_it_passes(name: str, platform: str) -> None:
    done = rehearsal.rehearse(name, platform, seconds=PATIENCE)
    assert [step for step in done.steps if step.state != "ok"] == []
    assert done.passed and done.estimate["networks"] == 5
