"""Where a run computes: which device, and which of several processes that torchrun started."""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from hashlib import sha256
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from tqdm import tqdm

from .errors import AnotherEnded, UsageError, brief

SLOW = 2.0  # seconds until there is a progress bar for what mostly takes less
PATIENCE = timedelta(days=20)  # they wait so long for one that reads all images or goes through its part


@dataclass(frozen=True)
class Here:
    """This process: its number ``rank`` of ``world``, and the device that it computes on."""

    rank: int = 0
    world: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @property
    def first(self) -> bool:
        """Whether this is the process that writes and speaks."""
        return self.rank == 0

    def total(self, values: Tensor, of: dist.ReduceOp.RedOpType = dist.ReduceOp.SUM) -> Tensor:
        """The sum over all processes of a tensor on the CPU, which each of them gets."""
        if self.world == 1:
            return values
        values = values.to(self.device)
        dist.all_reduce(values, of)
        return values.cpu()

    def largest(self, *values: float) -> list[float]:
        """Of each value the largest that any process gives."""
        return self.total(torch.tensor(values, dtype=torch.float64), dist.ReduceOp.MAX).tolist()

    def wait(self) -> None:
        """Until all processes are here. Raises DeconvnetError where one of them has ended instead.

        It waits on the CPU whatever the device is, so that there is no work for a GPU that could be found to take long.
        """
        self.agree("")

    def agree(self, word: str) -> bool:
        """Whether all processes say the same word; each waits for all, as ``wait`` does."""
        if self.world == 1:
            return True
        number = int.from_bytes(sha256(word.encode()).digest()[:7])
        largest = torch.tensor([number, -number])
        try:
            dist.all_reduce(largest, dist.ReduceOp.MAX)
            return largest.tolist() == [number, -number]
        except RuntimeError as error:  # the connection to it is closed
            raise AnotherEnded("another of the processes has ended: see what it said. The same command again goes on "
                               "where each of them was") from error

    def arithmetic(self, precision: str) -> torch.autocast:
        """A context in which matrix products have the precision that a recipe names."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=precision == "bfloat16")


ALONE = Here()


@contextmanager
def processes(device: str = "auto") -> Iterator[Here]:
    """This process among those that torchrun started, or alone; leaves the group at the end.

    ``device`` is cpu, cuda, or auto: cuda where there is one, a card of its own for each process. One process alone may
    name a card, as cuda:1.
    """
    world = int(os.environ.get("WORLD_SIZE", 1))
    chosen = _device(device)
    if world == 1:
        yield Here(device=chosen)
        return
    if chosen.type == "cuda":
        chosen = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        if chosen.index >= torch.cuda.device_count():
            raise UsageError(f"process {chosen.index} of this machine has no GPU of its own: there are "
                             f"{torch.cuda.device_count()}; start as many with --nproc-per-node")
        torch.cuda.set_device(chosen)
    backend = "cpu:gloo,cuda:nccl" if chosen.type == "cuda" else "gloo"
    try:
        dist.init_process_group(backend, timeout=PATIENCE)
    except RuntimeError as error:
        raise AnotherEnded("another of the processes has ended: see what it said. Or they do not reach each other: "
                           f"{brief(error)}") from error
    try:
        yield Here(dist.get_rank(), world, chosen)
    finally:
        dist.destroy_process_group()


def slow_bar(items: Iterable[Any] | None = None, **options: Any) -> tqdm:
    """A progress bar of tqdm's, for what is slow at times only: it appears after two seconds, in the first process."""
    return tqdm(items, delay=SLOW, disable=os.environ.get("RANK", "0") != "0", leave=False, **options)


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or device.type not in ("cpu", "cuda"):
        raise UsageError(f"--device is cpu, cuda or auto: {name}")
    if device.type == "cuda" and not torch.cuda.is_available():
        raise UsageError(f"--device {name}: torch sees no CUDA device here")
    return device
