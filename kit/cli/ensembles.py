"""`kit ensemble`: several finished runs to one ensemble, its honest score and its submission."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from kit.cli.common import (
    OK,
    Json,
    app,
    bounds,
    number,
    number_of,
    official_of,
    show_figures,
    show_table,
)
from kit.errors import SettingsError


@app.command()
def ensemble(
    runs: Annotated[list[Path], typer.Argument(help="Folders of finished runs.", metavar="RUN...")],
    method: Annotated[
        str,
        typer.Option(help="mean, weighted, geometric, rank, zscore, greedy, bagged-greedy, "
                     "stacked.", metavar="M"),
    ] = "bagged-greedy",
    objective: Annotated[
        str, typer.Option(help="What greedy choices raise: auc, mean_of_six, log_loss, ...",
                          metavar="FIGURE")
    ] = "auc",
    official: Annotated[
        str | None, typer.Option(help="Or this challenge's own score.", metavar="CHALLENGE")
    ] = None,
    weights: Annotated[
        str | None, typer.Option(help="One a run, such as .8,.2: weighted, zscore.", metavar="LIST")
    ] = None,
    threshold: Annotated[
        str, typer.Option(help="A number, or chosen: mean_of_six, youden, f1, sensitivity=S, "
                          "specificity=S.", metavar="T")
    ] = "mean_of_six",
    max_models: Annotated[int | None, typer.Option(help="Most models.", min=1)] = None,
    max_mb: Annotated[float | None, typer.Option(help="Most megabytes of networks.")] = None,
    max_seconds: Annotated[
        float | None, typer.Option(help="Most seconds to predict the test cases, timed here.")
    ] = None,
    submission: Annotated[
        Path | None, typer.Option(help="Submission of the test cases to write.", metavar="FILE")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="The ensemble to write, for kit predict.", metavar="E.json")
    ] = None,
    resamples: Annotated[int, typer.Option(help="Of the intervals.", min=100)] = 2000,
    seed: Annotated[int, typer.Option(help="Of bags and intervals.")] = 0,
    as_json: Json = False,
) -> int:  # fmt: skip
    """Join runs, and say whether the join is worth more than equal weights."""
    from kit import joining
    from kit.ensemble import Ensemble
    from kit.files import jsonable

    found = joining.gather(runs)
    scorer = None if official is None else joining.scorer(official_of(official), found)
    limits = {"mb": max_mb, "seconds": max_seconds}
    asked = Ensemble(
        method, given=_given(weights, found), objective=scorer or objective, seed=seed,
        max_models=max_models, costs=joining.costs(found, seconds=max_seconds is not None),
        limits={name: limit for name, limit in limits.items() if limit is not None},
    )  # fmt: skip
    chosen = joining.choose_ensemble(found, asked, number_of(threshold))
    said = joining.told(
        chosen, objective=official_of(official).beside if official else objective,
        resamples=resamples, seed=seed, official=official_of(official) if official else None,
    )  # fmt: skip
    if out is not None:
        joining.freeze(chosen, found, out)
    if submission is not None:
        joining.submit(chosen, found, submission)
    said = jsonable({**said, "submission": submission and str(submission), "out": out and str(out)})
    if as_json:
        typer.echo(json.dumps(said))
        return OK
    positive = next(iter(found.runs.values())).dataset.positive
    _show(said, positive)
    for name, path in (("submission", submission), ("ensemble", out)):
        if path is not None:
            typer.echo(f"{name} {path}")
    return OK


def _given(text: str | None, runs: Any) -> dict[str, float] | None:
    """Return the weights of the models, one a run in the order of the runs."""
    if text is None:
        return None
    try:
        values = [float(part) for part in text.split(",")]
    except ValueError as error:
        raise SettingsError("--weights takes numbers", expected="such as .8,.2",
                            received=text) from error  # fmt: skip
    models = {run: model for model, run in runs.names.items()}
    if len(models) != len(runs.names):
        raise SettingsError("--weights are one a run, and a run holds several models")
    if len(values) != len(runs.runs):
        raise SettingsError("--weights are one a run", expected=f"{len(runs.runs)} numbers",
                            received=text)  # fmt: skip
    return {models[run]: value for run, value in zip(runs.runs, values, strict=True)}


def _show(said: Mapping[str, Any], positive: str | None) -> None:
    """Print the models, then the nested figures, and what is beside them."""
    import pandas as pd

    table = pd.DataFrame(said["models"])
    show_table(table.round({"weight": 4, "score": 4, "mb": 2, "seconds": 2}))
    typer.echo()
    show_figures(said, positive)
    for name in dict.fromkeys((said["judged_by"], "mean_of_six")):
        one = said["equal"][name]
        typer.echo(f"equal weights: {name} {number(one['value']).strip()}, {bounds(one)}")
    typer.echo(said["advice"])
