"""Is the test set like the training set?"""

from __future__ import annotations


def train_test_shift() -> None:
    """Placeholder while it is written."""
