"""Notebook 4: what is right passes, and the mistakes that students make are told."""

import pytest
import torch
import yaml
from answers import answers, refused

from deconvnet.course import units as check
from deconvnet.course.units import _seen

RIGHT = answers("4_the_top_nine")


@pytest.mark.parametrize("exercise", ["running_top", "health", "selectivity", "write_labels"])
def test_the_solution_is_right(exercise, capsys):
    getattr(check, exercise)(RIGHT[exercise])
    assert capsys.readouterr().out.startswith("Right: ")


@pytest.mark.parametrize("exercise", ["running_top", "health", "selectivity", "write_labels"])
def test_what_is_not_written_yet_passes_through(exercise):
    def mine(*_):
        raise NotImplementedError
    with pytest.raises(NotImplementedError):
        getattr(check, exercise)(mine)


# ---- a running top-k ----


def _collects(offer, key=lambda entry: (-entry[0], *entry[1:]), keep=True):
    """A running top-k of what an image offers, (its map, its number) → entries."""
    def running_top(kept, maps, numbers, k):
        new = [entry for one, number in zip(maps, numbers, strict=True) for entry in offer(one, number)]
        return sorted([*(kept if keep else []), *new], key=key)[:k]
    return running_top


def _peak(one, number, least=0.0):
    y, x = divmod(int(one.argmax()), one.shape[1])
    return [(float(one[y, x]), number, y, x)] if one[y, x] > least else []


def _every(one, number):
    return [(float(one[y, x]), number, y, x) for y, x in (one > 0).nonzero().tolist()]


