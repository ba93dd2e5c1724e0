"""The floors: a module imports only from floors below it, and siblings only where listed."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

KIT = Path(__file__).parents[1] / "kit"

FLOORS = {
    0: """
        errors checks geometry files _writers _memory
    """,
    1: """
        jobs apart clusters stages settings manifest layout patterns folds metrics intervals
        thresholds ensemble marks mounts overlaps shift comparison _balance _votes _members _labels
        _counts _ranks _measures _rows _report _probable _certainty lesions _mask_overlap
        _froc rules locks
    """,
    2: """
        duplicates slides readers tiled codecs coverage tissue annotations polygons
        _mask_files shards images dicom stain fundus drawing drawing_organs _cells stitch
        _vector_files _stain_maths _dicom_files volumes stubs
    """,
    3: """
        backend feed checkpoints recipes monitor histories optimizers sampler draws store
        augment policies _augment_draws _augment_geometry _augment_colour _augment_mix
        models losses weights attention _stored _network _backbones _own_networks
        _seed_networks _tf parallel slide_features _learners _bags _heatmap
    """,
    4: """
        training plans fits fitting trainer live inference streams aggregate submission
        figures report pipeline prepared synthetic inventory doctor kinds scoring finished
        overview quality slide_jobs _plots _slide_figures _score_figures _model_figures
        _augment_figures _interval_figures _training_figures hard_cases alike challenge
        official judge joining review heatmaps _heatmap_figures _lesion_figures _choices
        embeddings mil _mil_fits _embedding_figures _drawn _drawn_mri _stand_in_eyes
        _stand_in_patches _stand_in_help _mirax _drawn_slides studies adapt predicted mapped
        slide_scores slide_report carried pace
        _submission_rows _submission_cells _submission_spread _submission_run
        submission_checks growth ledger _ledger_file _ledger_figures
        _heatmap_files _stream dense encoders _mil_uses lesion_scores
    """,
    5: """
        challenges platforms bundles rehearsal selfcheck cli
    """,
}
FLOOR = {module: floor for floor, modules in FLOORS.items() for module in modules.split()}

# Siblings that a module may import, each for the reason beside it.
ALLOWED = {
    "models": {
        "weights",
        "_stored",
        "_network",
        "_backbones",
        "_own_networks",
        "_seed_networks",
    },  # its parts
    "_backbones": {"_network"},  # what an entry of the registry is
    "_own_networks": {"_network", "attention"},  # the same; a layer of a head
    "_seed_networks": {"_network", "_own_networks"},  # the same; a convolution, normalised
    "_stored": {"weights", "attention"},  # the file is there; it may hold this layer
    "checks": {"errors"},  # what every module raises
    "files": {"errors", "_writers"},  # the writers of its temporary files
    "geometry": {"errors"},
    "manifest": {"layout", "marks", "mounts"},  # cases read from disk; marks on them; where it is
    "layout": {"patterns"},  # path patterns are one way to lie on disk
    "metrics": {"_counts", "_measures", "_probable", "_report"},  # the door to all of them
    "_ranks": {"_counts", "intervals"},  # the variance of an area
    "_certainty": {"_counts", "_ranks", "_rows", "intervals"},  # how sure the rows' figures are
    "_probable": {"_counts", "_labels", "_ranks"},  # definitions on checked probabilities
    "challenge": {"official", "submission"},  # what a challenge is
    "_measures": {"_counts", "_labels", "_ranks"},  # definitions on checked labels
    "_rows": {"_labels", "_measures", "_ranks"},  # labels as codes, once for all figures
    "_report": {
        "_certainty",
        "_counts",
        "_labels",
        "_measures",
        "_probable",
        "_ranks",
        "_rows",
        "intervals",
    },  # all that a report is made of
    "_members": {"_counts", "metrics"},  # what a choice raises
    "ensemble": {"_members", "_votes"},  # what is joined, and by what choice
    "comparison": {"_certainty", "_counts", "_labels", "_ranks", "_rows", "intervals"},  # of two
    "inventory": {"synthetic"},  # whether cases are drawn
    "folds": {"_balance", "shift"},  # the deal; whether the test set is like the training set
    "shift": {"_labels", "_ranks", "intervals"},  # an AUC over groups
    "lesions": {"_froc", "_mask_overlap"},  # the door to both
    "settings": {"thresholds", "rules"},  # how a demanded sensitivity and a rule are written
    "thresholds": {"_counts"},  # a threshold is chosen by a figure
    "slides": {"readers"},  # a slide reads through a handle
    "readers": {"tiled", "codecs"},  # one of the handles
    "tiled": {"codecs"},  # a tile's bytes to pixels
    "stain": {"_stain_maths"},  # the arithmetic of its normalisers
    "tissue": {"slides", "coverage", "polygons"},  # an open slide; fractions; outlines
    "annotations": {"slides", "coverage", "polygons", "_mask_files"},  # what is drawn on a slide
    "fundus": {"images"},  # how a photograph is read and fitted
    "dicom": {"_dicom_files"},  # its files, one at a time
    "volumes": {"dicom"},  # series become images
    "drawing_organs": {"drawing"},  # eyes and heads, drawn with the same strokes
    "clusters": {"jobs"},  # the same jobs, on machines of others
    "apart": {"jobs"},  # the same jobs, each in a process of its own
    "recipes": {"policies"},  # the augmentation that a stage names
    "parallel": {"_tf", "backend"},  # several devices by TensorFlow; which there are
    "fits": {"recipes", "store"},  # what decides a network
    "trainer": {"losses"},  # what learns
    "fitting": {"fits", "inference", "trainer"},  # one network's training, watched
    "streams": {"_stream", "dense", "heatmaps"},  # the reading; maps of pixels, and their files
    "heatmaps": {"_heatmap_files"},  # the door to them
    "lesion_scores": {"heatmaps"},  # what is scored
    "encoders": {
        "_stream",
        "fits",
        "heatmaps",
        "streams",
    },  # the reading; what stands; names of files; a network
    "slide_jobs": {"encoders", "streams"},  # what each job does
    "live": {"fits"},  # what is shown of them
    "training": {"plans", "fits", "fitting", "inference", "live"},  # trained, shown
    "augment": {
        "policies",
        "_augment_draws",
        "_augment_geometry",
        "_augment_colour",
        "_augment_mix",
    },
    "_augment_geometry": {"policies", "_augment_draws"},  # what is drawn, and by which limits
    "_augment_colour": {"policies", "_augment_draws"},
    "_augment_mix": {"_augment_draws", "_augment_colour"},  # CutMix cuts the hole of cutout
    "figures": {
        "_plots",
        "_augment_figures",
        "_heatmap_figures",
        "_slide_figures",
        "_score_figures",
        "_model_figures",
        "_interval_figures",
        "_lesion_figures",
        "_training_figures",
        "_embedding_figures",
        "_ledger_figures",
    },
    "_embedding_figures": {"_plots", "embeddings"},  # main directions of vectors
    "mil": {"_mil_fits", "_mil_uses", "aggregate", "plans"},  # its parts; bare cases; folds
    "_mil_fits": {"fits", "plans", "trainer"},  # what stands; names of files; averaged weights
    "_augment_figures": {"_plots"},
    "_heatmap_figures": {"_plots", "heatmaps"},  # what is drawn
    "_model_figures": {"_plots"},
    "_interval_figures": {"_plots"},
    "_lesion_figures": {"_plots"},
    "_training_figures": {"_plots"},
    "_slide_figures": {"_plots"},
    "_score_figures": {"_plots"},
    "aggregate": {"_choices"},  # what is chosen for a rule
    "sampler": {"draws"},  # the label of what is neither
    "report": {"_plots"},
    "scoring": {"official"},  # the judge's number beside ours
    "judge": {"scoring"},  # two files become what a run scores
    "joining": {"finished", "official", "scoring", "submission"},  # several runs
    "doctor": {"inventory"},  # which datasets are here
    "overview": {
        "encoders",
        "figures",
        "heatmaps",
    },  # a report's figures are drawn from a run's tables
    "slide_scores": {
        "aggregate",
        "encoders",
        "heatmaps",
        "kinds",
        "lesion_scores",
        "mil",
        "slide_jobs",
        "streams",
    },  # what a slide goes through
    "slide_report": {"aggregate", "lesion_scores"},  # what is said of both
    "carried": {"finished"},  # what is carried of it
    "pace": {"inference", "trainer"},  # what is timed
    "growth": {"kinds", "pace", "synthetic"},  # the same, of slides; drawn ones
    "finished": {
        "aggregate",
        "inference",
        "kinds",
        "ledger",
        "mil",
        "slide_scores",
        "submission",
    },  # without training
    "review": {
        "_plots",
        "figures",
        "finished",
        "hard_cases",
        "slide_jobs",
    },  # what a run doubts, and its sheet
    "quality": {"kinds"},  # planned patches are read as a run reads them
    "plans": {"fits"},  # what it plans
    "synthetic": {
        "_drawn",
        "_drawn_mri",
        "_drawn_slides",
        "_stand_in_eyes",
        "_stand_in_help",
        "_stand_in_patches",
    },  # its parts
    "_stand_in_eyes": {"_drawn"},  # people are jobs
    "_stand_in_patches": {"_drawn"},  # patches are jobs
    "_stand_in_help": {"_drawn", "_drawn_slides", "_mirax"},  # what it is put together from
    "_drawn_mri": {"_drawn"},  # patients and tables
    "kinds": {"studies"},  # one of them
    "prepared": {
        "alike",
        "kinds",
        "studies",
        "training",
        "challenge",
    },  # the stages before training
    "predicted": {
        "aggregate",
        "encoders",
        "kinds",
        "mil",
        "plans",
        "prepared",
        "slide_scores",
        "submission",
        "training",
    },  # the stages up to the predictions
    "mapped": {
        "aggregate",
        "figures",
        "heatmaps",
        "lesion_scores",
        "mil",
        "overview",
        "predicted",
        "slide_report",
    },  # what is drawn on slides
    "submission": {"_submission_rows", "_submission_cells"},  # its form, read back
    "_submission_cells": {"_submission_rows"},  # what a finding is
    "_submission_spread": {"_submission_rows"},
    "_submission_run": {"_submission_rows", "_submission_spread", "challenge", "submission"},
    "submission_checks": {
        "_submission_rows",
        "_submission_cells",
        "_submission_spread",
        "_submission_run",
        "challenge",
    },  # its parts; what is asked
    "ledger": {"_ledger_file", "official"},  # its lines; in whose points a score is
    "_ledger_figures": {"_plots"},
    "pipeline": set(FLOORS[4].split()) - {"pipeline", "doctor", "inventory"},  # calls the stages
    "challenges": {"platforms"},  # where this platform keeps data and results
    "bundles": {"challenges", "platforms"},  # what is bundled; where it will run
    "selfcheck": {"platforms"},  # where this platform keeps data
    "rehearsal": {"challenges", "platforms", "bundles"},  # what is tried, and by which contract
    "cli": {"challenges", "platforms", "bundles", "rehearsal", "selfcheck"},  # the door to all
}

# The adapter through which TensorFlow may be named, should a measurement ask for it.
TENSORFLOW = "_tf"

# Floors that never touch pixels or networks.
LIGHT_FLOORS = (0, 1)
HEAVY = {"keras", "openslide", "cv2"}


def module_of(file: Path, package: Path) -> str:
    """The module of the table that a file belongs to: a subpackage counts as one."""
    return file.relative_to(package).with_suffix("").parts[0]


def absolute(node: ast.ImportFrom, file: Path, package: Path) -> str:
    """The dotted name that an import statement starts from; leading dots are resolved."""
    if not node.level:
        return node.module or ""
    parts = (package.name, *file.relative_to(package).parent.parts)
    return ".".join([*parts[: len(parts) - node.level + 1], *filter(None, [node.module])])


def imports_of(file: Path, package: Path) -> set[str]:
    """Dotted names that a file imports anywhere in it; `from kit import x` gives kit.x."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            start = absolute(node, file, package)
            names.update(f"{start}.{alias.name}" for alias in node.names)
    return names


