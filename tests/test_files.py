"""Files: whole or absent; tables with the fingerprint of what made them; sha256 read once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from project import printed

from kit import _writers, files
from kit.errors import KitError
from kit.files import FileIndex, atomic, digest, fingerprint

ROOT = Path(__file__).parents[1]


def table() -> pd.DataFrame:
    return pd.DataFrame(
        {"case_id": ["007", "b"], "label": ["x", None], "x": [1, 2], "p": [0.1, float("nan")]}
    )


def test_a_file_appears_whole_with_the_rights_of_any_new_file(tmp_path: Path) -> None:
    path, usual = tmp_path / "new" / "a.txt", tmp_path / "usual"
    usual.touch()
    with atomic(path) as part:
        assert part.parent == path.parent
        assert part.suffix == ".txt"
        part.write_text("whole")
        assert not path.exists()
    assert path.read_text() == "whole"
    assert path.stat().st_mode == usual.stat().st_mode
    assert os.listdir(path.parent) == ["a.txt"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, OSError])
def test_an_exception_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, error: type[BaseException]
) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(error), atomic(path) as part:
        part.write_text("half")
        raise error
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]


FULL = """
import resource, sys
from pathlib import Path
import numpy as np, pandas as pd
from kit.errors import KitError
from kit.files import atomic, write_table, write_text
out = Path(sys.argv[1])
def by_numpy():
    with atomic(out / "a.npy") as part, part.open("wb") as stream:
        np.save(stream, np.zeros(100_000))
def by_text():
    write_text(out / "a.txt", "x" * 100_000)
def by_arrow():
    write_table(pd.DataFrame({"a": np.random.default_rng(0).random(50_000)}), out / "a.parquet")
by_arrow()
(out / "a.parquet").unlink()
resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
for write in (by_numpy, by_text, by_arrow):
    try:
        write()
    except KitError as error:
        print(error)
