"""Table 2: the errors of trained networks and of ensembles of them, top-1 and top-5, on held-out images."""

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Annotated, Any, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor
from tqdm.auto import tqdm

from ..errors import UnreadableImage, UsageError
from ..exhibit import Row, Table
from ..images import Preprocess
from ..network import Network, load_model, read_card
from ..provenance import provenance, versions
from ..settings import Part
from ..training.data import Files, PictureSet
from ..training.evaluate import BATCH, Inputs
from ..transfer.sets import class_folders, labelled, learned_from
from ..transfer.trial import Learned

PAPER: dict[str, tuple[float | None, float | None, float | None]] = {  # validation top-1, top-5, test top-5; ImageNet
    "Gunji et al. 2012": (None, None, 26.2),
    "DeCAF (ECCV version only)": (None, None, 19.2),
    "Krizhevsky et al. 2012, 1 network": (40.7, 18.2, None),
    "Krizhevsky et al. 2012, 5 networks": (38.1, 16.4, 16.4),
    "Krizhevsky et al. 2012, more data, 1 network": (39.0, 16.6, None),
    "Krizhevsky et al. 2012, more data, 7 networks": (36.7, 15.4, 15.3),
    "the paper's replica of Krizhevsky, 1 network": (40.5, 18.1, None),
    "Figure 3, 1 network": (38.4, 16.5, None),
    "Figure 3, 5 networks (a)": (36.7, 15.3, 15.3),
    "Figure 3 with layers 3, 4, 5 of 512, 1024, 512 maps (b)": (37.5, 16.0, 16.1),
    "(a) and (b), 6 networks": (36.0, 14.7, 14.8),
    "Howard (ECCV version only)": (None, None, 13.5),
    "Clarifai (ECCV version only)": (None, None, 11.7),
}


PATHS = {"model", "weights", "images", "also"}  # of settings, what is nobody else's business


class Member(Part):
    """A trained network."""

    model: Annotated[str, Field(min_length=1, description="as --model of deconvnet scan")]
    weights: Annotated[str | None, Field(description="as --weights of deconvnet scan")] = None
    like: Annotated[str | None, Field(description="the paper's row to stand beside, by its name; none: no one")] = None

    @model_validator(mode="after")
    def _is_there(self) -> "Member":
        if self.like is not None and self.like not in PAPER:
            raise ValueError(f"like: the paper has no row {self.like!r}; it has {', '.join(map(repr, PAPER))}")
        return self


class Settings(Member):
    """The networks, and the images to measure them on."""

    model: Annotated[str, Field(min_length=1, description="as --model of deconvnet scan")] = "zfnet"
    weights: Annotated[str | None, Field(description="as --weights of deconvnet scan")] = "demo"
    like: Annotated[str | None, Field(description="the paper's row to stand beside, by its name; none: no one")] = \
        "Figure 3, 1 network"
    also: Annotated[tuple[Member, ...], Field(description="further networks")] = ()
    ensembles: Annotated[tuple[tuple[int, ...], ...], Field(description=(
        "networks whose probabilities are averaged, by number: 1 is the first, then those of also"))] = ()
    images: Annotated[str | None, Field(min_length=1, description=(
        "folder with one subfolder for each class, named as the networks name it; none: nothing is measured, and what "
        "the cards beside the weights say is shown"))] = None
    learned: Annotated[Learned | None, Field(description=(
        "if the networks were trained on a part of these images, which: that part is left out"))] = None
    leave_out: Annotated[tuple[str, ...], Field(description="classes that do not count")] = ()
    views: Annotated[Literal["centre", "ten"], Field(description=(
        "one central view, or the mean over ten: corners and centre, flipped and not"))] = "ten"

    @model_validator(mode="after")
    def _are_there(self) -> "Settings":
        for group in self.ensembles:
            wrong = [number for number in group if not 1 <= number <= 1 + len(self.also)]
            if wrong or len(group) < 2:
                raise ValueError(f"ensembles: {list(group)}: name two networks or more, from 1 to {1 + len(self.also)}")
        return self


