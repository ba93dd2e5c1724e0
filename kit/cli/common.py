"""What the commands share: the app, options, exit codes, and how things are printed."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kit.errors import SettingsError

if TYPE_CHECKING:
    import pandas as pd

    from kit.official import Official

OK, FAILED, BAD_INPUT, INTERRUPTED = 0, 1, 2, 130

app = typer.Typer(
    name="kit", no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False,
    rich_markup_mode=None, context_settings={"help_option_names": ["-h", "--help"]},
    help="From raw medical images to a submission that the platform accepts.\n\n"
    "Exit codes: 0 complete, 1 finished with named failures or a failed check, 2 bad input, "
    "130 interrupted.",
)  # fmt: skip
data_app = typer.Typer(no_args_is_help=True, help="List, verify or draw the manifest's data sets.")
app.add_typer(data_app, name="data")

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")]
Data = Annotated[
    Path | None,
    typer.Option(help="Folder that the manifest's relative roots start from.", metavar="DIR"),
]
On = Annotated[
    str | None,
    typer.Option("--platform", help="local, kaggle, nsml or docker [what is found].", metavar="P"),
]
Workers = Annotated[
    int | None, typer.Option(help="Processes; by default what cores and accelerators allow.", min=1)
]

Cluster = Annotated[
    str | None,
    typer.Option(help="Dask cluster to run on: tcp://HOST:PORT, or local:N.", metavar="ADDRESS"),
]


def alone_or(cluster: str | None, workers: int | None) -> None:
    """Raise if both a cluster and a number of workers are given, or the cluster is none."""
    if cluster is not None:
        from kit.clusters import own_workers

        own_workers(cluster)
    if cluster is not None and workers is not None:
        raise SettingsError("--cluster and --workers exclude each other",
                            received=f"{cluster} and {workers}",
                            remedy="a cluster has its own number of workers")  # fmt: skip


def on_platform(name: str | None) -> None:
    """Have this process and its children take the platform that the user names."""
    if name is not None:
        from kit.checks import choice
        from kit.platforms import NAMES

        os.environ["KIT_PLATFORM"] = choice("--platform", name, NAMES)


def say(line: str) -> None:
    """Print a line on standard error."""
    typer.echo(line, err=True)


def show_table(rows: pd.DataFrame) -> None:
    """Print a table; an undefined cell is empty."""
    for name in rows.select_dtypes("Int64"):  # their missing cells know no `na_rep`
        text = rows[name].astype(object)
        rows = rows.assign(**{str(name): text.where(text.notna(), "")})
    typer.echo(rows.to_string(index=False, na_rep=""))


def number_of(threshold: str) -> float | str:
    """Return a threshold given as text: a number, or the name of how it is chosen."""
    try:
        return float(threshold)
    except ValueError:
        return threshold


def official_of(challenge: str) -> Official:
    """Return a challenge's own scorer."""
    from kit.challenges import find
    from kit.manifest import load_manifest

    found = find(challenge, load_manifest()).official
    if found is None:
        raise SettingsError("the challenge has no scorer of its own", received=challenge,
                            expected="help2019, khd2019, khd2020 or rsna2021")  # fmt: skip
    return found


def number(value: float | None) -> str:
    """Return a figure with four decimals."""
    return "undef." if value is None else f"{value:7.4f}"


def bounds(metric: Mapping[str, Any]) -> str:
    """Return an interval in words, or nothing where it is undefined."""
    if metric["low"] is None or metric["high"] is None:
        return ""
    return f"{metric['low']:.4f} to {metric['high']:.4f}"


def show_figures(found: Mapping[str, Any], positive: str | None) -> None:
    """Print the figures of `kit.scoring.figures`: intervals, threshold, confusion, warnings."""
    from kit.scoring import beside

    after = found.get("reviewed")
    more = "      reviewed   95 % interval" if after else ""
    typer.echo(f"{'metric':12} {'value':>7}   95 % interval{more}")
    for name, metric in found.items():
        if isinstance(metric, Mapping) and set(metric) == {"value", "low", "high"}:
            doubt = "  unreliable" if name in found["unreliable"] else ""
            line = f"{name:12} {number(metric['value'])}   {bounds(metric):16}"
            if after:
                line += f"    {number(after[name]['value'])}   {bounds(after[name]):16}"
            typer.echo(f"{line}{doubt}".rstrip())
    said = f"{found['n']} cases in {found['n_groups']} groups"
    if found["threshold"] is not None:
        said += f"; {positive} from {found['threshold']:.4f} on"
    typer.echo(f"{said}. Decided by {found['decided_by']}.")
    _show_confusion(found["confusion"], found["confusion_classes"])
    for line in beside(found):
        typer.echo(line)
    for line in found["warnings"]:
        typer.echo(f"warning: {line}")


def _show_confusion(counts: Sequence[Sequence[float]], classes: Sequence[str]) -> None:
    width = max(8, *map(len, classes))
    typer.echo(f"{'':{width + 5}} called " + " ".join(f"{name:>{width}}" for name in classes))
    for name, row in zip(classes, counts, strict=True):
        typer.echo(f"true {name:>{width}}        " + " ".join(f"{n:>{width},.7g}" for n in row))
