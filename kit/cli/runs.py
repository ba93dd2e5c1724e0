"""`kit run`, `kit predict` and `kit runs`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from kit.cli.common import (
    FAILED,
    OK,
    Cluster,
    Data,
    Json,
    On,
    Workers,
    alone_or,
    app,
    bounds,
    number,
    on_platform,
    say,
    show_figures,
    show_table,
)
from kit.errors import KitError


@app.command()
def run(
    challenge: Annotated[str, typer.Argument(help="A challenge, or a data set of the manifest.")],
    data: Data = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder of the run [submissions/CHALLENGE/FINGERPRINT].", metavar="DIR"),
    ] = None,
    smoke: Annotated[
        bool, typer.Option("--smoke", help="Small settings; drawn data where there are none.")
    ] = False,
    as_json: Json = False,
    recipe: Annotated[
        str, typer.Option(help="kit, or the team's own of a seed challenge: team.", metavar="R")
    ] = "kit",
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="A setting; may be repeated.", metavar="KEY=VALUE"),
    ] = None,
    folds: Annotated[
        str | None, typer.Option(help="Train these folds alone, such as 0,1.", metavar="LIST")
    ] = None,
    seeds: Annotated[
        int | None, typer.Option(help="Networks of each fold (as --set seeds=N).", min=1)
    ] = None,
    fold_table: Annotated[
        Path | None, typer.Option(help="Folds to use: a table of case_id and fold.", metavar="T")
    ] = None,
    time_budget: Annotated[
        str | None,
        typer.Option(
            help="Time until the submission must stand: 90m, 8.5h or seconds.", metavar="T"
        ),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(
            help="Networks trained at a time; by default what cores and GPUs allow. "
            "0: in this process.",
            min=0,
        ),
    ] = None,
    cluster: Cluster = None,
    platform: On = None,
) -> int:
    """Run every stage of a challenge to a checked submission.

    The same command again does only what is missing. Settings: `kit run CHALLENGE --set '?'`
    lists them.
    """
    from kit import clusters
    from kit.challenges import open_run
    from kit.settings import parse

    alone_or(cluster, workers)
    on_platform(platform)
    if settings == ["?"]:
        _list_settings()
        return OK
    chosen = parse(settings or [])
    if seeds is not None:
        chosen["seeds"] = seeds
    opened = open_run(
        challenge, data=data, out=out, recipe=recipe, smoke=smoke, settings=chosen,
        folds=_fold_numbers(folds), fold_table=fold_table, workers=workers,
        time_budget=_seconds(time_budget),
    )  # fmt: skip
    if opened.synthetic:
        say("SYNTHETIC: drawn data; the figures say nothing about patients.")
    with clusters.on(cluster, sees=[opened.root], writes=[opened.out]) as engine:
        if engine is not None:
            opened.workers = opened.trainers = engine.size
        found = opened.complete()
    if as_json:
        typer.echo(json.dumps(found))
    else:
        _show(found, opened.dataset.positive)
    return FAILED if found["failures"] else OK


def _fold_numbers(text: str | None) -> list[int] | None:
    if text is None:
        return None
    try:
        return sorted({int(part) for part in text.split(",")})
    except ValueError as error:
        raise KitError(
            "--folds takes fold numbers", expected="such as 0,1", received=repr(text)
        ) from error


def _seconds(text: str | None) -> float | None:
    """Return a span of time in seconds: a number, or one with s, m or h behind it."""
    if text is None:
        return None
    units = {"s": 1.0, "m": 60.0, "h": 3600.0}
    number, unit = (text[:-1], text[-1]) if text[-1:] in units else (text, "s")
    try:
        seconds = float(number) * units[unit]
    except ValueError:
        seconds = float("nan")
    if not 0 < seconds < float("inf"):
        raise KitError("--time-budget takes a span of time above 0", received=repr(text),
                       expected="such as 90m, 8.5h or 1800")  # fmt: skip
    return seconds


def _list_settings() -> None:
    from kit.models import REGISTRY
    from kit.settings import Settings, choices

    for name, field in Settings.model_fields.items():
        named = list(REGISTRY) if name == "model" else choices(name)
        among = f" ({', '.join(named)})" if named else ""
        typer.echo(f"{name:18} {field.default!s:12} {field.description}{among}")


def _show(found: Mapping[str, Any], positive: str | None) -> None:
    """Print the figures, what was left out, and the places."""
    from kit.slide_report import beside

    show_figures(found, positive)
    for line in beside(found, found.get("lesions")):
        typer.echo(line)
    for line in found["failures"]:
        typer.echo(f"left out: {line}")
    typer.echo(f"submission {found['submission']}")
    typer.echo(f"report     {Path(found['out']) / 'report.html'}")


@app.command()
def predict(
    finished: Annotated[
        Path, typer.Argument(help="Folder of a finished run, or an ensemble's JSON.", metavar="RUN")
    ],
    out: Annotated[Path, typer.Option(help="Submission to write.", metavar="FILE")],
    data: Annotated[
        Path | None,
        typer.Option(help="Folder of later data, same layout [the platform's].", metavar="DIR"),
    ] = None,
    heatmaps: Annotated[
        Path | None, typer.Option(help="Folder for the heatmaps of slides.", metavar="DIR")
    ] = None,
    failed_score: Annotated[
        float | None,
        typer.Option(
            help="Probability of the positive class of slides that cannot be read, among what the "
            "run's rule gives; they are named, and the exit code is 1. By default one is "
            "an error.",
            min=0,
            max=1,
        ),
    ] = None,
    workers: Workers = None,
    cluster: Cluster = None,
    platform: On = None,
) -> int:
    """Apply a finished run to data that came later.

    Its networks, ensemble and frozen threshold are used as they are.
    """
    from kit import clusters, jobs, platforms
    from kit import finished as runs

    alone_or(cluster, workers)
    on_platform(platform)
    root = None
    if data is None and finished.is_dir():
        root = platforms.detect().root(runs.load(finished).dataset)
    home = finished if finished.is_dir() else finished.parent
    seen = [place for place in (home, data, root) if place is not None]
    written = [out.parent, *([heatmaps] if heatmaps else [])]
    with clusters.on(cluster, sees=seen, writes=written) as engine:
        size = engine.size if engine else workers or jobs.default_workers(1)
        unread: dict[str, str] = {}
        table = runs.predict(
            finished, data, out, root=root, workers=size, heatmaps=heatmaps, failed=failed_score,
            unread=unread,
        )  # fmt: skip
    typer.echo(f"{len(table)} cases predicted: {out}")
    return FAILED if unread else OK


@app.command()
def runs(
    folder: Annotated[Path, typer.Argument(help="Folder that holds runs.")] = Path("submissions"),
    as_json: Json = False,
) -> int:
    """List a folder's runs side by side.

    Settings that differ, figures with intervals, leaderboard score.
    """
    from kit import finished

    table = finished.side_by_side(folder)
    if as_json:
        typer.echo(json.dumps({"runs": json.loads(table.to_json(orient="records"))}))
        return OK
    for name in ("mean_of_six", "auc"):
        table[name] = [f"{number(found['value'])}  {bounds(found)}" for found in table[name]]
    show_table(table)
    return OK
