"""What a run tells while it goes: lines of numbers, curves, and TensorBoard's files if wanted."""

import io
import json
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter
from torch import Tensor

from ..errors import UsageError
from ..files import write_whole
from ..render import filter_sheet

Entry = Mapping[str, Any]
"""What is told of an epoch: its number from 1, its loss, and whatever else was measured."""

DOTS: dict[str, Any] = {"marker": "o", "markersize": 2.5}  # a line through one epoch alone would not be seen


class Journal:
    """The entries of a run, in the folder's ``log.jsonl`` and ``curves.png``; its first layer in ``filters.png``."""

    def __init__(self, folder: Path, tensorboard: bool = False, first: int = 1) -> None:
        """``first``: the epoch from which on TensorBoard shall forget what an earlier run told."""
        self.folder = folder
        self.board = tensorboard_writer()(str(folder / "tensorboard"), purge_step=first) if tensorboard else None

    def write(self, entries: Sequence[Entry], filters: Tensor | None = None) -> None:
        """Puts all entries so far into the files, the last one into TensorBoard's.

        ``filters`` (units, 3, h, w): the first layer's, as they are now.
        """
        write_whole(self.folder / "log.jsonl", "".join(json.dumps(entry) + "\n" for entry in entries).encode())
        if "top1" in entries[-1] or not any("top1" in entry for entry in entries):  # else there is little news
            write_whole(self.folder / "curves.png", curves(entries))
            if filters is not None:
                title = f"conv1 after epoch {entries[-1]['epoch']}"
                sheet = filter_sheet(filters.detach().float().cpu().numpy(), title)
                write_whole(self.folder / "filters.png", sheet.png())
        if self.board is not None:
            last = entries[-1]
            for name in last.keys() - {"epoch"}:
                self.board.add_scalar(name, last[name], last["epoch"])
            self.board.flush()


def curves(entries: Sequence[Entry]) -> bytes:
    """Over the epochs: loss, held-out accuracy, and the norms of the first layer's filters; as a PNG."""
    figure = Figure(figsize=(13, 3.8), layout="constrained", dpi=100)
    left, right, last = figure.subplots(1, 3)
    epochs = [entry["epoch"] for entry in entries]
    left.plot(epochs, [entry["loss"] for entry in entries], **DOTS)
    left.set(xlabel="epoch", ylabel="loss on training views")
    measured = [entry for entry in entries if "top1" in entry]
    for name, label in (("top5", "top-5"), ("top1", "top-1")):
        values = [100 * entry[name] for entry in measured]
        right.plot([entry["epoch"] for entry in measured], values, **DOTS, label=label)
        if values:
            right.annotate(f"{values[-1]:.1f}", (measured[-1]["epoch"], values[-1]), (4, 0), textcoords="offset points",
                           va="center")
    right.set(xlabel="epoch", ylabel="held-out accuracy, mean of classes, %", ylim=(-4, 104))
    right.legend(loc="lower right", frameon=False)
    _norms(last, [entry for entry in entries if "median_norm" in entry])
    for axes in (left, right, last):
        axes.grid(alpha=0.3)
        axes.margins(x=0.15 if axes is right else 0.04)  # for the numbers at the ends of its lines
        axes.xaxis.get_major_locator().set_params(integer=True)
        for before, after in pairwise(entries):
            if before.get("size") != after.get("size"):
                axes.axvline(after["epoch"] - 0.5, color="grey", linestyle=":", linewidth=1)
    file = io.BytesIO()
    FigureCanvasAgg(figure).print_png(file, metadata={"Software": None})
    return file.getvalue()


def _norms(axes: Axes, entries: Sequence[Entry]) -> None:
    """The spread of filter norms, which grows without renormalisation (Zeiler and Fergus 2014, Figure 6 a)."""
    epochs = [entry["epoch"] for entry in entries]
    axes.set(xlabel="epoch", ylabel="norm of conv1's filters", yscale="log")
    for name in ("largest", "median", "smallest"):
        values = [max(entry[f"{name}_norm"], 1e-12) for entry in entries]
        axes.plot(epochs, values, **DOTS)
        for value in values[-1:]:
            axes.annotate(f"{name} {value:.2g}", (epochs[-1], value), (0, 5), textcoords="offset points", ha="right")
    axes.margins(y=0.12)
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())


def tensorboard_writer() -> Any:
    """The class that writes TensorBoard's files. Raises UsageError where the package is missing."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise UsageError("--tensorboard needs the package tensorboard: pip install 'deconvnet[tensorboard]'") from error
    return SummaryWriter
