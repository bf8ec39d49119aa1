"""Training: a recipe, pictures in memory, epochs of stochastic gradient descent, a network that is ready to ship.

The paper's recipe (Zeiler and Fergus 2014, section 3) and the one that trained the network that ships are two sets of
values of one ``Recipe``. Everything random is drawn from (seed, epoch), so that a run that was cut off goes on from its
last epoch with the same bits, and ``out`` holds all that this takes:

    checkpoint.safetensors   network, momentum and how far it got; replaced after every epoch
    log.jsonl                one line for every epoch
    weights.safetensors      the result: batch normalisation folded away, half precision
    weights.json             what loads with it: network, classes, preprocessing, SHA-256; and what it reaches
"""

import hashlib
import json
import math
import random
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import accumulate
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field, model_validator
from safetensors import safe_open
from safetensors.torch import save as to_bytes
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from tqdm.auto import tqdm

from .errors import DeconvnetError, UnreadableImage, UsageError
from .files import write_whole
from .images import ImageFolder, Preprocess, open_images, read_image
from .models.zfnet import ZFNet

# ---- the recipe ----


class Part(BaseModel):
    """A part of a configuration: unknown keys are errors, values do not change."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Stage(Part):
    """Some epochs with views of one size; a network learns faster on small views and is finished on large ones."""

    epochs: Annotated[int, Field(ge=1, le=10_000)]
    size: Annotated[int, Field(ge=128, le=512, description="side of the views in pixels")] = 224
    rate: Annotated[float, Field(gt=0, le=1, description="learning rate, as a share of the recipe's")] = 1


class Recipe(Part):
    """How a network is trained. The defaults are the paper's where it gives them."""

    images: Annotated[str, Field(min_length=1, description="folder with one subfolder a class, or builtin:photographs")]
    train_per_class: Annotated[int, Field(ge=1, description="images a class; the rest is held out")] = 30
    seed: Annotated[int, Field(ge=0)] = 0

    hidden: Annotated[tuple[int, int], Field(description="units of fc6 and fc7")] = (4096, 4096)
    norm: Annotated[bool, Field(description="contrast normalisation")] = True
    batch_norm: Annotated[bool, Field(description="while training; folded away at the end. Not the paper's")] = False
    init: Annotated[Literal["paper", "he"], Field(description="Gaussian 0.01, or He's")] = "paper"
    centroids: Annotated[bool, Field(description=(
        "conv1 begins with k-means centroids of the images' patches. Not the paper's"))] = False
    first_rate: Annotated[float, Field(ge=0, le=1, description="conv1's learning rate, as a share of the others'")] = 1

    stages: Annotated[tuple[Stage, ...], Field(min_length=1)] = (Stage(epochs=70),)
    batch: Annotated[int, Field(ge=1, le=4096)] = 128
    rate: Annotated[float, Field(gt=0, le=10, description="learning rate at its highest")] = 1e-2
    schedule: Annotated[Literal["constant", "cosine"], Field(description="cosine: to 0 in each stage")] = "constant"
    drops: Annotated[tuple[int, ...], Field(description="epochs from which the rate is a tenth of before")] = ()
    warmup: Annotated[int, Field(ge=0, description="steps in which the rate rises from 0")] = 0
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    decay: Annotated[float, Field(ge=0, le=1, description="weight decay. Not the paper's")] = 0.0
    dropout: Annotated[float, Field(ge=0, lt=1, description="in fc6 and fc7")] = 0.5
    smoothing: Annotated[float, Field(ge=0, lt=1, description="of the labels. Not the paper's")] = 0.0
    renormalise: Annotated[float | None, Field(gt=0, description=(
        "largest RMS of a convolution's filter; the paper's 0.1 is for pixels of 0..255"))] = 0.1

    views: Annotated[Literal["ten", "random"], Field(description=(
        "ten: the paper's sub-crops, corners and centre, flipped or not; random: any part from min_area up"))] = "ten"
    min_area: Annotated[float, Field(gt=0, le=1, description="of random views, as a share of the picture")] = 0.3
    colour: Annotated[float, Field(ge=0, lt=1, description="jitter of brightness, contrast, saturation, hue")] = 0.0
    std: Annotated[tuple[float, float, float] | None, Field(description=(
        "what inputs of 0..1 are divided by; none: measured. 1/255 gives the paper's inputs, about −128..128"))] = None

    precision: Annotated[Literal["float32", "bfloat16"], Field(description="of the arithmetic")] = "float32"
    workers: Annotated[int, Field(ge=0, le=64, description="processes that cut views")] = 0

    @model_validator(mode="after")
    def _is_possible(self) -> "Recipe":
        if self.batch_norm and self.batch == 1:
            raise ValueError("batch normalisation needs a batch of at least 2")
        if self.stages[-1].size != 224:
            raise ValueError(f"the last stage must have views of 224, the network's own; it has {self.stages[-1].size}")
        return self

    @property
    def epochs(self) -> int:
        """The epochs of all stages together."""
        return sum(stage.epochs for stage in self.stages)

    def stage(self, epoch: float) -> tuple[Stage, float]:
        """The stage that an epoch lies in, counted from 0, and how much of it is over then (0..1)."""
        ends = accumulate(stage.epochs for stage in self.stages)
        return next((stage, 1 - (end - epoch) / stage.epochs)
                    for stage, end in zip(self.stages, ends, strict=True) if epoch < end)

    def size(self, epoch: int) -> int:
        """The side of the views in an epoch, counted from 0."""
        return self.stage(epoch)[0].size


