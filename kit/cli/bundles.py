"""`kit bundle`: what is handed to a platform."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from kit.cli.common import FAILED, OK, Json, app, say

MOST_LINES = 30


@app.command()
def bundle(
    platform: Annotated[str, typer.Argument(help="kaggle, nsml or docker.")],
    challenge: Annotated[str, typer.Argument(help="A challenge, or a data set of the manifest.")],
    out: Annotated[
        Path | None,
        typer.Option(help="Folder, absent or empty [submissions/CHALLENGE/PLATFORM].",
                     metavar="DIR"),
    ] = None,
    run: Annotated[
        Path | None,
        typer.Option(
            help="Finished run, or an ensemble's JSON, whose networks travel [the newest run].",
            metavar="RUN",
        ),
    ] = None,
    train: Annotated[
        bool, typer.Option("--train", help="No network travels: it is trained there, as on NSML.")
    ] = False,
    owner: Annotated[
        str | None, typer.Option(help="Kaggle: your name there [KAGGLE_USERNAME].", metavar="NAME")
    ] = None,
    accelerator: Annotated[
        str, typer.Option(help="Kaggle: the accelerator, or none.", metavar="ID")
    ] = "NvidiaTeslaT4",
    max_mb: Annotated[
        float | None, typer.Option(help="Most megabytes [the platform's].", min=0.01, metavar="MB")
    ] = None,
    place: Annotated[
        str, typer.Option(help="Docker: where what is trained is kept.", metavar="PATH")
    ] = "/data/model",
    failed_score: Annotated[
        float,
        typer.Option(
            help="Docker: positive probability of a slide that fails.", min=0, max=1, metavar="P"
        ),
    ] = 0.5,
    as_json: Json = False,
) -> int:  # fmt: skip
    """Write the folder that a platform takes.

    The kit, the networks of a finished run and the platform's own files, scanned for secrets
    and for size; then the commands that hand it over.
    """
    from kit import bundles

    made = bundles.make(
        platform, challenge, out, run=run, train=train, owner=owner, accelerator=accelerator,
        max_mb=max_mb, place=place, failed_score=failed_score,
    )  # fmt: skip
    if as_json:
        typer.echo(json.dumps({
            "out": str(made.folder), "files": made.files, "bytes": made.bytes,
            "left": list(made.left), "steps": list(made.steps),
        }))  # fmt: skip
    else:
        for name, size in _shown(made.files).items():
            typer.echo(f"{size / 1e3:10,.1f} kB  {name}")
        typer.echo(f"{made.bytes / 1e6:10,.2f} MB  {made.folder}, {len(made.files)} files")
        for number, step in enumerate(made.steps, start=1):
            typer.echo(f"{number}. {step}")
    for line in made.left:
        say(f"kit: {line}")
    return FAILED if made.left else OK


def _shown(files: Mapping[str, int]) -> dict[str, int]:
    """Return the bytes of each file, or, of many, of what stands in the bundle's folder itself."""
    if len(files) <= MOST_LINES:
        return dict(files)
    shown: dict[str, int] = {}
    for name, size in files.items():
        top, *below = name.split("/")
        key = f"{top}/" if below else top
        shown[key] = shown.get(key, 0) + size
    return shown
