"""Put a checkpoint's threshold between the tests' probabilities: `… CHECKPOINTS NAME TESTS`.

A tiny network may answer all images alike, and then nobody sees in which order it answers them.
Above two classes the largest probability decides, and nothing is changed.
"""

from __future__ import annotations

import json
import sys
import zipfile
from pathlib import Path

import numpy as np

from kit import finished
from kit.carried import ENSEMBLE
from kit.files import atomic, read_json, write_json


def main(checkpoints: Path, name: str, tests: Path) -> None:
    """Change the checkpoint in both its forms: a folder, and a file as older stubs have it.

    The file keeps all else as `save` wrote it, so that what is wrong with it stays to be seen.
    """
    out = checkpoints / name
    run = finished.load(out)
    positive = run.dataset.positive
    if positive is None:
        return
    said = finished.predict(out, None, checkpoints / "of_the_rehearsal.csv", root=tests)
    threshold = {"threshold": float(np.median(said[f"prob_{positive}"]))}
    write_json(out / ENSEMBLE, read_json(out / ENSEMBLE) | threshold)
    single = out.with_suffix(".model")
    with zipfile.ZipFile(single) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    if ENSEMBLE in files:
        files[ENSEMBLE] = json.dumps(json.loads(files[ENSEMBLE]) | threshold).encode()
    with atomic(single) as part, zipfile.ZipFile(part, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]))
