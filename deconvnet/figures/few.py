"""Figure 9: accuracy against the number of training images a class, upon frozen features, with the paper's curves."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from ..exhibit import Exhibit
from ..transfer.classifiers import Kind
from ..transfer.trial import TOYS, Trial, numbers

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Curve:
    """Accuracy (n,) in percent at numbers of images a class (n,), with deviations (n,) where there are any."""

    name: str
    counts: Sequence[int]
    accuracy: Sequence[float]
    deviation: Sequence[float] | None = None


PAPER = (  # Caltech-256; of the paper's own drawing, whose points at 15, 30, 45 and 60 are those of its Table 5
    Curve("the paper's network (Caltech-256)", (1, 2, 3, 4, 5, 6, 7, 10, 15, 30, 45, 60),
          (27.2, 39.2, 46.2, 51.8, 54.9, 57.0, 58.9, 62.6, 65.7, 70.6, 72.7, 74.2),
          (0.9, 2.3, 0.8, 0.3, 0.4, 0.6, 0.6, 0.5, 0.2, 0.2, 0.4, 0.3)),
    Curve("Bo et al. 2013 (Caltech-256)", (15, 30, 45, 60), (40.5, 48.0, 51.9, 55.2), (0.4, 0.2, 0.2, 0.3)),
    Curve("Sohn et al. 2011 (Caltech-256)", (15, 30, 45, 60), (35.1, 42.1, 45.7, 47.9)),
)
BEST = 55.2  # the best before the paper, its dashed line
OURS = "#000000"
THEIRS = (("#6f9fd8", "o"), ("#d98080", "s"), ("#7fb77f", "^"))  # the paper's colours, paler: they lie behind


class Settings(Trial):
    """Which layer, and which numbers of images a class."""

    layer: Annotated[str, Field(min_length=1, description="whose features are used; the paper's are of layer 7")] = \
        "fc7"
    classifier: Annotated[Kind, Field(description="svm or softmax")] = "svm"
    per_class: Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(
        min_length=1, description="images a class to learn from, a point each")] = (1, 2, 3, 4, 5, 6, 7, 10, 15)
    leave_out: Annotated[tuple[str, ...], Field(description="classes that do not count")] = (
        "BACKGROUND_Google", "257.clutter", *TOYS)
    paper: Annotated[bool, Field(description="draw the paper's curves behind, which are of Caltech-256")] = True


def make(settings: Settings, progress: bool = True) -> Exhibit:
    """The figure, after one forward pass over all images."""
    counts = sorted(set(settings.per_class))
    ready = settings.prepare("figure 9", counts)
    results = ready.measure([(settings.classifier, settings.layer, count) for count in counts], progress)
    found = list(results.values())
    knows = f", features from {settings.learned.per_class} of these a class" if settings.learned else ""
    ours = Curve(f"{ready} on {ready.origin['images']}{knows}", counts, [one.mean for one in found],
                 [one.deviation for one in found])
    drawing = draw(ours, PAPER if settings.paper else (), BEST if settings.paper else None)
    behind = ("Behind: the paper's curves, which are of Caltech-256, and its dashed line, the best result before it; "
              "they are not measured here.") if settings.paper else ""
    caption = (f"Figure 9 for {ready}: accuracy against training images a class, {settings.classifier} upon "
               f"{settings.layer}; bars are one standard deviation. {ready.caption()} {behind}")
    return Exhibit(drawing, {"results": numbers(results)}, caption.strip(), ready.origin)


def draw(ours: Curve, theirs: Sequence[Curve] = (), best: float | None = None) -> "Figure":
    """The curve of ours over those of others, and a dashed line at the best result before."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4.8), layout="constrained")
    axes = figure.subplots()
    for curve, (colour, marker) in zip(theirs, THEIRS, strict=False):
        _plot(axes, curve, colour, marker, 1.2)
    if best is not None:
        axes.axhline(best, color="black", linestyle="--", linewidth=1)
        axes.annotate(f"{best:g}", (1, best), xycoords=("axes fraction", "data"), xytext=(3, 0),
                      textcoords="offset points", va="center")
    _plot(axes, ours, OURS, "o", 1.8)
    axes.set(xlabel="training images a class", ylabel="accuracy, mean of classes, %", ylim=(0, 100))
    axes.set_xlim(0, 1.04 * max(max(curve.counts) for curve in (ours, *theirs)))
    axes.grid(alpha=0.3)
    handles, labels = axes.get_legend_handles_labels()
    axes.legend([handles[-1], *handles[:-1]], [labels[-1], *labels[:-1]], loc="lower right", frameon=False,
                fontsize="small")  # ours first, though drawn last
    return figure


def _plot(axes: "Axes", curve: Curve, colour: str, marker: str, width: float) -> None:
    axes.errorbar(curve.counts, curve.accuracy, yerr=curve.deviation, color=colour, label=_plain(curve.name),
                  linewidth=width, marker=marker, markersize=3.5, capsize=2.5)


def _plain(name: str) -> str:
    """A name that is drawn as it is: matplotlib takes what stands between dollars for a formula."""
    return name.replace("$", r"\$")
