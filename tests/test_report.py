"""The report holds all it needs, says what is drawn data, and escapes what it is given."""

from __future__ import annotations

import base64
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import pandas as pd
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from kit import figures
from kit._plots import png
from kit.report import CAPTIONS, metric_table, notebooks_page, write_report

EVIL = "<script>alert('x')</script>"
METRICS = {
    "accuracy": {"value": 0.8125, "low": 0.7, "high": 0.9},
    "ppv": {"value": None, "low": None, "high": None},
    "n": 48,
    "threshold": 0.4375,
    "out": "runs/a",
}


def matrix() -> Any:
    return figures.confusion_matrix(np.array([[3, 1], [0, 2]]), ["a", "b"])


def written(out: Path, **changes: Any) -> str:
    given = {
        "title": "idc_patches", "settings": {"seed": 0}, "metrics": METRICS,
        "figures": {"confusion_matrix": matrix()}, "synthetic": False,
    }  # fmt: skip
    return write_report(out, **{**given, **changes}).read_text(encoding="utf-8")


class Links(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.tags: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.found += [v for k, v in attrs if k in ("src", "href") and v]


def links(page: str) -> Links:
    parser = Links()
    parser.feed(page)
    return parser


def test_the_page_needs_nothing_outside_itself(tmp_path: Path) -> None:
    page = written(tmp_path)
    assert all(link.startswith("data:") for link in links(page).found)
    assert not re.search(r"@import|url\(", page)


def test_the_figure_in_the_page_is_the_one_on_disk(tmp_path: Path) -> None:
    page = written(tmp_path)
    data = re.search(r"data:image/png;base64,([^\"]+)", page)
    saved = (tmp_path / "figures" / "confusion_matrix.png").read_bytes()
    assert data and base64.b64decode(data[1]) == saved == png(matrix())
    assert CAPTIONS["confusion_matrix"] in page


def test_synthetic_runs_say_so_on_top_and_others_do_not(tmp_path: Path) -> None:
    assert "SYNTHETIC" in written(tmp_path, synthetic=True)
    assert "SYNTHETIC" not in written(tmp_path)


def test_metrics_stand_with_their_intervals() -> None:
    table = metric_table(METRICS)
    assert "0.812" in table and "0.700 to 0.900" in table
    assert "undefined" in table and "<th>PPV</th>" in table
    assert "threshold" not in table


def test_warnings_failures_settings_and_tables_are_shown(tmp_path: Path) -> None:
    rows = pd.DataFrame({"case_id": [f"case{i}" for i in range(20)]})
    page = written(
        tmp_path,
        warnings=["two slides are two patients"],
        failures=["fold 3: no memory"],
        tables={"cases": rows},
    )
    for text in ("two slides are two patients", "Failed: fold 3: no memory", "20 rows", "case7"):
        assert text in page
    assert "case8" not in page
    assert "<th>seed</th><td>0</td>" in page and "<th>n</th><td>48</td>" in page


def test_all_text_is_escaped(tmp_path: Path) -> None:
    page = written(
        tmp_path,
        title=EVIL,
        settings={EVIL: EVIL},
        metrics={EVIL: {"value": EVIL, "low": EVIL, "high": EVIL}, "x" + EVIL: EVIL},
        warnings=[EVIL],
        failures=[EVIL],
        tables={EVIL: pd.DataFrame({EVIL: [EVIL]})},
    )
    assert "<script" not in page
    assert page.count("&lt;script&gt;") >= 10


def test_every_figure_has_a_caption() -> None:
    drawn = {
        n for n, v in vars(figures).items() if getattr(v, "__module__", "").endswith("figures")
    }
    assert {name for name in drawn if not name.startswith("_")} == set(CAPTIONS)


def test_an_interrupted_write_leaves_the_old_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = written(tmp_path)

    def stopped(self: Path, target: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", stopped)
    with pytest.raises(KeyboardInterrupt):
        written(tmp_path, title="half")
    assert (tmp_path / "report.html").read_text(encoding="utf-8") == before
    assert not list(tmp_path.rglob(".part-*"))


def executed(folder: Path, name: str) -> Path:
    picture = base64.b64encode(png(matrix())).decode()
    shown = new_output("display_data", {"image/png": picture, "text/plain": "Figure"})
    cells = [new_markdown_cell(f"# {name}"), new_code_cell("1 + 1", outputs=[shown])]
    path = folder / f"{name}.ipynb"
    nbformat.write(new_notebook(cells=cells), path)
    return path


def test_notebooks_are_joined_in_order_with_their_figures(tmp_path: Path) -> None:
    names = ["00_start", "01_look"]
    paths = [executed(tmp_path, name) for name in names]
    out = notebooks_page(paths, tmp_path / "all.html", summary=metric_table(METRICS))
    page = out.read_text(encoding="utf-8")
    found = links(page)
    assert [link for link in found.found if link.startswith("#")] == ["#00_start", "#01_look"]
    assert page.index('id="00_start"') < page.index('id="01_look"')
    assert page.count("data:image/png;base64,") == 2
    assert all(link.startswith(("data:", "#")) for link in found.found)
    assert "script" not in found.tags and "0.700 to 0.900" in page
