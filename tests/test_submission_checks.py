"""Submissions of the four seed challenges: fifty good ones are accepted, spoilt ones refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import project
import pytest

from kit import submission
from kit.challenges import find
from kit.ensemble import Ensemble
from kit.errors import KitError, MissingDataError, SettingsError, SubmissionError
from kit.files import write_json, write_table
from kit.manifest import load_manifest
from kit.submission_checks import Verdict, check

Rows = list[list[str]]
SEEDS = ["help2019", "khd2020", "khd2019", "rsna2021"]
MANIFEST = load_manifest()
CHALLENGES = {name: find(name, MANIFEST) for name in SEEDS}
IDS = {
    "help2019": "Slide{:03d}", "khd2020": "{}", "khd2019": "Wide_NOR_{:03d}_R", "rsna2021": "{:05d}"
}  # fmt: skip
PROBABILITIES = ("help2019", "rsna2021")


def rows_of(name: str, n: int = 60, seed: int = 0) -> Rows:
    """What an honest network might hand in: ids in order, and a value each."""
    rng = np.random.default_rng(seed)
    ids = [IDS[name].format(number + 1) for number in range(n)]
    if name in PROBABILITIES:
        return [[i, f"{v:.9g}"] for i, v in zip(ids, rng.beta(2, 3, n), strict=True)]
    codes = CHALLENGES[name].style.labels(CHALLENGES[name].dataset.classes)
    labels = [*codes, *rng.choice(codes, max(0, n - len(codes)))][:n]
    return [[i, str(v)] for i, v in zip(ids, labels, strict=True)]


def text_of(name: str, rows: Rows) -> str:
    style = CHALLENGES[name].style
    head = [[style.id_column, style.value_column]] if style.header else []
    return "".join(style.separator.join(row) + "\n" for row in [*head, *rows])


def sample_of(name: str, folder: Path, rows: Rows) -> Path:
    """The platform's sample: the same ids, a value that says nothing."""
    value = "0.5" if name in PROBABILITIES else "0"
    path = folder / "sample.csv"
    path.write_bytes(text_of(name, [[row[0], value] for row in rows]).encode())
    return path


def judged(name: str, path: Path, **more: object) -> Verdict:
    others = [one for key, one in CHALLENGES.items() if key != name]
    return check(path, CHALLENGES[name], others=others, **more)  # type: ignore[arg-type]


def rules(verdict: Verdict, level: str = "error") -> list[str]:
    return [one.rule for one in verdict.findings if one.level == level]


# Fifty that are right. Each is a challenge, its rows, and how they become bytes.


def valid() -> list[tuple[str, Rows, Callable[[str], str]]]:
    found: list[tuple[str, Rows, Callable[[str], str]]] = []
    for name in SEEDS:
        for seed, n in enumerate((1, 3, 4, 19, 40, 100, 500, 2000)):
            found.append((name, rows_of(name, n, seed), str))
    for name in PROBABILITIES:
        rows = rows_of(name)
        edges = [[i, v] for (i, _), v in zip(rows, ["0", "1", "1e-9", "1.0"], strict=False)]
        found += [
            (name, [*edges, *rows[4:]], str),
            (name, [[i, f"{float(v):.4f}"] for i, v in rows], str),
            (name, [[i, f"{float(v):e}"] for i, v in rows], str),
            (name, [rows[0], [rows[1][0], rows[0][1]], *rows[2:]], str),  # one pair of equals
            (name, [[i, f"{float(v) ** 8:.9g}"] for i, v in rows], str),  # most of them small
            (name, [[i, v.lstrip("0")] for i, v in rows], str),  # .5 for 0.5
            (name, rows[:2], str),
        ]
    for name in ("khd2020", "khd2019"):
        rows = rows_of(name, 300)
        found += [
            (name, [[i, "1" if k % 20 == 0 else "0"] for k, (i, _) in enumerate(rows)], str),
            (name, [[i, "0"] for i, _ in rows[:5]], str),  # five of one class are no miracle
        ]
    return found


VALID = valid()


def test_there_are_fifty_good_ones() -> None:
    assert len(VALID) == 50


