"""The paper's protocol: learn from so many images a class, measure on others, average classes and folds."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from tqdm.auto import tqdm

from .classifiers import Array, Kind, Penalty, scores
from .splits import Fold


@dataclass(frozen=True)
class Accuracy:
    """Accuracies of different folds in percent, each the mean of the classes'; and how many values features have."""

    folds: tuple[float, ...]
    values: int = 0

    @property
    def mean(self) -> float:
        """Of the folds, %."""
        return float(np.mean(self.folds))

    @property
    def deviation(self) -> float:
        """Standard deviation over the folds, in percent points; 0 of a single one."""
        return float(np.std(self.folds, ddof=1)) if len(self.folds) > 1 else 0.0

    def __str__(self) -> str:
        return f"{self.mean:.1f} ± {self.deviation:.1f}" if len(self.folds) > 1 else f"{self.mean:.1f}"


def measure(values: Array, labels: Sequence[int], divisions: Sequence[Fold], kind: Kind, penalty: Penalty,
            progress: bool = False, name: str = "") -> Accuracy:
    """The accuracy of a classifier upon features (N, d), with a label (N,) for each image, over the folds.

    Folds that are the same, as where a class has no more images to draw from, count once: they have no deviation.
    """
    known = np.asarray(labels)
    found: dict[tuple[tuple[int, ...], tuple[int, ...]], float] = {}
    for fold in tqdm(divisions, name or kind, disable=not progress, leave=False, unit="fold"):
        key = tuple(fold.train), tuple(fold.test)
        if key not in found:
            classes, train = np.unique(known[fold.train], return_inverse=True)
            outcome = scores(kind, values[fold.train], train, values[fold.test], penalty)
            found[key] = mean_of_classes(classes[outcome.argmax(1)], known[fold.test])
    return Accuracy(tuple(found.values()), values.shape[1])


def mean_of_classes(said: Array, true: Array) -> float:
    """The mean over the classes of the share of their images that were told right, in percent."""
    return 100 * float(np.mean([(said[true == label] == label).mean() for label in np.unique(true)]))


def average_precision(found: Array, true: Array) -> float:
    """The area under the curve of precision over recall, in percent, as PASCAL VOC measures since 2010.

    ``found`` (n,) are scores, ``true`` (n,) whether the class is there. Precision at a recall is the best that is had
    at this recall or a higher one; of equal scores the earlier image goes first. Without any true one it is 0.
    """
    order = np.argsort(-found, kind="stable")
    hits = true[order].astype(bool)
    if not hits.any():
        return 0.0
    precision = np.cumsum(hits) / np.arange(1, len(hits) + 1)
    best = np.maximum.accumulate(precision[::-1])[::-1]
    return 100 * float(best[hits].mean())


