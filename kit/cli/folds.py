"""`kit folds`: a table of cases to folds that no patient stands in twice."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kit.cli.common import OK, Json, app, say, show_table
from kit.errors import ImageError, KitError

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np
    import pandas as pd


@app.command()
def folds(
    table: Annotated[
        Path, typer.Argument(help="CSV or Parquet with case_id, a row a case.", metavar="TABLE")
    ],
    out: Annotated[Path, typer.Option(help="Folds to write: CSV or Parquet.", metavar="F.csv")],
    label: Annotated[
        list[str] | None,
        typer.Option(help="Column of the class [label]; several of 0 and 1 for multilabel.",
                     metavar="COL"),
    ] = None,
    group: Annotated[
        str | None, typer.Option(help="Column of the patient [group, else each case].",
                                 metavar="COL")
    ] = None,
    n_splits: Annotated[int, typer.Option(help="Folds.")] = 5,
    seed: Annotated[int, typer.Option(help="Of the deal.")] = 0,
    balance: Annotated[
        list[str] | None,
        typer.Option(help="Further column to balance (scanner); may be repeated.", metavar="COL"),
    ] = None,
    repeats: Annotated[int, typer.Option(help="Deals; more than 1 adds a column repeat.")] = 1,
    by_site: Annotated[
        str | None, typer.Option(help="One fold a value of this column, instead.", metavar="COL")
    ] = None,
    hold_out: Annotated[
        float | None, typer.Option(help="Share of the cases held out first: their fold is -1.",
                                   metavar="SHARE")
    ] = None,
    one_label: Annotated[
        bool, typer.Option("--one-label", help="A group with several labels is an error.")
    ] = False,
    images: Annotated[
        Path | None, typer.Option(help="Folder of the table's column path: near copies are "
                                  "joined into one group.", metavar="DIR")
    ] = None,
    as_json: Json = False,
) -> int:  # fmt: skip
    """Deal cases into stratified folds that split no patient.

    F.csv holds case_id, group, label and fold; kit run --fold-table takes it.
    """
    from kit import folds as deal
    from kit.checks import columns, unique_ids
    from kit.files import read_table

    cases = columns(read_table(table), ["case_id"], path=str(table))
    unique_ids(cases["case_id"], path=str(table))
    labels = label or ["label"]
    patient = group or ("group" if "group" in cases else "case_id")
    columns(cases, [*labels, patient, *(balance or []), *([by_site] if by_site else [])],
            path=str(table))  # fmt: skip
    if one_label:
        for name in labels:
            deal.check_one_label(cases, label=name, group=patient)
    pairs = _copies(cases, images)
    cases = cases.assign(group=deal.join_groups(cases, pairs, group=patient))
    asked: dict[str, Any] = {"label": labels if len(labels) > 1 else labels[0], "group": "group",
                             "seed": seed, "balance": balance or ()}  # fmt: skip
    held = deal.hold_out(cases, hold_out, **asked) if hold_out is not None else None
    made = _dealt(cases if held is None else cases[~held], asked, n_splits, repeats, by_site)
    if repeats <= 1:
        deal.check_no_leak(made, pairs=pairs)
    if held is not None:
        import pandas as pd

        made = pd.concat([made, cases[held].assign(fold=-1)], ignore_index=True)
    kept = ["case_id", "group", *labels, *(["repeat"] if repeats > 1 else []), "fold"]
    _write(made[list(dict.fromkeys(kept))], out)
    return _tell(made, labels[0], pairs, out, as_json)


def _dealt(
    cases: pd.DataFrame, asked: dict[str, Any], n_splits: int, repeats: int, site: str | None
) -> pd.DataFrame:
    """Return the cases with their fold: a site's, or one of so many; with several repeats, each."""
    from kit import folds as deal

    if site is not None:
        return cases.assign(fold=deal.leave_one_site_out(cases, site=site, group="group"))
    if repeats > 1:
        return deal.repeated_folds(cases, n_splits, repeats, **asked)
    return cases.assign(fold=deal.assign_folds(cases, n_splits, **asked))


def _copies(cases: pd.DataFrame, folder: Path | None) -> pd.DataFrame:
    """Return the near copies among the images of a table."""
    import pandas as pd

    from kit.checks import columns
    from kit.duplicates import COLUMNS, near_duplicates

    if folder is None:
        return pd.DataFrame({name: [] for name in COLUMNS})
    columns(cases, ["path"])
    return near_duplicates(_pictures(folder, list(cases["path"])), list(cases["case_id"]))


def _pictures(folder: Path, paths: list[str]) -> Iterator[np.ndarray]:
    from kit.images import read_image

    for path in paths:
        if not (folder / path).is_file():
            raise ImageError("no such image", path=folder / path, remedy="mend the column path")
        yield read_image(folder / path)


def _write(made: pd.DataFrame, out: Path) -> None:
    from kit.files import write_table, write_text

    if out.suffix == ".parquet":
        write_table(made, out)
    elif out.suffix == ".csv":
        write_text(out, made.to_csv(index=False))
    else:
        raise KitError("folds are written as CSV or Parquet", received=out.name)


def _tell(made: pd.DataFrame, label: str, pairs: pd.DataFrame, out: Path, as_json: bool) -> int:
    """Print a row for each fold: cases, groups, cases and share of each class."""
    import pandas as pd

    once = made[made["repeat"] == 0] if "repeat" in made else made
    counts = pd.crosstab(once["fold"], once[label].astype(str))
    by_fold = once.groupby("fold")
    rows = pd.DataFrame({"fold": by_fold.size().index, "cases": by_fold.size().to_numpy(),
                         "groups": by_fold["group"].nunique().to_numpy()})  # fmt: skip
    for name in counts:
        share = counts[name] / counts.sum(axis=1)
        rows[name] = [f"{n} ({100 * s:.1f} %)" for n, s in zip(counts[name], share, strict=True)]
    if as_json:
        found = {"out": str(out), "folds": json.loads(rows.to_json(orient="records")),
                 "joined": json.loads(pairs.to_json(orient="records"))}  # fmt: skip
        typer.echo(json.dumps(found))
        return OK
    show_table(rows)
    for row in pairs.head(5).itertuples():
        say(f"joined: {row.a} and {row.b} are alike ({row.how})")
    if len(pairs) > 5:
        say(f"joined: {len(pairs) - 5} pairs more")
    typer.echo(f"{len(once)} cases in {once['group'].nunique()} groups: {out}")
    return OK