# ---- pictures ----


@dataclass
class Pictures:
    """Decoded pictures, (3, H, W) uint8 with a short side of at most 256, and their labels.

    Attributes:
        train: what is learned from, (picture, class number).
        held_out: what is not, (picture, class number).
        classes: the names of the classes.
        skipped: the files that could not be read, with the reason.
        manifest: SHA-256 over names and sizes in bytes of the files.
    """

    train: list[tuple[Tensor, int]]
    held_out: list[tuple[Tensor, int]]
    classes: list[str]
    skipped: list[str]
    manifest: str


SHORT_SIDE = 256


def load(recipe: Recipe, progress: bool = True) -> Pictures:
    """The pictures of a recipe, split class by class; the split depends on the seed and the names alone.

    Raises UsageError where there are fewer than two classes.
    """
    images = open_images(recipe.images, Preprocess())
    if len(images.classes) < 2:
        raise UsageError(f"training needs at least two classes: {recipe.images} has {len(images.classes)}; "
                         "put the images of each class into a folder of its own")
    pictures = Pictures([], [], images.classes, [], images.manifest)
    chosen = _split(images.labels, images.files, recipe)
    for index in tqdm(range(len(images)), "reading", disable=not progress, unit="image"):
        if images.labels[index] < 0:  # beside the class folders
            continue
        try:
            if isinstance(images, ImageFolder):
                picture = read_image(images.root / images.files[index], images.files[index], images.limit)
            else:
                picture = images.view(index)
        except UnreadableImage as error:
            pictures.skipped.append(str(error))
            if progress:
                tqdm.write(f"skipped {error}")
            continue
        share = SHORT_SIDE / min(picture.size)
        if share < 1:
            picture = picture.resize((round(picture.width * share), round(picture.height * share)), reducing_gap=None)
        pixels = torch.from_numpy(np.asarray(picture).transpose(2, 0, 1).copy())  # (3, H, W) uint8
        (pictures.train if index in chosen else pictures.held_out).append((pixels, images.labels[index]))
    return pictures


def _split(labels: list[int], files: list[str], recipe: Recipe) -> set[int]:
    """The numbers of the images to learn from: ``train_per_class`` of every class, drawn by the seed."""
    def lot(index: int) -> bytes:
        return hashlib.sha256(f"{recipe.seed}/{files[index]}".encode("utf-8", "surrogateescape")).digest()

    taken: dict[int, list[int]] = {}
    for index in sorted(range(len(files)), key=lot):
        taken.setdefault(labels[index], []).append(index)
    return {index for members in taken.values() for index in members[:recipe.train_per_class]}


