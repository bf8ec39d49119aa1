"""What Tables 4 and 5 share: frozen features of one layer, a new classifier, and some numbers of images a class."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Literal

from pydantic import Field

from ..exhibit import Row, Table
from ..settings import Part
from ..transfer.classifiers import Kind
from ..transfer.trial import Learned, Prepared, Trial, numbers

Like = Literal["scratch", "pretrained"]


class Another(Part):
    """One more network, on the same images, for a row of its own."""

    model: Annotated[str, Field(min_length=1, description="as --model of deconvnet scan")]
    weights: Annotated[str | None, Field(description="as --weights of deconvnet scan")] = None
    layer: Annotated[str, Field(min_length=1, description="whose features are used")] = "fc7"
    classifier: Kind = "svm"
    learned: Learned | None = None
    like: Like = "pretrained"


class Settings(Trial):
    """A network, what it is like in the paper, and further ones."""

    layer: Annotated[str, Field(min_length=1, description="whose features are used; the paper's are of layer 7")] = \
        "fc7"
    classifier: Annotated[Kind, Field(description="svm or softmax")] = "svm"
    like: Annotated[Like, Field(description="the row of the paper to stand beside")] = "pretrained"
    per_class: Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(
        min_length=1, description="images a class to learn from")] = (5, 10)
    also: Annotated[tuple[Another, ...], Field(description="further networks on the same images")] = ()


def compare(number: str, settings: Settings, paper: Mapping[str, Mapping[int, str]], rows: Mapping[Like, str],
            progress: bool) -> Table:
    """Table ``number``: a row for each network beside the paper's; ``paper`` has its rows, by images a class."""
    trials = [settings, *(settings.model_copy(update=dict(another)) for another in settings.also)]
    ready = [trial.prepare(f"table {number}", settings.per_class) for trial in trials]
    lines, found = [], []
    for trial, prepared in zip(trials, ready, strict=True):
        line, data = _measured(trial, prepared, progress)
        lines.append([*line, *_paper(paper[rows[trial.like]])])
        found.append({"network": str(prepared), "results": data})
    blank = [None] * (1 + len(settings.per_class))
    others = [[name, *blank, *_paper(values)] for name, values in paper.items()]
    counts = next(iter(paper.values()))
    heads = ["network", "features", *(f"{n} a class, %" for n in settings.per_class),
             *(f"paper: {n}, %" for n in counts)]
    return Table(heads, [*lines, *others], _caption(number, ready, trials, rows), ready[0].origin | _others(ready),
                 {"networks": found})


def _measured(trial: Settings, prepared: Prepared, progress: bool) -> tuple[list[str], list[dict[str, object]]]:
    wanted = [(trial.classifier, trial.layer, count) for count in trial.per_class]
    results = prepared.measure(wanted, progress)
    return [str(prepared), f"{trial.layer}, {trial.classifier}", *(str(results[one]) for one in wanted)], \
        numbers(results)


def _paper(values: Mapping[int, str]) -> Row:
    return [text or None for text in values.values()]


def _others(ready: Sequence[Prepared]) -> dict[str, object]:
    return {"also": [one.origin for one in ready[1:]]} if ready[1:] else {}


def _caption(number: str, ready: Sequence[Prepared], trials: Sequence[Settings], rows: Mapping[Like, str]) -> str:
    which = "; ".join(f"{one} beside the paper's “{rows[trial.like]}”"
                      for one, trial in zip(ready, trials, strict=True))
    each = list(dict.fromkeys(one.caption() for one in ready))
    deviations = ("The paper's networks are trained on ImageNet, with a softmax on top of layer 7; its network from "
                  "scratch is trained on these images whole, with no classifier of its own upon it.")
    return f"Table {number}: {which}. {' '.join(each)} {deviations}"
