"""The images that a figure shows, by name, and which of the network's classes each is of."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from random import Random

import numpy as np
from torch import Tensor

from ..errors import UnreadableImage, UsageError
from ..images import Images, Photographs
from ..layout import printable
from ..network import Network

Classes = Mapping[str, str | int | None]  # image → class; None: that of its folder


@dataclass(frozen=True, eq=False)
class Shown:
    """An image of a figure.

    Attributes:
        name: the image's, as its images call it.
        pixels: (H, W, 3) uint8, what the network sees.
        input: (3, H, W) float, the same as the network takes it.
        target: the number of its class among the network's; None where there is none.
        title: what to print: the class, or the name where there is none.
    """

    name: str
    pixels: np.ndarray
    input: Tensor
    target: int | None
    title: str


def choose(net: Network, images: Images, named: Classes, default: Classes, count: int, seed: int
           ) -> tuple[list[Shown], list[str]]:
    """The images to show, in order, and what a caption must say of the choice.

    ``named`` says which, and of which class. Where it is the ``default``, which names views of the photographs that
    ship, and the images are others, or where it is empty, they are ``count`` random ones, those with a class that the
    network knows first. Raises UsageError for an image or a class that does not exist, with near matches.
    """
    if named and (named != default or isinstance(images, Photographs)):
        numbers = find(images, list(named))
        chosen = [_shown(net, images, number, given) for number, given in zip(numbers, named.values(), strict=True)]
        return chosen, unlabelled(chosen)
    return _random(net, images, count, seed)


def find(images: Images, names: Sequence[str]) -> list[int]:
    """The numbers of images by name. Raises UsageError, with near matches, for those that are not there."""
    places = {name: number for number, name in enumerate(images.files)}
    for name in names:
        if name not in places:
            near = ", ".join(map(printable, get_close_matches(name, places, 3)))
            raise UsageError(f"there is no image {name!r} among the {len(places)} images."
                             + (f" Did you mean: {near}?" if near else f" The first is {printable(images.files[0])!r}"))
    return [places[name] for name in names]


def class_number(net: Network, word: str | int) -> int:
    """The number of a class by its name, or by one of several names with commas between, or by number.

    Raises UsageError, with near matches, where the network has no such class.
    """
    names = [str(name) for name in net.classes]
    if isinstance(word, int):
        if word < 0 or (names and word >= len(names)):
            raise UsageError(f"there is no class {word}: the network has {len(names)}, 0 to {len(names) - 1}")
        return word
    if not names:
        raise UsageError(f"{word!r}: the network does not name its classes; give the class by its number, or null")
    if word in names:
        return names.index(word)
    synonyms = {part.strip().lower(): number for number, name in reversed(list(enumerate(names)))
                for part in (name, *name.split(","))}
    if word.lower() in synonyms:
        return synonyms[word.lower()]
    near = get_close_matches(word.lower(), synonyms, 3)
    raise UsageError(f"the network has no class {word!r}."
                     + (f" Did you mean: {', '.join(names[synonyms[one]] for one in near)}?" if near else ""))


def unlabelled(shown: Sequence[Shown]) -> list[str]:
    """A line that names the images without a class, if there are any."""
    without = [printable(one.name) for one in shown if one.target is None]
    if not without:
        return []
    if len(without) == len(shown):
        return ["No image has a class that the network knows: what needs one is left out."]
    return [f"Of no class that the network knows, and so without its probability: {', '.join(without)}."]


def _random(net: Network, images: Images, count: int, seed: int) -> tuple[list[Shown], list[str]]:
    order = list(range(len(images)))
    Random(seed).shuffle(order)
    order.sort(key=lambda number: _of_folder(net, images, number) is None)
    chosen: list[Shown] = []
    unreadable: list[str] = []
    for number in order:
        if len(chosen) == count:
            break
        try:
            chosen.append(_shown(net, images, number, None))
        except UnreadableImage as error:
            unreadable.append(printable(str(error)))
    if not chosen:
        raise UsageError(f"none of the {len(images)} images could be read; the first: {unreadable[0]}")
    notes = [f"{len(chosen)} random images (seed {seed})."] + [f"Not read: {line}." for line in unreadable]
    if len(chosen) < count:
        notes.append(f"{count} images were asked for, and there are only {len(chosen)}.")
    return chosen, notes + unlabelled(chosen)


def _of_folder(net: Network, images: Images, number: int) -> int | None:
    """The class that an image's folder names, if the network knows it; that of a built-in photograph is none."""
    label = images.labels[number]
    if label < 0 or isinstance(images, Photographs) or not net.classes:
        return None
    try:
        return class_number(net, images.classes[label])
    except UsageError:  # nobody asked for it
        return None


def _shown(net: Network, images: Images, number: int, given: str | int | None) -> Shown:
    target = _of_folder(net, images, number) if given is None else class_number(net, given)
    view, name = images.view(number), images.files[number]
    title = printable(name if target is None else class_name(net, target))
    return Shown(name, np.asarray(view), images.preprocess.tensor(view), target, title)


def class_name(net: Network, number: int) -> str:
    """The first of a class's names, or its number."""
    return str(net.classes[number]).split(",")[0] if number < len(net.classes) else f"class {number}"