class Views(Dataset):
    """Random views of the training pictures: an item is ((3, size, size) uint8, label).

    A view depends on (seed, epoch, number) alone, so that it is the same with any number of workers.
    """

    def __init__(self, pictures: Pictures, recipe: Recipe, epoch: int) -> None:
        self.pictures, self.recipe, self.epoch = pictures.train, recipe, epoch

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        picture, label = self.pictures[index]
        rng = random.Random(f"{self.recipe.seed}/{self.epoch}/{index}")
        size = self.recipe.size(self.epoch)
        anywhere = self.recipe.views == "random"
        box = _any_part(picture, self.recipe.min_area, rng) if anywhere else _sub_crop(picture, rng)
        view = cut(picture, box, size)                                           # (3, size, size)
        return (view.flip(2) if rng.random() < 0.5 else view), label


Box = tuple[int, int, int, int]  # top, left, bottom, right


def cut(picture: Tensor, box: Box, size: int) -> Tensor:
    """A part of a (3, H, W) uint8 picture as (3, size, size), bilinear and antialiased."""
    top, left, bottom, right = box
    part = picture[None, :, top:bottom, left:right]                              # (1, 3, h, w)
    return F.interpolate(part, (size, size), mode="bilinear", antialias=True)[0]


def _any_part(picture: Tensor, min_area: float, rng: random.Random) -> Box:
    """A box of random place, of an area between the share ``min_area`` and all, of a shape between 3:4 and 4:3."""
    height, width = picture.shape[1:]
    for _ in range(10):
        area, shape = height * width * rng.uniform(min_area, 1), math.exp(rng.uniform(-1, 1) * math.log(4 / 3))
        h, w = round(math.sqrt(area / shape)), round(math.sqrt(area * shape))
        if 0 < h <= height and 0 < w <= width:
            break
    else:
        h = w = min(height, width)
    top, left = rng.randint(0, height - h), rng.randint(0, width - w)
    return top, left, top + h, left + w


def _sub_crop(picture: Tensor, rng: random.Random) -> Box:
    """One of five squares of 224/256 of the central square: its corners and its middle (the paper's sub-crops)."""
    height, width = picture.shape[1:]
    whole = min(height, width)
    side = round(whole * 224 / SHORT_SIDE)
    y, x = rng.choice([(0, 0), (0, 2), (2, 0), (2, 2), (1, 1)])
    top, left = (height - whole + y * (whole - side)) // 2, (width - whole + x * (whole - side)) // 2
    return top, left, top + side, left + side


def _image(picture: Tensor) -> Image.Image:
    return Image.fromarray(picture.permute(1, 2, 0).numpy())


def jitter(images: Tensor, strength: float) -> Tensor:
    """Images (N, 3, H, W) in 0..1 with brightness, contrast, colour balance and saturation changed at random."""
    def around_one(channels: int, width: float) -> Tensor:
        return 1 + (torch.rand(len(images), channels, 1, 1) - 0.5) * width * strength

    contrast = around_one(1, 2) * around_one(3, 1)                               # (N, 3, 1, 1)
    images = (images - 0.5) * contrast + around_one(1, 1) - 0.5                  # (N, 3, H, W)
    grey = images.mean(1, keepdim=True)                                          # (N, 1, H, W)
    return grey + (images - grey) * around_one(1, 2)


def colour_statistics(pictures: Pictures, recipe: Recipe) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of the training pixels, each (3,), in units of 0..1; the recipe's std if given."""
    thumbnails = torch.stack([cut(picture, (0, 0, *picture.shape[1:]), 32) for picture, _ in pictures.train])
    thumbnails = thumbnails.double() / 255                                       # (N, 3, 32, 32)
    measured = thumbnails.std((0, 2, 3)).clamp_min(1 / 255)  # pictures of one colour have none
    std = measured if recipe.std is None else torch.tensor(recipe.std).double()
    return thumbnails.mean((0, 2, 3)).float(), std.float()