def graph(package: Path) -> dict[str, set[str]]:
    """For each module of the table, the dotted names that its files import."""
    result: dict[str, set[str]] = {}
    for file in sorted(package.rglob("*.py")):
        module = module_of(file, package)
        if module not in ("__init__", "__main__"):
            result.setdefault(module, set()).update(imports_of(file, package))
    return result


def inside(names: set[str], package: Path, own: str) -> set[str]:
    """The modules of the package among dotted names, the importing one left out."""
    parts = [name.split(".") for name in names]
    return {p[1] for p in parts if p[0] == package.name and len(p) > 1} - {own, "__version__"}


def offences(package: Path, allowed: Mapping[str, set[str]] = ALLOWED) -> list[str]:
    """What breaks the floors, a sentence each."""
    found = []
    edges: dict[str, set[str]] = {}
    for module, names in graph(package).items():
        tops = {name.split(".")[0] for name in names}
        if "tensorflow" in tops and module != TENSORFLOW:
            found.append(f"{module} imports tensorflow")
        if module not in FLOOR:
            found.append(f"{module} has no floor")
            continue
        if FLOOR[module] in LIGHT_FLOORS and tops & HEAVY:
            found.append(f"{module} imports {', '.join(sorted(tops & HEAVY))}")
        edges[module] = inside(names, package, module)
        for other in sorted(edges[module]):
            found += _offence(module, other, allowed)
    return found + cycles(edges)


