"""Table 6: PASCAL VOC 2012, each of its classes against all others, upon frozen features."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import Field
from tqdm.auto import tqdm

from ..errors import UsageError
from ..exhibit import Row, Table
from ..images import Images, open_images
from ..network import Network, load_model
from ..provenance import provenance
from ..report import network_name
from ..settings import Part
from ..transfer.classifiers import Array, Kind, Penalty, one_against_all
from ..transfer.features import Pooling, features
from ..transfer.protocol import average_precision
from ..transfer.sets import Chosen

INSIDE = ("VOCdevkit/VOC2012", "VOC2012", "")  # below the folder that is named, where torchvision puts it
PAPER = {  # class: Sande et al. 2012, Yan et al. 2012, Oquab et al. (ECCV version only), the paper's own
    "aeroplane": (92.0, 97.3, 94.6, 96.0), "bicycle": (74.2, 84.2, 82.9, 77.1), "bird": (73.0, 80.8, 88.2, 88.4),
    "boat": (77.5, 85.3, 60.3, 85.5), "bottle": (54.3, 60.8, 60.3, 55.8), "bus": (85.2, 89.9, 89.0, 85.8),
    "car": (81.9, 86.8, 84.4, 78.6), "cat": (76.4, 89.3, 90.7, 91.2), "chair": (65.2, 75.4, 72.1, 65.0),
    "cow": (63.2, 77.8, 86.8, 74.4), "diningtable": (63.2, 77.8, 69.0, 67.7), "dog": (68.9, 83.0, 92.1, 87.8),
    "horse": (78.2, 87.5, 93.4, 86.0), "motorbike": (81.0, 90.1, 88.6, 85.1), "person": (91.6, 95.0, 96.1, 90.9),
    "pottedplant": (55.9, 57.8, 64.3, 52.2), "sheep": (69.4, 79.2, 86.6, 83.6), "sofa": (65.4, 73.4, 62.3, 61.1),
    "train": (86.7, 94.5, 91.1, 91.8), "tvmonitor": (77.4, 80.7, 79.8, 76.1),
}
MEAN = (74.3, 82.2, 82.8, 79.0)  # as printed; the columns' own are 74.0, 82.3, 81.6 and 79.0
NAMES = ("Sande et al.", "Yan et al.", "Oquab et al.", "the paper")


class Settings(Part):
    """A network, the folder of VOC 2012, and the classifier."""

    model: Annotated[str, Field(min_length=1, description="as --model of deconvnet scan")] = "zfnet"
    weights: Annotated[str | None, Field(description="as --weights of deconvnet scan")] = "demo"
    images: Annotated[str, Field(min_length=1, description=(
        "folder with JPEGImages and ImageSets in it, or the one where torchvision put VOCdevkit"))] = "."
    train: Annotated[str, Field(pattern=r"^\w+$", description="the list to learn from: train, trainval")] = "train"
    test: Annotated[str, Field(pattern=r"^\w+$", description="the list to measure on")] = "val"
    layer: Annotated[str, Field(min_length=1, description="whose features are used")] = "fc7"
    classifier: Annotated[Kind, Field(description="svm or softmax (of two)")] = "svm"
    pooling: Pooling = Pooling()
    penalty: Penalty = Penalty()
    features: Annotated[str | None, Field(min_length=1, description=(
        "folder where features are kept, to be used again; none: they are computed anew each time"))] = None


@dataclass(frozen=True)
class Lists:
    """The images of two lists with what is said of each class: 1 it is there, −1 it is not, 0 difficult to tell."""

    images: Images
    truth: Array      # (N, classes)
    train: Array      # numbers
    test: Array       # numbers
    classes: list[str]


def make(settings: Settings, progress: bool = True) -> Table:
    """The table, after a forward pass over all images of the two lists."""
    net = load_model(settings.model, settings.weights)
    lists = read_lists(settings, net)
    own = settings.model_dump(mode="json", exclude={"model", "weights", "images", "features"})
    origin = provenance("table 6", own, net, lists.images, settings.model, settings.weights, settings.images)
    found = features(net, lists.images, [settings.layer], settings.pooling, settings.features, progress=progress)
    lists.truth[list(found.unreadable)] = 0
    results = [_measure(found.layers[settings.layer], lists, number, settings)
               for number in tqdm(range(len(lists.classes)), "classes", disable=not progress, leave=False)]
    rows: list[Row] = [[name, *result, *PAPER.get(name, (None,) * 4)]
                       for name, result in zip(lists.classes, results, strict=True)]
    mean = [float(np.mean([row[column] for row in results])) for column in range(2)]
    heads = ["class", "ours: average precision, %", "ours: accuracy, %", *(f"{name}, %" for name in NAMES)]
    return Table(heads, [*rows, ["mean", *mean, *MEAN]], _caption(settings, origin, lists), origin,
                 {"images": {"train": len(lists.train), "test": len(lists.test)}})


def _measure(values: Array, lists: Lists, number: int, settings: Settings) -> tuple[float, float]:
    """Average precision and accuracy for one class, in percent; images where it is difficult to tell do not count."""
    truth = lists.truth[:, number]
    train, test = (part[truth[part] != 0] for part in (lists.train, lists.test))
    found = one_against_all(values[train], truth[train] > 0, values[test], settings.classifier, settings.penalty)
    right = (found > 0) == (truth[test] > 0)
    return average_precision(found, truth[test] > 0), 100 * float(right.mean())


# ---- the lists ----

def read_lists(settings: Settings, net: Network) -> Lists:
    """The images of both lists and what they show. Raises UsageError, naming file and line, where one is not as it
    should be, and where a class has no image, or nothing else, to learn from.
    """
    root = _root(Path(settings.images))
    folder = open_images(root / "JPEGImages", net.preprocess)
    numbers = {Path(file).stem: number for number, file in enumerate(folder.files)}
    found = {part: {name: dict(_lines(root / "ImageSets" / "Main" / f"{name}_{part}.txt")) for name in _classes(root)}
             for part in (settings.train, settings.test)}
    names = sorted(set().union(*(labels for lists in found.values() for labels in lists.values())))
    missing = [name for name in names if name not in numbers]
    if missing:
        raise UsageError(f"{root / 'JPEGImages'} lacks {len(missing)} images of the lists, such as {missing[0]}.jpg")
    truth = np.array([[_said(found, kind, name) for kind in _classes(root)] for name in names], np.int8)
    place = {name: row for row, name in enumerate(names)}
    train, test = (np.array(sorted({place[name] for labels in found[part].values() for name in labels}), int)
                   for part in (settings.train, settings.test))
    _check(_classes(root), truth[train], settings.train)
    return Lists(Chosen(folder, [numbers[name] for name in names]), truth, train, test, _classes(root))


def _root(named: Path) -> Path:
    for inside in INSIDE:
        if (named / inside / "ImageSets" / "Main").is_dir():
            return named / inside
    raise UsageError(f"{named} is not VOC as torchvision lays it out: there is no VOCdevkit/VOC2012/ImageSets/Main in "
                     "it. torchvision.datasets.VOCDetection(DIR, download=True) fetches it; then say --images DIR")


def _classes(root: Path) -> list[str]:
    return sorted({file.stem.rpartition("_")[0] for file in (root / "ImageSets" / "Main").glob("*_*.txt")})


def _lines(file: Path) -> Iterator[tuple[str, int]]:
    """(image, −1, 0 or 1) of each line of a list."""
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{file} cannot be read: {getattr(error, 'strerror', None) or 'not UTF-8 text'}") from error
    for number, line in enumerate(lines, 1):
        words = line.split()
        if words and (len(words) != 2 or words[1] not in ("-1", "0", "1")):
            raise UsageError(f"{file}, line {number}: expected an image and −1, 0 or 1, found {line[:60]!r}")
        if words:
            yield words[0], int(words[1])


def _said(found: dict[str, dict[str, dict[str, int]]], kind: str, name: str) -> int:
    return next((lists[kind][name] for lists in found.values() if name in lists[kind]), 0)


def _check(classes: list[str], truth: Array, part: str) -> None:
    for name, column in zip(classes, truth.T, strict=True):
        if not (column > 0).any() or not (column < 0).any():
            raise UsageError(f"the list {part} has {(column > 0).sum()} images with {name} and {(column < 0).sum()} "
                             "without: a classifier needs both")


def _caption(settings: Settings, origin: dict[str, Any], lists: Lists) -> str:
    return (f"Table 6 for {network_name(origin)} on PASCAL VOC: for each class a "
            f"classifier ({settings.classifier}, C = {getattr(settings.penalty, settings.classifier):g}, scikit-learn) "
            f"against everything else, upon the frozen features of {settings.layer} (the positive part, maps larger "
            f"than {settings.pooling.grid}×{settings.pooling.grid} {settings.pooling.by}-pooled to that, length 1; one "
            f"central view an image), learned on the list {settings.train} ({len(lists.train):,} images) and measured "
            f"on {settings.test} ({len(lists.test):,}); images marked difficult for a class do not count for it. "
            "Average precision is the area under precision over recall; what the paper prints is called accuracy "
            "there, and can only be such a precision, for nearly all images are without the class. The paper learned "
            "one softmax of 20 classes on train and val and was measured on VOC's own server. Its printed means "
            "(74.3, 82.2, 82.8) are not quite those of its columns (74.0, 82.3, 81.6).")
