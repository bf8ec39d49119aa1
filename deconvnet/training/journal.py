"""What a run tells while it goes: lines of numbers, curves, and TensorBoard's files if wanted."""

import io
import json
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from ..errors import UsageError
from ..files import write_whole

Entry = Mapping[str, Any]
"""What is told of an epoch: its number from 1, its loss, and whatever else was measured."""


class Journal:
    """The entries of a run, in the folder's ``log.jsonl`` and ``curves.png``."""

    def __init__(self, folder: Path, tensorboard: bool = False) -> None:
        self.folder = folder
        self.board = _board(folder) if tensorboard else None

    def write(self, entries: Sequence[Entry]) -> None:
        """Puts all entries so far into the files, the last one into TensorBoard's."""
        write_whole(self.folder / "log.jsonl", "".join(json.dumps(entry) + "\n" for entry in entries).encode())
        if "top1" in entries[-1] or len(entries) == 1:
            write_whole(self.folder / "curves.png", curves(entries))
        if self.board is not None:
            last = entries[-1]
            for name in last.keys() - {"epoch"}:
                self.board.add_scalar(name, last[name], last["epoch"])
            self.board.flush()


def curves(entries: Sequence[Entry]) -> bytes:
    """Loss on the left, held-out accuracy on the right, over the epochs, as a PNG."""
    figure = Figure(figsize=(10, 3.8), layout="constrained", dpi=100)
    left, right = figure.subplots(1, 2)
    left.plot([entry["epoch"] for entry in entries], [entry["loss"] for entry in entries], color="tab:blue")
    left.set(xlabel="epoch", ylabel="loss on training views")
    measured = [entry for entry in entries if "top1" in entry]
    for name, label in (("top5", "top-5"), ("top1", "top-1")):
        values = [100 * entry[name] for entry in measured]
        right.plot([entry["epoch"] for entry in measured], values, marker="o", markersize=3, label=label)
        if values:
            right.annotate(f"{values[-1]:.1f}", (measured[-1]["epoch"], values[-1]), (4, 0), textcoords="offset points",
                           va="center")
    right.set(xlabel="epoch", ylabel="held-out accuracy, mean of classes, %", ylim=(0, 100))
    right.legend(loc="lower right", frameon=False)
    for axes in (left, right):
        axes.grid(alpha=0.3)
        axes.margins(x=0.04)
        for before, after in pairwise(entries):
            if before.get("size") != after.get("size"):
                axes.axvline(after["epoch"] - 0.5, color="grey", linestyle=":", linewidth=1)
    file = io.BytesIO()
    FigureCanvasAgg(figure).print_png(file, metadata={"Software": None})
    return file.getvalue()


def _board(folder: Path) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise UsageError("--tensorboard needs the package tensorboard: pip install 'deconvnet[tensorboard]'") from error
    return SummaryWriter(str(folder / "tensorboard"))