@pytest.mark.parametrize("number", range(len(VALID)))
def test_a_good_submission_is_accepted(number: int, tmp_path: Path) -> None:
    name, rows, written = VALID[number]
    path = tmp_path / "s.csv"
    path.write_bytes(written(text_of(name, rows)).encode())
    verdict = judged(name, path, sample=sample_of(name, tmp_path, rows))
    assert rules(verdict) == []
    assert verdict.accepted and verdict.cases == len(rows)
    assert judged(name, path).accepted  # nor does it need a sample


def test_each_thing_that_is_wrong_with_a_column_is_told(tmp_path: Path) -> None:
    rows = rows_of("rsna2021")
    for row, spoilt in zip(rows, ["nan", "1.42", "", "0.5"], strict=False):
        row[1] = spoilt
    path = tmp_path / "s.csv"
    path.write_text(text_of("rsna2021", rows))
    assert rules(judged("rsna2021", path)) == ["empty_values", "nan", "range"]


def test_one_value_for_all_but_one_of_a_small_test_set_is_almost_constant(tmp_path: Path) -> None:
    rows = [[i, "0.5"] for i, _ in rows_of("rsna2021", 87)]
    rows[3][1] = "0.7"
    path = tmp_path / "s.csv"
    path.write_text(text_of("rsna2021", rows))
    assert rules(judged("rsna2021", path)) == ["almost_constant"]


# What is done to good rows, and to good text, and the rule that must name it.


def value(new: str | Callable[[str], str], *, every: bool = False) -> Callable[[Rows], Rows]:
    def spoil(rows: Rows) -> Rows:
        count = len(rows) if every else 1
        changed = [[i, new(v) if callable(new) else new] for i, v in rows[:count]]
        return [*changed, *rows[count:]]

    return spoil


def ids(change: Callable[[str], str], *, every: bool = True) -> Callable[[Rows], Rows]:
    return lambda rows: [
        [change(i) if every or k == 3 else i, v] for k, (i, v) in enumerate(rows)
    ]  # fmt: skip


def line(text: str, number: int) -> str:
    return text.splitlines(keepends=True)[number]


def numbered(text: str) -> bytes:
    """As pandas writes it with its index."""
    separator = "," if "," in text else " "
    return "".join(f"{k}{separator}{row}\n" for k, row in enumerate(text.splitlines())).encode()


def twice(text: str) -> bytes:
    """Two lines run into each other."""
    joined = line(text, 9).rstrip("\n") + ("," if "," in text else " ") + line(text, 10)
    return text.replace(line(text, 9) + line(text, 10), joined).encode()


