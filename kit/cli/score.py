"""`kit score`: a file of predictions judged by a file of truth."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from kit.cli.common import OK, Json, app, number_of, official_of, show_figures, show_table


@app.command()
def score(
    truth: Annotated[
        Path, typer.Option(help="CSV or Parquet: case_id, label, further columns.", metavar="T.csv")
    ],
    pred: Annotated[
        Path,
        typer.Option(help="CSV or Parquet: case_id, prob or prob_CLASS, in any order; fold.",
                     metavar="P.csv"),
    ],
    label: Annotated[str, typer.Option(help="Truth's column of the class.")] = "label",
    group: Annotated[
        str | None, typer.Option(help="Truth's column of the patient [group].", metavar="COL")
    ] = None,
    positive: Annotated[
        str | None, typer.Option(help="Positive class of two [1].", metavar="CLASS")
    ] = None,
    threshold: Annotated[
        str,
        typer.Option(help="A number; or, where the predictions have a fold, mean_of_six, youden, "
                     "f1, sensitivity=S or specificity=S, chosen on the other folds.",
                     metavar="T"),
    ] = "0.5",
    by: Annotated[
        str | None, typer.Option(help="Truth's column (scanner) whose parts are judged too.",
                                 metavar="COL")
    ] = None,
    compare: Annotated[
        Path | None, typer.Option(help="Other predictions: theirs less these.", metavar="O.csv")
    ] = None,
    official: Annotated[
        str | None, typer.Option(help="The scorer of this challenge beside ours.",
                                 metavar="CHALLENGE")
    ] = None,
    graded: Annotated[
        bool, typer.Option("--graded", help="The classes are grades: adds the quadratic kappa.")
    ] = False,
    resamples: Annotated[int, typer.Option(help="Of the intervals.", min=100)] = 2000,
    seed: Annotated[int, typer.Option(help="Of the intervals.")] = 0,
    as_json: Json = False,
) -> int:  # fmt: skip
    """Judge predictions: six metrics, their mean and AUC, with intervals over patients."""
    from kit import judge, scoring
    from kit.checks import columns
    from kit.files import jsonable

    method = number_of(threshold)
    table = judge.read_truth(truth, label=label, group=group)
    if by is not None:
        columns(table, [by], path=str(truth))
    classes, chosen = judge.classes_of(table, pred, positive)
    scored = judge.judged(table, pred, classes, chosen, method)
    found: dict[str, Any] = scoring.figures(
        scored, n_folds=scored.table.fold.nunique(), method=method, by=by, graded=graded,
        official=official_of(official) if official else None, resamples=resamples, seed=seed,
    )  # fmt: skip
    if compare is not None:
        other = judge.judged(table, compare, classes, chosen, method)
        found["comparison"] = scoring.difference(scored, other, resamples=resamples, seed=seed)
    if as_json:
        typer.echo(json.dumps(jsonable(found)))
        return OK
    found = jsonable(found)
    show_figures(found, chosen)
    if by is not None:
        typer.echo(f"by {by}")
        show_table(_parts(found["subgroups"]))
    if compare is not None:
        typer.echo(f"{compare} less {pred}")
        show_table(_differences(found["comparison"]))
    return OK


def _parts(rows: list[dict[str, Any]]) -> Any:
    """Return a row for each part, a column for each figure."""
    import pandas as pd

    table = pd.DataFrame(rows)
    wide = table.pivot(index=["part", "n", "n_groups"], columns="metric", values="value")
    return wide[list(dict.fromkeys(table["metric"]))].astype(float).round(4).reset_index()


def _differences(found: dict[str, dict[str, float]]) -> Any:
    import pandas as pd

    table = pd.DataFrame([{"metric": name, **one} for name, one in found.items()])
    return table.round(4)
