"""What memory a scan takes at its peak, of many images above that of few: each count in a process of its own.

The images are noise made as it is asked for, so that the scan alone can keep anything of them: as a Dataset of tensors,
as an iterable of batches, and as a folder is read, whose images have names and classes, which do take memory. The state
to resume from is saved at every opportunity, because that takes memory too. The peak is that of resident memory.
"""

import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from resource import RUSAGE_SELF, getrusage
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image
from running import begin, conditions, run, write
from torch import Tensor, nn
from torch.utils.data import Dataset
from tqdm import tqdm

from deconvnet import scan
from deconvnet.images import Images, Preprocess

GOAL = 64.0  # MiB
SIDE = 32    # pixels
EVERY = 2.0  # seconds between two saved states

Kind = Literal["dataset", "iterable", "folder"]


class Noise(Dataset):
    """Tensors of noise by number."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Tensor:
        return torch.rand(3, SIDE, SIDE, generator=torch.Generator().manual_seed(index))


class Named(Images):
    """Pictures of noise with names as long as ImageNet's, in a thousand classes."""

    def __init__(self, count: int) -> None:
        self.preprocess, self.classes = Preprocess(SIDE, SIDE), [f"n{number:08d}" for number in range(1000)]
        self.labels = [number % 1000 for number in range(count)]
        self.files = [f"{self.classes[label]}/{self.classes[label]}_{n}.JPEG" for n, label in enumerate(self.labels)]

    def view(self, index: int) -> Image.Image:
        return Image.fromarray(np.random.default_rng(index).integers(0, 256, (SIDE, SIDE, 3), np.uint8))


def stream(count: int, size: int) -> Iterator[Tensor]:
    """Batches of noise."""
    noise = Noise(count)
    for start in range(0, count, size):
        yield torch.stack([noise[index] for index in range(start, min(start + size, count))])


def network() -> nn.Module:
    """Two small convolutions."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 16, 5, 2), nn.ReLU(), nn.Conv2d(16, 32, 3, 2), nn.ReLU()).eval()


def peak() -> float:
    """The most that this process ever had in memory, MiB."""
    status = Path("/proc/self/status")  # getrusage tells a new process the peak of the one that started it
    if status.exists():
        (line,) = [line for line in status.read_text().splitlines() if line.startswith("VmHWM")]
        return int(line.split()[1]) / 1024
    return getrusage(RUSAGE_SELF).ru_maxrss / (2 ** 20 if sys.platform == "darwin" else 1024)


def scanned(kind: Kind, count: int) -> float:
    """Scans so many images; the peak afterwards."""
    torch.set_num_threads(1)
    images: Any = {"dataset": Noise, "folder": Named}[kind](count) if kind != "iterable" else stream(count, 64)
    with tempfile.TemporaryDirectory() as folder:
        found = scan(network(), images, batch_size=64, checkpoint=Path(folder) / "state", every=EVERY)
    assert found.count == count
    return peak()


def measure(kind: Kind, count: int) -> float:
    """The same in a process of its own."""
    code = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); import memory; " \
           f"print(memory.scanned({kind!r}, {count}))"
    return float(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)


def report(result: Mapping[str, Any]) -> str:
    few, many = result["few"], result["many"]
    lines = [f"peak of resident memory, MiB{few:>12,}{many:>12,} images   more"]
    for kind, one in result["kinds"].items():
        lines.append(f"{kind:28}{one['few']:12.1f}{one['many']:12.1f}{one['more']:14.1f}")
    return "\n".join([*lines, f"to be at most {GOAL:.0f} MiB more"])


def benchmark(few: int = 1_000, many: int = 50_000, kinds: Sequence[Kind] = ("dataset", "iterable", "folder"),
              out: str | None = None) -> None:
    """What memory a scan takes at its peak, of many images above that of few.

    Args:
        few: images.
        many: images.
        kinds: what holds them: a dataset or an iterable of tensors, or a folder, whose images have names and classes.
        out: a JSON file.
    """
    begin(out, None)
    found: dict[str, dict[str, float]] = {}
    for kind in tqdm(kinds, desc="kinds"):
        one = {"few": measure(kind, few), "many": measure(kind, many)}
        found[kind] = {**one, "more": one["many"] - one["few"]}
    result = {**conditions(), "goal": GOAL, "few": few, "many": many, "kinds": found}
    print(report(result))
    write(result, out)


if __name__ == "__main__":
    sys.exit(run(benchmark, "memory.py"))
