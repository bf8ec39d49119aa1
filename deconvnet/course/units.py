"""Checks of notebook 4: the top nine, dead and undiscriminating units, selectivity, labels."""

from collections.abc import Callable, Mapping, Sequence

import torch
import yaml
from torch import Tensor, nn

from ..scan import scan
from ..scanned import LayerScan
from ..topk import TopK
from . import Wrong, case, close, right

Entry = tuple[float, int, int, int]  # value, image, y, x


# ---- a running top-k ----


def running_top(function: Callable) -> None:
    """Checks ``running_top(kept, maps, numbers, k)`` → the k strongest (value, image, y, x), in the total order."""
    for words, k, batches in _runs():
        oracle, kept = TopK(1, k), list[Entry]()
        for place, (maps, numbers) in enumerate(batches):
            oracle.update(maps[:, None], torch.tensor(numbers))
            where = f"{words}, batch {place + 1} of {len(batches)} (images {numbers}, k = {k})"
            given = case(where, function, kept, maps, numbers, k)
            expected = _entries(oracle)
            mistakes = {cause: wrong(kept, maps, numbers, k) for cause, wrong in _RUNNING.items()}
            close(where, given, expected, mistakes)
            kept = expected
    right("the same nine, in the same order, for any batches.")


def _runs() -> list[tuple[str, int, list[tuple[Tensor, list[int]]]]]:
    """Name, k and the batches (maps, numbers of their images) of each case."""
    def maps(*rows: Sequence[Sequence[float]]) -> Tensor:
        return torch.tensor(rows, dtype=torch.float32)

    plain = maps([[1, 2], [3, 0]], [[9, 0], [0, 0]], [[0, 4], [0, 0]])
    generator = torch.Generator().manual_seed(0)
    rough = torch.randint(-2, 4, (12, 3, 5), generator=generator).float()
    order = torch.randperm(12, generator=generator).tolist()
    return [
        ("three images", 2, [(plain, [0, 1, 2])]),
        ("an image with two strong positions", 3, [(maps([[7, 8], [0, 0]], [[1, 0], [0, 2]]), [0, 1])]),
        ("equal values in one map", 1, [(maps([[0, 5, 1], [5, 0, 5]]), [4])]),
        ("a map with a value only at the end of its first row", 1, [(maps([[0, 0, 6], [0, 0, 0]]), [4])]),
        ("equal values in two images", 1, [(maps([[5, 0]], [[0, 5]]), [2, 9])]),
        ("equal values in two images, the later one first", 1, [(maps([[5, 0]]), [9]), (maps([[0, 5]]), [2])]),
        ("nothing above zero", 2, [(maps([[0, -1]], [[-3, -2]]), [0, 1])]),
        ("fewer than k", 5, [(maps([[0, 1]], [[0, 0]]), [0, 1]), (maps([[2, 0]]), [2])]),
        ("batches", 4, [(rough[order[a:b]], order[a:b]) for a, b in [(0, 5), (5, 6), (6, 12)]]),
    ]


def _entries(top: TopK) -> list[Entry]:
    rows = zip(top.values[0].tolist(), top.images[0].tolist(), top.positions[0].tolist(), strict=True)
    return [(value, image, y, x) for value, image, (y, x) in rows if image >= 0]


def _peaks(maps: Tensor, numbers: Sequence[int], every: bool = False, last: bool = False, least: float = 0
           ) -> list[Entry]:
    """The strongest position of each image, or ``every`` one; of equals the first, or the ``last``."""
    found = []
    for one, number in zip(maps, numbers, strict=True):
        cells = [(float(one[y, x]), int(number), y, x) for y in range(one.shape[0]) for x in range(one.shape[1])]
        best = [cell for cell in cells if cell[0] == max(cells)[0]][-1 if last else 0]
        found += [cell for cell in (cells if every else [best]) if cell[0] > least]
    return found


def _best(entries: list[Entry], k: int) -> list[Entry]:
    return sorted(entries, key=lambda entry: (-entry[0], *entry[1:]))[:k]


_RUNNING: Mapping[str, Callable[[list[Entry], Tensor, list[int], int], list[Entry]]] = {
    "an image may give only its strongest position": lambda kept, maps, numbers, k:
        _best(kept + _peaks(maps, numbers, every=True), k),
    "what was kept from the batches before must stay in the race": lambda kept, maps, numbers, k:
        _best(_peaks(maps, numbers), k),
    "equal values go by the number of their image, not by which came first": lambda kept, maps, numbers, k:
        sorted(kept + _peaks(maps, numbers), key=lambda entry: -entry[0])[:k],
    "equal values go by the smaller image number, and sort(reverse=True) turns that around too":
        lambda kept, maps, numbers, k: sorted(kept + _peaks(maps, numbers), reverse=True)[:k],
    "only a value above zero is an activation": lambda kept, maps, numbers, k:
        _best(kept + _peaks(maps, numbers, least=-torch.inf), k),
    "of equal values in one map the first counts, row by row": lambda kept, maps, numbers, k:
        _best(kept + _peaks(maps, numbers, last=True), k),
    "y is the row and x the column; they are exchanged": lambda kept, maps, numbers, k:
        _best(kept + [(value, n, x, y) for value, n, y, x in _peaks(maps, numbers)], k),
    "the image's number in the data set is in `numbers`, its place in the batch is something else":
        lambda kept, maps, numbers, k: _best(kept + _peaks(maps, list(range(len(numbers)))), k),
    "no more than k are kept": lambda kept, maps, numbers, k:
        _best(kept + _peaks(maps, numbers), len(kept) + len(numbers)),
}


