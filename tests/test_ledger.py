"""The ledger: lines only added, each checked; scores, the quota, and what a gap says."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pandas as pd
import project
import pytest

from kit import _ledger_file, _writers, ledger
from kit.challenges import quota
from kit.errors import LedgerError
from kit.files import write_json
from kit.ledger import Quota
from kit.official import Official

ROOT = Path(__file__).parents[1]
NOON = datetime(2026, 8, 3, 12, 0, tzinfo=UTC)


def line(run: str = "r", fingerprint: str = "f", **more: object) -> dict[str, object]:
    return {"run": run, "fingerprint": fingerprint, "metric": "auc", "local": 0.9,
            "low": 0.8, "high": 0.95, **more}  # fmt: skip


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A ledger of three: one scored, one handed in, one made."""
    path = tmp_path / "help2019" / "ledger.csv"
    for run in "abc":
        ledger.record(path, line(run, run * 4))
    ledger.submit(path, "help2019-1", note="first", now=NOON)
    ledger.score(path, "help2019-1", 0.76)
    ledger.submit(path, "help2019-2", now=NOON + timedelta(hours=2))
    return path


def test_it_grows_by_one_line_for_each_new_result(tmp_path: Path) -> None:
    path = tmp_path / "new" / "ledger.csv"
    assert ledger.read(path).empty
    names = [
        ledger.record(path, line(run, mark))
        for run, mark in [("a", "1"), ("a", "2"), ("b", "1"), ("a", "1"), ("b", "1")]
    ]
    assert names == ["new-1", "new-2", "new-3", "new-1", "new-3"]
    rows = ledger.read(path)
    assert list(rows.run + rows.fingerprint) == ["a1", "a2", "b1"]
    assert list(rows.local + rows.low + rows.high) == ["0.90.80.95"] * 3
    assert (rows.leaderboard == "").all() and (rows.submitted == "").all()
    assert pd.to_datetime(rows.time, utc=True).notna().all()
    assert sorted(os.listdir(path.parent)) == ["ledger.csv", "ledger.head"]


def test_another_local_score_of_the_same_file_is_another_line(tmp_path: Path) -> None:
    path = tmp_path / "x" / "ledger.csv"
    assert [ledger.record(path, line(local=v)) for v in (0.5, 0.6, 0.5)] == ["x-1", "x-2", "x-1"]
    assert ledger.record(path, line(local=None, low=float("nan"))) == "x-3"
    assert list(ledger.read(path).iloc[-1][["local", "low", "high"]]) == ["", "", "0.95"]


def test_a_score_goes_to_its_submission_and_a_later_one_replaces_it(place: Path) -> None:
    before = place.read_text()
    assert ledger.score(place, "bbbb", 0.81, note="after, the deadline") == "help2019-2"
    assert ledger.score(place, "b", 0.82) == "help2019-2"
    assert place.read_text().startswith(before)
    rows = ledger.read(place).set_index("id")
    assert list(rows.leaderboard) == ["0.76", "0.82", ""]
    assert list(rows.note) == ["first", "after, the deadline", ""]
    assert list(rows.submitted) == [NOON.isoformat(), (NOON + timedelta(hours=2)).isoformat(), ""]


