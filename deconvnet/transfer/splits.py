"""Splits: of every class some images to learn from and some to measure on, drawn anew for every fold by a seed."""

import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from ..errors import UsageError
from ..images import Images
from ..settings import Part


class Splitting(Part):
    """How images are divided, as the paper does it (Zeiler and Fergus 2014, section 5.2)."""

    folds: Annotated[int, Field(ge=1, le=100, description="random divisions that are averaged; the paper's 5")] = 5
    most: Annotated[int, Field(ge=1, description="images a class to measure on, at most; the paper's 50")] = 50
    seed: Annotated[int, Field(ge=0, description="of the random divisions")] = 0


@dataclass(frozen=True)
class Fold:
    """Numbers of the images to learn from and to measure on, in ascending order."""

    train: list[int]
    test: list[int]


def folds(images: Images, per_class: int, how: Splitting, unreadable: Collection[int] = (),
          learned: Collection[int] | None = None) -> list[Fold]:
    """The divisions for ``per_class`` images a class to learn from; they depend on the seed and the names alone.

    Args:
        images: with a label for each; those without one are in no fold.
        per_class: how many to learn from. With the same seed, fewer are a part of more.
        how: folds, images to measure on at most, and the seed.
        unreadable: images that are left out.
        learned: the images that the network learned its features from, if they are among these: the classifier then
            learns from them only and is measured on the others only.

    Raises UsageError, naming the classes, where one has too few images.
    """
    members = _members(images, unreadable)
    check(images, [per_class], unreadable, learned)
    return [_fold(images, members, per_class, how, fold, learned) for fold in range(how.folds)]


def check(images: Images, per_class: Sequence[int], unreadable: Collection[int] = (),
          learned: Collection[int] | None = None) -> None:
    """Raises UsageError, naming them, where classes have too few images, or where there are not two classes."""
    members, wanted = _members(images, unreadable), max(per_class)
    if len(members) < 2:
        raise UsageError(f"a classifier needs two classes, each in a folder of its own; here are {len(members)}")
    short = []
    for label, numbers in members.items():
        first, rest = (len(numbers), len(numbers) - wanted) if learned is None else _counts(numbers, learned)
        if first < wanted or rest < 1:
            short.append(f"{images.classes[label]} ({first})" if learned is None else
                         f"{images.classes[label]} ({first} that the network learned from, {rest} others)")
    if short:
        more = f" and {len(short) - 8} more" if len(short) > 8 else ""
        raise UsageError(f"{wanted} images a class to learn from, and one at least to measure on, are more than some "
                         f"classes have: {', '.join(short[:8])}{more}. Ask for fewer (per_class), or leave these "
                         "classes out (leave_out)")


def _counts(numbers: Sequence[int], learned: Collection[int]) -> tuple[int, int]:
    first = sum(number in learned for number in numbers)
    return first, len(numbers) - first


def _members(images: Images, unreadable: Collection[int]) -> Mapping[int, list[int]]:
    """The images of each class by number."""
    members: dict[int, list[int]] = {}
    for number, label in enumerate(images.labels):
        if label >= 0 and number not in unreadable:
            members.setdefault(label, []).append(number)
    return dict(sorted(members.items()))


def _fold(images: Images, members: Mapping[int, list[int]], per_class: int, how: Splitting, fold: int,
          learned: Collection[int] | None) -> Fold:
    train: list[int] = []
    test: list[int] = []
    for numbers in members.values():
        drawn = sorted(numbers, key=lambda number: _lot(how.seed, fold, images.files[number]))
        pool = drawn if learned is None else [number for number in drawn if number in learned]
        train += pool[:per_class]
        rest = drawn[per_class:] if learned is None else [number for number in drawn if number not in learned]
        test += rest[:how.most]
    return Fold(sorted(train), sorted(test))


def _lot(seed: int, fold: int, name: str) -> bytes:
    return hashlib.sha256(f"{seed}/{fold}/{name}".encode("utf-8", "surrogateescape")).digest()