# ---- dead and undiscriminating ----


def health(function: Callable) -> None:
    """Checks ``health(maxima)`` → the dead units and those that fire in at least 99 % of the images."""
    for words, maxima in _healths():
        found = _seen(maxima)
        given = case(words, function, maxima)
        if not isinstance(given, tuple | list) or len(given) != 2:
            raise Wrong(f"{words}: two lists are to come, (dead, always); this came: {given!r}")
        dead, always = (sorted(part) if isinstance(part, set) else part for part in given)
        fired = (maxima > 0).double().mean(0)
        column = "nonzero() gives a row for each; its first column has the numbers, nonzero()[:, 0]"
        close(f"{words}: dead", dead, found.dead, {
            column: found.dead[:, None],
            "a unit that fires once is not dead": (fired <= 0.01).nonzero()[:, 0],
            "negative values do not fire, and a unit that has only those is dead too":
                (maxima == 0).all(0).nonzero()[:, 0],
            "these are True and False; the numbers of the units are to come": found.fired == 0,
            "the sum says nothing where values are negative": (maxima.sum(0) == 0).nonzero()[:, 0],
            "a dead unit fires in no image; these fail to fire in some image": (maxima <= 0).any(0).nonzero()[:, 0]})
        close(f"{words}: always", always, found.always, {
            column: found.always[:, None],
            "at least 99 %: a unit that fires in exactly 99 % belongs to them": (fired > 0.99).nonzero()[:, 0],
            "in every image is more than is asked for": (fired == 1).nonzero()[:, 0],
            "zero does not fire: above zero is to be counted": ((maxima >= 0).double().mean(0) >= 0.99).nonzero()[:, 0],
            "these are True and False; the numbers of the units are to come": fired >= 0.99})
    right("dead units fire nowhere, undiscriminating ones nearly everywhere.")


def _healths() -> list[tuple[str, Tensor]]:
    """Name and maxima (images, units) of each case."""
    images = torch.arange(100.0)[:, None]                                        # (100, 1)
    counts = torch.tensor([[0, 1, 50, 98, 99, 100]])                             # in how many images each fires
    rectified = (images < counts).float() * (1 + images)                         # (100, 6)
    signed = torch.where(images < counts, 1 + images, -2.0)                      # as a convolution puts it out
    signed[1::2, 0] = 0
    cancelling = torch.tensor([[2.0, -1, 0], [-2, -1, 0], [0, -3, 0], [1, -1, 0]])
    return [("units that fire in 0, 1, 50, 98, 99 and 100 of 100 images", rectified),
            ("the same before the ReLU, where values are negative", signed),
            ("four images, the values of unit 0 both positive and negative", cancelling)]


def _seen(maxima: Tensor, labels: Tensor | None = None) -> LayerScan:
    """What a scan says of units with these maxima (images, units)."""
    maps = maxima[..., None, None]                                               # (images, units, 1, 1)
    images = maps if labels is None else [(maps, labels)]
    return scan(nn.Sequential(nn.Identity()).eval(), images, layers=["0"], k=1)["0"]


# ---- class selectivity ----


def selectivity(function: Callable) -> None:
    """Checks ``selectivity(maxima, labels)`` → (μ_max − μ_rest) / (μ_max + μ_rest) of each unit."""
    for words, maxima, labels in _selective():
        given = case(words, function, maxima, labels)
        if isinstance(given, Tensor) and given.isnan().any():
            why = ("A class without images has no mean, and does not count" if given.isnan().all()
                   else "A unit that is dead divides 0 by 0; its selectivity is 0")
            raise Wrong(f"{words}: {given.tolist()} came. {why}")
        close(words, given, _seen(maxima, labels).selectivity, _wrong_selectivities(maxima, labels), tolerance=1e-4)
    right("0 for all classes alike, 1 for a unit that fires for one class only.")


def _selective() -> list[tuple[str, Tensor, Tensor]]:
    """Name, maxima (images, units) and labels of each case."""
    maxima = torch.tensor([[4.0, 3, 0], [2, 3, 0], [0, 3, 5], [0, 3, 1], [0, 3, 0], [0, 3, 0]])
    generator = torch.Generator().manual_seed(0)
    rough = torch.rand(20, 6, generator=generator) + 0.1
    return [
        ("three classes of two images; unit 0 fires for one class only, unit 1 alike for all", maxima,
         torch.tensor([0, 0, 1, 1, 2, 2])),
        ("classes of 1, 3 and 16 images", rough, torch.tensor([0] + [1] * 3 + [2] * 16)),
        ("a class between that has no image", rough[:6], torch.tensor([0, 0, 3, 3, 1, 1])),
        ("a dead unit beside another", torch.tensor([[0.0, 1], [0, 3]]), torch.tensor([0, 1])),
    ]


