"""A program: trains as several processes that find each other as torchrun's do.

Under torchrun:  ranks.py RECIPE OUT [STEP]   trains; before that step the last process kills itself
alone:           ranks.py TREE FOLDER         forks all that test_processes.py asks for, and prints what they said
"""

import json
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from lives import outcome
from recipes import recipe

from deconvnet import training
from deconvnet.processes import Here, processes
from deconvnet.training import Recipe, Stage, data, journal, results  # noqa: F401  (imported before the forks)
from deconvnet.training.run import Run


def settings(tree: Path, **changes) -> Recipe:
    """Six small steps with everything that must be shared out: dropout, colours, momentum, renormalised filters."""
    small = {"widths": (4,) * 5, "batch_norm": False, "centroids": False, "train_per_class": 5, "batch": 6,
             "stages": (Stage(epochs=2, size=128), Stage(epochs=1)), "dropout": 0.5, "renormalise": 0.1, "rate": 1e-3,
             "measure": 1, "snapshots": (1,)}
    return recipe(tree, **{**small, **changes})


def before_step(number: int, happen: Callable[[], None]) -> None:
    """In this process something happens before the given step, counted from the process's first."""
    steps, real = iter(range(1_000_000)), Run.step

    def step(self: Run, *args):
        if next(steps) == number:
            happen()
        return real(self, *args)

    Run.step = step  # type: ignore[method-assign]


def send(number: int) -> Callable[[], None]:
    """Sends this process a signal."""
    return lambda: os.kill(os.getpid(), number)


def together(world: int, act: Callable[[int], object]) -> dict:
    """Forks so many processes; gives for each its exit code and what it said, and how long they took to end."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    files, pids = [], []
    for rank in range(world):
        files.append(os.pipe())
        pids.append(os.fork())
        if not pids[-1]:
            os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(world), MASTER_ADDR="127.0.0.1",
                              MASTER_PORT=str(port))
            code, said = _result(act, rank)
            os.write(files[-1][1], said.encode())
            os._exit(code)
        os.close(files[-1][1])
    codes, ends = {}, {}
    while len(codes) < world:
        pid, status = os.wait()
        codes[pid], ends[pid] = os.waitstatus_to_exitcode(status), time.monotonic()
    said = [os.read(file, 65536).decode() for file, _ in files]
    return {"codes": [codes[pid] for pid in pids], "said": said, "between": max(ends.values()) - min(ends.values())}


def _result(act: Callable[[int], object], rank: int) -> tuple[int, str]:
    try:
        return 0, json.dumps(act(rank))
    except BaseException as error:
        return getattr(error, "code", 1), f"{type(error).__name__}: {error}"


def train(recipe: Recipe, out: Path, first: Callable[[int], None] = lambda rank: None) -> Callable[[int], None]:
    """What a process does: ``first``, and then it trains."""
    def act(rank: int) -> None:
        first(rank)
        training.train(recipe, out, progress=False, device="cpu")
    return act


def at(step: int, rank: int, number: int) -> Callable[[int], None]:
    """One of the processes gets a signal before a step."""
    return lambda here: before_step(step, send(number)) if here == rank else None


def sums(rank: int) -> list:
    """Totals, largest values, and an integer that float32 has not."""
    with processes("cpu") as here:
        assert here == Here(rank, 3, torch.device("cpu")) and here.first == (rank == 0)
        here.wait()
        big = here.total(torch.tensor([2**40 + rank])).tolist()
        return [here.total(torch.tensor([rank + 1.0, 10.0])).tolist(), here.largest(rank, -rank), big]


def uneven(tree: Path) -> Recipe:
    """A recipe whose odd number of images is less than a batch."""
    for number in (1, 3, 5, 4):
        one = settings(tree, train_per_class=number, batch=100)
        if len(data.load(one, progress=False).train) % 2:
            return one
    raise AssertionError


def scenarios(tree: Path, folder: Path) -> dict:
    """Everything that is asked, one after the other."""
    usual, saving = settings(tree), settings(tree, minutes=1e-9)
    said = {}
    for world in (1, 2, 3):
        said[f"whole {world}"] = together(world, train(usual, folder / f"whole{world}"))
    for before, after in ((2, 1), (1, 2), (3, 2)):
        out = folder / f"from{before}to{after}"
        said[f"stopped {before}"] = together(before, train(usual, out, at(2, before - 1, signal.SIGTERM)))
        said[f"from {before} to {after}"] = together(after, train(usual, out))
    for rank in (0, 1):
        out = folder / f"killed{rank}"
        said[f"killed {rank}"] = together(2, train(saving, out, at(3, rank, signal.SIGKILL)))
        said[f"after {rank}"] = together(2, train(usual, out))
    said["batch norm"] = together(2, train(settings(tree, batch_norm=True), folder / "a"))
    said["odd batch"] = together(2, train(settings(tree, batch=5), folder / "b"))
    said["few images"] = together(2, train(uneven(tree), folder / "c"))
    said["two folders"] = together(2, lambda rank: train(usual, folder / ("whole2" if rank else "empty"))(rank))
    said["sums"] = together(3, sums)
    said["outcomes"] = {path.name: outcome(path) for path in folder.glob("*[0-9]")}
    return said


def main() -> None:
    torch.set_num_threads(1)
    if "RANK" not in os.environ:
        print(json.dumps(scenarios(Path(sys.argv[1]), Path(sys.argv[2]))))
        return
    if sys.argv[3:] and int(os.environ["RANK"]) == int(os.environ["WORLD_SIZE"]) - 1:
        before_step(int(sys.argv[3]), send(signal.SIGKILL))
    training.train(Recipe.model_validate_json(sys.argv[1]), Path(sys.argv[2]), progress=False, device="cpu")


if __name__ == "__main__":
    main()
