"""Errors that a user can act on: what is wrong, what was expected, what came, where, the remedy."""

from __future__ import annotations

from os import PathLike


class KitError(Exception):
    """An error of input or of the run, told in one line.

    Args:
        what: What is wrong, without a full stop at the end.
        expected: What would have been right.
        received: What was found instead.
        path: The file or folder concerned.
        remedy: What the user can do about it.
    """

    def __init__(
        self,
        what: str,
        *,
        expected: object = None,
        received: object = None,
        path: str | PathLike[str] | None = None,
        remedy: str | None = None,
    ) -> None:
        self.what = what
        self.expected = expected
        self.received = received
        self.path = None if path is None else str(path)
        self.remedy = remedy
        super().__init__(self._line())

    def _line(self) -> str:
        parts = [self.what]
        for name in ("expected", "received", "path", "remedy"):
            value = getattr(self, name)
            if value is not None:
                parts.append(f"{'File' if name == 'path' else name.capitalize()}: {value}")
        line = " ".join(part if part.endswith("?") else part.rstrip(".") + "." for part in parts)
        return " ".join(piece for piece in line.splitlines() if piece)

    def __reduce__(self) -> tuple[object, ...]:
        """Keep every part when the error crosses a process."""
        names = ("what", "expected", "received", "path", "remedy")
        return _rebuild, (type(self), {name: getattr(self, name) for name in names})


def _rebuild(kind: type[KitError], parts: dict[str, object]) -> KitError:
    return kind(**parts)  # type: ignore[arg-type]


class ManifestError(KitError):
    """`data_manifest.yaml` says something that cannot be."""


class MissingDataError(KitError):
    """A data folder or file is not there."""


class TableError(KitError):
    """A table lacks a column, doubles an id, or holds a value that it must not."""


class GroupLeakError(KitError):
    """A group (patient) stands on two sides of a split."""


class SettingsError(KitError):
    """A setting is unknown, out of range, or differs from the run's own."""


class ImageError(KitError):
    """An image or DICOM file cannot be read."""


class SlideError(KitError):
    """A slide cannot be opened, or a place in it cannot be read."""


class MissingMppError(SlideError):
    """A slide carries no usable resolution."""


class MaskError(KitError):
    """A mask does not fit its slide, or holds values that the manifest does not name."""


class ModelError(KitError):
    """A network is unknown, or does not fit its input, classes or weights."""


class TrainingError(KitError):
    """A training cannot go on: its loss is not finite, or memory does not suffice."""


class SubmissionError(KitError):
    """A submission is not what the platform accepts."""


class LedgerError(KitError):
    """A ledger was changed by hand or cut, or does not take what is entered."""


class BundleError(KitError):
    """A bundle for a platform cannot be handed over as it is."""


class JobError(KitError):
    """A job failed, or its worker died."""
