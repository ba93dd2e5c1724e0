"""Files of vectors, one a slide: our own, and those that other tools write."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from kit.checks import columns, first, same_length
from kit.errors import MissingDataError, TableError
from kit.files import KEY, atomic

PLACE = ["case_id", "x", "y", "footprint"]
LARGEST = float(np.finfo(np.float16).max)  # 65,504
SUFFIXES = (".parquet", ".h5", ".hdf5", ".npy")
ROWS = 1 << 13  # that are written at once: vectors may lie on disk (np.memmap)


def as_float16(vectors: Any, *, path: Path | None = None) -> np.ndarray:
    """Return vectors as float16, shape (n, d).

    Raises:
        TableError: They are not of two dimensions, or a number is nan, infinite or beyond 65,504,
            which float16 cannot hold.
    """
    array = _rows_of(np.asarray(vectors), path)
    wrong = ~(np.abs(array) <= LARGEST)
    if wrong.any():
        raise TableError(
            "vectors hold numbers that float16 cannot", expected=f"finite, within {LARGEST:,.0f}",
            received=f"{int(wrong.sum())} others in {int(wrong.any(axis=1).sum())} of "
            f"{len(array)} rows: {first(array[wrong], 3)}", path=path,
            remedy="scale the features down, or look at the network and its input",
        )  # fmt: skip
    return array.astype(np.float16)


def _rows_of(vectors: np.ndarray, path: Path | None) -> np.ndarray:
    if vectors.ndim != 2 or vectors.dtype.kind != "f":
        raise TableError("vectors are no table of numbers", expected="floats, shape (n, d)",
                         received=f"{vectors.dtype} {vectors.shape}", path=path)  # fmt: skip
    return vectors


def write(path: Path, patches: pd.DataFrame, vectors: np.ndarray, key: str = "") -> None:
    """Write the vectors of one slide's patches as Parquet, atomically.

    Args:
        path: A file a slide, named by its case id, so that `from_files` finds it.
        patches: `case_id, x, y, footprint` (level-0 pixels), in the order of the vectors; no row
            for a slide without a patch.
        vectors: shape (n, d), finite, within what float16 holds.
        key: Fingerprint of what made them; `kit.files.table_key` reads it.

    Raises:
        TableError: A column is missing, lengths differ, there are several slides, or a number is
            none that float16 holds.
    """
    import pyarrow.parquet as pq

    columns(patches, PLACE, path=str(path))
    same_length(patches=patches.case_id, vectors=_rows_of(vectors, path))
    if patches.case_id.nunique() > 1:
        raise TableError("patches of several slides", expected="a file for each", path=path,
                         received=first(patches.case_id.unique()))  # fmt: skip
    starts = range(0, max(1, len(patches)), ROWS)
    parts = (
        _arrow(patches.iloc[start : start + ROWS], vectors[start : start + ROWS], path, key)
        for start in starts
    )
    head = next(parts)
    with (
        atomic(Path(path)) as part,  # no dictionary: it would take five times as long to read
        pq.ParquetWriter(part, head.schema, use_dictionary=PLACE[:1], compression="zstd") as writer,
    ):
        for one in itertools.chain([head], parts):
            writer.write_table(one)


def _arrow(patches: pd.DataFrame, vectors: np.ndarray, path: Path, key: str) -> Any:
    """Return some rows as an Arrow table."""
    import pyarrow as pa

    halves = as_float16(vectors, path=path)
    kind = pa.list_(pa.field("item", pa.float16(), nullable=False), halves.shape[1])
    column = pa.FixedSizeListArray.from_arrays(pa.array(halves.reshape(-1)), type=kind)
    table = pa.Table.from_pandas(patches[PLACE], preserve_index=False)
    table = table.append_column(pa.field("vector", kind, nullable=False), column)
    return table.replace_schema_metadata({**(table.schema.metadata or {}), KEY: key.encode()})


def read(path: Path) -> tuple[pd.DataFrame, np.ndarray]:
    """Return the patches, `case_id, x, y, footprint`, and their vectors, float16 (n, d).

    Raises:
        TableError: The file is missing, damaged, or holds no vectors.
    """
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(Path(path), partitioning=None)
        column = table.column("vector").combine_chunks()
        vectors = column.flatten().to_numpy(zero_copy_only=False)
        vectors = vectors.reshape(len(table), column.type.list_size)
        patches = table.select(PLACE).to_pandas()
    except Exception as error:  # pyarrow raises what its parts raise
        raise TableError(
            "no file of vectors that can be read", received=str(error), path=path,
            expected="what kit.embeddings.write makes", remedy="delete it and make it again",
        ) from error  # fmt: skip
    return patches, as_float16(vectors, path=Path(path))


@dataclass(frozen=True, eq=False)
class Bags:
    """The vectors of many slides, read when they are asked for.

    Attributes:
        paths: The file of each case.
        width: Numbers of a vector, d.
        footprint: Side of a patch in level-0 pixels where a file does not say it.
    """

    paths: Mapping[str, Path]
    width: int
    footprint: float | None = None

    def __call__(self, case_id: str, fold: int = 0) -> np.ndarray:
        """Return the vectors of a slide, float16 or float32, (n, d); the same for every fold.

        Raises:
            TableError: A number is nan or infinite, or the file cannot be read.
        """
        path = self._path(case_id)
        with _opened(path) as (vectors, _):
            array = np.asarray(vectors)
        array = array[0] if array.ndim == 3 else array
        if not np.isfinite(array).all():
            bad = int((~np.isfinite(array)).any(axis=1).sum())
            raise TableError("features are nan or infinite", path=path,
                             received=f"{bad} of {len(array)} rows")  # fmt: skip
        return array

    def places(self, case_id: str, fold: int = 0) -> pd.DataFrame:
        """Return where a slide's patches lie, `case_id, x, y, footprint`, in the vectors' order.

        The same for every fold.

        Raises:
            TableError: The file, and one of places beside it, do not say; or not the footprint.
        """
        path = self._path(case_id)
        with _opened(path) as (vectors, places):
            found = places()
            n = vectors.shape[-2]
        if found is None:
            raise TableError("the file says no places", expected="coords, (n, 2), level-0 pixels",
                             path=path)  # fmt: skip
        xy, side = found
        side = self.footprint if side is None else side
        if side is None:
            raise TableError(
                "the file does not say how large a patch is", path=path,
                expected="an attribute patch_size_level0",
                remedy="from_files(…, footprint=…), in level-0 pixels",
            )  # fmt: skip
        xy = np.asarray(xy)
        if xy.shape[-2:] != (n, 2):
            raise TableError("places do not fit the vectors", expected=f"shape ({n}, 2)",
                             received=f"{xy.shape}", path=path)  # fmt: skip
        x, y = xy.reshape(n, 2).astype(np.int64).T
        return pd.DataFrame({
            "case_id": case_id, "x": x, "y": y, "footprint": np.broadcast_to(side, n).astype(float)
        })  # fmt: skip

    def _path(self, case_id: str) -> Path:
        if case_id not in self.paths:
            raise MissingDataError("no vectors of this case", received=case_id,
                                   expected=f"one of {len(self.paths)} cases")  # fmt: skip
        return self.paths[case_id]


def from_files(
    where: str | Path, cases: pd.DataFrame | Sequence[str], *, footprint: float | None = None
) -> Bags:
    """Return the vectors that files hold, one a slide, joined by the case id.

    Read are what `write` makes; HDF5 as TRIDENT and CLAM write it (`features`, (n, d) or
    (1, n, d); `coords`, (n, 2), top left in level-0 pixels; the side of a patch in an attribute
    `patch_size_level0`); and `.npy`, (n, d), with `<name>_coords.npy` beside it or without places.
    Of foreign files what is looked at here is their shape, and the numbers when they are read.

    Args:
        where: A folder, whose files are named by the case ids, or a path with `{case_id}` in it.
        cases: The cases: ids, or a table with `case_id`.
        footprint: Side of a patch in level-0 pixels, for files that do not say it.

    Raises:
        MissingDataError: A case has no file.
        TableError: A file cannot be read, has no vectors or is empty; widths differ.
    """
    ids = [str(one) for one in (cases.case_id if isinstance(cases, pd.DataFrame) else cases)]
    found = {case_id: _file_of(str(where), case_id) for case_id in ids}
    missing = [case_id for case_id, path in found.items() if path is None]
    if missing or not ids:
        raise MissingDataError(
            "cases without a file of vectors", path=str(where),
            expected=f"<case_id> and one of {', '.join(SUFFIXES)}, or a path with {{case_id}}",
            received=f"{len(missing)} of {len(ids)}: {first(missing)}",
        )  # fmt: skip
    return of_paths(
        {case_id: path for case_id, path in found.items() if path is not None}, footprint
    )


def of_paths(paths: Mapping[str, Path], footprint: float | None = None) -> Bags:
    """Return the vectors that these files hold, one of each case; see `from_files`."""
    widths = {case_id: _width(path) for case_id, path in paths.items()}
    each = pd.Series(widths)
    if each.nunique() > 1:
        odd = each[each != each.mode()[0]]
        raise TableError(
            "vectors of several widths", expected=f"{each.mode()[0]}, as most have",
            received=first(f"{width} of {case_id}" for case_id, width in odd.items()),
            path=paths[str(odd.index[0])], remedy="make all by one encoder",
        )  # fmt: skip
    return Bags(paths, int(each.iloc[0]), footprint)


def _file_of(where: str, case_id: str) -> Path | None:
    if "{case_id}" in where:
        path = Path(where.replace("{case_id}", case_id))
        return path if path.is_file() else None
    every = [Path(where) / f"{case_id}{suffix}" for suffix in SUFFIXES]
    return next((path for path in every if path.is_file()), None)


def _width(path: Path) -> int:
    """Return the width of a file's vectors; it must hold some, of two dimensions."""
    with _opened(path) as (vectors, _):
        shape, kind = tuple(vectors.shape), np.dtype(vectors.dtype)
    rows = shape[1:] if len(shape) == 3 and shape[0] == 1 else shape
    own = path.suffix == ".parquet"  # where a slide without tissue has no row
    if (
        len(rows) != 2
        or kind not in (np.float16, np.float32)
        or not rows[1]
        or not (rows[0] or own)
    ):
        raise TableError(
            "not the vectors of a slide", expected="float16 or float32, shape (n, d), n at least 1",
            received=f"{kind} {shape}", path=path,
        )  # fmt: skip
    return int(rows[1])


