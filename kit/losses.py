"""Losses on logits: soft targets in, one value for each example out; softmax is applied here.

Every function takes targets of shape (n, classes), each row summing to 1 (one-hot or soft), and
logits of that shape, which are values before the softmax; a model's own probabilities are never
an input. Images of classes have shapes (n, height, width, classes), and the values (n, h, w).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from keras import ops

from kit.checks import nearest
from kit.errors import ModelError

LOSSES = ("cross_entropy", "focal", "ordinal")


def smoothed(targets: Any, smoothing: float) -> Any:
    """Return targets that give the share `smoothing`, in [0, 1), to all classes alike."""
    return targets * (1 - smoothing) + smoothing / targets.shape[-1] if smoothing else targets


def _checked(targets: Any, logits: Any) -> tuple[Any, Any]:
    """Return both as float32 tensors, if every example has a share and a logit for each class.

    Raises:
        ModelError: Targets and logits differ in shape, or there are less than two classes.
    """
    targets, logits = (ops.cast(ops.convert_to_tensor(one), "float32") for one in (targets, logits))
    if len(targets.shape) < 2 or tuple(targets.shape[1:]) != tuple(logits.shape[1:]):
        raise ModelError(
            "targets do not fit the logits", expected=("n", *logits.shape[1:]),
            received=tuple(targets.shape), remedy="give a row of class shares for each example",
        )  # fmt: skip
    if logits.shape[-1] < 2:
        raise ModelError(
            "softmax of one class is always 1, and its loss 0", expected="two classes or more",
            received=f"logits of shape {tuple(logits.shape)}",
            remedy="two logits, and targets [1 - p, p]",
        )  # fmt: skip
    return targets, logits


def cross_entropy(targets: Any, logits: Any) -> Any:
    """Return -sum(target * log softmax(logits)); right for soft targets."""
    targets, logits = _checked(targets, logits)
    return -ops.sum(targets * ops.log_softmax(logits, axis=-1), axis=-1)


def focal(targets: Any, logits: Any, *, gamma: float = 2.0) -> Any:
    """Return the cross-entropy with each class's part times (1 - p) ** gamma.

    Source: Lin et al. 2017, 10.1109/ICCV.2017.324.
    """
    targets, logits = _checked(targets, logits)
    log_prob = ops.log_softmax(logits, axis=-1)
    return -ops.sum(targets * (1 - ops.exp(log_prob)) ** gamma * log_prob, axis=-1)


def ordinal(targets: Any, logits: Any) -> Any:
    """Return the mean binary cross-entropy of "the grade is above k", for each k but the last.

    Classes are grades in their order; two grades off costs more than one. The probabilities above
    k are sums of the softmax, so that the model's outputs stay those of a classifier. Everything
    is a logarithm of sums: a sure and wrong answer still has its whole gradient.
    """
    targets, logits = _checked(targets, logits)
    log_prob, terms = ops.log_softmax(logits, axis=-1), []
    for k in range(1, logits.shape[-1]):
        above = ops.sum(targets[..., k:], axis=-1)
        below = ops.sum(targets[..., :k], axis=-1)
        terms.append(
            -above * ops.logsumexp(log_prob[..., k:], axis=-1)
            - below * ops.logsumexp(log_prob[..., :k], axis=-1)
        )
    return sum(terms) / len(terms)


def divergence(target_logits: Any, logits: Any) -> Any:
    """Return KL(target || prediction) of two softmaxes; the target is detached."""
    target = ops.log_softmax(ops.stop_gradient(target_logits), axis=-1)
    return ops.sum(ops.exp(target) * (target - ops.log_softmax(logits, axis=-1)), axis=-1)


def softened(teacher: Any, logits: Any, temperature: float) -> Any:
    """Return the divergence from a teacher, both softened, times the temperature's square.

    With the square its gradient is as large as that of a cross-entropy, so that the two may be
    weighted; no gradient reaches the teacher.

    Args:
        teacher: (n, classes), the teacher's logits or the logarithms of its probabilities.
        logits: (n, classes), the student's.
        temperature: > 0; both are divided by it before the softmax.

    Source: Hinton et al. 2015, 1503.02531.
    """
    return divergence(teacher / temperature, logits / temperature) * temperature**2


def mutual(each: Sequence[Any], students: Sequence[Any]) -> Any:
    """Return the sum of the students' own losses and of their divergences from each other.

    Args:
        each: The own loss of each student, shape (n,).
        students: Their logits, shape (n, classes), two or more. What a student learns from is
            detached: each divergence moves one student, towards the mean of the others.

    Source: Zhang et al. 2018, 10.1109/CVPR.2018.00454.
    """
    if len(students) < 2:
        raise ModelError("mutual learning needs students", expected="two or more",
                         received=len(students))  # fmt: skip
    total = sum(each)
    for mine, logits in enumerate(students):
        others = [other for other in range(len(students)) if other != mine]
        terms = [divergence(students[other], logits) for other in others]
        total = total + sum(terms) / len(others)
    return total


def own(name: str, targets: Any, logits: Any) -> Any:
    """Return the loss of that name, one of `LOSSES`.

    Raises:
        ModelError: The name is unknown, or targets and logits differ in shape.
    """
    if name not in LOSSES:
        raise ModelError("loss is unknown", received=name, remedy=nearest(name, LOSSES))
    return {"cross_entropy": cross_entropy, "focal": focal, "ordinal": ordinal}[name](
        targets, logits
    )