# ---- the network ----


def patches(inputs: Tensor, kernel: int) -> Tensor:
    """The k×k patches of inputs (N, 3, H, W) that are not flat, each less its mean: (patches, 3·k·k).

    Flat are the two fifths with the smallest contrast; patches are centred so that contrast, not brightness, counts.
    """
    every = F.unfold(inputs, kernel, stride=kernel - 2).transpose(1, 2).flatten(0, 1)  # (patches, 3·k·k)
    every = every - every.mean(0)
    contrast = every.unflatten(1, (3, -1)).var(2).mean(1)                        # (patches,)
    return every[contrast > contrast.median() * 0.7]


def whitening(some: Tensor, share: float = 0.1) -> Tensor:
    """The symmetric matrix that gives patches (patches, d) equal variance in all directions that vary: (d, d).

    ``share`` of the mean variance is added to every direction, so that noise is not raised to the level of edges.
    """
    variances, axes = torch.linalg.eigh((some.T @ some / len(some)).double())
    gain = (variances.clamp_min(0) + share * variances.mean()).rsqrt()
    return (axes * gain @ axes.T).float()


def centroids(inputs: Tensor, shape: torch.Size, rounds: int = 25) -> Tensor:
    """Filters (units, 3, k, k) that natural patches gather around: spherical k-means in whitened patches.

    They are edges and colours, found without a label (Coates and Ng 2012). Each is a centroid as it lies in whitened
    space, which is smoother than the one that would whiten patches on the way, and is scaled to responses of deviation
    1. Raises UsageError where the inputs have fewer than ten patches a unit that are not flat.
    """
    some = patches(inputs, shape[-1])
    if len(some) < 10 * shape[0]:
        raise UsageError(f"the pictures have too few edges to find {shape[0]} filters in: set centroids: false")
    transform = whitening(some)
    white = some @ transform                                                     # (patches, 3·k·k)
    centres = F.normalize(white[torch.randperm(len(white))[:shape[0]]])          # (units, 3·k·k)
    for _ in range(rounds):
        likeness = white @ centres.T                                             # (patches, units)
        nearest = likeness.abs().argmax(1, keepdim=True)                         # (patches, 1)
        drawn = torch.zeros_like(centres).index_add_(0, nearest[:, 0], likeness.gather(1, nearest) * white)
        few = torch.bincount(nearest[:, 0], minlength=shape[0]) < 10             # (units,): begin anew elsewhere
        drawn[few] = white[torch.randperm(len(white))[:int(few.sum())]]
        centres = F.normalize(drawn)
    return (centres / (some @ centres.T).std(0)[:, None]).view(shape)


def build(recipe: Recipe, classes: int, inputs: Tensor | None = None) -> ZFNet:
    """The network of a recipe with its first weights, drawn from the seed, ready to train.

    ``inputs`` (N, 3, H, W): what conv1 finds its first filters in, where the recipe has ``centroids``.
    """
    torch.manual_seed(recipe.seed)
    net = ZFNet(classes, hidden=recipe.hidden, norm=recipe.norm, batch_norm=recipe.batch_norm)
    for module in net.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            if recipe.init == "paper":
                nn.init.normal_(module.weight, std=0.01)
            else:
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Dropout):
            module.p = recipe.dropout
    net.pool5 = nn.AdaptiveMaxPool2d(6)  # at 224 pixels the same windows as pool5's; 6×6 at other sizes too
    if recipe.centroids and inputs is not None:
        net.conv1.weight.data = centroids(inputs, net.conv1.weight.shape)
    return net