ANY_ROWS: list[tuple[str, str, Callable[[Rows], Rows]]] = [
    ("a case is doubled", "doubled_ids", lambda rows: [*rows, rows[4]]),
    ("a case takes another's id", "doubled_ids", lambda rows: [[rows[1][0], "0"], *rows[1:]]),
    ("the last case is missing", "missing_ids", lambda rows: rows[:-1]),
    ("half of them are missing", "missing_ids", lambda rows: rows[::2]),
    ("a case too many", "unknown_ids", lambda rows: [*rows, ["zz9", rows[0][1]]]),
    ("an id is misspelt", "other_ids", ids(lambda i: i + "x", every=False)),
    ("an id is empty", "empty_ids", ids(lambda i: "", every=False)),
    ("ids with an ending", "form_of_ids", ids(lambda i: i + ".png")),
    ("ids as paths", "form_of_ids", ids(lambda i: f"test/{i}.png")),
    ("turned round", "order_of_ids", lambda rows: rows[::-1]),
    ("two cases exchanged", "order_of_ids", lambda rows: [rows[1], rows[0], *rows[2:]]),
    ("an empty value", "empty_values", value("")),
]
ANY_TEXT: list[tuple[str, str, Callable[[str], bytes]]] = [
    ("line ends of Windows", "line_ends", lambda text: text.replace("\n", "\r\n").encode()),
    ("byte order mark", "byte_order_mark", lambda text: text.encode("utf-8-sig")),
    ("UTF-16", "encoding", lambda text: text.encode("utf-16")),
    ("Latin-1", "encoding", lambda text: text.encode() + "Öde,1\n".encode("latin-1")),
    ("a byte of value 0", "encoding", lambda text: text[:40].encode() + b"\0" + text[40:].encode()),
    ("the last line cut", "last_line", lambda text: text[:-1].encode()),
    ("nothing", "empty", lambda text: b""),
    ("semicolons", "separator",
     lambda text: text.replace(",", ";").replace(" ", ";").encode()),
    ("a line cut in the middle", "columns",
     lambda text: text.replace(line(text, 9), "9\n").encode()),
    ("a line too long", "columns", twice),
    ("an empty line", "blank_lines", lambda text: text.encode() + b"\n"),
]  # fmt: skip
PROBABILITY_ROWS: list[tuple[str, str, Callable[[Rows], Rows]]] = [
    ("NaN", "nan", value("nan")),
    ("NA", "nan", value("NA")),
    ("infinity", "infinite", value("inf")),
    ("a word", "no_number", value("high")),
    ("percent", "range", value(lambda v: f"{float(v) * 100:.6g}", every=True)),
    ("logits", "range", value(lambda v: f"{np.log(float(v) / (1 - float(v))):.6g}", every=True)),
    ("just above 1", "range", value("1.0001")),
    ("below 0", "range", value("-0.0001")),
    ("one value", "constant", value("0.5", every=True)),
    ("one value and noise", "almost_constant",
     value(lambda v: f"{0.5 + float(v) * 1e-5:.9g}", every=True)),
    ("decisions", "hard_votes", value(lambda v: str(round(float(v))), every=True)),
    ("votes in tenths", "hard_votes", value(lambda v: f"{float(v):.1f}", every=True)),
    ("a heap at 1", "ties", value(lambda v: v if float(v) < 0.3 else "1", every=True)),
]  # fmt: skip
LABEL_ROWS: list[tuple[str, str, Callable[[Rows], Rows]]] = [
    ("an unknown code", "unknown_labels", value("7")),
    ("a code with decimals", "unknown_labels", value(lambda v: v + ".0", every=True)),
    ("NaN", "unknown_labels", value("nan")),
    ("probabilities", "no_labels", value(lambda v: f"{0.1 + 0.2 * int(v):.2f}", every=True)),
    ("one class", "constant", value("0", every=True)),
]


def spoilt() -> list[tuple[str, str, str, Callable[[Rows], Rows], Callable[[str], bytes]]]:
    found = []
    for name in SEEDS:
        own = PROBABILITY_ROWS if name in PROBABILITIES else LABEL_ROWS
        found += [(name, said, rule, done, str.encode) for said, rule, done in ANY_ROWS + own]
        found += [(name, said, rule, list, done) for said, rule, done in ANY_TEXT]
    for name in ("rsna2021", "khd2019"):
        style = CHALLENGES[name].style
        head = f"{style.id_column},{style.value_column}"
        for said, new in (
            ("no header", ""),
            ("other names", "id,prediction\n"),
            ("capitals", head.upper() + "\n"),
            ("exchanged names", f"{style.value_column},{style.id_column}\n"),
            ("it twice", f"{head}\n{head}\n"),
        ):
            found.append(
                (
                    name,
                    said,
                    "header",
                    list,
                    lambda text, h=head, n=new: text.replace(h + "\n", n).encode(),
                )
            )
    for name in PROBABILITIES:
        found += [
            (name, "bare decimal commas", "decimal_comma", list,
             lambda text: text.replace("0.", "0,").encode()),
            (name, "as a sheet of half of Europe", "separator", list,
             lambda text: text.replace(",", ";").replace("0.", "0,").encode()),
        ]  # fmt: skip
    for name, rule in zip(SEEDS, ("columns", "columns", "header", "header"), strict=True):
        found.append((name, "an index", rule, list, numbered))
    for name, head in (("help2019", "slide,score\n"), ("khd2020", "key value\n")):
        found.append((name, "a header", "header", list, lambda text, h=head: (h + text).encode()))
    zeros = ids(lambda i: i.lstrip("0"))
    found += [
        ("rsna2021", "zeros lost", "form_of_ids", zeros, str.encode),
        ("rsna2021", "ids as numbers", "form_of_ids", ids(lambda i: f"{int(i)}.0"), str.encode),
        ("help2019", "ids in small letters", "form_of_ids", ids(str.lower), str.encode),
        ("rsna2021", "decimal commas", "no_number",
         value(lambda v: f'"{v.replace(".", ",")}"', every=True), str.encode),
        ("khd2020", "names for codes", "unknown_labels",
         value(lambda v: ["benign", "malignant"][int(v)], every=True), str.encode),
        ("khd2019", "names for codes", "unknown_labels",
         value(lambda v: ["NOR", "AMD", "DMR", "RVO"][int(v)], every=True), str.encode),
    ]  # fmt: skip
    return found