def _offence(module: str, other: str, allowed: Mapping[str, set[str]]) -> list[str]:
    if other not in FLOOR:
        return [f"{module} imports {other}, which has no floor"]
    if FLOOR[other] > FLOOR[module]:
        return [f"{module} imports {other}, which is above it"]
    if FLOOR[other] == FLOOR[module] and other not in allowed.get(module, set()):
        return [f"{module} imports its sibling {other}, which is not listed"]
    return []


def cycles(edges: Mapping[str, set[str]]) -> list[str]:
    """Modules that import each other round, each circle once."""
    found: set[frozenset[str]] = set()

    def walk(module: str, path: tuple[str, ...]) -> None:
        for other in edges.get(module, ()):
            if other in path:
                found.add(frozenset(path[path.index(other) :]))
            else:
                walk(other, (*path, other))

    for module in edges:
        walk(module, (module,))
    return [f"{', '.join(sorted(circle))} import each other round" for circle in found]


def test_the_kit_keeps_its_floors() -> None:
    assert offences(KIT) == []


def test_no_permission_to_import_a_sibling_is_spare() -> None:
    used = {module: inside(names, KIT, module) for module, names in graph(KIT).items()}
    spare = {
        f"{module} -> {other}"
        for module, others in ALLOWED.items()
        if FLOOR[module] < 5 and module != "pipeline"
        for other in others - used.get(module, set())
    }
    assert spare == set()