def fold(net: ZFNet) -> ZFNet:
    """The same network without batch normalisation, in eval mode: scores equal to rounding.

    A convolution w, b and the normalisation (x − μ)/√(σ² + ε)·γ + β become w·g, (b − μ)·g + β with g = γ/√(σ² + ε).
    """
    layers = dict(net.named_children())
    state = {}
    for name, layer in layers.items():
        if not isinstance(layer, nn.Conv2d | nn.Linear) or layer.bias is None:
            continue
        weight, bias = layer.weight.detach().double(), layer.bias.detach().double()
        batch_norm = layers.get("bn" + name[-1])
        if isinstance(batch_norm, nn.BatchNorm1d | nn.BatchNorm2d):
            mean, variance = batch_norm.get_buffer("running_mean"), batch_norm.get_buffer("running_var")
            gain = batch_norm.weight.double() / (variance.double() + batch_norm.eps).sqrt()  # (units,)
            weight, bias = weight * gain.view(-1, *[1] * (weight.ndim - 1)), (bias - mean) * gain + batch_norm.bias
        state[f"{name}.weight"], state[f"{name}.bias"] = weight.detach().float(), bias.detach().float()
    widths = [state[f"conv{n}.bias"].numel() for n in range(1, 6)]
    hidden = [state[f"fc{n}.bias"].numel() for n in (6, 7)]
    folded = ZFNet(state["fc8.bias"].numel(), widths, hidden, norm="norm1" in layers)
    folded.load_state_dict(state)
    return folded.eval()


@torch.no_grad()
def renormalise(net: nn.Module, limit: float, std: Tensor) -> None:
    """Scales every filter of a convolution whose RMS exceeds ``limit`` back to it (Zeiler and Fergus 2014, section 3).

    The paper's 0.1 belongs to its inputs, pixels of 0..255 less their mean. Dividing an input by c multiplies the
    weights that do the same by c; so the first layer's filters are measured as they would be on such pixels, for
    inputs of 0..1 that were divided by ``std`` (3,).
    """
    scale = (255 * std)[:, None, None]                                           # (3, 1, 1): c, channel by channel
    for name, layer in net.named_modules():
        if isinstance(layer, nn.Conv2d):
            weight = layer.weight / scale if name == "conv1" else layer.weight
            rms = weight.square().mean((1, 2, 3), keepdim=True).sqrt()           # (units, 1, 1, 1)
            layer.weight.mul_((limit / rms).clamp_max(1))


def filter_statistics(weight: Tensor) -> dict[str, float]:
    """How good first-layer filters (units, 3, k, k) look, as shares of the units and as norms.

    ``plain``: more than 70 % of a filter's energy is in its mean colour. ``near_duplicates``: its cosine with another
    one is beyond ±0.9. ``fine``: the median share of energy in the finest half-octave, which is high for noise.
    """
    weight = weight.detach().double()
    energy = weight.square().sum((1, 2, 3))                                      # (units,)
    plain = weight.mean((2, 3)).square().sum(1) * weight[0, 0].numel() / energy  # (units,)
    unit = F.normalize(weight.flatten(1), dim=1)                                 # (units, 3·k·k)
    cosine = (unit @ unit.T).abs().fill_diagonal_(0)                             # (units, units)
    spectrum = torch.fft.fft2(weight).abs().square().sum(1)                      # (units, k, k)
    frequency = torch.fft.fftfreq(weight.shape[-1])
    fine = torch.hypot(frequency[:, None], frequency) > 0.36                     # (k, k)
    return {
        "plain": float((plain > 0.7).double().mean()),
        "near_duplicates": float((cosine.amax(1) > 0.9).double().mean()),
        "fine": float((spectrum[:, fine].sum(1) / spectrum.sum((1, 2))).median()),
        "smallest_norm": float(energy.min().sqrt()),
        "median_norm": float(energy.median().sqrt()),
        "largest_norm": float(energy.max().sqrt()),
    }


# ---- measuring ----


