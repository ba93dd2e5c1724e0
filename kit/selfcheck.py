"""Before a long prediction: is the model whole, can a case be read, can the answer be written?"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

from kit import dicom, finished, platforms
from kit.errors import ImageError, KitError
from kit.images import read_image
from kit.manifest import Dataset
from kit.slides import open_slide

SIDE = 64  # of the patch that is read of a slide, pixels


def examine(run: Path, data: Path | None = None, out: Path | None = None) -> list[str]:
    """Return what was found good, a few words each; raise on the first thing that is not.

    Args:
        run: Folder of a finished run, or of what is carried of one; or an ensemble's JSON.
        data: Folder that the manifest's relative roots start from; None: the platform's.
        out: The file that will be written; None: it is not looked at.

    Raises:
        MissingDataError: The run is not finished, or a network is missing or damaged.
        ImageError: Not one of the cases can be read.
        KitError: The output cannot be written.
    """
    found = list(finished.load_all(Path(run)).values())
    dataset = found[0].dataset
    root = platforms.detect().root(dataset) if data is None else dataset.root(data)
    cases = dataset.cases(root=root, labels=False).to_dict("records")
    good = [
        f"{sum(len(one.models) + len(one.pooling) for one in found)} networks whole",
        f"{len(cases)} cases",
        _readable(dataset, root, cases),
    ]
    if out is not None:
        _writable(Path(out))
        good.append(f"{Path(out).name} can be written")
    return good


def _readable(dataset: Dataset, root: Path, cases: list[dict[Any, Any]]) -> str:
    """Return which case was read: the first that can be."""
    failed = []
    for case in cases:
        try:
            _read(dataset, root / str(case["path"]))
            return f"{case['case_id']} read"
        except KitError as error:
            failed.append(str(error))
    raise ImageError(
        "not one case can be read", received=failed[0] if failed else "no case", path=root,
        remedy="mount the data as the manifest says that they lie",
    )  # fmt: skip


def _read(dataset: Dataset, path: Path) -> None:
    if dataset.kind == "slides":
        with open_slide(path, mpp=dataset.mpp) as slide:
            width, height = slide.size
            slide.thumbnail((SIDE, SIDE))
            slide.read_patch((width // 2, height // 2), (SIDE, SIDE), level=0)
    elif dataset.kind == "dicom":
        dicom.read_series(path)
    elif dataset.kind != "arrays":  # whose header `cases` has read
        read_image(path)


def _writable(path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent)
        os.close(handle)
        os.unlink(name)
    except OSError as error:
        raise KitError(
            "the output cannot be written", received=error.strerror, path=path,
            remedy="mount its folder writable, or choose another --out",
        ) from error  # fmt: skip
