"""Files that are whole or absent, and fingerprints that say what made them."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import tempfile
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from kit import _writers
from kit.errors import KitError, TableError

KEY = b"kit.fingerprint"
LEFTOVER = 3600.0  # seconds after which a temporary file is a killed writer's
TEXT = ("case_id", "group", "label", "y_true")
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextlib.contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; rename it onto `path` if the block succeeds.

    The temporary file keeps the suffix, because writers choose their format by it.

    Raises:
        KitError: The disk is full or the folder cannot be written.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(
            prefix=_writers.prefix(), suffix=path.suffix, dir=path.parent
        )
        os.close(handle)
    except OSError as error:
        raise _disk(error, path) from error
    part = Path(name)
    try:
        yield part
        with part.open("rb+") as written:
            os.fsync(written.fileno())
        part.chmod(0o666 & ~_umask())
        part.replace(path)
    except OSError as error:
        if _full(error) or error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
            raise _disk(error, path) from error
        raise
    finally:
        part.unlink(missing_ok=True)


def remove_leftovers(folder: Path) -> None:
    """Remove the temporary files of killed writers: those of this host at once, others when old."""
    for part in Path(folder).rglob(f"{_writers.PREFIX}*"):
        with contextlib.suppress(FileNotFoundError):
            if _writers.is_dead(part.name) or time.time() - part.stat().st_mtime > LEFTOVER:
                part.unlink()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _full(error: OSError) -> bool:
    """Tell a full disk, also where HDF5 or NumPy say it in words alone."""
    words = [f"errno = {number}," for number in FULL] + ["requested and"]
    return error.errno in FULL or (error.errno is None and any(w in str(error) for w in words))


def _disk(error: OSError, path: Path) -> KitError:
    if not _full(error):
        return KitError(
            "cannot be written", received=error.strerror, path=path,
            remedy="choose another place with --out",
        )  # fmt: skip
    return KitError(
        "the disk is full", path=path,
        remedy="free some space or choose another --out, then run the same command again: "
        "it goes on where it stopped",
    )  # fmt: skip


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray | pd.Series):
        return value.tolist()
    if isinstance(value, set | frozenset):
        return sorted(value)
    if hasattr(value, "model_dump"):
        return value.model_dump(mode="json")
    text = str(value)
    if " at 0x" in text:
        raise TypeError(f"a place in memory is no lasting text: {text}")
    return text


def fingerprint(value: Any) -> str:
    """Return 16 hexadecimal digits of the sha256 of `value` written as canonical JSON."""
    text = json.dumps(value, sort_keys=True, default=_plain, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def digest(table: pd.DataFrame) -> str:
    """Return a fingerprint of a table's columns and rows, in their order; the index is ignored."""
    rows = pd.util.hash_pandas_object(table.astype(object).where(table.notna(), None), index=False)
    return fingerprint([list(table.columns), hashlib.sha256(rows.to_numpy().tobytes()).hexdigest()])