@pytest.mark.parametrize(
    ("module", "source", "offence"),
    [
        ("checks", "from kit.training import fit", "checks imports training, which is above it"),
        ("checks", "import kit.cli", "checks imports cli, which is above it"),
        ("checks", "from kit import models", "checks imports models, which is above it"),
        ("checks", "from . import models", "checks imports models, which is above it"),
        ("checks", "def f():\n    from .store import x", "checks imports store, which is above it"),
        ("folds", "from kit.metrics import x", "folds imports its sibling metrics, which is"),
        ("checks", "from kit.extra import x", "checks imports extra, which has no floor"),
        ("extra", "import os", "extra has no floor"),
        ("models", "import tensorflow as tf", "models imports tensorflow"),
        ("models", "def f():\n    from tensorflow import data", "models imports tensorflow"),
        ("folds", "def f():\n    import keras", "folds imports keras"),
        ("manifest", "from openslide import OpenSlide", "manifest imports openslide"),
    ],
)
def test_a_wrong_import_is_seen(tmp_path: Path, module: str, source: str, offence: str) -> None:
    package = tmp_path / "kit"
    package.mkdir()
    (package / f"{module}.py").write_text(source, encoding="utf-8")
    found = offences(package)
    assert any(sentence.startswith(offence) for sentence in found), found


