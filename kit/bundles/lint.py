"""A linter of Kaggle's push folder, stricter than the client that pushes it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from kit.bundles import dataset_rules, kernel_rules, source_rules
from kit.bundles.push import Push, Rule
from kit.errors import BundleError

RULES: list[Rule] = [*kernel_rules.RULES, *source_rules.RULES, *dataset_rules.RULES]
"""The one table of rules."""


@dataclass(frozen=True)
class Broken:
    """A rule that a push folder breaks, and by what."""

    rule: Rule
    received: str

    def __str__(self) -> str:
        parts = (self.rule.demands, self.received, self.rule.remedy)
        return f"rule {self.rule.name}: " + "; ".join(parts)


def lint(folder: Path) -> list[Broken]:
    """Return the rules that a push folder breaks, in the order of the table."""
    push = Push(Path(folder))
    return [Broken(rule, received) for rule in RULES for received in rule.find(push)]


def refuse(found: list[Broken]) -> None:
    """Raise `BundleError` on the first of the rules that are broken; says how many there are."""
    if not found:
        return
    more = f" and {len(found) - 1} more" if len(found) > 1 else ""
    rule = found[0].rule
    raise BundleError(
        f"Kaggle's rule {rule.name} is broken", expected=rule.demands,
        received=found[0].received + more, remedy=rule.remedy,
    )  # fmt: skip
