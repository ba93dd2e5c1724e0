"""`kit rehearse` and `kit self-check`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from kit.cli.common import FAILED, OK, Data, Json, app, say


@app.command()
def self_check(
    run: Annotated[Path, typer.Argument(help="Folder of a finished run.", metavar="RUN")],
    data: Data = None,
    out: Annotated[
        Path | None, typer.Option(help="Submission that will be written.", metavar="FILE")
    ] = None,
) -> int:
    """Say in one line whether a prediction can begin.

    The model is whole and its sha256 right, a case can be read, and the output be written.
    """
    from kit import selfcheck

    typer.echo("self-check: " + "; ".join(selfcheck.examine(run, data, out)))
    return OK
