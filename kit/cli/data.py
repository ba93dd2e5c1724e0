"""`kit doctor` and `kit data list|verify|make`."""

from __future__ import annotations

import contextlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from kit.cli.common import (
    FAILED,
    OK,
    Cluster,
    Data,
    Json,
    Workers,
    alone_or,
    app,
    data_app,
    show_table,
)
from kit.errors import KitError, MissingDataError, SettingsError

SLIDES = 10_000
"""Of an estimate where nobody says how many."""


@app.command()
def doctor(
    data: Data = None,
    as_json: Json = False,
    estimate: Annotated[
        str | None,
        typer.Option(
            help="Say instead what this challenge would take: hours, bytes.", metavar="CHALLENGE"
        ),
    ] = None,
    slides: Annotated[
        int | None, typer.Option(help="Slides of the estimate; 10,000 if not said.", min=1)
    ] = None,
    workers: Workers = None,
) -> int:
    """Say what is installed and what is missing.

    Which accelerator there is, and the remedy for each thing that is missing.
    """
    if estimate is not None:
        return _estimate(estimate, slides or SLIDES, workers, data, as_json)
    if slides is not None or workers is not None:
        raise SettingsError("--slides and --workers are of an estimate",
                            remedy="--estimate CHALLENGE")  # fmt: skip
    from kit.doctor import Finding, examine
    from kit.platforms import detect

    here = detect()
    findings = [Finding("platform", "good", f"{here.name}: {here.how}"), *examine(data)]
    if as_json:
        typer.echo(json.dumps([asdict(finding) for finding in findings]))
    else:
        for finding in findings:
            remedy = f" -> {finding.remedy}" if finding.remedy else ""
            typer.echo(f"{finding.level:7} {finding.name}: {finding.message}{remedy}")
    return FAILED if any(finding.level == "error" for finding in findings) else OK


def _estimate(name: str, slides: int, workers: int | None, data: Path | None, as_json: bool) -> int:
    """Print what so many slides would take, by number of workers."""
    from kit import challenges, growth, jobs
    from kit.manifest import load_manifest

    dataset, settings, _ = challenges.wanted(name)
    root = None
    with contextlib.suppress(MissingDataError):
        root = dataset.root(data)
    real = challenges.real(name)
    found = growth.measure(
        dataset, settings, root, load_manifest().dataset(growth.DRAWN), real.size if real else None
    )
    table = growth.table(settings, found, slides, workers or jobs.cores())
    if as_json:
        rows = json.loads(table.to_json(orient="records"))
        typer.echo(json.dumps({"measured": asdict(found), "stages": rows}))
        return OK
    show_table(table.round(2))
    typer.echo(growth.said(found))
    return OK


@data_app.command("list")
def data_list(data: Data = None, as_json: Json = False) -> int:
    """Print every data set: here or missing, cases, classes, groups."""
    from kit.inventory import overview
    from kit.manifest import load_manifest

    table = overview(load_manifest(), data)
    if as_json:
        typer.echo(table.to_json(orient="records"))
        return OK
    if table.here.any():
        show_table(table[table.here].drop(columns=["here", "where"]))
    for row in table[~table.here].itertuples():
        typer.echo(f"not here: {row.name} ({row.kind}). {row.where}")
    return OK


@data_app.command("verify")
def data_verify(
    names: Annotated[list[str], typer.Argument(help="Data sets of the manifest.")],
    data: Data = None,
    as_json: Json = False,
    workers: Workers = None,
    cluster: Cluster = None,
) -> int:
    """Check files, sha256, readability and label counts; exit code 1 where something is wrong."""
    import pandas as pd

    from kit import clusters, jobs
    from kit.inventory import verify
    from kit.manifest import load_manifest

    alone_or(cluster, workers)
    manifest = load_manifest()
    with clusters.on(cluster, sees=[] if data is None else [data]):
        parts = [
            verify(manifest.dataset(name), data, workers or jobs.cores()).assign(dataset=name)
            for name in names
        ]
    table = pd.concat(parts, ignore_index=True)
    wrong = table[table.status != "good"]
    if as_json:
        typer.echo(table.to_json(orient="records"))
        return FAILED if len(wrong) else OK
    for name, checks in table.groupby("dataset", sort=False):
        good = int((checks.status == "good").sum())
        typer.echo(f"{name}: {good} of {len(checks)} checks good")
    if len(wrong):
        show_table(wrong[["dataset", "what", "name", "status", "note"]])
    return FAILED if len(wrong) else OK


@data_app.command("make")
def data_make(
    names: Annotated[
        list[str] | None,
        typer.Argument(help="Drawn data sets, or stand-ins of challenges; the first by default."),
    ] = None,
    data: Data = None,
    seed: Annotated[int, typer.Option(help="Of the drawing.", min=0)] = 0,
    scale: Annotated[float, typer.Option(help="Share of the cases.", min=0.001)] = 1.0,
    workers: Workers = None,
    cluster: Cluster = None,
) -> int:
    """Draw the embedded data sets, so that everything runs with no download.

    A challenge's name draws a stand-in for its closed data: the true layout, drawn content.
    """
    from kit import clusters, jobs, synthetic
    from kit.manifest import home, load_manifest

    alone_or(cluster, workers)
    manifest = load_manifest()
    base = home(manifest.path) / "data" if data is None else data
    for name in names or synthetic.NAMES:
        entry = manifest.dataset(name)
        known = (*synthetic.NAMES, *synthetic.STAND_INS)
        if name not in known:
            raise KitError("cannot be drawn", expected=f"one of {', '.join(known)}",
                           received=name, remedy=f"get it from {entry.source}")  # fmt: skip
        root = base / entry.roots["local"]
        with clusters.on(cluster, writes=[root.parent] if cluster else []):
            made = synthetic.make(
                name, root, seed=seed, scale=scale, workers=workers or jobs.cores()
            )
        typer.echo(str(made))
    return OK
