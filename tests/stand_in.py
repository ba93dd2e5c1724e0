"""Fixtures of a challenge's smallest stand-in; a module that takes them names its CHALLENGE."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from kit.manifest import Dataset, load_manifest
from kit.synthetic import make


@pytest.fixture(scope="module")
def drawn(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that holds it: eight of each class, and two to test."""
    folder = tmp_path_factory.mktemp("data")
    make(request.module.CHALLENGE, folder / request.module.CHALLENGE, scale=0.001)
    return folder


@pytest.fixture
def entry(request: pytest.FixtureRequest) -> Dataset:
    """What the manifest says of it."""
    return load_manifest().dataset(request.module.CHALLENGE)


@pytest.fixture
def data(drawn: Path, tmp_path: Path) -> Path:
    """A copy of the folder that a test may damage."""
    shutil.copytree(drawn, tmp_path / "data", copy_function=lambda a, b: Path(b).hardlink_to(a))
    return tmp_path / "data"