"""


@pytest.mark.skipif(os.name == "nt", reason="Windows has no limit of file sizes")
def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path: Path) -> None:
    lines = printed(FULL, tmp_path).splitlines()
    assert len(lines) == 3
    for line, name in zip(lines, ("a.npy", "a.txt", "a.parquet"), strict=True):
        assert line.startswith(f"the disk is full. File: {tmp_path / name}. Remedy: free some")
    assert os.listdir(tmp_path) == []


def test_hdf5_says_a_full_disk_in_words(tmp_path: Path) -> None:
    words = "Can't write data (file write failed: errno = 28, error message = 'No space left')"
    with pytest.raises(KitError, match="the disk is full"), atomic(tmp_path / "a"):
        raise OSError(words)


def test_a_file_in_the_place_of_a_folder_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "a").touch()
    with pytest.raises(KitError, match=r"cannot be written\. Received: .+\. File: "):
        files.write_text(tmp_path / "a" / "b.txt", "x")


def test_text_has_lf_line_ends_everywhere(tmp_path: Path) -> None:
    files.write_text(tmp_path / "a", "µ\nb\n")
    assert (tmp_path / "a").read_bytes() == b"\xc2\xb5\nb\n"


def test_a_fingerprint_sees_values_and_not_their_order_or_type_of_number() -> None:
    assert fingerprint({"a": 1, "b": 2}) == fingerprint({"b": np.int64(2), "a": np.int8(1)})
    assert fingerprint({"a", "b", "c"}) == fingerprint(["a", "b", "c"])
    assert fingerprint(np.array([1, 2])) == fingerprint([1, 2])
    different = [1, "1", [1], None, "None", 1.5, {"a": 1}, {"a": 2}]
    assert len({fingerprint(value) for value in different}) == len(different)
    assert len(fingerprint("x")) == 16


def test_what_has_no_lasting_text_has_no_fingerprint() -> None:
    for value in (object(), lambda: 1):
        with pytest.raises(TypeError, match="a place in memory"):
            fingerprint({"value": value})


def test_another_process_gives_the_same_fingerprint() -> None:
    code = (
        "import pandas as pd; from kit.files import digest, fingerprint\n"
        "t = pd.DataFrame({'case_id': ['007', 'b'], 'label': ['x', None], 'x': [1, 2],"
        " 'p': [.1, float('nan')]})\n"
        "print(fingerprint({'s': {'x', 'y', 'z'}}), digest(t))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert done.stdout.split() == [fingerprint({"s": {"z", "y", "x"}}), digest(table())]


def test_a_digest_sees_values_columns_and_order_and_no_index() -> None:
    base = table()
    assert digest(base) == digest(base.copy()) == digest(base.set_index(pd.Index([5, 6])))
    others = [
        base.iloc[::-1], base.rename(columns={"x": "y"}), base[["label", "case_id", "x", "p"]],
        base.assign(p=0.1), base.assign(label=["x", "y"]), base.assign(label=["x", "None"]),
        base.iloc[:1], base.assign(p=[0.1 + 1e-12, float("nan")]),
    ]  # fmt: skip
    assert len({digest(other) for other in [base, *others]}) == len(others) + 1


def test_a_digest_is_the_same_for_every_kind_of_empty_cell_and_text() -> None:
    kinds = [
        np.array(["x", None], object), np.array(["x", float("nan")], object),
        pd.array(["x", None], dtype="string"),
    ]  # fmt: skip
    assert len({digest(pd.DataFrame({"a": kind})) for kind in kinds}) == 1


def test_a_table_read_back_is_the_table_written(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    files.write_table(table(), path, "made by this")
    assert files.table_key(path) == "made by this"
    assert digest(files.read_table(path)) == digest(table())
    assert list(files.read_table(path).case_id) == ["007", "b"]


def test_a_table_with_another_key_is_another_file_and_a_damaged_one_has_none(
    tmp_path: Path,
) -> None:
    path = tmp_path / "t.parquet"
    assert files.table_key(path) is None
    files.write_table(table(), path)
    assert files.table_key(path) == ""
    path.write_bytes(path.read_bytes()[:-20])
    assert files.table_key(path) is None
    with pytest.raises(KitError, match="not a readable table") as caught:
        files.read_table(path)
    assert caught.value.path == str(path)


def test_ids_and_labels_of_a_csv_stay_text(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("case_id,group,label,fold\n007,1,0,2\nNA,01,,3\n")
    found = files.read_table(path)
    assert list(found.case_id) == ["007", "NA"]
    assert list(found.group) == ["1", "01"]
    assert found.label[0] == "0"
    assert pd.isna(found.label[1])
    assert list(found.fold) == [2, 3]


def test_a_missing_table_is_named(tmp_path: Path) -> None:
    with pytest.raises(KitError, match=r"no such table\..* File: .*t\.csv"):
        files.read_table(tmp_path / "t.csv")


def test_json_has_no_nan_and_comes_back(tmp_path: Path) -> None:
    value = {
        "nan": float("nan"), "inf": np.float32("inf"), "n": np.int64(3), "yes": np.bool_(True),
        "list": (1, np.array([0.5])), "path": Path("a"), 5: "key", "set": {"b", "a"},
    }  # fmt: skip
    files.write_json(tmp_path / "a.json", value)
    found = files.read_json(tmp_path / "a.json")
    assert found == {
        "nan": None, "inf": None, "n": 3, "yes": True, "list": [1, [0.5]], "path": "a",
        "5": "key", "set": ["a", "b"],
    }  # fmt: skip
    json.loads((tmp_path / "a.json").read_text(), parse_constant=pytest.fail)


@pytest.mark.parametrize("content", [b'{"a": ', b"\xff\xfe", None])
def test_json_that_is_cut_or_missing_is_a_clear_error(
    tmp_path: Path, content: bytes | None
) -> None:
    path = tmp_path / "a.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(KitError) as caught:
        files.read_json(path)
    assert caught.value.path == str(path)


def test_sha256_is_that_of_the_standard(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    assert files.sha256(tmp_path / "a") == (
        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    )


def test_a_folder_is_known_by_its_names_and_contents(tmp_path: Path) -> None:
    seen = set()
    for name, content in [("a", b"1"), ("a", b"2"), ("b", b"2"), ("d/b", b"2")]:
        folder = tmp_path / str(len(seen))
        (folder / name).parent.mkdir(parents=True)
        (folder / name).write_bytes(content)
        seen.add(files.sha256(folder))
    assert len(seen) == 4


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The names of the files and folders whose contents are read."""
    names: list[str] = []
    real = files.sha256

    def counted(path: Path) -> str:
        names.append(Path(path).name)
        return real(path)

    monkeypatch.setattr(files, "sha256", counted)
    yield names


