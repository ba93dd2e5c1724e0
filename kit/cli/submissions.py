"""`kit check-submission` and `kit ledger show|submit|score`: what is handed in, and its scores."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kit.cli.common import FAILED, OK, Json, app, say, show_table
from kit.errors import LedgerError

if TYPE_CHECKING:
    from kit.ledger import Quota
    from kit.submission_checks import Verdict

ledger_app = typer.Typer(
    no_args_is_help=True, help="What was handed in, the judge's scores, and what they say."
)
app.add_typer(ledger_app, name="ledger")

Challenge = Annotated[
    str, typer.Option(help="What it is handed in to: a challenge or a data set.", metavar="C")
]

Sample = Annotated[
    Path | None,
    typer.Option(help="The platform's sample: its ids, in its order, are demanded.", metavar="S"),
]
Run = Annotated[
    Path | None,
    typer.Option(
        help="Run to compare it with [the one that wrote it, where it is found].", metavar="RUN"
    ),
]


@app.command("check-submission")
def check_submission(
    file: Annotated[Path, typer.Argument(help="The submission.", metavar="FILE")],
    challenge: Challenge,
    sample: Sample = None,
    run: Run = None,
    as_json: Json = False,
) -> int:
    """Say whether a submission is what the platform takes, and whether it can be right.

    Format, encoding and size; ids complete, each once, in order; values in range, neither constant
    nor tied nor votes; their distribution beside the out-of-fold one. Exit code 1 where it is
    refused; warnings alone refuse nothing. What a run on stand-in data made is refused.
    """
    verdict = _judged(file, challenge, sample, run)
    if as_json:
        said = {"file": str(file), "challenge": challenge, **verdict.to_dict()}
        typer.echo(json.dumps(said))
    else:
        _show(verdict, file, challenge)
    return OK if verdict.accepted else FAILED


def _judged(file: Path, challenge: str, sample: Path | None, run: Path | None) -> Verdict:
    from kit.challenges import find, names, place
    from kit.manifest import load_manifest
    from kit.submission_checks import check

    manifest = load_manifest()
    asked = find(challenge, manifest)
    others = [find(name, manifest) for name in names(manifest) if name != challenge]
    return check(file, asked, sample=sample, run=run, runs_in=place(challenge), others=others)


def _show(verdict: Verdict, file: Path, challenge: str) -> None:
    for one in verdict.findings:
        typer.echo(f"{one.level:7} {one.rule}: {one.error()}")
    errors = sum(one.level == "error" for one in verdict.findings)
    said = "accepted" if verdict.accepted else f"refused, {errors} error{'s'[: errors > 1]}"
    typer.echo(f"{file}: {said} ({verdict.cases} cases, {challenge})")


@ledger_app.command("submit", short_help="Check a file and the quota; enter that it goes in.")
def ledger_submit(
    file: Annotated[Path, typer.Argument(help="The submission.", metavar="FILE")],
    challenge: Challenge,
    sample: Sample = None,
    run: Run = None,
    note: Annotated[str, typer.Option(help="What to remember of it.", metavar="TEXT")] = "",
) -> int:
    """Enter that a submission is handed in now: it is checked, and so is the quota.

    Exit code 1, and nothing entered, where the file is refused or the quota is spent.
    """
    from kit import ledger
    from kit.challenges import place, quota

    verdict = _judged(file, challenge, sample, run)
    _show(verdict, file, challenge)
    if not verdict.accepted:
        return FAILED
    path, limit, now = place(challenge) / "ledger.csv", quota(challenge), datetime.now(UTC)
    free = ledger.free_at(path, limit, now)
    if free > now:
        say(f"the quota is spent ({limit}): the next is taken from {_clock(free)} on")
        return FAILED
    name = ledger.record(path, _line(file, challenge, verdict.run))
    ledger.submit(path, name, limit, note=note, now=now)
    typer.echo(f"entered as {name}; when the score is there: kit ledger score {name} VALUE")
    return OK


def _line(file: Path, challenge: str, run: Path | None) -> dict[str, object]:
    """Return a file's line: with its run's local score if it is that run's own submission."""
    from kit import ledger
    from kit.challenges import find
    from kit.files import read_json
    from kit.manifest import load_manifest

    line: dict[str, object] = {"fingerprint": ledger.mark(file)}
    own = None if run is None else run / "submission.csv"
    if run is None or own is None or not own.is_file() or ledger.mark(own) != line["fingerprint"]:
        return line
    metrics = read_json(run / "metrics.json")
    official = find(challenge, load_manifest()).official
    return {**line, "run": run.name, **ledger.local(metrics, official)}