def test_a_wrong_import_in_a_subpackage_is_seen(tmp_path: Path) -> None:
    folder = tmp_path / "kit" / "platforms"
    folder.mkdir(parents=True)
    (folder / "kaggle.py").write_text("from ..cli import main\nfrom . import x", encoding="utf-8")
    assert offences(tmp_path / "kit") == [
        "platforms imports its sibling cli, which is not listed",
    ]


def test_a_circle_of_listed_siblings_is_seen(tmp_path: Path) -> None:
    package = tmp_path / "kit"
    package.mkdir()
    (package / "folds.py").write_text("import kit.metrics", encoding="utf-8")
    (package / "metrics.py").write_text("def f():\n    import kit.folds", encoding="utf-8")
    listed = {"folds": {"metrics"}, "metrics": {"folds"}}
    assert offences(package, listed) == ["folds, metrics import each other round"]


def loaded_by(statement: str) -> set[str]:
    """Top-level packages in memory after a statement ran in a fresh process."""
    code = f"{statement}\nimport sys\nprint(*{{name.split('.')[0] for name in sys.modules}})"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=KIT.parent
    )
    return set(done.stdout.split())


STARTS = {
    "joblib": {"jobs", "apart"}, "dask": {"clusters"}, "distributed": {"clusters"},
    "loky": set(), "multiprocessing": set(), "ProcessPoolExecutor": set(),
    # A fresh Python for a network; a driver and a backend that are asked; a machine with nothing.
    "subprocess": {"apart", "doctor", "rehearsal"},
}  # fmt: skip
"""What starts processes, and the modules that may name it."""


def test_jobs_are_run_by_three_modules_and_no_other_starts_processes() -> None:
    """Joblib and Dask stand behind `kit.jobs`: every stage hands its list of jobs to it."""
    found: dict[str, set[str]] = {name: set() for name in STARTS}
    for module, names in graph(KIT).items():
        for part in {part for name in names for part in name.split(".")} & set(STARTS):
            found[part].add(module)
    found["loky"] -= {"jobs"}  # joblib's own
    assert found == STARTS


def test_import_kit_loads_nothing_heavy() -> None:
    assert not loaded_by("import kit") & {"numpy", "pandas", "keras", "openslide", "matplotlib"}


@pytest.mark.parametrize("module", ["metrics", "folds", "ensemble"])
def test_statistics_load_neither_keras_nor_openslide(module: str) -> None:
    heavy = {"keras", "tensorflow", "openslide", "cv2"}
    assert not loaded_by(f"import kit; kit.{module}") & heavy


def test_the_command_line_loads_no_heavy_package() -> None:
    heavy = {"keras", "tensorflow", "openslide", "cv2", "matplotlib", "sklearn", "scipy"}
    assert not loaded_by("import kit.cli") & heavy


def test_a_submodule_is_reached_by_its_name_and_a_wrong_name_is_told() -> None:
    import kit

    assert kit.errors.KitError.__module__ == "kit.errors"
    assert {"metrics", "folds", "cli"} <= set(dir(kit))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        kit.nothing  # noqa: B018