def test_a_note_with_commas_quotes_and_lines_stays_one_line(tmp_path: Path) -> None:
    path = tmp_path / "x" / "ledger.csv"
    ledger.record(path, line())
    ledger.score(path, "x-1", 0.5, note='one, "two"\nthree')
    assert list(ledger.read(path).note) == ['one, "two" three']
    assert len(path.read_text().splitlines()) == 3


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda text: text.replace("0.76", "0.97"), "line 6 of the ledger was edited"),
        (lambda text: text.replace("help2019-2", "help2019-1", 1), "line 3 of"),
        (lambda text: text.replace("bbbb", "b", 1), "line 3 of"),
        (lambda text: "".join(text.splitlines(True)[:2] + text.splitlines(True)[3:]), "line 3 of"),
        (lambda text: "".join(text.splitlines(True)[k] for k in (0, 1, 3, 2, 4, 5, 6)), "line 3 "),
        (lambda text: text + text.splitlines(True)[-1], "line 8 of"),
        (lambda text: text + "\n", "line 8 of"),
        (lambda text: text[:-6], "cut in line 7"),
        (lambda text: text[:-1], "cut in line 7"),
        (lambda text: "".join(text.splitlines(True)[:-1]), "line 7 and what followed are missing"),
        (lambda text: "".join(text.splitlines(True)[:3]), "line 4 and what followed are missing"),
        (lambda text: text.replace("run", "name", 1), "line 1 of"),
        (lambda text: text.replace(",", ";"), "line 1 of"),
        (lambda text: "", "line 1 of"),
        (lambda text: text.replace("first", '"first'), "cannot be read|line 5 of"),
    ],
)
def test_a_ledger_cut_or_edited_is_refused_with_the_line_and_left_as_it_is(
    place: Path, change: Callable[[str], str], said: str
) -> None:
    damaged = change(place.read_text())
    assert damaged != place.read_text()
    place.write_text(damaged)
    for call in (
        lambda: ledger.read(place),
        lambda: ledger.record(place, line("d")),
        lambda: ledger.score(place, "help2019-1", 0.5),
    ):
        with pytest.raises(LedgerError, match=said) as caught:
            call()
        assert caught.value.path == str(place)
        assert "version control" in str(caught.value.remedy)
    assert place.read_text() == damaged
    assert sorted(os.listdir(place.parent)) == ["ledger.csv", "ledger.head"]


def test_a_ledger_without_its_head_or_a_head_without_its_ledger_is_refused(place: Path) -> None:
    head = place.with_suffix(".head")
    kept = head.read_text()
    head.unlink()
    with pytest.raises(LedgerError, match="head is missing"):
        ledger.read(place)
    head.write_text("many")
    with pytest.raises(LedgerError, match="head is damaged"):
        ledger.read(place)
    head.write_text(kept)
    place.unlink()
    with pytest.raises(LedgerError, match="the ledger is gone"):
        ledger.record(place, line("d"))


@pytest.mark.parametrize("after", [1, 2, 3])
def test_a_writer_killed_between_file_and_head_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    path, real, calls = tmp_path / "x" / "ledger.csv", _ledger_file.write_text, []

    def killed(place: Path, text: str) -> None:
        real(place, text)
        calls.append(place)
        if len(calls) == after:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(_ledger_file, "write_text", killed)
        with pytest.raises(KeyboardInterrupt):
            ledger.record(path, line("a"))
    assert len(ledger.read(path)) == (after > 1)
    assert ledger.record(path, line("a")) == "x-1"
    assert ledger.record(path, line("b")) == "x-2"
    assert list(ledger.read(path).run) == ["a", "b"]


def test_an_interrupted_write_leaves_it_whole_and_unlocked(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = place.read_text()

    def stopped(source: Path, target: Path) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", stopped)
        with pytest.raises(KeyboardInterrupt):
            ledger.record(place, line("d"))
    assert place.read_text() == before
    assert sorted(os.listdir(place.parent)) == ["ledger.csv", "ledger.head"]


WRITER = """
import sys
from pathlib import Path
from kit import ledger
sys.stdin.readline()
for n in range(15):
    ledger.record(Path(sys.argv[1]), {"run": sys.argv[2], "fingerprint": n})
"""


def test_two_writers_at_once_lose_no_line_and_a_reader_sees_whole_ones(tmp_path: Path) -> None:
    path = tmp_path / "x" / "ledger.csv"
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, str(path), name], cwd=ROOT, text=True,
            stdin=subprocess.PIPE, stderr=subprocess.PIPE,
        )
        for name in ("a", "b")
    ]  # fmt: skip
    for writer in writers:
        assert writer.stdin is not None
        writer.stdin.write("go\n")
        writer.stdin.flush()
    seen = 0
    while any(writer.poll() is None for writer in writers):
        now = len(ledger.read(path))
        assert now >= seen
        seen = now
    errors = [writer.communicate()[1] for writer in writers]
    assert [writer.returncode for writer in writers] == [0, 0], errors
    rows = ledger.read(path)
    assert sorted(rows.run + rows.fingerprint) == sorted(f"{r}{n}" for r in "ab" for n in range(15))
    assert list(rows.id) == [f"x-{n}" for n in range(1, 31)]