def test_only_changed_files_are_read_again(tmp_path: Path, reads: list[str]) -> None:
    index, data = tmp_path / "index.parquet", tmp_path / "data"
    data.mkdir()
    for name in "abc":
        (data / name).write_text(name)

    def all_of() -> list[str]:
        reads.clear()
        known = FileIndex(index)
        found = [known.sha256(data / name) for name in "abc"]
        known.save()
        return found

    first = all_of()
    assert reads == ["a", "b", "c"]
    assert all_of() == first
    assert reads == []
    (data / "b").write_text("longer")
    second = all_of()
    assert reads == ["b"]
    assert [a == b for a, b in zip(first, second, strict=True)] == [True, False, True]
    os.utime(data / "c", ns=(1, 1))
    assert all_of() == second
    assert reads == ["c"]


def test_an_index_where_nothing_was_read_is_not_written(tmp_path: Path) -> None:
    FileIndex(tmp_path / "index.parquet").save()
    assert os.listdir(tmp_path) == []


def test_a_damaged_index_is_made_again(tmp_path: Path, reads: list[str]) -> None:
    (tmp_path / "index.parquet").write_bytes(b"PAR1 no more")
    (tmp_path / "a").touch()
    FileIndex(tmp_path / "index.parquet").sha256(tmp_path / "a")
    assert reads == ["a"]


def test_two_slices_that_change_names_are_seen(tmp_path: Path, reads: list[str]) -> None:
    folder = tmp_path / "study"
    folder.mkdir()
    for name, time in (("1", 10), ("2", 20)):
        (folder / name).write_text(name)
        os.utime(folder / name, ns=(time, time))
    index = FileIndex(tmp_path / "index.parquet")
    before = index.sha256(folder)
    assert index.sha256(folder) == before
    assert reads.count("study") == 1
    (folder / "1").rename(folder / "x")
    (folder / "2").rename(folder / "1")
    (folder / "x").rename(folder / "2")
    after = index.sha256(folder)
    assert after != before
    (folder / "2").rename(folder / "3")
    assert index.sha256(folder) not in (before, after)


def test_only_temporary_files_of_killed_writers_are_removed(tmp_path: Path) -> None:
    old, young, whole = (tmp_path / "a" / n for n in (".part-old.npy", ".part-new.npy", "x.npy"))
    old.parent.mkdir()
    for path in (old, young, whole):
        path.touch()
    os.utime(old, (0, 0))
    os.utime(whole, (0, 0))
    files.remove_leftovers(tmp_path)
    assert [path.exists() for path in (old, young, whole)] == [False, True, True]


KILLED = """
import os, signal, sys
from pathlib import Path
from kit.files import atomic
with atomic(Path(sys.argv[1])) as part:
    part.write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.skipif(os.name == "nt", reason="Windows cannot ask whether a process lives")
def test_what_a_killed_process_left_is_removed_at_once_and_a_living_ones_is_not(
    tmp_path: Path,
) -> None:
    with atomic(tmp_path / "state" / "mine.npz") as mine:
        command = [sys.executable, "-c", KILLED, str(tmp_path / "state" / "theirs.npz")]
        subprocess.run(command, cwd=ROOT, check=False)
        (theirs,) = set((tmp_path / "state").iterdir()) - {mine}
        elsewhere = tmp_path / theirs.name.replace(_writers.host(), "0" * 8)
        elsewhere.touch()
        files.remove_leftovers(tmp_path)
        assert not theirs.exists()
        assert mine.exists()
        assert elsewhere.exists(), "a process of another host may be at work"


@pytest.mark.skipif(sys.platform != "linux", reason="Linux tells a process's state in /proc")
def test_a_process_that_ended_and_was_never_asked_for_is_dead(tmp_path: Path) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    name = f".part-{_writers.host()}-{ended.pid}-x.npy"
    os.waitid(os.P_PID, ended.pid, os.WEXITED | os.WNOWAIT)  # it stays a zombie
    assert _writers.is_dead(name)
    ended.wait()
    assert _writers.is_dead(name)
    assert not _writers.is_dead(f".part-{_writers.host()}-{os.getpid()}-x.npy")