Places = Callable[[], tuple[Any, Any] | None]


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[tuple[Any, Places]]:
    """Yield what has shape, dtype and numbers of the vectors, and a function for their places."""
    if path.suffix == ".parquet":
        patches, vectors = read(path)
        yield vectors, lambda: (patches[["x", "y"]].to_numpy(), patches.footprint.to_numpy())
    elif path.suffix == ".npy":
        beside = path.with_name(f"{path.stem}_coords.npy")
        yield _array(path), lambda: (_array(beside), None) if beside.is_file() else None
    else:
        import h5py

        try:
            file = h5py.File(path, "r")
        except OSError as error:
            raise TableError("no HDF5 file that can be read", received=str(error), path=path,
                             remedy="copy it or make it again") from error  # fmt: skip
        with file:
            if not isinstance(file.get("features"), h5py.Dataset):
                raise TableError("no dataset of features", expected="features, (n, d)",
                                 received=first(file) or "an empty file", path=path)  # fmt: skip
            yield file["features"], lambda: _coords(file)


def _array(path: Path) -> np.ndarray:
    try:
        return np.asarray(np.load(path, mmap_mode="r", allow_pickle=False))
    except (ValueError, OSError, EOFError) as error:
        raise TableError("no .npy file that can be read", received=str(error), path=path,
                         remedy="copy it or make it again") from error  # fmt: skip


def _coords(file: Any) -> tuple[Any, Any] | None:
    """Return the places in an HDF5 file, and the side of a patch where an attribute says it."""
    if "coords" not in file:
        return None
    said = {**file.attrs, **file["coords"].attrs}
    if "patch_size_level0" in said:
        return file["coords"][()], float(said["patch_size_level0"])
    if {"patch_size", "downsample"} <= set(said):  # CLAM: of the level that was read
        return file["coords"][()], float(said["patch_size"]) * float(
            np.ravel(said["downsample"])[0]
        )
    return file["coords"][()], None