def test_the_lock_of_a_dead_writer_is_taken_over(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = place.with_name("ledger.csv.lock")
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    lock.write_text(f"{_writers.PREFIX}{_writers.host()}-{ended.pid}-1")
    ledger.score(place, "help2019-3", 0.5)  # at once: that process is gone
    lock.write_text("of another machine")
    old = time.time() - 120
    os.utime(lock, (old, old))
    ledger.score(place, "help2019-3", 0.6)
    assert sorted(os.listdir(place.parent)) == ["ledger.csv", "ledger.head"]


def test_the_lock_of_a_living_writer_is_respected(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = place.with_name("ledger.csv.lock")
    lock.write_text(f"{_writers.prefix()}1")
    monkeypatch.setattr(_ledger_file, "PATIENCE", 0.1)
    with pytest.raises(LedgerError, match=r"written by another run.*delete .*lock if none is"):
        ledger.record(place, line("d"))
    assert lock.is_file()


@pytest.mark.parametrize(
    ("per", "most", "handed", "free"),
    [
        ("hour", 1, [], 0),
        ("hour", 1, [-30], 30),  # half an hour ago: in half an hour
        ("hour", 1, [-60], 0),
        ("hour", 1, [-500, -59], 1),
        ("hour", 2, [-50, -20], 10),
        ("hour", 2, [-70, -20], 0),
        ("day", 5, [-10, -20, -30, -40], 0),
        ("day", 5, [-10, -20, -30, -40, -720], 720),  # noon: 12 h to midnight in UTC
        ("day", 5, [-10, -20, -30, -40, -721], 0),
        ("day", 1, [-1], 720),
    ],
)
def test_a_quota_says_when_the_next_is_taken(
    per: str, most: int, handed: list[int], free: int
) -> None:
    limit = Quota(most, per)  # type: ignore[arg-type]
    times = [NOON + timedelta(minutes=number) for number in handed]
    assert limit.free_at(times, NOON) == NOON + timedelta(minutes=free)


def test_a_day_is_that_of_utc_wherever_the_clock_stands() -> None:
    from datetime import timezone

    seoul = timezone(timedelta(hours=9))
    now = datetime(2026, 8, 4, 2, 0, tzinfo=seoul)  # still the 3rd in UTC, 17:00
    handed = [datetime(2026, 8, 3, 23, 0, tzinfo=seoul)] * 5
    assert Quota(5, "day").free_at(handed, now) == datetime(2026, 8, 4, 0, 0, tzinfo=UTC)


def test_the_quota_is_guarded(place: Path) -> None:
    limit = Quota(1, "hour")
    late = NOON + timedelta(hours=2, minutes=59)
    before = place.read_text()
    with pytest.raises(LedgerError, match=r"quota is spent.*1 an hour.*hand it in from"):
        ledger.submit(place, "help2019-3", limit, now=late)
    assert place.read_text() == before
    ledger.submit(place, "help2019-3", limit, now=late + timedelta(minutes=1))
    with pytest.raises(LedgerError, match="handed in before"):
        ledger.submit(place, "help2019-3")


def test_the_challenges_state_their_quota() -> None:
    stated = {name: str(quota(name)) for name in ("khd2019", "khd2020", "rsna2021")}
    assert stated == {"khd2019": "1 an hour", "khd2020": "1 an hour", "rsna2021": "5 a day"}
    assert quota("help2019") is None and quota("idc_patches") is None


def test_unknown_ids_and_scores_that_are_no_numbers_are_refused(place: Path) -> None:
    with pytest.raises(LedgerError, match=r"no such submission.*did you mean help2019-"):
        ledger.score(place, "help2019-9", 0.5)
    with pytest.raises(LedgerError, match="must be a number"):
        ledger.score(place, "help2019-1", float("nan"))


def entered(pairs: list[tuple[float, float]], half: float | None = 0.05) -> pd.DataFrame:
    """As `read` returns it: local scores with an interval, and the leaderboard's."""
    text = {
        "local": [repr(a) for a, _ in pairs], "leaderboard": [repr(b) for _, b in pairs],
        "low": ["" if half is None else repr(a - half) for a, _ in pairs],
        "high": ["" if half is None else repr(a + half) for a, _ in pairs],
    }  # fmt: skip
    return pd.DataFrame({"id": [f"x-{n}" for n in range(len(pairs))], **text})


def test_the_gap_is_told_and_few_submissions_make_no_claim() -> None:
    assert "nothing can be said" in ledger.meaning(entered([]))[0]
    one = ledger.meaning(entered([(0.93, 0.76)]))
    assert one[0] == "leaderboard less local: -0.1700"
    assert one[1].startswith("0 of 1 leaderboard scores lie in") and "1 below" in one[1]
    assert "no claim" in one[2]
    three = ledger.meaning(entered([(0.8, 0.78), (0.82, 0.83), (0.9, 0.99)]))
    assert three[0] == "leaderboard less local: +0.0267 on average of 3, from -0.0200 to +0.0900"
    assert three[1].startswith("2 of 3") and "1 above" in three[1]
    assert "fewer than 5: no claim" in three[2]
    inside = ledger.meaning(entered([(0.8, 0.78), (0.82, 0.83)]))
    assert inside[1].endswith("from fewer than 5 no claim is made")
    many = ledger.meaning(entered([(0.8 + k / 100, 0.8) for k in range(5)]))
    assert many[1].endswith("chance among our own patients is enough to explain the gap")
    above = ledger.meaning(entered([(0.7, 0.9)] * 5))[1]
    assert "more than chance" in above and "flatters" not in above
    assert "flatters" in ledger.meaning(entered([(0.9, 0.7)] * 5))[1]
    judged = entered([]).reindex(range(2)).assign(local="", leaderboard=["0.8", "0.7"])
    assert "the 2 judged have no local score" in ledger.meaning(judged)[0]
    assert "have no interval" in ledger.meaning(entered([(0.8, 0.78)], half=None))[1]


def test_the_order_is_claimed_only_where_chance_does_not_make_it() -> None:
    falling = ledger.meaning(entered([(0.7 + k / 100, 0.9 - k / 100) for k in range(6)]))
    assert falling[2].startswith("a better local score went with a worse one there")
    assert "look at it before you choose" in falling[3]
    rising = [(0.7 + k / 100, 0.6 + k / 100) for k in range(5)]
    said = ledger.meaning(entered(rising))[2]  # of 120 orders two are as far: p = 2 / 120
    assert said == ("a better local score went with a better one there: Kendall's tau 1.00, "
                    "p = 0.017, 5 scored")  # fmt: skip
    falling = ledger.meaning(entered([(a, -b + 1.5) for a, b in rising]))[2]
    assert falling.startswith("a better local score went with a worse one there")
    mixed = ledger.meaning(entered([(0.7, 0.6), (0.71, 0.63), (0.72, 0.61), (0.73, 0.6),
                                    (0.74, 0.64)]))[2]  # fmt: skip
    assert "cannot be told" in mixed
    assert "say" in ledger.meaning(entered([(0.7, b) for _, b in rising]))[2]


def test_the_local_score_is_in_points_of_the_judge() -> None:
    metrics = {
        "mean_of_six": {"value": 0.8, "low": 0.7, "high": 0.9},
        "accuracy": {"value": 0.91, "low": 0.85, "high": None},
    }
    assert ledger.local(metrics, None) == {
        "metric": "mean_of_six", "local": 0.8, "low": 0.7, "high": 0.9
    }  # fmt: skip
    packed = Official("packed", lambda a, b: 0.0, "y_pred", "accuracy", "", scale=100.0)
    found = ledger.local(metrics, packed)
    assert found == {"metric": "accuracy", "local": 91.0, "low": 85.0, "high": None}


# The commands.


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with a finished run of khd2020, as far as its files matter here."""
    shutil.copy(ROOT / "data_manifest.yaml", tmp_path)
    monkeypatch.chdir(tmp_path)
    out = tmp_path / "submissions" / "khd2020" / "a1"
    out.mkdir(parents=True)
    rows = "".join(f"{n} {int(n % 3 == 0)}\n" for n in range(40))
    (out / "submission.csv").write_text(rows)
    write_json(out / "settings.json", {"synthetic": False, "compared": {"challenge": "khd2020"}})
    figure = {"value": 0.9, "low": 0.85, "high": 0.93}
    write_json(out / "metrics.json", {"mean_of_six": figure, "auc": figure})
    return tmp_path


def test_submit_score_and_show_go_together(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = home / "submissions" / "khd2020" / "a1" / "submission.csv"
    asked = ("--challenge", "khd2020")
    assert project.code_of("ledger", "submit", file, *asked, "--note", "one") == 0
    assert "kit ledger score khd2020-1 VALUE" in capsys.readouterr().out
    other = home / "other.csv"
    other.write_text(file.read_text().replace("1 0", "1 1", 1))
    assert project.code_of("ledger", "submit", other, *asked) == 1
    assert "quota is spent (1 an hour)" in capsys.readouterr().err
    assert len(ledger.read(file.parents[1] / "ledger.csv")) == 1
    assert project.code_of("ledger", "score", "khd2020-1", "0.87") == 0
    capsys.readouterr()
    picture = home / "gap.png"
    assert project.code_of("ledger", "show", "khd2020", "--figure", picture, "--json") == 0
    (one,) = json.loads(capsys.readouterr().out)["ledgers"]
    (row,) = one["submissions"]
    assert (row["run"], row["metric"], row["local"]) == ("a1", "mean_of_six", "0.9")
    assert (row["leaderboard"], row["note"]) == ("0.87", "one")
    assert one["meaning"][0] == "leaderboard less local: -0.0300"
    assert one["quota"] == "1 an hour" and one["next"] > row["submitted"]
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert project.code_of("ledger", "show") == 0
    said = capsys.readouterr().out
    assert "khd2020-1" in said and "no claim" in said and "quota: 1 an hour" in said


def test_what_the_check_refuses_is_not_entered(home: Path) -> None:
    bad = home / "bad.csv"
    bad.write_text("1,0\n")
    assert project.code_of("ledger", "submit", bad, "--challenge", "khd2020") == 1
    assert not (home / "submissions" / "khd2020" / "ledger.csv").exists()


def test_bad_input_of_the_commands_is_one_line(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for arguments, said in [
        (("score", "khd2020-1", "0.5"), "no such submission"),
        (("score", "khd2020-1", "87"), "no such score. Expected: 0 to 1"),
        (("score", "nothing", "0.5"), "an id names its challenge"),
        (("score", "khd2002-1", "0.5"), "did you mean khd2020"),
        (("show", "khd2002"), "did you mean khd2020"),
        (("show", "--figure", "x.png"), "a figure is of one challenge"),
        (("show", "khd2020", "--figure", "x.png"), "no submission has both scores"),
        (("submit", "no.csv", "--challenge", "khd2020"), "no such file"),
    ]:
        assert project.code_of("ledger", *arguments) == 2
        assert said in capsys.readouterr().err


def test_a_damaged_ledger_is_bad_input(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = home / "submissions" / "khd2020" / "ledger.csv"
    ledger.record(path, line())
    path.write_text(path.read_text().replace("0.9,", "0.99,"))
    assert project.code_of("ledger", "show") == 2
    assert "line 2 of the ledger was edited by hand" in capsys.readouterr().err
