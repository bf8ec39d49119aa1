"""Training: the paper's recipe and others, from folders of images to a network that is ready to ship.

The paper's recipe (Zeiler and Fergus 2014, section 3) and the one that trained the networks that ship are two sets of
values of one ``Recipe``. A run lives in a folder, and the folder holds all that it takes to go on with the same bits:

    checkpoint-a.safetensors  network, momentum and how far it got; the last two states, which take turns
    checkpoint-b.safetensors
    log.jsonl                 one line for every epoch
    curves.png                loss, accuracy and the norms of the first layer's filters over the epochs
    filters.png               the first layer's filters
    snapshots/                the network after chosen epochs, for Figure 4
    weights.safetensors       the result: batch normalisation folded away, half precision
    weights.json              what loads with it: network, classes, preprocessing, SHA-256; and what it reaches
"""

import time
from contextlib import AbstractContextManager, nullcontext
from datetime import timedelta
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from ..errors import DeconvnetError
from ..files import sole_writer, writable_folder
from ..processes import Here, processes
from .checkpoint import Checkpoints, State
from .data import Data, notes, read, split
from .journal import Journal, tensorboard_writer
from .recipe import Recipe, Stage
from .results import write_snapshot, write_weights
from .run import Run, check_shares
from .stopping import Request, Stopped, requests_to_stop

__all__ = ["Recipe", "Stage", "train"]


def train(recipe: Recipe, out: Path, progress: bool = True, device: str = "auto",
          tensorboard: bool = False) -> dict[str, Any]:
    """The card of the weights, after training by the recipe into the folder ``out``, or going on with it.

    Started by torchrun, the processes share the batches: their number changes nothing but rounding. Raises UsageError,
    DeconvnetError; and KeyboardInterrupt, which says how to go on, with everything up to the last step saved.
    """
    out = writable_folder(out)
    if tensorboard:
        tensorboard_writer()  # if it is missing, that is said before the images are read
    with requests_to_stop() as request, processes(device) as here, _alone(out, here):
        check_shares(recipe, here)  # before the images are read
        progress = progress and here.first
        data, checkpoints, state = _prepare(recipe, out, here, progress)
        run = Run(recipe, data, here)
        keeper = _Keeper(run, out, checkpoints, state, progress)
        journal = Journal(out, tensorboard, max(1, run.done)) if here.first else None
        if journal is not None and run.log:
            journal.write(run.log, run.first_filters)  # what an earlier run saved may not have been told yet
        request.heeded = True
        while run.done < recipe.epochs:
            run.epoch(progress, lambda: keeper.between(request))
            keeper.keep()
            if journal is not None:
                journal.write(run.log, run.first_filters)
            if progress:
                tqdm.write(_line(run))
            keeper.stop_if(request)
        request.heeded = False
        card = write_weights(run, out / "weights.safetensors", progress) if here.first else {}
        here.wait()
    return card


def _alone(out: Path, here: Here) -> AbstractContextManager[None]:
    """While no other training writes in a folder; the processes of one are together in it."""
    return sole_writer(out) if here.first else nullcontext()


def _prepare(recipe: Recipe, out: Path, here: Here, progress: bool) -> tuple[Data, Checkpoints, State | None]:
    """The pictures, and what an earlier run left; one of another recipe is refused before the pictures are read.

    One process does it before the others, which find in its notes what it found.
    """
    if not here.first:
        here.wait()
    data = split(recipe)
    checkpoints = Checkpoints(out, {**recipe.identity(), "images (by content)": data.manifest})
    state = checkpoints.latest()
    read(data, recipe, out / "images.safetensors", progress)
    if here.first:
        here.wait()
    if progress:
        tqdm.write("\n".join(notes(data)))
    return data, checkpoints, state


class _Keeper:
    """Saves a run after each epoch, at times between two steps, and when someone asks to stop."""

    def __init__(self, run: Run, out: Path, checkpoints: Checkpoints, state: State | None, progress: bool) -> None:
        if run.here.first:
            _remove_parts(out)
        self.run, self.out, self.checkpoints, self.saved = run, out, checkpoints, time.monotonic()
        step = -1 if state is None else state[1]["step"]
        if [step, -step] != run.here.largest(step, -step):
            raise DeconvnetError(f"the processes find different checkpoints in {out}: all must see the same folder")
        if state is not None:
            run.restore(state)
            if progress:
                over = f"all {run.done} epochs are over: only the weights are written again"
                tqdm.write(over if run.done == run.recipe.epochs else
                           f"going on after epoch {run.done} and {run.at} of {run.steps} steps")

    def keep(self) -> None:
        """After an epoch: the snapshot if one is wanted, and then the state, so that neither is missing later."""
        if self.run.here.first and self.run.done in self.run.recipe.snapshots:
            write_snapshot(self.run, self.out / "snapshots")
        self._save()

    def between(self, request: Request) -> None:
        """After a step: saves if it is time, and stops if someone asked."""
        self.stop_if(request, due=time.monotonic() - self.saved > self.run.recipe.minutes * 60)

    def stop_if(self, request: Request, due: bool = False) -> None:
        """Saves and raises Stopped if any process was asked to stop; they all stop after the same step.

        Saves too if it is ``due`` for any of them: what is decided here, all must do.
        """
        run = self.run
        number, save = map(int, run.here.largest(request.number, due))
        if run.at and (number or save):
            self._save()
        if number:
            raise Stopped(f"stopped after epoch {run.done} and {run.at} of {run.steps} steps; the same command goes on "
                          "from there", number)

    def _save(self) -> None:
        state = self.run.state()  # the losses of all processes are in it
        if self.run.here.first:
            self.checkpoints.save(state)
        self.saved = time.monotonic()


def _remove_parts(folder: Path) -> None:
    """Removes what killed runs were writing: each such file may be as large as a checkpoint."""
    for part in [*folder.glob(".*.part"), *folder.glob("snapshots/.*.part")]:
        part.unlink(missing_ok=True)


def _line(run: Run) -> str:
    recipe, entry = run.recipe, run.log[-1]
    top1 = f", held out {entry['top1']:.1%}" if "top1" in entry else ""
    pixels = sum(recipe.size(epoch) ** 2 for epoch in range(run.done, recipe.epochs)) * run.steps * recipe.batch
    left = pixels / (entry["images_per_second"] * entry["size"] ** 2)  # seconds: an image costs what its pixels do
    return (f"epoch {entry['epoch']}/{recipe.epochs}: loss {entry['loss']:.3f}{top1}, "
            f"{entry['images_per_second']:.0f} img/s, {entry['waited']:.0%} of the time waiting for views; "
            f"about {timedelta(seconds=round(left))} left")
