"""The `kit` command."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from kit.cli import bundles, data, ensembles, folds, hosts, review, runs, score, slides, submissions  # noqa: F401 - each adds its commands to the app
from kit.cli.common import BAD_INPUT, INTERRUPTED, OK, app, say
from kit.errors import KitError


def _version(asked: bool) -> None:
    if asked:
        from kit import __version__

        typer.echo(__version__)
        raise typer.Exit


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command; every error that a user can act on is one line and an exit code."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # what is wrong comes as an exception
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    logging.getLogger("kit").setLevel(logging.INFO)
    code = _call(list(sys.argv[1:] if arguments is None else arguments))
    if code == INTERRUPTED:
        say("kit: interrupted. What is finished is kept: the same command goes on from there.")
    sys.exit(code)


def _call(arguments: list[str]) -> int:
    try:
        code = typer.main.get_command(app).main(args=arguments, standalone_mode=False)
    except KitError as error:
        say(f"kit: {error}")
        return BAD_INPUT
    except KeyboardInterrupt:
        return INTERRUPTED
    except Exception as error:  # of the command line itself: they know how to show themselves
        show = getattr(error, "format_message", None)
        if show is None:
            raise
        text, context = show(), getattr(error, "ctx", None)
        hint = f" Try: {context.command_path} --help" if context else ""
        say(text if text.startswith("Usage:") else f"kit: {text}{hint}")
        return BAD_INPUT
    return code if isinstance(code, int) else OK


@app.callback()
def kit(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print it and stop.")
    ] = False,
) -> None:
    """From raw medical images to a submission that the platform accepts."""
