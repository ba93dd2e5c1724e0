"""`kit rehearse` and `kit self-check`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from kit.cli.common import FAILED, OK, Data, Json, On, app, on_platform


@app.command()
def self_check(
    run: Annotated[
        Path, typer.Argument(help="Folder of a finished run, or an ensemble's JSON.", metavar="RUN")
    ],
    data: Data = None,
    out: Annotated[
        Path | None, typer.Option(help="Submission that will be written.", metavar="FILE")
    ] = None,
    platform: On = None,
) -> int:
    """Say in one line whether a prediction can begin.

    The model is whole and its sha256 right, a case can be read, and the output be written.
    """
    from kit import selfcheck

    on_platform(platform)
    typer.echo("self-check: " + "; ".join(selfcheck.examine(run, data, out)))
    return OK


@app.command()
def rehearse(
    challenge: Annotated[str, typer.Argument(help="A challenge, or a data set of the manifest.")],
    platform: Annotated[
        str, typer.Option(help="local, kaggle, nsml or docker.", metavar="P")
    ] = "local",
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="A setting of the real run, for the estimate.",
                     metavar="KEY=VALUE"),
    ] = None,
    keep: Annotated[
        Path | None, typer.Option(help="Keep the bare root there, to look at.", metavar="DIR")
    ] = None,
    seconds: Annotated[
        float, typer.Option(help="Time limit of all steps.", min=1, metavar="S")
    ] = 180.0,
    as_json: Json = False,
) -> int:  # fmt: skip
    """Try a platform's whole contract here, in three minutes, on drawn data.

    Fresh processes without network, read-only inputs, only what is uploaded, the challenge's own
    scorer; then what the real run would take. Exit code 1 where a step fails: it and the remedy are
    named.
    """
    from dataclasses import asdict

    from kit import rehearsal

    found = rehearsal.rehearse(challenge, platform, settings=settings or [], keep=keep,
                               seconds=seconds)  # fmt: skip
    if as_json:
        typer.echo(json.dumps({**asdict(found), "passed": found.passed}))
        return OK if found.passed else FAILED
    for step in found.steps:
        typer.echo(f"{step.state:11} {step.seconds:6.1f} s  {step.name}: {step.said}".rstrip(": "))
        if step.remedy:
            typer.echo(f"{'':22}remedy: {step.remedy}")
    total = sum(step.seconds for step in found.steps)
    said = "passed" if found.passed else "did not pass"
    typer.echo(f"{challenge} on {platform} {said} in {total:.0f} s")
    return OK if found.passed else FAILED
