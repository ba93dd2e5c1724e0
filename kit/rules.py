"""How a slide is scored from its patches: the rules by name, their parameters and candidates."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from kit.checks import choice
from kit.errors import SettingsError

CANDIDATES: dict[str, tuple[float, ...]] = {
    "top": (0.05, 0.02, 0.1, 0.01, 0.2, 25, 10, 50, 5, 100),
    "percentile": (95, 98, 90, 99),
    "share": (0.5, 0.25, 0.75, 0.1, 0.9),
    "region": (0.5, 0.25, 0.75, 0.9),
    "noisy_or": (10, 5, 25, 3),
}
"""What a rule chooses its parameter from: the default first, then what is nearer to it first."""
ALLOWED = {
    "top": "a whole number of patches from 1 on, or a share in (0, 1)",
    "percentile": "a number in [0, 100]",
    "share": "a probability in (0, 1]",
    "region": "a probability in (0, 1]",
    "noisy_or": "a whole number of patches from 1 on",
}
PLAIN = ("mean", "max")
LEARNT = ("logistic", "boosting")
POOLED = ("attention_mil", "chowder")
"""Networks of bags (`kit.mil`): they score a slide by what a run's networks make of its patches."""
NAMES = (*PLAIN, *CANDIDATES, *LEARNT, "best", *POOLED)
HALF_MM2 = 1.0  # the area that counts as a probability of a half


@dataclass(frozen=True)
class Rule:
    """A way from the patches of a slide to its score.

    `mean` and `max` need nothing. `top=K` is the mean of the K highest probabilities, `top=S` of
    the highest share S; `percentile=Q`; `share=T` the share of patches of at least T; `region=T`
    the area of the largest region of such patches; `noisy_or=K` the probability that one of the
    K highest is positive, were they independent. Each of the five without a number chooses it
    from `CANDIDATES`; `best` chooses among all of these, the ones above first where they are equal.
    `logistic` and `boosting` learn from `kit.slide_features`; `attention_mil` and `chowder`, of any
    number of classes, from the vectors of patches (`kit.mil`).

    Args:
        name: One of `NAMES`.
        value: The parameter, where it is given.
    """

    name: str
    value: float | None = None

    @classmethod
    def parse(cls, text: str, n_classes: int = 2) -> Rule:
        """Return the rule that a text such as `top`, `top=0.05` or `top=5` names.

        Raises:
            SettingsError: The name is unknown, the number is not allowed, or there are more than
                two classes and it is neither `mean` nor a network of bags.
        """
        name, sign, number = text.partition("=")
        choice("aggregate", name, NAMES)
        if n_classes > 2 and name not in ("mean", *POOLED):
            raise SettingsError(
                "this rule scores one of two classes", received=f"aggregate={text}",
                expected=f"mean, {' or '.join(POOLED)}, of {n_classes} classes",
            )  # fmt: skip
        if not sign:
            return cls(name)
        if name not in CANDIDATES:
            raise SettingsError(f"rule {name} takes no number", expected=name,
                                received=f"aggregate={text}")  # fmt: skip
        return cls(name, _number(name, number))

    def __str__(self) -> str:
        return self.name if self.value is None else _column(self.name, self.value)

    @property
    def learnt(self) -> bool:
        """Whether the score is a classifier's."""
        return self.name in LEARNT

    @property
    def pooled(self) -> bool:
        """Whether the score is a network's that pools the vectors of patches."""
        return self.name in POOLED

    @property
    def columns(self) -> tuple[str, ...]:
        """The features to choose from, the default first; of a classifier, what stands in for it.

        A feature has the name of the rule that it is the score of, such as `mean` or `top=5`.
        """
        if self.pooled:
            return ()
        if self.name in PLAIN or self.value is not None:
            return (str(self),)
        if self.name == "best":
            return COLUMNS
        name = "top" if self.learnt else self.name
        found = tuple(_column(name, value) for value in CANDIDATES[name])
        return found[:1] if self.learnt else found


def probability(column: str, score: np.ndarray) -> np.ndarray:
    """Return scores of a rule as probabilities, by a map that keeps their order and makes no ties.

    An area of a mm² becomes a / (a + 1); the others are probabilities already.
    """
    if column.partition("=")[0] == "region":
        return np.asarray(score / (score + HALF_MM2))
    return score


def _column(name: str, value: float) -> str:
    return f"{name}={int(value) if float(value).is_integer() else float(value)}"


def _number(name: str, text: str) -> float:
    """Return a rule's parameter if it is allowed."""
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    count = value >= 1 and value.is_integer()
    fits = {
        "top": count or 0 < value < 1, "noisy_or": count, "percentile": 0 <= value <= 100,
        "share": 0 < value <= 1, "region": 0 < value <= 1,
    }[name]  # fmt: skip
    if not fits:
        raise SettingsError(f"rule {name} cannot take this number", expected=ALLOWED[name],
                            received=f"aggregate={name}={text}")  # fmt: skip
    return value


COLUMNS = (
    "top=0.05",
    *PLAIN,
    *(
        column
        for name, values in CANDIDATES.items()
        for column in (_column(name, value) for value in values)
        if column != "top=0.05"
    ),
)
"""The features of every rule that is not learnt; the default of `best` first."""
