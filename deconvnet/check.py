"""Whether a network and its weights make sense on images, before any picture is drawn of it.

Wrong preprocessing is the usual reason for grey pictures and wrong predictions: inputs are therefore made in every
usual way, and what comes of each is compared.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import sqrt

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from .errors import DeconvnetError, UnreadableImage
from .images import Images, Preprocess
from .tape import place_of
from .watching import learned, watch

SAMPLE = 128   # images for each way of making inputs
_FEW = 24      # of them, where the network gives no classes, so that little can be told
_BATCH = 16
_GAIN = 1.25   # by how much more information must a way give to be named, without labels
_CERTAIN = 0.98  # mean confidence above which predictions are sure of themselves whatever they see
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's, as torchvision has them


@dataclass(frozen=True)
class Way:
    """A way of making inputs: the order of the channels, the scale, and whether a mean is subtracted."""

    order: str
    scale: str
    mean: str
    preprocess: Preprocess

    def inputs(self, pixels: Tensor) -> Tensor:
        """The inputs (n, C, H, W) of pixels (n, H, W, 3)."""
        made = self.preprocess.inputs(pixels)
        return made.flip(1) if self.order == "BGR" else made

    def __str__(self) -> str:
        return f"{self.order}, {self.scale}, mean {self.mean}"


@dataclass
class Outcome:
    """What came of inputs that were made in one way.

    Attributes:
        way: how they were made.
        current: whether that is what the network's preprocessing does.
        probabilities: (n, classes) for each image; no classes where the network gives none.
        right: (n, 2) whether the true class is the first, and among the first five; empty without labels.
        fired: for each layer, which of its units were positive anywhere.
    """

    way: Way
    current: bool
    probabilities: Tensor = field(default_factory=lambda: torch.zeros(0, 0))
    right: Tensor = field(default_factory=lambda: torch.zeros(0, 2))
    fired: dict[str, Tensor] = field(default_factory=dict)

    @property
    def accuracy(self) -> tuple[float, float] | None:
        """The shares of images whose class is the first, and among the first five; None without labels."""
        return None if not len(self.right) else (float(self.right[:, 0].mean()), float(self.right[:, 1].mean()))

    @property
    def confidence(self) -> float:
        """The mean probability of the class that comes first."""
        return float(self.probabilities.max(1).values.mean())

    @property
    def uncertainty(self) -> float:
        """The mean entropy of the probabilities, in bits."""
        return float(_entropy(self.probabilities).mean())

    @property
    def information(self) -> float:
        """How much the predictions tell images apart, in bits: none if all are alike or all are vague.

        The entropy of the mean prediction less the mean entropy of predictions (Bridle, Heading and MacKay 1991).
        """
        return float(_entropy(self.probabilities.mean(0))) - self.uncertainty

    @property
    def same(self) -> float:
        """The share of images that get the class that is predicted most often."""
        first = self.probabilities.argmax(1)
        return float(first.bincount().max()) / len(first)

    @property
    def dead(self) -> float:
        """The share of units that are positive nowhere in any image."""
        return 1 - float(torch.cat([*self.fired.values(), torch.zeros(0)]).mean())

    def cells(self) -> list[str]:
        """As a row: channels, scale, mean, right, among five, confidence, entropy, information, same class, dead."""
        accuracy = [f"{share:.0%}" for share in self.accuracy or ()] or ["", ""]
        said = [f"{self.confidence:.2f}", f"{self.uncertainty:.1f} bits", f"{self.information:.2f} bits",
                f"{self.same:.0%}"] if self.probabilities.shape[1] else [""] * 4
        return [self.way.order, self.way.scale, self.way.mean, *accuracy, *said, f"{self.dead:.1%}",
                "← now" if self.current else ""]


@dataclass
class Check:
    """What was found.

    Attributes:
        outcomes: of each way of making inputs, for the same few images.
        whole: of the network's own preprocessing, for all images.
        classes: how many of the images' classes the network knows.
        unreadable: names of images that could not be read, with the reason.
        advice: what to make of it, in a sentence.
    """

    outcomes: list[Outcome]
    whole: Outcome
    classes: int
    unreadable: list[tuple[str, str]]
    advice: str = ""


def check(net: nn.Module, images: Images, progress: bool = False) -> Check:
    """Runs the network on images, with its own preprocessing and with all usual ones.

    ``net`` has ``.classes`` and ``.preprocess``, as ``load_model`` gives it. Accuracies are of the images whose class
    the network knows, by its name, or by its number where both have as many; without such, what can be said without
    labels is. Raises DeconvnetError where no image can be read, or labels are matched with too many or too few names.
    """
    known: list[str] = net.classes  # type: ignore[assignment]
    truth = match(images.classes, known)
    numbers = [n for n, label in enumerate(images.labels) if label in truth] or list(range(len(images)))
    unreadable: list[tuple[str, str]] = []
    ways = usual_ways(images.preprocess)
    with tqdm(desc="looking at the images", unit=" passes", disable=not progress, total=len(numbers)) as bar:
        whole = Outcome(ways[0], True)
        for number, batch in enumerate(_pixels(images, numbers, unreadable)):
            _see(net, whole, batch, truth)
            bar.update(len(batch[0]))
            if number == 0:
                _check_names(known if truth else [], whole.probabilities.shape[1])
                few = SAMPLE if whole.probabilities.shape[1] else _FEW
                bar.reset(len(numbers) + len(ways) * min(few, len(numbers)))
                bar.update(len(batch[0]))
        if not len(whole.probabilities):
            raise DeconvnetError("None of the images can be read: " + ": ".join(unreadable[0] if unreadable else ()))
        outcomes = [Outcome(way, place == 0) for place, way in enumerate(ways)]
        for batch in _pixels(images, _spread(numbers, few), []):
            for outcome in outcomes:
                _see(net, outcome, batch, truth)
                bar.update(len(batch[0]))
    found = Check(outcomes, whole, len(truth), unreadable)
    found.advice = _advice(found, len(known))
    return found


def match(theirs: Sequence[str], known: Sequence[str]) -> dict[int, set[int]]:
    """For classes of images the network's classes that are meant, by number; without those that it does not know.

    Names match whatever their case, signs and plural; of several with commas between, one must. If no name does, and
    there are as many of both, or the names are numbers, the number counts.
    """
    places: dict[str, set[int]] = {}
    for number, names in enumerate(known):
        for name in names.split(","):
            places.setdefault(_plain(name), set()).add(number)
    by_name = {label: places[_plain(name)] for label, name in enumerate(theirs) if _plain(name) in places}
    if by_name or not known:
        return by_name
    if all(name.isdecimal() and int(name) < len(known) for name in theirs):
        return {label: {int(name)} for label, name in enumerate(theirs)}
    return {label: {label} for label in range(len(theirs))} if len(theirs) == len(known) else {}


def _check_names(known: Sequence[str], count: int) -> None:
    if known and count and len(known) != count:
        raise DeconvnetError(f"The network gives {count} numbers for an image, and its classes have {len(known)} "
                             "names: look at classes: in its YAML, at the list that it names, or at net.classes")


def _plain(name: str) -> str:
    """A name in small letters, without signs, in the singular."""
    return re.sub(r"[\W_]+", " ", name.lower()).strip().removesuffix("s")


def usual_ways(own: Preprocess) -> list[Way]:
    """All usual ways to make inputs; the first is the network's own, under its usual name if it has one."""
    ways = [Way(order, scale, "subtracted" if any(mean) else "kept", _with(own, mean, std))
            for scale, mean, std in _scales() for order in ("RGB", "BGR")[:own.channels]]
    same = [way for way in ways if way.order == "RGB" and _alike(way.preprocess, own)]
    first = Way("RGB", same[0].scale, same[0].mean, own) if same else Way("RGB", "its own", "its own", own)
    return [first, *(way for way in ways if way not in same)]