SPOILT = spoilt()


def test_there_are_a_hundred_spoilt_ones_and_more() -> None:
    assert len(SPOILT) >= 100


@pytest.mark.parametrize(
    "number", range(len(SPOILT)), ids=lambda k: f"{SPOILT[k][0]} {SPOILT[k][1]}"
)
def test_a_spoilt_submission_is_refused_for_the_right_reason(number: int, tmp_path: Path) -> None:
    name, _, rule, rows_done, text_done = SPOILT[number]
    rows = rows_of(name)
    path = tmp_path / "s.csv"
    path.write_bytes(text_done(text_of(name, rows_done(rows))))
    verdict = judged(name, path, sample=sample_of(name, tmp_path, rows))
    assert rules(verdict) == [rule]
    assert not verdict.accepted
    assert all(one.remedy for one in verdict.findings)


@pytest.mark.parametrize("asked", SEEDS)
@pytest.mark.parametrize("given", SEEDS)
def test_a_submission_of_another_challenge_is_recognised(
    asked: str, given: str, tmp_path: Path
) -> None:
    path = tmp_path / "s.csv"
    path.write_bytes(text_of(given, rows_of(given)).encode())
    sample = sample_of(asked, tmp_path, rows_of(asked))
    for more in ({}, {"sample": sample}):
        verdict = judged(asked, path, **more)
        if asked == given:
            assert verdict.accepted
            continue
        assert rules(verdict) == ["other_challenge"]
        assert f"a submission of {given}" in verdict.findings[0].what


def test_the_kits_own_format_is_recognised_too(tmp_path: Path) -> None:
    text = "case_id,label,prob_normal,prob_idc\na,idc,.2,.8\nb,normal,.7,.3\n"
    (tmp_path / "s.csv").write_text(text)
    own = find("idc_patches", MANIFEST)
    verdict = check(tmp_path / "s.csv", CHALLENGES["khd2019"], others=[own])
    assert rules(verdict) == ["other_challenge"]
    assert check(tmp_path / "s.csv", own).accepted


@pytest.mark.parametrize("n", [10, 100, 1000])
def test_some_ties_are_told_and_refuse_nothing(n: int, tmp_path: Path) -> None:
    rows = [[i, v if float(v) < 0.5 else "0.93"] for i, v in rows_of("help2019", n, 1)]
    path = tmp_path / "s.csv"
    path.write_bytes(text_of("help2019", rows).encode())
    tied = sum(v == "0.93" for _, v in rows)
    verdict = judged("help2019", path, sample=sample_of("help2019", tmp_path, rows))
    assert 0.05 < tied / n < 0.5
    assert rules(verdict) == [] and "ties" in rules(verdict, "warning")
    said = next(one for one in verdict.findings if one.rule == "ties")
    assert f"{tied} that of 0.93" in str(said.received)


# Runs that made them. Out of fold and in the test set the same network speaks.


