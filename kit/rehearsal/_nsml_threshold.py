"""Put a checkpoint's threshold between the tests' probabilities: `… CHECKPOINTS NAME TESTS`.

A tiny network may answer all images alike, and then nobody sees in which order it answers them.
Above two classes the largest probability decides, and nothing is changed.
"""

from __future__ import annotations

import sys
import zipfile
from pathlib import Path

import numpy as np

from kit import finished
from kit.files import atomic, read_json, write_json


def main(checkpoints: Path, name: str, tests: Path) -> None:
    """Change the checkpoint in both its forms: a folder, and a file as older stubs have it."""
    out = checkpoints / name
    run = finished.load(out)
    positive = run.dataset.positive
    if positive is None:
        return
    said = finished.predict(out, None, checkpoints / "of_the_rehearsal.csv", root=tests)
    chosen = read_json(out / "ensemble.json")
    chosen["threshold"] = float(np.median(said[f"prob_{positive}"]))
    write_json(out / "ensemble.json", chosen)
    with atomic(out.with_suffix(".model")) as part, zipfile.ZipFile(part, "w") as archive:
        for file in sorted(out.iterdir()):
            archive.write(file, file.name)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]))