@torch.no_grad()
def evaluate(net: nn.Module, held_out: list[tuple[Tensor, int]], preprocess: Preprocess,
             precision: str = "float32") -> dict[str, float]:
    """Top-1 and top-5 accuracy on held-out pictures, each the mean over the classes; empty where there are none."""
    training = net.training
    net.eval()
    try:
        hits: dict[int, list[tuple[bool, bool]]] = {}
        for start in range(0, len(held_out), 64):
            some = held_out[start:start + 64]
            inputs = torch.stack([preprocess(_image(picture)) for picture, _ in some])  # (N, 3, size, size)
            with _arithmetic(precision):
                scores = net(inputs).float()                                     # (N, classes)
            best = scores.topk(min(5, scores.shape[1])).indices.tolist()             # (N, 5)
            for (_, label), row in zip(some, best, strict=True):
                hits.setdefault(label, []).append((row[0] == label, label in row))
    finally:
        net.train(training)
    return {name: sum(sum(hit[k] for hit in of) / len(of) for of in hits.values()) / len(hits)
            for k, name in enumerate(("top1", "top5")) if hits}


def normalise(images: Tensor, preprocess: Preprocess) -> Tensor:
    """Network inputs from images (N, 3, H, W), uint8, or float in 0..1."""
    images = images.float() / 255 if images.dtype == torch.uint8 else images
    mean, std = (torch.tensor(v)[:, None, None] for v in (preprocess.mean, preprocess.std))  # (3, 1, 1) each
    return ((images - mean) / std).contiguous(memory_format=torch.channels_last)


def _arithmetic(precision: str) -> torch.autocast:
    return torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16")


# ---- a run ----