@ledger_app.command("score", short_help="Enter the leaderboard's score.")
def ledger_score(
    name: Annotated[str, typer.Argument(help="As kit ledger show says it.", metavar="ID")],
    value: Annotated[float, typer.Argument(help="The leaderboard's score.", metavar="VALUE")],
    note: Annotated[str, typer.Option(help="What to remember of it.", metavar="TEXT")] = "",
) -> int:
    """Enter the leaderboard's score of a submission; a later one replaces an earlier one."""
    from kit import ledger
    from kit.challenges import find, place
    from kit.manifest import load_manifest

    challenge = name.rpartition("-")[0]
    if not challenge:
        raise LedgerError("an id names its challenge", expected="such as khd2020-3", received=name,
                          remedy="kit ledger show lists them")  # fmt: skip
    official = find(challenge, load_manifest()).official
    most = 1.0 if official is None else official.scale
    if not 0 <= value <= most * 1.001:
        raise LedgerError("no such score", expected=f"0 to {most:g}", received=value,
                          remedy=f"write it on {challenge}'s own scale")  # fmt: skip
    ledger.score(place(challenge) / "ledger.csv", name, value, note=note)
    typer.echo(f"{name} {value}")
    return OK


@ledger_app.command("show", short_help="Both scores, the gap, the quota.")
def ledger_show(
    challenge: Annotated[
        str | None, typer.Argument(help="One of them [all that have a ledger].")
    ] = None,
    figure: Annotated[
        Path | None, typer.Option(help="PNG of local against leaderboard scores.", metavar="FILE")
    ] = None,
    as_json: Json = False,
) -> int:
    """Print what was made and handed in, both scores, and what their gap says."""
    from kit.challenges import find, place, quota
    from kit.manifest import load_manifest

    if challenge is not None:
        find(challenge, load_manifest())
    home = place("")
    names = sorted(path.parent.name for path in home.glob("*/ledger.csv"))
    names = names if challenge is None else [challenge]
    if figure is not None and len(names) != 1:
        raise LedgerError("a figure is of one challenge", expected=" or ".join(names),
                          received="none named")  # fmt: skip
    found = [_told(name, home / name / "ledger.csv", quota(name)) for name in names]
    if as_json:
        typer.echo(json.dumps({"ledgers": found, "figure": figure and str(figure)}))
    for one in [] if as_json else found:
        _show_ledger(one)
    if not found and not as_json:
        say(f"no ledger below {home}: `kit run` on real data begins one")
    if figure is not None:
        _draw(home / names[0] / "ledger.csv", figure)
    return OK


def _told(name: str, path: Path, limit: Quota | None) -> dict[str, Any]:
    """Return what is said of one challenge's ledger."""
    from kit import ledger

    table, now = ledger.read(path), datetime.now(UTC)
    return {
        "challenge": name, "submissions": table.to_dict(orient="records"),
        "meaning": ledger.meaning(table), "quota": limit and str(limit),
        "next": ledger.free_at(path, limit, now).isoformat(timespec="seconds"),
    }  # fmt: skip


def _show_ledger(found: dict[str, Any]) -> None:
    import pandas as pd

    rows = pd.DataFrame(found["submissions"])
    if len(rows):
        for name in ("local", "low", "high", "leaderboard"):
            rows[name] = [f"{float(one):.4f}" if one else "" for one in rows[name]]
        show_table(rows.drop(columns=["fingerprint"]))
    for line in found["meaning"]:
        typer.echo(line)
    if found["quota"]:
        typer.echo(f"quota: {found['quota']}; the next is taken from "
                   f"{_clock(datetime.fromisoformat(found['next']))} on")  # fmt: skip


def _draw(ledger_path: Path, figure: Path) -> None:
    from kit import figures, ledger
    from kit._plots import png
    from kit.files import atomic

    picture = png(figures.ledger(ledger.scored(ledger.read(ledger_path))))
    with atomic(figure) as part:
        part.write_bytes(picture)


def _clock(when: datetime) -> str:
    return when.astimezone().strftime("%Y-%m-%d %H:%M %Z")
