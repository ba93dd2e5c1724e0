"""One HTML page that holds a run, one that holds the executed notebooks; both need no network.

Every text that comes from a table, a setting or a file name is escaped.
"""

from __future__ import annotations

import base64
import html
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from kit import files
from kit._plots import png, spoken

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CAPTIONS = {
    "class_counts": "How many cases each class has, and how many cases come from one patient.",
    "contact_sheet": "Some of the images as the network is given them.",
    "tissue_overlay": "Where the tissue mask lies: patches are planned only on it.",
    "patches_on_thumbnail": "The planned patches of one slide.",
    "slide_heatmap": "Where on a slide networks see the class, and the most suspicious patches.",
    "slide_attention": "Where networks of bags looked on the slide, whatever it spoke for.",
    "froc": "Lesions found against false marks a slide, as the lesions' challenge counts them.",
    "embedding_map": "Patches by what a network sees: sources that lie apart look different.",
    "mosaic": "Slides side by side: empty ones and pen marks are seen here.",
    "patches_by_class": "Patches as they are drawn for training.",
    "stain_by_slide": "A slide of another scanner or stain stands apart.",
    "augmentations": "Each step of the policy alone: what it may change, and how much.",
    "augmentation_grid": "What the network sees of one image from epoch to epoch.",
    "fold_balance": "Folds should be alike in classes, and no patient be in two.",
    "history": "A loss that still falls asks for more epochs.",
    "schedule": "The learning rate at each step, stage by stage.",
    "confusion_matrix": "Out-of-fold predictions: rows are the truth, columns the prediction.",
    "roc": "Out-of-fold: each point is a threshold; the band is from resampled patients.",
    "metrics_against_threshold": "What another threshold would have given, out of fold.",
    "forest": "Each figure with the interval that resampled patients give it.",
    "probability_by_class": "The less the two overlap, the better the classes are told apart.",
    "agreement": "Models that disagree gain most from being joined.",
    "precision_recall": "Out-of-fold: how many of those called positive are; chance: prevalence.",
    "calibration": "Points below the line: probabilities are too high; bars are 95 % intervals.",
    "comparison": "An interval that holds 0: the two models cannot be told apart by that metric.",
    "gain_of_models": "What each added model brought, on the rows it was chosen on: optimistic.",
    "cases_sheet": "Cases to look at: wrong labels, bad images, or a kind that training lacks.",
    "ledger": "Each submission by its own estimate and by the judge's: the line is agreement.",
    "submission_distribution": "Submitted cases that lie elsewhere may be of another kind.",
}
STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #1a1a1a; max-width: 1000px; margin: 2em auto;
  padding: 0 1em; }
