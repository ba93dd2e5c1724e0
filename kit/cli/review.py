"""`kit review`: the labels that a finished run doubts most."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from kit.cli.common import OK, Json, app, show_table


@app.command()
def review(
    run: Annotated[Path, typer.Argument(help="Folder of a finished run.", metavar="RUN")],
    top: Annotated[int, typer.Option(help="Cases to list, most doubtful first.", min=1)] = 40,
    out: Annotated[
        Path | None,
        typer.Option(help="CSV to fill; rows filled before stay [RUN/review.csv].", metavar="FILE"),
    ] = None,
    sheet: Annotated[
        Path | None, typer.Option(help="Contact sheet, PNG [RUN/review.png].", metavar="FILE")
    ] = None,
    as_json: Json = False,
) -> int:
    """List the labels that the out-of-fold probabilities contradict most.

    Fill the CSV's action for what you looked at: drop (leaves training), relabel (is learnt with
    new_label) or keep (the label is right). Name the file in data_manifest.yaml, `review: FILE`
    under the data set, and give the `kit run` command again: it trains again what the marks touch,
    and shows the figures by the labels as given and as reviewed.
    """
    from kit import review as doubted
    from kit.files import jsonable

    table = doubted.doubts(run)
    rows = doubted.listed(table, top)
    csv, png = out or run / "review.csv", sheet or run / "review.png"
    drawn = doubted.draw(run, rows, png)
    filled = doubted.write(table, top, csv)
    against = int((table["label"] != table["suggested"]).sum())
    if as_json:
        typer.echo(json.dumps(jsonable({
            "cases": rows.to_dict(orient="records"), "n_cases": len(table), "n_against": against,
            "n_filled": filled, "review": str(csv), "sheet": str(png) if drawn else None,
        })))  # fmt: skip
        return OK
    shown = rows.drop(columns=["path", "note"]).round(4)
    marked = rows["action"].any()
    show_table(shown if marked else shown.drop(columns=["action", "new_label"]))
    typer.echo(f"Another class than the label is likeliest in {against} of {len(table)} cases.")
    typer.echo(f"review {csv}" + (f" ({filled} filled rows stay)" if filled else ""))
    if drawn:
        typer.echo(f"sheet  {png}")
    return OK
