"""A run: a network, its optimiser and how far it got; one step of descent, and the steps of an epoch."""

import hashlib
import math
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader
from tqdm.auto import tqdm

from ..errors import DeconvnetError, UsageError
from ..images import Preprocess
from ..processes import ALONE, Here
from .build import build
from .checkpoint import State
from .data import Data
from .evaluate import evaluate
from .filters import filter_statistics, renormalise
from .recipe import Recipe
from .stopping import wait_for_the_parent
from .views import SHORT_SIDE, Views, jitter, sub_crop_means

GLANCE = 10  # steps from one look at the loss to the next: each look waits for the device


def check_shares(recipe: Recipe, here: Here) -> None:
    """Raises UsageError where the processes cannot share the batches of a recipe."""
    if recipe.batch % here.world:
        raise UsageError(f"batch: {recipe.batch} images cannot be shared evenly by {here.world} processes")
    if recipe.batch_norm and here.world > 1 and here.device.type == "cpu":
        raise UsageError("batch_norm over several processes needs GPUs: on CPUs each would normalise by itself")


class Run:
    """A training run. Everything random is drawn from (seed, epoch), so that it can go on with the same bits.

    Attributes:
        done: epochs that are over.
        at: steps that are over in the epoch that is not.
        log: what is told of each epoch.
    """

    def __init__(self, recipe: Recipe, data: Data, here: Here = ALONE) -> None:
        check_shares(recipe, here)
        if len(data.train) < recipe.batch and len(data.train) % here.world:
            raise UsageError(f"{len(data.train)} images, fewer than a batch, cannot be shared evenly by {here.world} "
                             "processes")
        self.recipe, self.data, self.here = recipe, data, here
        self.done, self.at, self.log, self.losses = 0, 0, [], []
        self.preprocess = self._preprocess(recipe.size(recipe.epochs - 1))
        inputs = self._some_inputs() if recipe.centroids else None
        net = build(recipe, len(data.classes), inputs, here.rank, here.world)
        if recipe.batch_norm and here.world > 1:
            net = nn.SyncBatchNorm.convert_sync_batchnorm(net)
        self.net = net.to(here.device).to(memory_format=torch.channels_last)
        self.parallel = self.net if here.world == 1 else DistributedDataParallel(self.net)
        self.optimiser = self._optimiser()
        self.std = torch.tensor(self.preprocess.std, device=here.device)
        self.mean = torch.tensor(self.preprocess.mean, device=here.device)[:, None, None]  # (3, 1, 1)
        self._means: dict[int, Tensor] = {}

    log: list[dict[str, Any]]
    losses: list[Tensor]

    def _preprocess(self, size: int) -> Preprocess:
        """What makes inputs of this size of whole pictures, with the same part of them in view at any size."""
        recipe, data = self.recipe, self.data
        std = data.std if recipe.std is None else torch.tensor(recipe.std)
        means = self.means(size)
        central = None if means is None else means[4].numpy()
        resize = round(size * SHORT_SIDE / recipe.size(recipe.epochs - 1))
        return Preprocess(size, resize, tuple(data.mean.tolist()), tuple(std.tolist()), central)

    def means(self, size: int) -> Tensor | None:
        """What is subtracted from the sub-crops 0 … 9 in views of this size, (10, 3, size, size), if pictures are."""
        if self.recipe.mean == "channel":
            return None
        return sub_crop_means(self.data.mean_picture, self.recipe.size(self.recipe.epochs - 1), size)

    def _some_inputs(self) -> Tensor:
        views = Views(self.data.train, self.recipe, 0)
        some = [views[i] for i in range(0, len(views), max(1, len(views) // 400))]
        mean, std = torch.tensor(self.preprocess.mean), torch.tensor(self.preprocess.std)
        return _normalise(torch.stack([view for view, *_ in some]).float() / 255, mean[:, None, None], std)

    def _optimiser(self) -> torch.optim.SGD:
        recipe, first = self.recipe, self.net.get_parameter("conv1.weight")
        weights = [p for p in self.net.parameters() if p.ndim > 1 and p is not first]
        others = [p for p in self.net.parameters() if p.ndim == 1]
        return torch.optim.SGD([
            {"params": [first], "share": recipe.first_rate, "weight_decay": 0.0 if recipe.centroids else recipe.decay},
            {"params": weights, "share": 1.0, "weight_decay": recipe.decay},
            {"params": others, "share": 1.0, "weight_decay": 0.0},
        ], recipe.rate, recipe.momentum)

    # ---- how fast ----

    @property
    def steps(self) -> int:
        """Steps in an epoch; the images that do not fill a batch are left out of that epoch."""
        return max(1, len(self.data.train) // self.recipe.batch)

    def rate(self, step: int) -> float:
        """The learning rate at a step, counted from the beginning of the run."""
        recipe = self.recipe
        stage, over = recipe.stage(step / self.steps)
        rate = recipe.rate * stage.rate * min(1.0, (step + 1) / (recipe.warmup + 1))
        rate *= 0.1 ** sum(step >= drop * self.steps for drop in recipe.drops)
        if recipe.schedule == "plateau":
            rate *= 0.1 ** plateaus([1 - entry["top1"] for entry in self.log], recipe.patience)
        return rate * (0.5 + 0.5 * math.cos(math.pi * over)) if recipe.schedule == "cosine" else rate

    # ---- the descent ----

    def epoch(self, progress: bool = False, between: Callable[[], None] = lambda: None) -> dict[str, Any]:
        """The entry of one more epoch, or of the rest of one. ``between`` is called after each step but the last."""
        begun, waited, first = time.perf_counter(), 0.0, self.at
        batches = self._batches()
        with tqdm(total=self.steps, initial=self.at, desc=f"epoch {self.done + 1}/{self.recipe.epochs}",
                  disable=not progress, leave=False, unit="step") as bar:
            while self.at < self.steps:
                asked = time.perf_counter()
                images, labels, crops = next(batches)
                waited += time.perf_counter() - asked
                self.losses.append(self.step(images, labels, crops, self.rate(self.done * self.steps + self.at)))
                self.at += 1
                if self.at % GLANCE == 0:
                    bar.set_postfix(loss=f"{self._loss():.2f}")
                bar.update()
                if self.at < self.steps:
                    between()
        loss, seconds, seen = self._loss(), time.perf_counter() - begun, (self.steps - first) * self.recipe.batch
        entry = {"epoch": self.done + 1, "size": self.recipe.size(self.done),
                 "rate": self.rate(self.done * self.steps), "loss": loss, "images_per_second": seen / seconds,
                 "waited": waited / seconds}
        self.done, self.at, self.losses = self.done + 1, 0, []
        self.log.append({**entry, **self._measured()})
        return self.log[-1]

    def _loss(self) -> float:
        """The mean loss of the epoch's steps so far. Raises DeconvnetError where it is no number."""
        loss = float(self._losses().mean())
        if not math.isfinite(loss):
            raise DeconvnetError(f"the loss is {loss} in epoch {self.done + 1}: try a lower rate or a warmup")
        return loss

    def _losses(self) -> Tensor:
        """The losses of the epoch's steps so far (steps,), each the mean over all processes."""
        return self.here.total(torch.stack(self.losses).double().cpu()) / self.here.world

    def _batches(self) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """What is left of the epoch: this process's part of each batch."""
        torch.manual_seed(_seed(self.recipe.seed, self.done))  # dropout, jitter and order: from here on, no memory
        views = Views(self.data.train, self.recipe, self.done)
        order, size = torch.randperm(len(views)).tolist(), self.recipe.batch
        batches = [order[step * size:(step + 1) * size][self.here.rank::self.here.world]
                   for step in range(self.at, self.steps)]
        loader = iter(DataLoader(views, batch_sampler=batches, num_workers=self.recipe.workers,
                                 pin_memory=self.here.device.type == "cuda", worker_init_fn=wait_for_the_parent))
        if self.at:  # the steps before have drawn numbers too
            self._set_drawn()
        return loader

    def step(self, images: Tensor, labels: Tensor, crops: Tensor, rate: float) -> Tensor:
        """The loss of one step of gradient descent on views (N, 3, H, W) uint8, labels (N,) and sub-crops (N,)."""
        recipe, here = self.recipe, self.here
        for group in self.optimiser.param_groups:
            group["lr"] = rate * group["share"]
        images, labels = (x.to(here.device, non_blocking=True) for x in (images, labels))
        images = images.to(torch.float32, memory_format=torch.channels_last).div_(255)
        if recipe.colour:
            images = jitter(images, recipe.colour, here.rank, here.world)
        with here.arithmetic(recipe.precision):
            scores = self.parallel(_normalise(images, self._mean(images.shape[-1], crops), self.std))  # (N, classes)
        loss = F.cross_entropy(scores.float(), labels, label_smoothing=recipe.smoothing)
        self.optimiser.zero_grad()
        loss.backward()
        self.optimiser.step()
        if recipe.renormalise is not None:
            renormalise(self.net, recipe.renormalise, self.std)
        return loss.detach()

    def _mean(self, size: int, crops: Tensor) -> Tensor:
        """What is subtracted from views: (3, 1, 1), or for each its part of the mean picture, (N, 3, size, size)."""
        if self.recipe.mean == "channel":
            return self.mean
        if size not in self._means:
            means = self.means(size)
            assert means is not None
            self._means[size] = means.to(self.here.device)
        return self._means[size][crops.to(self.here.device)]

    # ---- how well ----

    @property
    def first_filters(self) -> Tensor:
        """The first layer's filters (units, 3, h, w), the only ones that can be looked at as they are."""
        return self.net.get_parameter("conv1.weight")

    def _measured(self) -> dict[str, float]:
        """The statistics of the first layer's filters, and at times and at the end the held-out accuracy."""
        recipe = self.recipe
        every = 1 if recipe.schedule == "plateau" else recipe.measure
        filters = filter_statistics(self.first_filters)
        if self.done % every and self.done < recipe.epochs:
            return filters
        preprocess = self._preprocess(recipe.size(self.done - 1))
        return {**filters, **evaluate(self.net, self.data.held_out, preprocess, False, recipe.precision,
                                      recipe.workers, self.here)}

    # ---- what must be kept to go on ----

    def state(self) -> State:
        """Everything that the rest of the run depends on. Raises DeconvnetError where the loss is no number.

        All processes must ask for it together: the losses are those of all.
        """
        if self.losses:
            self._loss()
        tensors = {f"net.{name}": value for name, value in self.net.state_dict().items()}
        for name, parameter in self.net.named_parameters():
            momentum = self.optimiser.state[parameter].get("momentum_buffer")  # none where the recipe has no momentum
            if momentum is not None:
                tensors[f"momentum.{name}"] = momentum
        tensors["losses"] = self._losses() if self.losses else torch.zeros(0)
        tensors["drawn"] = torch.get_rng_state()
        if self.here.device.type == "cuda":
            tensors["drawn.cuda"] = torch.cuda.get_rng_state(self.here.device)
        tensors = {name: value.cpu().clone(memory_format=torch.contiguous_format) for name, value in tensors.items()}
        return tensors, {"step": self.done * self.steps + self.at, "done": self.done, "at": self.at, "log": self.log}

    def restore(self, state: State) -> None:
        """Brings the run to where a state was taken."""
        tensors, about = state
        self.net.load_state_dict({name[4:]: value for name, value in tensors.items() if name.startswith("net.")})
        for name, parameter in self.net.named_parameters():
            if f"momentum.{name}" in tensors:
                buffer = torch.empty_like(parameter).copy_(tensors[f"momentum.{name}"])
                self.optimiser.state[parameter] = {"momentum_buffer": buffer}
        self.done, self.at, self.log = about["done"], about["at"], about["log"]
        self.losses = list(tensors["losses"].to(self.here.device))
        self._drawn = tensors["drawn"], tensors.get("drawn.cuda")

    def _set_drawn(self) -> None:
        """Random numbers go on where the state was taken."""
        cpu, cuda = self._drawn
        torch.set_rng_state(cpu)
        if cuda is not None and self.here.device.type == "cuda":
            torch.cuda.set_rng_state(cuda, self.here.device)


def plateaus(errors: list[float], patience: int) -> int:
    """How often an error that is measured again and again has stopped falling for ``patience`` measurements."""
    best, since, count = math.inf, 0, 0
    for error in errors:
        best, since = (error, 0) if error < best else (best, since + 1)
        if since == patience:
            since, count = 0, count + 1
    return count


def _normalise(images: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Network inputs, in the place of images (N, 3, H, W) in 0..1."""
    return images.sub_(mean).div_(std[:, None, None])


def _seed(seed: int, epoch: int) -> int:
    return int.from_bytes(hashlib.sha256(f"{seed}/{epoch}".encode()).digest()[:7])