class Run:
    """A training run: the network, its optimiser and how many epochs are done. ``step`` and ``epoch`` move it on."""

    def __init__(self, recipe: Recipe, pictures: Pictures) -> None:
        self.recipe, self.pictures, self.done = recipe, pictures, 0
        mean, std = colour_statistics(pictures, recipe)
        self.preprocess = Preprocess(recipe.size(recipe.epochs - 1), round(recipe.size(recipe.epochs - 1) * 8 / 7),
                                     tuple(mean.tolist()), tuple(std.tolist()))
        inputs = self._inputs() if recipe.centroids else None
        self.net = build(recipe, len(pictures.classes), inputs).to(memory_format=torch.channels_last)
        first = [self.net.conv1.weight]
        weights = [p for p in self.net.parameters() if p.ndim > 1 and p is not first[0]]
        others = [p for p in self.net.parameters() if p.ndim == 1]
        self.optimiser = torch.optim.SGD([
            {"params": first, "share": recipe.first_rate, "weight_decay": 0.0 if recipe.centroids else recipe.decay},
            {"params": weights, "share": 1.0, "weight_decay": recipe.decay},
            {"params": others, "share": 1.0, "weight_decay": 0.0},
        ], recipe.rate, recipe.momentum)

    def _inputs(self) -> Tensor:
        views = Views(self.pictures, self.recipe, 0)
        some = range(0, len(views), max(1, len(views) // 400))
        return normalise(torch.stack([views[i][0] for i in some]), self.preprocess)

    @property
    def steps(self) -> int:
        """Steps in an epoch; the images that do not fill a batch are left out of that epoch."""
        return max(1, len(self.pictures.train) // self.recipe.batch)

    def rate(self, step: int) -> float:
        """The learning rate at a step, counted from the beginning of the run."""
        recipe = self.recipe
        stage, over = recipe.stage(step / self.steps)
        rate = recipe.rate * stage.rate * min(1.0, (step + 1) / (recipe.warmup + 1))
        rate *= 0.1 ** sum(step >= drop * self.steps for drop in recipe.drops)
        return rate * (0.5 + 0.5 * math.cos(math.pi * over)) if recipe.schedule == "cosine" else rate

    def epoch(self, progress: bool) -> dict[str, float]:
        """Mean loss and images per second of one more epoch."""
        torch.manual_seed(_seed(self.recipe.seed, self.done))  # dropout, jitter and order: from here on, no memory
        begun, losses = time.perf_counter(), []
        with tqdm(self._batches(), f"epoch {self.done + 1}/{self.recipe.epochs}", self.steps, disable=not progress,
                  leave=False) as bar:
            for number, (images, labels) in enumerate(bar):
                losses.append(self.step(images, labels, self.rate(self.done * self.steps + number)))
                bar.set_postfix(loss=f"{losses[-1]:.2f}")
        self.done += 1
        seconds = time.perf_counter() - begun
        return {"loss": sum(losses) / len(losses), "images_per_second": len(losses) * self.recipe.batch / seconds}

    def _batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        views = Views(self.pictures, self.recipe, self.done)
        order = torch.randperm(len(views)).tolist()[:self.steps * self.recipe.batch]
        yield from DataLoader(views, self.recipe.batch, sampler=order, num_workers=self.recipe.workers)

    def step(self, images: Tensor, labels: Tensor, rate: float) -> float:
        """The loss of one step of gradient descent on images (N, 3, H, W) uint8 and labels (N,)."""
        for group in self.optimiser.param_groups:
            group["lr"] = rate * group["share"]
        images = images.float() / 255
        if self.recipe.colour:
            images = jitter(images, self.recipe.colour)
        with _arithmetic(self.recipe.precision):
            scores = self.net(normalise(images, self.preprocess))                # (N, classes)
        loss = F.cross_entropy(scores.float(), labels, label_smoothing=self.recipe.smoothing)
        if not math.isfinite(loss.item()):
            raise DeconvnetError(f"the loss is {loss.item()} in epoch {self.done + 1}: try a lower rate or a warmup")
        self.optimiser.zero_grad()
        loss.backward()
        self.optimiser.step()
        if self.recipe.renormalise is not None:
            renormalise(self.net, self.recipe.renormalise, torch.tensor(self.preprocess.std))
        return loss.item()


def _seed(seed: int, epoch: int) -> int:
    return int.from_bytes(hashlib.sha256(f"{seed}/{epoch}".encode()).digest()[:7])


# ---- checkpoints ----


def _identity(recipe: Recipe, manifest: str) -> dict[str, Any]:
    """What must be the same for a run to go on: everything but where the images lie and how many workers cut views."""
    return {**recipe.model_dump(mode="json", exclude={"images", "workers"}), "images (by content)": manifest}


def save(run: Run, path: Path, log: list[dict[str, Any]]) -> None:
    """Writes the checkpoint: network, momentum, epochs done, the log so far and the recipe that it belongs to."""
    tensors = {f"net.{name}": value for name, value in run.net.state_dict().items()}
    for name, parameter in run.net.named_parameters():
        momentum = run.optimiser.state[parameter].get("momentum_buffer")  # none where the recipe has no momentum
        if momentum is not None:
            tensors[f"momentum.{name}"] = momentum
    tensors = {name: value.contiguous().clone(memory_format=torch.contiguous_format) for name, value in tensors.items()}
    identity = _identity(run.recipe, run.pictures.manifest)
    header = {"epochs": str(run.done), "log": json.dumps(log), "recipe": json.dumps(identity)}
    write_whole(path, to_bytes(tensors, header))


def resume(run: Run, path: Path) -> list[dict[str, Any]]:
    """The log of the run so far, with the run brought to where its checkpoint stands; empty where there is none.

    Raises UsageError where the checkpoint belongs to another recipe or other images, and says what differs.
    """
    if not path.exists():
        return []
    try:
        with safe_open(path, "pt") as file:
            header = file.metadata()
            tensors = {name: file.get_tensor(name) for name in list(file.keys())}
        before, now = json.loads(header["recipe"]), _identity(run.recipe, run.pictures.manifest)
    except Exception as error:
        raise DeconvnetError(f"the checkpoint {path} is damaged ({error}); remove it to begin anew") from error
    changed = [f"  {key}: {before.get(key)} before, {now.get(key)} now" for key in sorted(before.keys() | now.keys())
               if before.get(key) != now.get(key)]
    if changed:
        raise UsageError("\n".join([f"{path} was made by another recipe:", *changed,
                                    "Train into another folder, or remove the checkpoint to begin anew."]))
    run.net.load_state_dict({name[4:]: value for name, value in tensors.items() if name.startswith("net.")})
    for name, parameter in run.net.named_parameters():
        if f"momentum.{name}" in tensors:
            buffer = torch.empty_like(parameter).copy_(tensors[f"momentum.{name}"])
            run.optimiser.state[parameter] = {"momentum_buffer": buffer}
    run.done = int(header["epochs"])
    return json.loads(header["log"])


# ---- the whole ----


def train(recipe: Recipe, out: Path, progress: bool = True) -> dict[str, Any]:
    """What is written to ``weights.json``, after training by the recipe into the folder ``out``, or going on with it.

    Raises UsageError, DeconvnetError; and KeyboardInterrupt, which says how to go on.
    """
    out = Path(out)
    try:
        out.mkdir(parents=True, exist_ok=True)
        write_whole(out / "try", b"")
        (out / "try").unlink()
    except OSError as error:
        raise UsageError(f"cannot write to {out}: {error.strerror}") from error
    run = Run(recipe, load(recipe, progress))
    log = resume(run, out / "checkpoint.safetensors")
    kept = run.done
    try:
        while run.done < recipe.epochs:
            log.append({"epoch": run.done + 1, "size": recipe.size(run.done), "rate": run.rate(run.done * run.steps),
                        **run.epoch(progress), **_measured(run)})
            save(run, out / "checkpoint.safetensors", log)
            kept = run.done
            write_whole(out / "log.jsonl", "".join(json.dumps(line) + "\n" for line in log).encode())
            tqdm.write(_line(log[-1], recipe)) if progress else None
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"stopped in epoch {kept + 1} of {recipe.epochs}; "
                                f"the same command goes on from the end of epoch {kept}") from None
    return write_weights(run, out / "weights.safetensors")


def _measured(run: Run) -> dict[str, float]:
    """The statistics of the first layer's filters, and every fifth epoch and at the end the held-out accuracy."""
    if run.done % 5 and run.done < run.recipe.epochs:
        return filter_statistics(run.net.conv1.weight)
    size = run.recipe.size(run.done - 1)
    preprocess = Preprocess(size, round(size * 8 / 7), run.preprocess.mean, run.preprocess.std)
    accuracy = evaluate(run.net, run.pictures.held_out, preprocess, run.recipe.precision)
    return {**filter_statistics(run.net.conv1.weight), **accuracy}


def _line(entry: dict[str, Any], recipe: Recipe) -> str:
    top1 = f", held out {entry['top1']:.1%}" if "top1" in entry else ""
    return (f"epoch {entry['epoch']}/{recipe.epochs}: loss {entry['loss']:.3f}, "
            f"{entry['images_per_second']:.0f} img/s{top1}")


def write_weights(run: Run, path: Path) -> dict[str, Any]:
    """The description beside the weights, having written both: the folded network in half precision, and JSON.

    The accuracy is measured on the weights as they are written.
    """
    net = fold(run.net)
    halves = {name: value.half().contiguous() for name, value in net.state_dict().items()}
    content = to_bytes(halves)
    net.load_state_dict({name: value.float() for name, value in halves.items()})
    card = {
        "network": "zfnet",
        "arguments": {"classes": len(run.pictures.classes), "hidden": list(run.recipe.hidden),
                      **({} if run.recipe.norm else {"norm": False})},
        "classes": run.pictures.classes,
        "preprocess": asdict(run.preprocess),
        "sha256": hashlib.sha256(content).hexdigest(),
        "held_out": {"images": len(run.pictures.held_out),
                     **evaluate(net, run.pictures.held_out, run.preprocess)},
        "filters": filter_statistics(net.conv1.weight),
        "recipe": run.recipe.model_dump(mode="json", exclude={"images", "workers"}),
        "skipped": len(run.pictures.skipped),
    }
    write_whole(path, content)
    write_whole(path.with_suffix(".json"), (json.dumps(card, indent=2, ensure_ascii=False) + "\n").encode())
    return card
