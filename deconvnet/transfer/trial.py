"""Trials: a frozen network, a set of images with classes, and the accuracy of a classifier upon one of its layers."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import Field

from ..images import Images
from ..network import Network, load_model
from ..provenance import provenance
from ..report import network_name
from ..settings import Part
from ..subject import Subject
from .classifiers import Kind, Penalty
from .features import Features, Pooling, features
from .protocol import Accuracy, measure
from .sets import labelled, learned_from
from .splits import Splitting, check, folds

TOYS = ("page", "text")  # photographs with three views, too few to divide


class Learned(Part):
    """Which of these very images the network learned its features from: ``deconvnet train`` drew them by its seed."""

    seed: Annotated[int, Field(ge=0, description="of the training run")] = 0
    per_class: Annotated[int, Field(ge=1, description="train_per_class of the training run")] = 30


class Trial(Subject):
    """A network, images with classes, and how a classifier upon the network's features is measured on them."""

    learned: Annotated[Learned | None, Field(description=(
        "if the network was trained on a part of these images, which: they are what classifiers learn from, and the "
        "others are what they are measured on. None: it has seen none of them"))] = None
    leave_out: Annotated[tuple[str, ...], Field(description="classes that do not count")] = TOYS
    splitting: Splitting = Splitting()
    pooling: Pooling = Pooling()
    penalty: Penalty = Penalty()
    features: Annotated[str | None, Field(min_length=1, description=(
        "folder where features are kept, to be used again; none: they are computed anew each time"))] = None

    def prepare(self, command: str, per_class: Sequence[int]) -> "Prepared":
        """Network and images, checked for so many images a class, before any long work. Raises UsageError."""
        net = load_model(self.model, self.weights)
        images = labelled(self.images, net.preprocess, self.leave_out)
        seen = None if self.learned is None else learned_from(self.images, images, self.learned.seed,
                                                              self.learned.per_class)
        check(images, per_class, (), seen)
        paths = {"model", "weights", "images", "features", "also"}  # nobody else's business
        own = self.model_dump(mode="json", exclude=paths)
        origin = provenance(command, own, net, images, self.model, self.weights, self.images)
        return Prepared(self, net, images, seen, {**origin, "versions": {**origin["versions"], **_scikit_learn()}})


@dataclass(frozen=True)
class Prepared:
    """A trial that is ready to begin."""

    trial: Trial
    net: Network
    images: Images
    learned: set[int] | None
    origin: dict[str, Any]

    def __str__(self) -> str:
        return network_name(self.origin)

    def features(self, layers: Sequence[str], progress: bool) -> Features:
        """The features of all images at some layers."""
        return features(self.net, self.images, layers, self.trial.pooling, self.trial.features, progress=progress)

    def measure(self, wanted: Iterable[tuple[Kind, str, int]], progress: bool) -> dict[tuple[Kind, str, int], Accuracy]:
        """The accuracy for each classifier, layer, and number of images a class to learn from."""
        wanted = list(wanted)
        found = self.features([layer for _, layer, _ in wanted], progress)
        results: dict[tuple[Kind, str, int], Accuracy] = {}
        for kind, layer, count in wanted:
            divisions = folds(self.images, count, self.trial.splitting, found.unreadable, self.learned)
            name = f"{kind} ({layer}), {count} a class"
            results[kind, layer, count] = measure(found.layers[layer], self.images.labels, divisions, kind,
                                                  self.trial.penalty, progress, name)
        return results

    def caption(self) -> str:
        """Network, images, and how it was measured, in sentences, with what departs from the paper."""
        return " ".join(filter(None, [_images(self), _method(self.trial), _leaks(self)]))


def numbers(results: Mapping[tuple[Kind, str, int], Accuracy]) -> list[dict[str, Any]]:
    """Results as data for JSON."""
    return [{"classifier": kind, "layer": layer, "per_class": count, "mean": accuracy.mean,
             "deviation": accuracy.deviation, "folds": list(accuracy.folds)}
            for (kind, layer, count), accuracy in results.items()]


def _images(prepared: Prepared) -> str:
    trial, images = prepared.trial, prepared.images
    present = {images.classes[label] for label in images.labels}
    return (f"{len(images):,} images of {len(present)} classes in {prepared.origin['images']}. Mean of the classes' "
            f"accuracies; mean and standard deviation over {trial.splitting.folds} random divisions "
            f"(seed {trial.splitting.seed}), measured on at most {trial.splitting.most} other images a class; where "
            "all divisions are the same there is no deviation.")


def _method(trial: Trial) -> str:
    pooling, penalty = trial.pooling, trial.penalty
    return (f"Features: the positive part of what a layer puts out, maps larger than {pooling.grid}×{pooling.grid} "
            f"{pooling.by}-pooled to that, scaled to length 1 (the paper does not say how it made them); one central "
            f"view an image. SVM: linear, one class against the others, squared hinge loss, C = {penalty.svm:g}; "
            f"softmax: C = {penalty.softmax:g} (scikit-learn).")


def _leaks(prepared: Prepared) -> str:
    trial = prepared.trial
    if trial.images.startswith("builtin:"):
        return ("A toy: the classes are photographs and the images views of them, so that those to measure on show "
                "parts of what was learned from.")
    if trial.learned is None:
        return ("Images that the network itself was trained on are not removed; the paper removed those that overlap "
                "with ImageNet (44 of Caltech-101, 243 of Caltech-256) and trained anew.")
    return (f"{prepared.origin['model']} learned its features, with their labels, from {trial.learned.per_class} "
            f"images a class of this very set (seed {trial.learned.seed}): classifiers learn from some of these and "
            "are measured on the others only, which neither has seen. With fewer images a class, its features still "
            f"know {trial.learned.per_class}.")


def _scikit_learn() -> dict[str, str]:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return {"scikit-learn": version("scikit-learn")}
    except PackageNotFoundError:  # said when it is needed
        return {}
