"""The `kit` command."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kit.errors import KitError

if TYPE_CHECKING:
    import pandas as pd

OK, FAILED, BAD_INPUT, INTERRUPTED = 0, 1, 2, 130


def _version(asked: bool) -> None:
    if asked:
        from kit import __version__

        typer.echo(__version__)
        raise typer.Exit


app = typer.Typer(
    name="kit", no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False,
    rich_markup_mode=None, context_settings={"help_option_names": ["-h", "--help"]},
    help="From raw medical images to a submission that the platform accepts.\n\n"
    "Exit codes: 0 complete, 1 finished with named failures or a failed check, 2 bad input, "
    "130 interrupted.",
)  # fmt: skip
data_app = typer.Typer(
    no_args_is_help=True, help="List, verify or draw the data sets of data_manifest.yaml."
)
app.add_typer(data_app, name="data")

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")]
Data = Annotated[
    Path | None,
    typer.Option(help="Folder that the manifest's relative roots start from.", metavar="DIR"),
]
Workers = Annotated[
    int | None, typer.Option(help="Processes; by default what cores and accelerators allow.", min=1)
]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command; every error that a user can act on is one line and an exit code."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    logging.getLogger("kit").setLevel(logging.INFO)
    code = _call(list(sys.argv[1:] if arguments is None else arguments))
    if code == INTERRUPTED:
        _say("kit: interrupted. What is finished is kept: the same command goes on from there.")
    sys.exit(code)


def _call(arguments: list[str]) -> int:
    try:
        code = typer.main.get_command(app).main(args=arguments, standalone_mode=False)
    except KitError as error:
        _say(f"kit: {error}")
        return BAD_INPUT
    except KeyboardInterrupt:
        return INTERRUPTED
    except Exception as error:  # of the command line itself: they know how to show themselves
        show = getattr(error, "format_message", None)
        if show is None:
            raise
        text, context = show(), getattr(error, "ctx", None)
        hint = f" Try: {context.command_path} --help" if context else ""
        _say(text if text.startswith("Usage:") else f"kit: {text}{hint}")
        return BAD_INPUT
    return code if isinstance(code, int) else OK


def _say(line: str) -> None:
    typer.echo(line, err=True)


def _table(table: pd.DataFrame) -> None:
    typer.echo(table.to_string(index=False, na_rep=""))


@app.callback()
def kit(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print it and stop.")
    ] = False,
) -> None:
    """From raw medical images to a submission that the platform accepts."""


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
    workers: Workers = None,
) -> int:
    """Run every stage of a challenge, from cases to a validated submission; resumes.

    The same command again does only what is missing. Settings: `kit run CHALLENGE --set '?'`
    lists them.
    """
    from kit.challenges import open_run
    from kit.settings import parse

    if settings == ["?"]:
        _list_settings()
        return OK
    chosen = parse(settings or [])
    if seeds is not None:
        chosen["seeds"] = seeds
    opened = open_run(
        challenge, data=data, out=out, smoke=smoke, settings=chosen, folds=_numbers(folds),
        fold_table=fold_table, workers=workers,
    )  # fmt: skip
    if opened.synthetic:
        _say("SYNTHETIC: drawn data; the figures say nothing about patients.")
    found = opened.complete()
    if as_json:
        typer.echo(json.dumps(found))
    else:
        _show(found, opened.dataset.positive)
    return FAILED if found["failures"] else OK


def _numbers(text: str | None) -> list[int] | None:
    if text is None:
        return None
    try:
        return sorted({int(part) for part in text.split(",")})
    except ValueError as error:
        raise KitError(
            "--folds takes fold numbers", expected="such as 0,1", received=repr(text)
        ) from error


def _list_settings() -> None:
    from kit.models import REGISTRY
    from kit.settings import Settings, choices

    for name, field in Settings.model_fields.items():
        named = list(REGISTRY) if name == "model" else choices(name)
        among = f" ({', '.join(named)})" if named else ""
        typer.echo(f"{name:18} {field.default!s:12} {field.description}{among}")


def _show(found: Mapping[str, Any], positive: str | None) -> None:
    """Print the figures, the threshold and the places."""
    typer.echo(f"{'metric':12} {'value':>7}   95 % interval")
    for name, metric in found.items():
        if isinstance(metric, Mapping) and set(metric) == {"value", "low", "high"}:
            typer.echo(f"{name:12} {_number(metric['value'])}   {_bounds(metric)}")
    said = f"{found['n']} cases in {found['n_groups']} groups"
    if found["threshold"] is not None:
        said += f"; {positive} from {found['threshold']:.4f} on"
    typer.echo(f"{said}. Decided by {found['decided_by']}.")
    for name, reason in found.get("reasons", {}).items():
        typer.echo(f"{name}: {reason}")
    for line in found["warnings"]:
        typer.echo(f"warning: {line}")
    for line in found["failures"]:
        typer.echo(f"left out: {line}")
    typer.echo(f"submission {found['submission']}")
    typer.echo(f"report     {Path(found['out']) / 'report.html'}")


def _number(value: float | None) -> str:
    return "undef." if value is None else f"{value:7.4f}"


def _bounds(metric: Mapping[str, Any]) -> str:
    if metric["low"] is None or metric["high"] is None:
        return ""
    return f"{metric['low']:.4f} to {metric['high']:.4f}"


@app.command()
def predict(
    finished: Annotated[Path, typer.Argument(help="Folder of a finished run.", metavar="RUN")],
    data: Annotated[Path, typer.Option(help="Folder of later data, same layout.", metavar="DIR")],
    out: Annotated[Path, typer.Option(help="Submission to write.", metavar="FILE")],
    workers: Workers = None,
) -> int:
    """Apply a finished run (networks, ensemble, frozen threshold) to data that came later."""
    from kit import finished as runs
    from kit import jobs

    table = runs.predict(finished, data, out, workers=workers or jobs.default_workers(1))
    typer.echo(f"{len(table)} cases predicted: {out}")
    return OK


@app.command()
def runs(
    folder: Annotated[Path, typer.Argument(help="Folder that holds runs.")] = Path("submissions"),
    as_json: Json = False,
) -> int:
    """List a folder's runs side by side: settings that differ, figures, leaderboard score."""
    from kit import finished

    table = finished.side_by_side(folder)
    if as_json:
        typer.echo(json.dumps({"runs": json.loads(table.to_json(orient="records"))}))
        return OK
    for name in ("mean_of_six", "auc"):
        table[name] = [f"{_number(found['value'])}  {_bounds(found)}" for found in table[name]]
    _table(table)
    return OK


