"""Table 7: how good the features of each layer are, by a linear classifier upon each of them, frozen."""

from typing import Annotated

from pydantic import Field

from ..exhibit import Row, Table
from ..settings import Part
from ..transfer.classifiers import Kind
from ..transfer.trial import TOYS, Trial, numbers

PAPER: dict[tuple[Kind, int], tuple[str, str]] = {  # classifier, layer: Caltech-101 from 30, Caltech-256 from 60
    ("svm", 1): ("44.8 ± 0.7", "24.6 ± 0.4"), ("svm", 2): ("66.2 ± 0.5", "39.6 ± 0.3"),
    ("svm", 3): ("72.3 ± 0.4", "46.0 ± 0.3"), ("svm", 4): ("76.6 ± 0.4", "51.3 ± 0.1"),
    ("svm", 5): ("86.2 ± 0.8", "65.6 ± 0.3"), ("svm", 7): ("85.5 ± 0.4", "71.7 ± 0.2"),
    ("softmax", 5): ("82.9 ± 0.4", "65.7 ± 0.5"), ("softmax", 7): ("85.4 ± 0.4", "72.6 ± 0.1"),
}


class Probe(Part):
    """A classifier upon a layer."""

    layer: Annotated[str, Field(min_length=1, description="whose features are used")]
    classifier: Annotated[Kind, Field(description="svm or softmax")] = "svm"
    like: Annotated[int | None, Field(ge=1, le=8, description="the paper's layer to stand beside; none: no one")] = None


PROBES = (
    Probe(layer="pool1", like=1), Probe(layer="pool2", like=2), Probe(layer="conv3", like=3),
    Probe(layer="conv4", like=4), Probe(layer="pool5", like=5), Probe(layer="fc7", like=7),
    Probe(layer="pool5", classifier="softmax", like=5), Probe(layer="fc7", classifier="softmax", like=7),
)


class Settings(Trial):
    """Which layers, and how many images a class."""

    probes: Annotated[tuple[Probe, ...], Field(min_length=1, description="classifiers, a row each")] = PROBES
    per_class: Annotated[int, Field(ge=1, description="images a class; the paper's 30 (Caltech-101), 60 (256)")] = 10
    leave_out: Annotated[tuple[str, ...], Field(description="classes that do not count")] = (
        "BACKGROUND_Google", "257.clutter", *TOYS)


def make(settings: Settings, progress: bool = True) -> Table:
    """The table, after one forward pass over all images for all layers."""
    ready = settings.prepare("table 7", [settings.per_class])
    results = ready.measure(((probe.classifier, probe.layer, settings.per_class) for probe in settings.probes),
                            progress)
    rows: list[Row] = []
    for probe in settings.probes:
        accuracy = results[probe.classifier, probe.layer, settings.per_class]
        paper = PAPER.get((probe.classifier, probe.like or 0), (None, None))
        rows.append([f"{probe.classifier} ({probe.layer})", accuracy.values, str(accuracy), *paper])
    heads = ["classifier (layer)", "values", f"{settings.per_class} a class, %",
             "paper: Caltech-101, 30, %", "paper: Caltech-256, 60, %"]
    return Table(heads, rows, _caption(f"Table 7 for {ready}. {ready.caption()}"), ready.origin,
                 {"results": numbers(results)})


def _caption(text: str) -> str:
    return f"{text} The paper's network was trained on ImageNet; it does not say how large its early features were."
