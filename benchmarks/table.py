"""Make README's performance table of `results/*.json`: `python benchmarks/table.py` writes it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
START, END = "<!-- benchmarks: made by benchmarks/table.py -->", "<!-- end of benchmarks -->"


def markdown(found: dict[str, Any]) -> str:
    """Return one benchmark as a Markdown table."""
    rows = [[row["what"], row["kit"], row["peer"], _ratio(row["ratio"]), row["goal"]]
            for row in found.get("rows", ())]  # fmt: skip
    columns = found.get("columns", ["what", "kit", "instead of it", "ratio", "goal"])
    lines = [
        f"**{found['title']}** (`{found['command']}`; {found['machine']}; {found['date']})",
        "",
        f"| {' | '.join(columns)} |",
        f"|{'---|' * len(columns)}",
        *(f"| {' | '.join(cells)} |" for cells in found.get("lines", rows)),
    ]
    if found["notes"]:
        lines += ["", *found["notes"].splitlines()]
    return "\n".join(lines)


def _ratio(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}x"


def tables() -> str:
    """Return all tables, in the order of their files' names."""
    results = sorted((ROOT / "benchmarks" / "results").glob("*.json"))
    return "\n\n".join(markdown(json.loads(path.read_text("utf-8"))) for path in results)


def updated(text: str) -> str:
    """Return README's text with the tables of the results as they are now."""
    before, rest = text.split(START)
    _, after = rest.split(END)
    return f"{before}{START}\n\n{tables()}\n\n{END}{after}"


if __name__ == "__main__":
    README.write_text(updated(README.read_text("utf-8")), encoding="utf-8")
