"""A STAND-IN for the organisers' evaluation: `key value` lines and the truth, to one float."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from kit.challenges import find
from kit.manifest import load_manifest


def main(challenge: str, predictions: str, truth: str) -> float:
    """Return the score of a file of predictions."""
    found = find(challenge, load_manifest())
    classes, codes = list(found.dataset.classes), dict(found.style.codes)
    number = {name: int(codes.get(name, position)) for position, name in enumerate(classes)}
    said = dict(line.rsplit(" ", 1) for line in _lines(predictions))
    pairs = [line.rsplit(" ", 1) for line in _lines(truth)]
    y_true = np.array([number[label] for _, label in pairs])
    y_pred = np.array([int(said[key]) for key, _ in pairs])
    if found.official is None:
        return float(np.mean(y_true == y_pred))
    return found.official(y_true, y_pred, y_pred.astype(float))


def _lines(path: str) -> list[str]:
    return Path(path).read_text(encoding="utf-8").splitlines()


if __name__ == "__main__":
    sys.stdout.write(f"{main(*sys.argv[1:])}\n")