def run_of(name: str, out: Path, *, n: int = 60, synthetic: bool = False, smoke: bool = False,
           moved: float = 0.0) -> tuple[Path, Rows]:  # fmt: skip
    """A finished run's tables, as `kit run` leaves them, and the rows of its submission."""
    challenge, rng = CHALLENGES[name], np.random.default_rng(5)
    classes = challenge.dataset.classes

    def predicted(ids: list[str], shift: float) -> pd.DataFrame:
        raw = rng.normal(size=(len(ids), len(classes))) * 2
        raw[:, -1] += shift
        prob = np.exp(raw) / np.exp(raw).sum(axis=1, keepdims=True)
        truth = rng.choice(classes, len(ids))
        return pd.DataFrame({
            "case_id": ids, "group": ids, "fold": 0, "seed": 0, "model": "m", "y_true": truth,
            **{f"prob_{c}": prob[:, k] for k, c in enumerate(classes)},
        })  # fmt: skip

    out.mkdir(parents=True)
    test = predicted([IDS[name].format(k + 1) for k in range(n)], moved)
    oof = predicted([f"train{k}" for k in range(200)], 0.0)
    write_table(oof, out / "oof.parquet")
    write_table(test.sample(frac=1, random_state=3), out / "test.parquet")
    ensemble = Ensemble("mean").fit(oof)
    threshold = 0.5 if challenge.dataset.positive else None
    write_json(out / "ensemble.json", {**ensemble.to_dict(), "threshold": threshold})
    write_json(out / "metrics.json", {})
    write_json(out / "settings.json", {
        "synthetic": synthetic, "compared": {"challenge": name, "smoke": smoke}
    })  # fmt: skip
    rows = submission.table(ensemble.predict(test), challenge.style, classes,
                            challenge.dataset.positive, threshold)  # fmt: skip
    submission.write(out / "submission.csv", rows, challenge.style)
    style = challenge.style
    text = (out / "submission.csv").read_text().splitlines()[style.header :]
    return out / "submission.csv", [row.split(style.separator) for row in text]


@pytest.mark.parametrize("name", SEEDS)
def test_a_runs_own_file_is_accepted_and_its_run_found(name: str, tmp_path: Path) -> None:
    path, _ = run_of(name, tmp_path / "runs" / "a")
    elsewhere = tmp_path / "copy.csv"
    shutil.copy(path, elsewhere)
    for file in (path, elsewhere):
        verdict = judged(name, file, runs_in=tmp_path / "runs")
        assert verdict.findings == ()
        assert (verdict.ids_from, verdict.run) == ("run", path.parent)
    assert judged(name, elsewhere).run is None


@pytest.mark.parametrize("name", SEEDS)
@pytest.mark.parametrize("mark", ["folder", "note", "settings", "bytes"])
def test_what_a_run_on_stand_in_data_made_is_refused_by_its_mark(
    name: str, mark: str, tmp_path: Path
) -> None:
    out = tmp_path / "runs" / ("0a1b-SYNTHETIC" if mark == "folder" else "0a1b")
    path, _ = run_of(name, out, synthetic=mark in ("settings", "bytes"))
    if mark in ("folder", "note"):
        (out / "settings.json").unlink()
    if mark == "note":
        (out / "SYNTHETIC.txt").write_text("SYNTHETIC")
    if mark == "bytes":
        path = Path(shutil.copy(path, tmp_path / "innocent.csv"))
    verdict = judged(name, path, runs_in=tmp_path / "runs")
    assert rules(verdict) == ["stand_in"]


def test_a_smoke_run_is_told(tmp_path: Path) -> None:
    path, _ = run_of("rsna2021", tmp_path / "a", smoke=True)
    assert rules(judged("rsna2021", path), "warning") == ["smoke"]


def edited(name: str, path: Path, change: Callable[[Rows], Rows], rows: Rows) -> Path:
    path.write_bytes(text_of(name, change(rows)).encode())
    return path


@pytest.mark.parametrize(
    ("name", "change", "rule", "level"),
    [
        ("rsna2021", value(lambda v: f"{1 - float(v):.9g}", every=True), "other_class", "error"),
        ("khd2020", value(lambda v: str(1 - int(v)), every=True), "other_class", "error"),
        ("rsna2021",
         lambda rows: [[a[0], b[1]] for a, b in zip(rows, [*rows[7:], *rows[:7]], strict=True)],
         "other_cases", "error"),
        ("help2019", value(lambda v: f"{float(v) ** 1.2:.9g}", every=True), "not_of_the_run",
         "warning"),
        ("khd2019", value(lambda v: str((int(v) + 1) % 4)), "not_of_the_run", "warning"),
    ],
)  # fmt: skip
def test_a_file_that_differs_from_its_run_is_told_how(
    name: str, change: Callable[[Rows], Rows], rule: str, level: str, tmp_path: Path
) -> None:
    run, rows = run_of(name, tmp_path / "a")
    path = edited(name, tmp_path / "s.csv", change, rows)
    verdict = judged(name, path, run=run.parent)
    assert [(one.rule, one.level) for one in verdict.findings] == [(rule, level)]