def sha256(path: Path) -> str:
    """Return the sha256 of a file, or of a folder's relative names and contents."""
    path = Path(path)
    if path.is_dir():
        parts = sorted(p for p in path.rglob("*") if p.is_file())
        return fingerprint([(p.relative_to(path).as_posix(), sha256(p)) for p in parts])
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text with LF line ends, atomically."""
    with atomic(path) as part:
        part.write_bytes(text.encode())


def write_json(path: Path, value: Any) -> None:
    """Write indented JSON, atomically; NaN becomes null."""
    write_text(path, json.dumps(jsonable(value), indent=2, ensure_ascii=False) + "\n")


def jsonable(value: Any) -> Any:
    """Return `value` in JSON's own types; NaN and infinities become None."""
    if isinstance(value, Mapping):
        return {str(k): jsonable(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [jsonable(v) for v in value]
    if isinstance(value, bool) or value is None or isinstance(value, str | int):
        return value
    if isinstance(value, float | np.floating):
        return float(value) if np.isfinite(value) else None
    return jsonable(_plain(value))


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        KitError: The file is missing or is not JSON.
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise KitError("cannot be read", received=error.strerror, path=path) from error
    except ValueError as error:
        raise KitError(
            "not valid JSON", received=str(error), path=path,
            remedy="delete it and run the command that made it again",
        ) from error  # fmt: skip


def write_table(table: pd.DataFrame, path: Path, key: str = "") -> None:
    """Write a table as Parquet, atomically, with the fingerprint `key` of what made it inside."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    arrow = pa.Table.from_pandas(table, preserve_index=False)
    arrow = arrow.replace_schema_metadata({**(arrow.schema.metadata or {}), KEY: key.encode()})
    with atomic(path) as part:
        pq.write_table(arrow, part)


def read_table(path: Path) -> pd.DataFrame:
    """Read a Parquet or CSV table; ids and labels stay text, whatever they look like.

    Raises:
        KitError: The file is missing or is not a table.
    """
    path = Path(path)
    if not path.is_file():
        raise KitError("no such table", expected="a CSV or Parquet file", path=path)
    try:
        if path.suffix == ".parquet":
            return pd.read_parquet(path)
        names = pd.read_csv(path, nrows=0).columns
        empty = {name: ["", *([] if name in TEXT else ["NA", "NaN", "nan"])] for name in names}
        return pd.read_csv(
            path, dtype=dict.fromkeys(TEXT, str), na_values=empty, keep_default_na=False
        )
    except Exception as error:
        raise KitError("not a readable table", received=str(error), path=path) from error


def read_text_table(
    path: Path, separator: str = ",", header: Sequence[str] | None = None
) -> pd.DataFrame:
    """Read a label table as text: nothing becomes a number, and an empty cell is "".

    Args:
        path: UTF-8, with or without a byte order mark.
        separator: One character; " " stands for any blanks.
        header: Names of the columns where the file has no line for them.

    Raises:
        TableError: The file is no such table; says how the manifest states another separator.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)
            table = pd.read_csv(
                path, sep=r"\s+" if separator == " " else separator, dtype=str, index_col=False,
                header=None if header else 0, names=None if header is None else tuple(header),
                keep_default_na=False, encoding="utf-8-sig", skipinitialspace=True,
            )  # fmt: skip
    except (ValueError, pd.errors.ParserWarning, OSError) as error:
        raise TableError(
            "not a readable table", expected=f"UTF-8 text, columns separated by {separator!r}",
            received=str(error), path=path,
            remedy="save it so, or say `table: {file: …, separator: …}` in the manifest",
        ) from error  # fmt: skip
    table.columns = table.columns.str.strip()
    if table.shape[1] == 1 and any(sign in str(table.columns[0]) for sign in ";\t,|"):
        raise TableError(
            "a table of one column", received=table.columns[0], path=path,
            expected=f"columns separated by {separator!r}",
            remedy="say `table: {file: …, separator: …}` in the manifest",
        )  # fmt: skip
    return pd.DataFrame({name: table[name].fillna("").str.strip() for name in table})


def table_key(path: Path) -> str | None:
    """Return the fingerprint inside a Parquet table, or None if there is no such table."""
    import pyarrow.parquet as pq

    if not Path(path).is_file():
        return None
    try:
        return str((pq.read_schema(path).metadata or {}).get(KEY, b""), "utf-8")
    except Exception:  # a damaged table is made again
        return None


class FileIndex:
    """The sha256 of files, kept by size and time so that each is read once.

    Args:
        path: Where the index is kept (Parquet).
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._known: dict[str, tuple[int, int, str]] = {}
        self._dirty = False
        if table_key(path) is not None:
            rows = pd.read_parquet(path)
            self._known = {
                str(p): (int(s), int(t), str(h))
                for p, s, t, h in zip(rows.path, rows["size"], rows.time, rows.sha256, strict=True)
            }

    def sha256(self, path: Path) -> str:
        """Return the sha256 of `path`, read again only if its size or time changed."""
        name, (size, time) = str(path), _stamp(path)
        known = self._known.get(name)
        if known is None or known[:2] != (size, time):
            known = (size, time, sha256(path))
            self._known[name] = known
            self._dirty = True
        return known[2]

    def save(self) -> None:
        """Write the index if anything was read."""
        if self._dirty:
            rows = [(p, *entry) for p, entry in self._known.items()]
            write_table(pd.DataFrame(rows, columns=["path", "size", "time", "sha256"]), self.path)
            self._dirty = False


def _stamp(path: Path) -> tuple[int, int]:
    """Return size and modification time (ns) of a file; of a folder, what stands for all its files.

    The newest time would not do: two slices that change names keep it.
    """
    if path.is_dir():
        parts = sorted(p for p in path.rglob("*") if p.is_file())
        each = [(p.relative_to(path).as_posix(), *_stamp(p)) for p in parts]
        return sum(size for _, size, _ in each), int(fingerprint(each)[:15], 16)
    stat = path.stat()
    return stat.st_size, stat.st_mtime_ns


def check_writable(folder: Path) -> None:
    """Make a folder if it is not there, and raise `KitError` if nothing can be written to it."""
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(bytes(1 << 16))
    except OSError as error:
        raise KitError(f"the folder cannot be written ({error.strerror})", path=folder,
                       remedy="free some space, or choose another") from error  # fmt: skip


def holds_files(folder: Path) -> bool:
    """Return whether a folder is there and holds a file, hidden ones aside."""
    return folder.is_dir() and any(
        path.is_file() and not path.name.startswith(".") for path in folder.iterdir()
    )