def make(settings: Settings, progress: bool = True) -> Table:
    """The table: measured where there are images, else from the cards."""
    members = (settings, *settings.also)
    nets = [load_model(member.model, member.weights) for member in members]
    if settings.images is None:
        return _from_cards(settings, members)
    found = labelled(settings.images, nets[0].preprocess, settings.leave_out)
    seen = set() if settings.learned is None else learned_from(
        settings.images, found, settings.learned.seed, settings.learned.per_class)
    files = {found.files[number] for number in range(len(found)) if number not in seen}
    names = [_name(member) for member in members]
    sets = [_pictures(settings.images, files, net, name) for net, name in zip(nets, names, strict=True)]
    own = settings.model_dump(mode="json", exclude=PATHS)
    origins = [provenance("table 2", own, net, found, member.model, member.weights, settings.images)
               for net, member in zip(nets, members, strict=True)]
    chances = [probabilities(net, pictures, settings.views == "ten", progress)
               for net, pictures in zip(nets, sets, strict=True)]
    results = [errors(one, torch.tensor(pictures.labels)) for one, pictures in zip(chances, sets, strict=True)]
    rows = [_row(name, result, member.like) for name, result, member in zip(names, results, members, strict=True)]
    rows += [_ensemble(group, nets, chances, sets) for group in settings.ensembles]
    lost = int(chances[0].isnan().any(1).sum())
    return _table(rows, _caption(settings, sets[0], lost, origins), origins[0] | {"networks": origins[1:]})


# ---- what is measured ----

@torch.no_grad()
def probabilities(net: Network, pictures: PictureSet, ten: bool, progress: bool = False) -> Tensor:
    """Of each picture the probabilities (N, classes) of the network's classes, the mean over the views; NaN where it
    cannot be read.
    """
    inputs, size = Inputs(pictures, net.preprocess, ten, None), BATCH // 10 if ten else BATCH
    found = torch.full((len(inputs), len(net.classes)), torch.nan)               # (N, classes)
    for start in tqdm(range(0, len(inputs), size), "measuring", disable=not progress, leave=False, unit="batch"):
        views = {index: _views(inputs, index) for index in range(start, min(start + size, len(inputs)))}
        there = {index: one for index, one in views.items() if one is not None}
        if there:
            stacked = torch.stack(list(there.values()))                          # (n, views, 3, H, W)
            chances = net(stacked.flatten(0, 1)).float().softmax(1)              # (n·views, classes)
            found[list(there)] = chances.unflatten(0, stacked.shape[:2]).mean(1)
    if found.isnan().all():
        raise UsageError("none of the images can be read")
    return found


def _views(inputs: Inputs, index: int) -> Tensor | None:
    """The network's inputs (views, 3, H, W) for a picture; None where it cannot be read."""
    try:
        return inputs[index][0]
    except UnreadableImage:
        return None


def errors(chances: Tensor, labels: Tensor) -> dict[str, float]:
    """Top-1 and top-5 errors in percent, over all images and as the mean over the classes' own.

    ``chances`` (N, classes), of which only the order counts; rows of NaN are left out. ``labels`` (N,). With fewer than
    five classes top-5 is of all of them, and no error.
    """
    known = ~chances.isnan().any(1)
    chances, labels = chances[known], labels[known]
    best = chances.topk(min(5, chances.shape[1])).indices == labels[:, None]     # (N, 5)
    wrong = {"top1": ~best[:, 0], "top5": ~best.any(1)}
    return {f"{name}_{over}": 100 * value for name, missed in wrong.items()
            for over, value in (("images", float(missed.double().mean())), ("classes", _over_classes(missed, labels)))}


def _over_classes(missed: Tensor, labels: Tensor) -> float:
    return float(torch.stack([missed[labels == label].double().mean() for label in labels.unique()]).mean())


def _ensemble(group: Sequence[int], nets: Sequence[Network], chances: Sequence[Tensor],
              sets: Sequence[PictureSet]) -> Row:
    """The row of an ensemble; its members must say the same classes in the same order."""
    members = [number - 1 for number in group]
    if len({tuple(nets[number].classes) for number in members}) > 1:
        raise UsageError(f"ensembles: {list(group)}: these networks know different classes")
    mean = torch.stack([chances[number] for number in members]).mean(0)          # (N, classes)
    return _row(f"{len(group)} networks: {', '.join(map(str, group))}",
                errors(mean, torch.tensor(sets[members[0]].labels)), None)


# ---- which images, and their classes in the network's numbers ----

def _pictures(images: str, files: set[str], net: Network, name: str) -> PictureSet:
    source = Files(class_folders(images))
    numbers = [number for number, file in enumerate(source.files) if file in files]
    present = {source.classes[source.labels[number]] for number in numbers}
    if not numbers:
        raise UsageError(f"no image of {images} is left to measure on")
    if not isinstance(net.preprocess, Preprocess):
        raise UsageError(f"{name}: its preprocess must be a deconvnet.images.Preprocess")
    known = class_numbers(sorted(present), net.classes, name)
    return PictureSet(source, numbers, [known.get(kind, -1) for kind in source.classes])