h1, h2, h3 { line-height: 1.2; } h2 { margin-top: 2em; border-bottom: 1px solid #ccc; }
table { border-collapse: collapse; margin: 1em 0; font-size: 14px; display: block;
  overflow-x: auto; }
td, th { padding: .25em .8em; border-bottom: 1px solid #ddd; text-align: left; }
td.number, th.number { font-variant-numeric: tabular-nums; text-align: right; }
img { max-width: 100%; height: auto; } figure { margin: 1.5em 0; }
figcaption { color: #444; font-size: 14px; }
.synthetic { background: #ffb000; color: #000; font-weight: 700; padding: .7em 1em; }
.warning { background: #fff3d6; border-left: 4px solid #c77700; padding: .4em 1em; margin: .4em 0; }
.failure { background: #ffe1dc; border-left: 4px solid #b3261e; padding: .4em 1em; margin: .4em 0; }
pre { background: #f5f5f5; padding: .6em .8em; overflow-x: auto; font-size: 13px; }
.nb article { border-top: 4px solid #0072b2; margin-top: 3em; }
.nb .jp-OutputArea-output pre, .nb .output_area pre { background: none; }
"""
BANNER = '<p class="synthetic">SYNTHETIC: drawn data, not patients. No figure here is a result.</p>'


def _page(title: str, body: Sequence[str], style: str = STYLE) -> str:
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta name="viewport" content="width=device-width"><title>{html.escape(title)}</title>'
        f"<style>{style}</style></head>\n<body>\n" + "\n".join(body) + "\n</body></html>\n"
    )


def _number(value: Any) -> str:
    if value is None or value != value:
        return "undefined"
    return f"{value:.3f}" if isinstance(value, float) else html.escape(str(value))


def _interval(found: Mapping[str, Any]) -> str:
    low, high = _number(found["low"]), _number(found["high"])
    return low if low == high == "undefined" else f"{low} to {high}"


def metric_table(metrics: Mapping[str, Any]) -> str:
    """Return an HTML table of the metrics that carry an interval.

    Args:
        metrics: As `kit run --json` prints them: name to {value, low, high}; others are left out.
            Those of `reviewed`, where there are any, stand beside.
    """
    sides = [metrics, *filter(None, [metrics.get("reviewed")])]
    rows = [
        f"<tr><th>{html.escape(spoken(name))}</th>"
        + "".join(_cell(_number(s[name]["value"])) + _cell(_interval(s[name])) for s in sides)
        + "</tr>"
        for name, found in metrics.items()
        if isinstance(found, Mapping) and set(found) == {"value", "low", "high"}
    ]
    names = ("value", "95 % interval", "by reviewed labels", "95 % interval")
    titles = "".join(f'<th class="number">{name}</th>' for name in names[: 2 * len(sides)])
    return f"<table><tr><th>metric</th>{titles}</tr>{''.join(rows)}</table>"


def _cell(text: str) -> str:
    return f'<td class="number">{text}</td>'


def _pairs(values: Mapping[str, Any]) -> str:
    rows = (
        f"<tr><th>{html.escape(str(k))}</th><td>{html.escape(str(v))}</td></tr>"
        for k, v in values.items()
    )
    return f"<table>{''.join(rows)}</table>"


def _figure(name: str, picture: bytes) -> str:
    said = spoken(name)[:1].upper() + spoken(name)[1:]
    data = base64.b64encode(picture).decode()
    return (
        f'<figure id="{html.escape(name)}"><h3>{html.escape(said)}</h3>'
        f'<img alt="{html.escape(said)}" src="data:image/png;base64,{data}">'
        f"<figcaption>{html.escape(CAPTIONS.get(name, ''))}</figcaption></figure>"
    )


def write_report(
    out: Path,
    *,
    title: str,
    settings: Mapping[str, Any],
    metrics: Mapping[str, Any],
    figures: Mapping[str, Figure],
    notes: Sequence[str] = (),
    warnings: Sequence[str] = (),
    failures: Sequence[str] = (),
    tables: Mapping[str, pd.DataFrame] | None = None,
    synthetic: bool,
) -> Path:
    """Write `report.html` and `figures/<name>.png` into a run's folder.

    Args:
        out: The run's folder.
        title: Heading of the page.
        settings: Every setting of the run.
        metrics: As `kit run --json` prints them; an undefined value is None.
        figures: By the name of the function that drew them.
        notes: Lines that stand beside the metrics.
        warnings: Lines that a reader must know.
        failures: Jobs or checks that failed, one line each.
        tables: Tables of which the first rows are shown.
        synthetic: Whether the data are drawn; the page then says so on top.

    Returns:
        The path of the page.
    """
    pictures = {name: png(figure) for name, figure in figures.items()}
    for name, picture in pictures.items():
        with files.atomic(out / "figures" / f"{name}.png") as part:
            part.write_bytes(picture)
    rest = {k: v for k, v in metrics.items() if v is None or isinstance(v, str | float | int)}
    rest |= {k: _number(v) for k, v in metrics.get("other", {}).items()}
    body = [f"<h1>{html.escape(title)}</h1>"]
    body += [BANNER] if synthetic else []
    body += [f'<p class="failure">Failed: {html.escape(line)}</p>' for line in failures]
    body += [f'<p class="warning">{html.escape(line)}</p>' for line in warnings]
    body += ["<h2>Metrics</h2>", metric_table(metrics)]
    body += [f"<p>{html.escape(line)}</p>" for line in notes]
    body += [_pairs(rest), "<h2>Figures</h2>"]
    body += [_figure(name, picture) for name, picture in pictures.items()]
    body += ["<h2>Settings</h2>", _pairs(settings)]
    for name, table in (tables or {}).items():
        body.append(f"<h2>Table {html.escape(name)}: {len(table):,} rows, the first of them</h2>")
        body.append(table.head(8).to_html(index=False, border=0))
    path = out / "report.html"
    files.write_text(path, _page(title, body))
    return path


def notebooks_page(executed: Sequence[Path], out: Path, *, summary: str = "") -> Path:
    """Write one HTML page of executed notebooks, their figures inside, with a table of contents.

    Args:
        executed: Notebooks with their outputs, in order.
        out: The page to write.
        summary: HTML shown on top; not escaped.
    """
    from nbconvert import HTMLExporter

    exporter: Any = HTMLExporter(  # type: ignore[no-untyped-call]
        template_name="basic", exclude_anchor_links=True
    )
    exporter.exclude_input_prompt = exporter.exclude_output_prompt = True
    contents, bodies, style = [], [], STYLE
    for path in executed:
        name = html.escape(path.stem)
        text, found = exporter.from_filename(str(path))
        style = STYLE + "".join(found["inlining"]["css"])
        contents.append(f'<li><a href="#{name}">{name.replace("_", " ")}</a></li>')
        bodies.append(f'<article id="{name}">{text}</article>')
    head = ["<h1>The executed notebooks</h1>", summary, f"<ul>{''.join(contents)}</ul>"]
    page = _page("The executed notebooks", [*head, '<div class="nb">', *bodies, "</div>"], style)
    files.write_text(out, page)
    return out