def _last(one, number):
    place = int((one == one.max()).flatten().nonzero()[-1])
    return [(float(one.max()), number, place // one.shape[1], place % one.shape[1])] if one.max() > 0 else []


def _exchanged(one, number):
    return [(value, n, x, y) for value, n, y, x in _peak(one, number)]


def _by_batch(kept, maps, numbers, k):
    return RIGHT["running_top"](kept, maps, list(range(len(numbers))), k)


def _topk(kept, maps, numbers, k):
    values, rows = maps.flatten(1).amax(1).topk(min(k, len(maps)))
    return [(float(v), numbers[r], *divmod(int(maps[r].argmax()), maps.shape[2])) for v, r in zip(values, rows.tolist(),
                                                                                                strict=True)]


@pytest.mark.parametrize(("wrong", "words"), [
    (_collects(_every), "two strong positions.* Likely cause: an image may give only its strongest position"),
    (_collects(_peak, keep=False), "Likely cause: what was kept from the batches before"),
    (_collects(_peak, key=lambda entry: -entry[0]), "later one first.*Likely cause: equal values go by the number"),
    (_collects(_peak, key=lambda entry: [-part for part in entry]), "Likely cause: .*reverse=True"),
    (_collects(lambda one, number: _peak(one, number, -9)), "above zero.*Likely cause: only a value above zero"),
    (_collects(_last), "equal values in one map.*Likely cause: of equal values in one map the first counts"),
    (_collects(_exchanged), "Likely cause: y is the row and x the column"),
    (_by_batch, "Likely cause: the image's number in the data set"),
    (lambda *given: RIGHT["running_top"](*given[:3], 99), "Likely cause: no more than k are kept"),
    (_topk, "batch 2 of 2|nothing above zero"),
    (lambda kept, maps, numbers, k: kept.sort(), "gave None. Does it end in return")])
def test_running_top(wrong, words):
    refused(check.running_top, wrong, f"(?s){words}")


# ---- dead and undiscriminating ----


def _health(dead=lambda m: (m > 0).sum(0) == 0, always=lambda m: (m > 0).sum(0) >= 0.99 * len(m)):
    return lambda maxima: (dead(maxima).nonzero()[:, 0], always(maxima).nonzero()[:, 0])


@pytest.mark.parametrize(("wrong", "words"), [
    (_health(dead=lambda m: (m == 0).all(0)), "negative: dead: .*Likely cause: negative values do not fire"),
    (_health(dead=lambda m: m.sum(0) == 0), "dead: .*Likely cause: (negative values|the sum says nothing)"),
    (_health(dead=lambda m: (m > 0).double().mean(0) <= 0.01), "dead: .*Likely cause: a unit that fires once"),
    (_health(dead=lambda m: (m <= 0).any(0)), "dead: .*Likely cause: a dead unit fires in no image"),
    (_health(always=lambda m: (m > 0).double().mean(0) > 0.99), "always: .*Likely cause: at least 99 %"),
    (_health(always=lambda m: (m > 0).all(0)), "always: .*Likely cause: (at least 99 %|in every image)"),
    (_health(always=lambda m: (m >= 0).double().mean(0) >= 0.99), "always: .*Likely cause: zero does not fire"),
    (lambda m: ((m > 0).sum(0) == 0, (m > 0).all(0)), "Likely cause: these are True and False"),
    (lambda m: [part[:, None] for part in _health()(m)], "Likely cause: nonzero.. gives a row for each"),
    (lambda m: (_health()(m)[0], _health()(m)[1][:, None]), "always: .*Likely cause: nonzero.. gives a row for each"),
    (lambda m: (m > 0).sum(0) == 0, "two lists are to come")])
def test_health(wrong, words):
    refused(check.health, wrong, f"(?s){words}")


@pytest.mark.parametrize("fired", [lambda m: (m > 0).float().mean(0), lambda m: (m > 0).double().mean(0)])
def test_a_share_in_floats_is_accepted(fired):
    check.health(lambda m: ((fired(m) == 0).nonzero()[:, 0].tolist(), (fired(m) >= 0.99).nonzero()[:, 0].tolist()))


def test_sets_of_numbers_are_accepted():
    check.health(lambda m: tuple(set(part.tolist()) for part in _health()(m)))


# ---- class selectivity ----


def _index(maxima, labels, classes=None, rest=None, divide=None, clean=True, of=torch.mean):
    classes = labels.unique() if classes is None else classes
    means = torch.stack([of(maxima[labels == c], 0) if (labels == c).any() else maxima[0] * 0 for c in classes])
    highest = means.amax(0)
    other = rest(means, highest) if rest else (means.sum(0) - highest) / (len(means) - 1)
    found = (highest - other) / (divide(highest, other) if divide else highest + other)
    return found.nan_to_num() if clean else found


def _pooled(maxima, labels):
    means = torch.stack([maxima[labels == c].mean(0) for c in labels.unique()])
    best = labels.unique()[means.argmax(0)]
    rest = torch.stack([maxima[labels != c, unit].mean() for unit, c in enumerate(best)])
    return ((means.amax(0) - rest) / (means.amax(0) + rest)).nan_to_num()


@pytest.mark.parametrize(("wrong", "words"), [
    (_pooled, "1, 3 and 16.*Likely cause: μ_rest is the mean of the other classes' means"),
    (lambda m, c: _index(m, c, rest=lambda means, _: means.mean(0)), "Likely cause: μ_rest is of the other classes"),
    (lambda m, c: _index(m, c, rest=lambda means, _: means.sort(0).values[-2]), "Likely cause: .*not the second best"),
    (lambda m, c: _index(m, c, divide=lambda highest, _: highest), "Likely cause: what is divided by is μ_max"),
    (lambda m, c: _index(m, c, classes=range(int(c.max()) + 1)), "no image.*Likely cause: a class without images"),
    (lambda m, c: _index(m, c, rest=lambda means, _: means[0] * torch.nan, clean=False), "A class without images"),
    (lambda m, c: _index(m, c, clean=False), "a dead unit beside another: .*divides 0 by 0"),
    (lambda m, c: _index(m, c, of=torch.sum), "Likely cause: the sums of the classes"),
    (lambda m, c: _index(m, c).mean(), r"shape \(\) came")])
def test_selectivity(wrong, words):
    refused(check.selectivity, wrong, f"(?s){words}")


def test_the_oracle_is_the_scan_itself():
    maxima = torch.rand(9, 4) - 0.3
    labels = torch.tensor([0, 1, 2] * 3)
    found = _seen(maxima, labels)
    assert found.fired.tolist() == (maxima > 0).sum(0).tolist() and found.class_counts.tolist() == [3, 3, 3]


# ---- labels ----


def _lines(labels, sizes):
    return "".join(f"{address}: {words}\n" for address, words in labels.items())


def _quoted(labels, sizes):
    return "".join(f'{address}: "{words}"\n' for address, words in labels.items())


def _no_check(labels, sizes):
    return yaml.safe_dump(labels, allow_unicode=True)


def _checks(raises=lambda address, unit, sizes, layer: None):
    def write_labels(labels, sizes):
        for address in labels:
            layer, _, unit = address.partition(":")
            raises(address, unit, sizes, layer)
        return yaml.safe_dump(labels, allow_unicode=True)
    return write_labels


def _too_many(address, unit, sizes, layer):
    if int(unit) > sizes[layer]:
        raise ValueError(address)


def _no_name(address, unit, sizes, layer):
    if layer not in sizes or not unit.isdigit() or int(unit) >= sizes[layer]:
        raise ValueError("no such unit")


@pytest.mark.parametrize(("wrong", "words"), [
    (_lines, "a colon, a #.*no YAML reader can read.*let yaml.safe_dump"),
    (_quoted, "(no YAML reader can read|read back)"),
    (lambda labels, sizes: _lines({a: w.replace(": ", " ").replace("#", "") for a, w in labels.items()}, sizes),
     "let yaml.safe_dump put the quotes"),
    (lambda labels, sizes: "\n".join(f"{address}: {words}" if words.isalpha() else f"{address}: {words!r}"
                                     for address, words in labels.items()), "a colon.*let yaml.safe_dump"),
    (lambda labels, sizes: str(labels) if len(labels) < 3 else _lines(labels, sizes), "a colon"),
    (lambda labels, sizes: yaml.safe_dump(labels), "allow_unicode=True leaves letters"),
    (_no_check, "'conv5:256': the units of conv5 are 0 to 255. A ValueError is expected; this came"),
    (_checks(_too_many), "'conv5:256': the units of conv5 are 0 to 255"),
    (_checks(_no_name), "'conv5:256': a ValueError came, as it should, but it does not name the address"),
    (_checks(lambda address, unit, sizes, layer: range(sizes[layer])[int(unit)]),
     "'conv5:256': .*raised IndexError: .*a ValueError that names the address"),
    (lambda labels, sizes: labels, "text is to come, and a dict came")])
def test_write_labels(wrong, words):
    refused(check.write_labels, wrong, f"(?s){words}")