@app.command()
def doctor(data: Data = None, as_json: Json = False) -> int:
    """Say what is installed, which accelerator there is, what is missing, and the remedy."""
    from dataclasses import asdict

    from kit.doctor import examine

    findings = examine(data)
    if as_json:
        typer.echo(json.dumps([asdict(finding) for finding in findings]))
    else:
        for finding in findings:
            remedy = f" -> {finding.remedy}" if finding.remedy else ""
            typer.echo(f"{finding.level:7} {finding.name}: {finding.message}{remedy}")
    return FAILED if any(finding.level == "error" for finding in findings) else OK


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
        _table(table[table.here].drop(columns=["here", "where"]))
    for row in table[~table.here].itertuples():
        typer.echo(f"not here: {row.name} ({row.kind}). {row.where}")
    return OK


@data_app.command("verify")
def data_verify(
    names: Annotated[list[str], typer.Argument(help="Data sets of the manifest.")],
    data: Data = None,
    as_json: Json = False,
    workers: Workers = None,
) -> int:
    """Check files, sha256, readability and label counts; exit code 1 where something is wrong."""
    import pandas as pd

    from kit import jobs
    from kit.inventory import verify
    from kit.manifest import load_manifest

    manifest = load_manifest()
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
        _table(wrong[["dataset", "what", "name", "status", "note"]])
    return FAILED if len(wrong) else OK


@data_app.command("make")
def data_make(
    names: Annotated[
        list[str] | None, typer.Argument(help="Drawn data sets; all of them by default.")
    ] = None,
    data: Data = None,
    seed: Annotated[int, typer.Option(help="Of the drawing.", min=0)] = 0,
    scale: Annotated[float, typer.Option(help="Share of the cases.", min=0.05)] = 1.0,
) -> int:
    """Draw the embedded data sets, so that everything runs with no download."""
    from kit import synthetic
    from kit.manifest import home, load_manifest

    manifest = load_manifest()
    for name in names or synthetic.NAMES:
        entry = manifest.dataset(name)
        if not entry.synthetic:
            raise KitError("cannot be drawn", expected=f"one of {', '.join(synthetic.NAMES)}",
                           received=name, remedy=f"get it from {entry.source}")  # fmt: skip
        base = home(manifest.path) / "data" if data is None else data
        typer.echo(str(synthetic.make(name, base / entry.roots["local"], seed=seed, scale=scale)))
    return OK