@pytest.mark.parametrize("name", SEEDS)
def test_test_cases_that_lie_elsewhere_than_out_of_fold_are_told(name: str, tmp_path: Path) -> None:
    near, _ = run_of(name, tmp_path / "a")
    far, _ = run_of(name, tmp_path / "b", moved=4.0)
    assert judged(name, near).findings == ()
    verdict = judged(name, far)
    assert verdict.accepted and rules(verdict, "warning") == ["distribution"]


def test_a_run_demands_its_cases_where_there_is_no_sample(tmp_path: Path) -> None:
    run, rows = run_of("rsna2021", tmp_path / "a")
    path = edited("rsna2021", tmp_path / "s.csv", lambda r: r[:-1], rows)
    verdict = judged("rsna2021", path, run=run.parent)
    assert rules(verdict) == ["missing_ids"] and verdict.ids_from == "run"


def test_a_run_of_another_challenge_is_told(tmp_path: Path) -> None:
    run, _ = run_of("khd2020", tmp_path / "a")
    assert rules(judged("help2019", run)) == ["other_challenge"]
    with pytest.raises(SettingsError, match=r"another challenge.*help2019.*khd2020"):
        judged("help2019", run, run=run.parent)


def test_files_that_are_not_there_are_bad_input(tmp_path: Path) -> None:
    path = edited("rsna2021", tmp_path / "s.csv", list, rows_of("rsna2021"))
    (tmp_path / "empty").mkdir()
    bad: list[tuple[type[KitError], dict[str, object], str]] = [
        (MissingDataError, {"sample": tmp_path / "no.csv"}, "no such sample"),
        (MissingDataError, {"run": tmp_path / "empty"}, "no finished run"),
    ]
    for kind, more, said in bad:
        with pytest.raises(kind, match=said):
            judged("rsna2021", path, **more)
    with pytest.raises(SubmissionError, match="no such file"):
        judged("rsna2021", tmp_path / "no.csv")
    with pytest.raises(SubmissionError, match=r"sample is not in khd2020's format.*separator"):
        judged("khd2020", path, sample=path)
    doubled = edited("rsna2021", tmp_path / "d.csv", lambda r: [*r, r[0]], rows_of("rsna2021"))
    with pytest.raises(SubmissionError, match="doubles ids"):
        judged("rsna2021", path, sample=doubled)


def test_a_file_too_large_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "s.csv"
    with path.open("wb") as stream:
        stream.truncate(101_000_000)
    assert rules(judged("rsna2021", path)) == ["size"]


def test_the_command_says_it_with_its_exit_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copy(Path(__file__).parents[1] / "data_manifest.yaml", tmp_path)
    monkeypatch.chdir(tmp_path)
    rows = rows_of("rsna2021")
    good = edited("rsna2021", tmp_path / "good.csv", list, rows)
    bad = edited("rsna2021", tmp_path / "bad.csv", value("0.5", every=True), rows)
    sample = sample_of("rsna2021", tmp_path, rows)
    base = ("--challenge", "rsna2021", "--sample", sample)

    assert project.code_of("check-submission", good, *base) == 0
    assert "accepted (60 cases, rsna2021)" in capsys.readouterr().out
    assert project.code_of("check-submission", bad, *base, "--json") == 1
    said = json.loads(capsys.readouterr().out)
    assert [one["rule"] for one in said["errors"]] == ["constant"]
    assert said["accepted"] is False and said["ids_from"] == "sample"
    assert [one["rule"] for one in said["warnings"]] == ["run_unknown"]
    assert project.code_of("check-submission", tmp_path / "no.csv", *base) == 2
    assert project.code_of("check-submission", good, "--challenge", "rsna") == 2
    run_of("rsna2021", tmp_path / "submissions" / "rsna2021" / "k-SYNTHETIC", synthetic=True)
    made = tmp_path / "submissions" / "rsna2021" / "k-SYNTHETIC" / "submission.csv"
    copied = shutil.copy(made, tmp_path / "mine.csv")
    assert project.code_of("check-submission", copied, "--challenge", "rsna2021") == 1
    assert "stand-in data made it" in capsys.readouterr().out