def class_numbers(names: Sequence[str], classes: Sequence[str], network: str) -> dict[str, int]:
    """The network's number for each class name: the same name, or the same but for capitals, underscores, synonyms.

    ``cellular_phone`` is found in ImageNet's ``cellular telephone, cellular phone, cell``. Raises UsageError, with near
    matches, where a name is not the network's, or could be several of its classes.
    """
    if not classes:
        raise UsageError(f"{network} does not say what its classes are called; put them into the card beside its "
                         "weights, or set net.classes")
    known: dict[str, list[int]] = {}
    for number, kind in enumerate(classes):
        for word in {_plain(kind), *map(_plain, kind.split(","))}:
            known.setdefault(word, []).append(number)
    found, wrong = {}, []
    for name in names:
        numbers = [classes.index(name)] if name in classes else known.get(_plain(name), [])
        if len(numbers) == 1:
            found[name] = numbers[0]
        else:
            wrong.append(_mistake(name, [classes[n] for n in numbers], known, classes))
    if wrong:
        raise UsageError(f"{len(wrong)} of the classes are not {network}'s: {'; '.join(wrong[:5])}"
                         f"{'; …' if wrong[5:] else ''}. Rename the folders, or leave them out (leave_out)")
    return found


def _mistake(name: str, several: Sequence[str], known: Mapping[str, Sequence[int]], classes: Sequence[str]) -> str:
    if several:
        return f"{name!r} could be any of {', '.join(map(repr, several))}"
    near = [classes[known[word][0]] for word in get_close_matches(_plain(name), known, 2, 0.7)]
    return f"{name!r}" + (f" (did you mean {' or '.join(map(repr, near))}?)" if near else "")


def _plain(name: str) -> str:
    return name.replace("_", " ").strip().casefold()


# ---- the table ----

HEADS = ("network", "top-1, %", "top-5, %", "classes' top-1, %", "classes' top-5, %",  # narrow enough for a terminal
         "paper: top-1, %", "paper: top-5, %", "paper: test top-5, %")


def _row(name: str, result: Mapping[str, float], like: str | None) -> Row:
    ours = [result.get(key) for key in ("top1_images", "top5_images", "top1_classes", "top5_classes")]
    return [f"{name} (beside: {like})" if like else name, *ours, *(PAPER[like] if like else (None,) * 3)]


def _table(rows: Sequence[Row], caption: str, origin: Mapping[str, Any]) -> Table:
    paper: list[Row] = [[name, *(None,) * 4, *values] for name, values in PAPER.items()]
    return Table(HEADS, [*rows, *paper], caption, origin)


def _from_cards(settings: Settings, members: Sequence[Member]) -> Table:
    """The table of what the cards beside the weights say of held-out images; nothing is measured."""
    cards = [read_card(member.model, member.weights) for member in members]
    rows = []
    for member, card in zip(members, cards, strict=True):
        held_out = card.get("held_out_ten_views" if settings.views == "ten" else "held_out") or \
            card.get("held_out") or {}
        result = {f"{key}_classes": 100 * (1 - held_out[key]) for key in ("top1", "top5") if key in held_out}
        rows.append(_row(_name(member), result, member.like))
    origin = {"command": "deconvnet table 2", "settings": settings.model_dump(mode="json", exclude=PATHS),
              "networks": [_name(member) for member in members], "versions": versions(),
              "weights_sha256": [card.get("sha256") for card in cards]}
    caption = ("Table 2 as the cards beside the weights have it: what training measured on its own held-out images, "
               "mean of the classes; nothing was measured now (images: none), so that the columns over all images are "
               f"empty. {_IMAGENET}")
    return _table(rows, caption, origin)


_IMAGENET = ("The classes' errors are means over the classes' own. The paper's are those on ImageNet 2012, for "
             "validation and for test, so that only networks trained and measured there can be compared with them.")


def _caption(settings: Settings, pictures: PictureSet, unreadable: int, origins: Sequence[Mapping[str, Any]]) -> str:
    views = "ten views an image (corners and centre, flipped and not), their probabilities averaged" \
        if settings.views == "ten" else "one central view an image"
    left = f"; the {settings.learned.per_class} images a class that the networks learned from (seed " \
           f"{settings.learned.seed}) are left out" if settings.learned else ""
    lost = f"; {unreadable} could not be read" if unreadable else ""
    return (f"Table 2: errors on {len(pictures) - unreadable:,} images of {len(set(pictures.labels))} classes in "
            f"{origins[0]['images']}{left}{lost}; {views}. Ensembles: the mean of their members' probabilities. "
            f"{_IMAGENET}")


def _name(member: Member) -> str:
    weights = member.weights and member.weights.replace("\\", "/").rpartition("/")[2]
    return f"{member.model.replace(chr(92), '/').rpartition('/')[2]} ({weights or 'random weights'})"