def _wrong_selectivities(maxima: Tensor, labels: Tensor) -> dict[str, Tensor]:
    classes = labels.unique().tolist()
    means = torch.stack([maxima[labels == c].mean(0) for c in classes])          # (classes, units)
    highest, preferred = means.max(0)
    rest = (means.sum(0) - highest) / (len(classes) - 1)
    others = torch.stack([maxima[labels != classes[int(c)], unit].mean() for unit, c in enumerate(preferred)])
    every = torch.stack([maxima[labels == c].mean(0) if (labels == c).any() else torch.zeros(maxima.shape[1])
                         for c in range(int(labels.max()) + 1)])
    absent = (every.sum(0) - highest) / (len(every) - 1)

    def index(against: Tensor) -> Tensor:
        return ((highest - against) / (highest + against)).nan_to_num()

    return {
        "μ_rest is the mean of the other classes' means, however many images each has": index(others),
        "μ_rest is of the other classes; the preferred one is among them here": index(means.mean(0)),
        "a class without images has no mean, and does not count": index(absent),
        "μ_rest is the mean of the other classes, not the second best": index(means.sort(0).values[-2]),
        "what is divided by is μ_max + μ_rest": ((highest - rest) / highest).nan_to_num(),
        "the sums of the classes are not their means": _index_of_sums(maxima, labels, classes),
    }


def _index_of_sums(maxima: Tensor, labels: Tensor, classes: list[int]) -> Tensor:
    sums = torch.stack([maxima[labels == c].sum(0) for c in classes])
    highest = sums.amax(0)
    rest = (sums.sum(0) - highest) / (len(classes) - 1)
    return ((highest - rest) / (highest + rest)).nan_to_num()


# ---- labels ----


def write_labels(function: Callable) -> None:
    """Checks ``write_labels(labels, sizes)`` → YAML of addresses and words; ValueError for a unit that is not."""
    sizes = {"conv3": 384, "conv5": 256}
    for words, labels in _LABELS.items():
        text = case(words, function, labels, sizes)
        if not isinstance(text, str):
            raise Wrong(f"{words}: text is to come, and a {type(text).__name__} came")
        try:
            read = yaml.safe_load(text) if text else None
        except yaml.YAMLError as error:
            raise Wrong(f"{words}: no YAML reader can read\n{text}\n{error}. A colon followed by a space, or a # after "
                        "one, means something in YAML: let yaml.safe_dump put the quotes") from error
        if (read or {}) != labels:
            raise Wrong(f"{words}: read back, your text\n{text}\nis {read!r}; expected was {labels!r}. YAML takes an "
                        "unquoted no for False and 12 for a number, and drops what follows a #: let yaml.safe_dump put "
                        "the quotes")
        if not text.isascii() or "\\u" not in text:
            continue
        raise Wrong(f"{words}: read back, it is right, but no one wants to read\n{text}\nallow_unicode=True leaves "
                    "letters as they are")
    for address, trouble in _NO_UNITS.items():
        _refuses(function, {"conv5:3": "eyes", address: "wheels"}, sizes, address, trouble)
    right("every label comes back as it was, and none names a unit that does not exist.")


_LABELS: dict[str, dict[str, str]] = {
    "two labels": {"conv5:147": "wheels", "conv3:8": "mesh"},
    "labels with a colon, a #, quotes and two lines": {
        "conv5:0": "wheels: of bicycles", "conv5:1": "rim # not the tyre", "conv3:2": "'round' \"things\"",
        "conv3:3": "top\nbottom"},
    "labels that YAML would take for something else": {
        "conv5:1": "no", "conv5:2": "12", "conv5:3": "null", "conv5:255": "1e3"},
    "a label with letters beyond ASCII": {"conv3:383": "Rüssel, größer → nose"},
    "no labels at all": {},
}
_NO_UNITS = {
    "conv5:256": "the units of conv5 are 0 to 255", "conv5:-1": "no unit has a negative number",
    "conv9:3": "there is no layer conv9", "conv5": "an address has a layer, a colon and a number",
    "conv5:three": "a unit is a number",
}


def _refuses(function: Callable, labels: dict[str, str], sizes: dict[str, int], address: str, trouble: str) -> None:
    words = f"a label for {address!r}"
    try:
        text = function(dict(labels), dict(sizes))
    except NotImplementedError:
        raise
    except ValueError as error:
        if address not in str(error):
            raise Wrong(f"{words}: a ValueError came, as it should, but it does not name the address, and somebody "
                        f"with a hundred labels would look for it: {error}") from error
    except Exception as error:
        raise Wrong(f"{words}: {trouble}. Your function raised {type(error).__name__}: {error}; a ValueError that "
                    "names the address is expected") from error
    else:
        raise Wrong(f"{words}: {trouble}. A ValueError is expected; this came: {text!r}")
