"""The cells of a submission: its ids against those demanded, each value by what it must be."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd

from kit._submission_rows import Finding, Format
from kit.checks import first

FORMS: dict[str, Callable[[str], str]] = {
    "zeros at the front were lost: keep ids as text": lambda name: name.lstrip("0"),
    "ids were read as numbers: keep them as text":
        lambda name: re.sub(r"\.0+$", "", name).lstrip("0"),
    "ids keep their capital and small letters": str.lower,
    "ids stand with another ending, or none": lambda name: name.rsplit(".", 1)[0],
    "ids are no paths": lambda name: re.sub(r"\.\w+$", "", re.split(r"[/\\]", name)[-1]),
}  # fmt: skip
"""What may have been done to ids, and the form in which they are still the same."""
SUM = 1e-3  # how far from 1 the probabilities of a case may add up


def of_ids(found: pd.Series, expected: Sequence[str] | None, *, ordered: bool) -> list[Finding]:
    """Return what is wrong with the ids.

    Args:
        found: The column of ids.
        expected: The ids demanded, each once; None: they are not known.
        ordered: Whether their order is demanded too.
    """
    for rule, what, bad, remedy in (
        ("empty_ids", "ids are empty", found[found.str.strip() == ""].index + 1, "write them"),
        ("doubled_ids", "doubled ids", found[found.duplicated()].unique(),
         "one row a case: join a case's rows by the mean of its probabilities"),
    ):  # fmt: skip
        if len(bad):
            return [Finding(rule, what, "each id once", first(bad), remedy=remedy)]
    blank = found[found != found.str.strip()]
    if len(blank):
        return [Finding("form_of_ids", "ids have blanks around them",
                        received=first(map(repr, blank)),
                        remedy="take the blanks out")]  # fmt: skip
    if expected is None:
        return []
    missing, strange = sorted(set(expected) - set(found)), sorted(set(found) - set(expected))
    if missing or strange:
        return [_other_ids(missing, strange, expected)]
    if ordered and list(found) != list(expected):
        at = next(n for n, pair in enumerate(zip(found, expected, strict=True)) if len({*pair}) > 1)
        return [Finding("order_of_ids", "ids stand in another order",
                        f"{expected[at]} as case {at + 1}", found.iloc[at],
                        remedy="sort the rows as the sample's")]  # fmt: skip
    return []


def _other_ids(missing: list[str], strange: list[str], expected: Sequence[str]) -> Finding:
    rule = "other_ids" if missing and strange else "missing_ids" if missing else "unknown_ids"
    why = _why(missing, strange) if rule == "other_ids" else None
    return Finding(
        "form_of_ids" if why else rule, "ids do not match", f"{len(set(expected))} cases",
        f"{len(missing)} missing ({first(missing)}), {len(strange)} unknown ({first(strange)})",
        remedy=why or "one row for each case that is demanded, and none for others",
    )  # fmt: skip


def _why(missing: list[str], strange: list[str]) -> str | None:
    """Return what was done to the ids, where one known fault makes the unknown of the missing."""
    for said, form in FORMS.items():
        if {form(name) for name in strange} <= {form(name) for name in missing}:
            return said
    return None


def of_values(rows: pd.DataFrame, style: Format, classes: Sequence[str]) -> list[Finding]:
    """Return what is wrong with the values, each column on its own."""
    found = [wrong for name in style.numbers(classes) for wrong in _of_numbers(rows[name])]
    if style.value != "probability":
        found += _of_labels(rows[style.value_column], style, classes)
    if style.value == "all" and not found:
        sums = rows[style.numbers(classes)].astype(float).sum(axis=1)
        off = (sums - 1).abs() > SUM
        if off.any():
            found.append(
                Finding(
                    "sums",
                    "the probabilities of a case must sum to 1",
                    received=first(sums[off].round(4)),
                    remedy="divide each row by its sum, or give the softmax",
                )
            )
    return found


def _of_numbers(column: pd.Series) -> list[Finding]:
    name, text = column.name, column.str.strip()
    values = pd.to_numeric(text, errors="coerce")
    what = f"column {name} must be in [0, 1]"
    found, told = list[Finding](), pd.Series(False, index=column.index)
    nan = text.str.lower().isin(["nan", "na", "none", "null", "<na>", "#n/a"])
    for rule, bad, remedy in (
        ("empty_values", text == "", "give each case a value"),
        ("nan", nan, "give each case a value"),
        ("no_number", values.isna(), _comma(text)),
        ("infinite", values.abs() == np.inf, "a network diverged: look at its losses"),
        ("range", ~values.between(0, 1), _scale(values)),
    ):
        new = bad & ~told
        if new.any():
            found.append(Finding(rule, what, received=first(text[new].replace("", "an empty cell")),
                                 remedy=remedy))  # fmt: skip
        told |= new
    return found


def _comma(text: pd.Series) -> str:
    comma = text.str.fullmatch(r"-?\d+,\d+").any()
    return "write a decimal point" if comma else "give each case a number"


def _scale(values: pd.Series) -> str:
    if (values < 0).any():
        return "these may be logits or z-scores: give probabilities"
    return "these may be percent: divide by 100" if values.max() <= 100 else "give probabilities"


def _of_labels(column: pd.Series, style: Format, classes: Sequence[str]) -> list[Finding]:
    known = style.labels(classes)
    if (column.str.strip() == "").any():
        return [Finding("empty_values", "unknown labels: a case has none", ", ".join(known),
                        "an empty cell", remedy="give each case one")]  # fmt: skip
    unknown = sorted(set(column) - set(known))
    if not unknown:
        return []
    numbers = pd.to_numeric(column, errors="coerce")
    rule, remedy = "unknown_labels", "write one of them for each case"
    if set(unknown) <= set(classes):
        remedy = "write the codes: " + ", ".join(f"{a} = {b}" for a, b in style.codes)
    elif numbers.between(0, 1).all() and (numbers % 1 > 0).any():
        rule, remedy = "no_labels", "these are probabilities: decide by the frozen threshold"
    elif set(column.str.replace(r"\.0+$", "", regex=True).str.strip()) <= set(known):
        remedy = "write whole numbers without blanks and decimals"
    return [Finding(rule, "unknown labels", ", ".join(sorted(known)), first(unknown),
                    remedy=remedy)]  # fmt: skip