def _scales() -> Iterator[tuple[str, Sequence[float], Sequence[float]]]:
    """(name, mean, std), in units of 0..1."""
    none, one, byte, half = (0.0,) * 3, (1.0,) * 3, (1 / 255,) * 3, (0.5,) * 3
    yield from (("0..1", none, one), ("0..1", _MEAN, one), ("0..255", none, byte), ("0..255", _MEAN, byte),
                ("standardised", none, _STD), ("standardised", _MEAN, _STD), ("−1..1", half, half))


def _with(own: Preprocess, mean: Sequence[float], std: Sequence[float]) -> Preprocess:
    if own.channels == 1:
        mean, std = [sum(mean) / 3], [sum(std) / 3]
    return Preprocess(own.size, own.resize, tuple(mean), tuple(std))


def _alike(way: Preprocess, own: Preprocess) -> bool:
    """Whether two ways are the same but for a shade: the means of several networks differ a little."""
    mean = own.mean if own.mean_picture is None else own.mean_picture.mean((1, 2))
    near = max(abs(a - b) for a, b in zip(way.mean, mean, strict=True)) < 0.1
    return near and all(0.7 < a / b < 1.4 for a, b in zip(way.std, own.std, strict=True))


# ---- looking ----

def _spread(numbers: Sequence[int], count: int) -> list[int]:
    """As many of the numbers, evenly from the first to the last."""
    places = np.linspace(0, len(numbers) - 1, min(count, len(numbers))).round().astype(int)
    return [numbers[place] for place in places]


def _pixels(images: Images, numbers: Sequence[int],
            unreadable: list[tuple[str, str]]) -> Iterator[tuple[Tensor, list[int]]]:
    """Batches of pixels (n, H, W, 3) with the labels of those images."""
    pixels: list[Tensor] = []
    labels: list[int] = []
    for number in numbers:
        try:
            pixels.append(torch.from_numpy(np.array(images.image(number))))
            labels.append(images.labels[number])
        except UnreadableImage as error:
            unreadable.append((error.name, error.reason))
        if len(pixels) == _BATCH or (pixels and number == numbers[-1]):
            yield torch.stack(pixels), labels
            pixels, labels = [], []


def _see(net: nn.Module, outcome: Outcome, batch: tuple[Tensor, list[int]], truth: Mapping[int, set[int]]) -> None:
    """Runs a batch, and adds what comes of it to the outcome."""
    pixels, labels = batch
    layers = learned(net)
    fired: dict[str, Tensor] = {}

    def look(name: str, output: Tensor) -> None:
        if name.partition("#")[0] in layers and output.ndim in (2, 4):
            fired[name] = (output > 0).cpu().flatten(2).any((0, 2)) if output.ndim == 4 else (output > 0).any(0).cpu()

    with torch.no_grad(), watch(net, look):
        output = net(outcome.way.inputs(pixels).to(*place_of(net)))
    probabilities = _probabilities(output)
    if probabilities.shape[1]:
        fired.popitem()  # the last layer's are scores: a class that none of the images is of is not dead
    for name, units in fired.items():
        outcome.fired[name] = units | outcome.fired.get(name, torch.zeros_like(units))
    before = outcome.probabilities
    outcome.probabilities = torch.cat([before, probabilities]) if len(before) else probabilities
    if truth and probabilities.shape[1]:
        ranks = probabilities.topk(min(5, probabilities.shape[1])).indices.tolist()  # (n, 5)
        right = [[rank[0] in truth[label], bool(truth[label] & {*rank})]
                 for rank, label in zip(ranks, labels, strict=True)]
        outcome.right = torch.cat([outcome.right, torch.tensor(right).float()])


def _probabilities(output: object) -> Tensor:
    """What the network says of each image, (n, classes); (n, 0) where it says nothing of classes."""
    if not isinstance(output, Tensor) or output.ndim not in (2, 4) or (output.ndim == 4 and output.shape[2:] != (1, 1)):
        return torch.zeros(len(output) if isinstance(output, Tensor) else 1, 0)
    scores = output.flatten(1).float().cpu()
    if not torch.isfinite(scores).all():
        raise DeconvnetError("The network puts out NaN or infinity: look at its weights, or at the scale of its inputs")
    sums = bool((scores >= 0).all()) and bool(((scores.sum(1) - 1).abs() < 1e-3).all())
    return scores if sums else scores.softmax(1)


def _entropy(probabilities: Tensor) -> Tensor:
    """In bits, over the last axis."""
    return -(probabilities * probabilities.clamp_min(1e-30).log2()).sum(-1)


# ---- what to make of it ----

def _advice(found: Check, classes: int) -> str:
    own = found.outcomes[0]
    if not own.probabilities.shape[1]:
        return ("The network gives maps and no classes, so that only its dead units can be told: compare their share "
                "with that of other ways.")
    return _with_labels(found, classes) if len(own.right) else _without_labels(found)


def _with_labels(found: Check, classes: int) -> str:
    own = found.outcomes[0]
    best = max(found.outcomes, key=lambda outcome: (outcome.accuracy or (0, 0), outcome.information))
    (one, _), (other, _) = own.accuracy or (0, 0), best.accuracy or (0, 0)
    gained = float(((best.right - own.right)[:, 0] > 0).sum())
    lost = float(((best.right - own.right)[:, 0] < 0).sum())
    if other <= 3 / max(classes, 1) and other < 0.5:
        return ("However its inputs are made, the network is right hardly more often than by chance: look at the "
                "weights, and at the order of its classes.")
    if gained - lost > 2 * sqrt(gained + lost):  # more than chance makes of the images in which the two differ
        return (f"Its inputs are made in the wrong way: with {best.way}, {other:.0%} of these images are right, and "
                f"not {one:.0%}. {_how(best.way)}")
    return "Its inputs look as the network expects them."


def _without_labels(found: Check) -> str:
    own = found.outcomes[0]
    # what the right way tells apart may be little, as where all images are of one class, but of each it is surer
    others = [outcome for outcome in found.outcomes[1:] if own.confidence / 2 < outcome.confidence < _CERTAIN]
    best = max(others, key=lambda outcome: outcome.information, default=own)
    certain = own.confidence >= _CERTAIN
    wanted = own.information * (0.8 if certain else _GAIN)
    if best is not own and best.information > wanted:
        return (f"A hint, for without labels there is no proof: {best.way} lets the network tell more apart. "
                f"{_how(best.way)}")
    return ("The network is certain whatever it sees: its inputs may be too large." if certain else
            "Nothing speaks for other inputs; images in folders named as the network's classes would tell more.")


def _how(way: Way) -> str:
    """What to write in a YAML, for inputs that are made in a way."""
    turned = way.order == "BGR"
    values = {key: list(getattr(way.preprocess, key))[::-1 if turned else 1] for key in ("mean", "std")}
    numbers = ", ".join(f"{key}: [{', '.join(f'{255 * x:.4g}' for x in value)}]" for key, value in values.items())
    return f"In its YAML: {'channels: BGR (or RGB, if it says BGR), ' if turned else ''}scale: 255, {numbers}"
