"""Checks of notebook 7: what deconvnets do not show."""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..tape import Call, Tape, record
from ..windows import Signal
from . import Wrong, case, close, right

# ---- how alike two pictures are ----


def likeness(function: Callable) -> None:
    """Checks ``likeness(one, other, inside)`` → Pearson's r within the image, None where one picture is even."""
    random = np.random.default_rng(0)
    one = random.normal(size=(3, 6, 8))
    everywhere, half = np.ones((6, 8), bool), np.arange(8) < np.full((6, 1), 4)
    related, unrelated = one + random.normal(size=one.shape), random.normal(size=one.shape)
    for words, other, inside in [
            ("a picture and itself", one, everywhere),
            ("a picture and its negative", -one, everywhere),
            ("a picture and the same, twice as bright and lighter by 3", 2 * one + 3, everywhere),
            ("two pictures that have something in common", related, everywhere),
            ("two pictures that have nothing in common", unrelated, everywhere),
            ("two pictures of which the right half lies outside the image", related, half),
            ("two pictures that differ inside and are equal outside", np.where(half, unrelated, one), half)]:
        mistakes = {"the pixels outside the image are counted too": _r(one, other, everywhere),
                    "the means are not subtracted": _cosine(one, other, inside),
                    "it is the strength that is compared, so that the sign is lost": _r(abs(one), abs(other), inside),
                    "the colours are averaged first": _r(one.mean(0, keepdims=True), other.mean(0, keepdims=True),
                                                         inside),
                    "the root is missing below the fraction": _without_root(one, other, inside)}
        close(words, case(words, function, one, other, inside), _r(one, other, inside), mistakes)
    for words, even in ("a picture of zeros", np.zeros_like(one)), ("a picture that is 0.5 everywhere", one * 0 + 0.5):
        for pair in (one, even), (even, one):
            _none(f"a picture and {words}", case(words, function, *pair, half))
    right("r is taken within the image, is blind to contrast and offset, and keeps the sign.")


def _none(words: str, given: Any) -> None:
    if given is not None:
        raise Wrong(f"{words}: {given!r} came; expected was None. Where every pixel is the same the sum below the "
                    "fraction is 0, and there is no correlation, not even 0")


def _r(one: np.ndarray, other: np.ndarray, inside: np.ndarray) -> float:
    return float(np.corrcoef(one[:, inside].ravel(), other[:, inside].ravel())[0, 1])


def _cosine(one: np.ndarray, other: np.ndarray, inside: np.ndarray) -> float:
    a, b = one[:, inside].ravel(), other[:, inside].ravel()
    return float(a @ b / np.sqrt((a @ a) * (b @ b)))


def _without_root(one: np.ndarray, other: np.ndarray, inside: np.ndarray) -> float:
    a, b = (picture[:, inside].ravel() - picture[:, inside].mean() for picture in (one, other))
    return float(a @ b / ((a @ a) * (b @ b)))


# ---- a rule of one's own ----


def rectify_and_note(function: Callable) -> None:
    """Checks ``rectify_and_note(call, signal, lost)`` → [signal], rectified, with its loss noted in ``lost``."""
    net = nn.Sequential()
    net.add_module("conv1", nn.Conv2d(3, 2, 1))
    net.add_module("relu1", nn.ReLU())
    call = record(net.eval(), torch.ones(1, 3, 2, 2)).calls[-1]
    for words, values in [("a signal of 6, −3, −2 and 1", [6.0, -3.0, -2.0, 1.0]),
                          ("a signal that is positive throughout", [1.0, 2.0, 3.0, 4.0]),
                          ("a signal that is negative throughout", [-1.0, -2.0, -3.0, -4.0]),
                          ("a signal of zeros", [0.0, 0.0, 0.0, 0.0])]:
        _check_rule(words, function, call, torch.tensor(values).reshape(1, 1, 2, 2).repeat(1, 2, 1, 1))
    right("it is the deconvnet's rule, and its loss is the share of the signal's strength that was negative.")


def _check_rule(words: str, function: Callable, call: Call, values: Tensor) -> None:
    signal = Signal(values.clone(), torch.tensor([[3, 5]]), torch.tensor([0]))
    lost: list[Any] = []
    made = case(words, partial(function, call, signal, lost))  # themselves, to see whether they are changed
    if not torch.equal(signal.values, values):
        raise Wrong(f"{words}: your function has changed the signal that it was given, which another branch may need "
                    "too. Make a new one with replace(signal, values=…)")
    if not (isinstance(made, list) and len(made) == 1 and isinstance(made[0], Signal)):
        raise Wrong(f"{words}: {type(made).__name__} came; expected was a list of one Signal, for a rule gives a "
                    "signal for each input of its call: return [replace(signal, values=…)]")
    close(f"{words}, what is left of it", made[0].values, values.clamp(min=0), {
        "the negative part is kept instead of the positive": values.clamp(max=0), "nothing is rectified": values,
        "the size is taken": values.abs()})
    if not (torch.equal(made[0].origin, signal.origin) and torch.equal(made[0].image, signal.image)):
        raise Wrong(f"{words}: origin or image of the signal has changed; a ReLU leaves both as they are")
    if len(lost) != 1 or not isinstance(lost[0], tuple) or len(lost[0]) != 2 or lost[0][0] != call.module:
        raise Wrong(f"{words}: {lost!r} is in lost; expected was one entry ({call.module!r}, share), by "
                    "lost.append((call.module, share))")
    _check_share(f"{words}, the share that is lost", lost[0][1], values)


def _check_share(words: str, given: Any, values: Tensor) -> None:
    total, negative = float(values.abs().sum()), float(values.clamp(max=0).abs().sum())
    share = negative / total if total else 0.0
    if not total and given != given:  # NaN is the only value that differs from itself
        raise Wrong(f"{words}: NaN came, since 0 was divided by 0; expected was 0 where there is no signal")
    close(words, given, share, {
        "it is the share of the cells, not of the strength": float((values < 0).float().mean()),
        "it is the share that is kept": 1 - share,
        "it has the sign of what is lost": -share,
        "it is an amount, which is to be divided by the signal's strength, Σ |signal|": negative,
        "it is divided by what is kept": negative / max(total - negative, 1e-9)})


# ---- the switches of another image ----


def with_switches_of(function: Callable) -> None:
    """Checks ``with_switches_of(tape, other)`` → a copy of the tape with the other's switches."""
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.MaxPool2d(3, 2), nn.Conv2d(4, 5, 3, padding=1), nn.ReLU(),
                        nn.MaxPool2d(2)).eval()
    images = torch.randn(2, 1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    tape, other = (record(net, image) for image in images)
    before = _switches(tape), _switches(other)
    words = "a network with two max-poolings"
    made = case(words, partial(function, tape, other))  # the tapes themselves, to see whether they are changed
    if any(not _same(_switches(t), old) for t, old in zip((tape, other), before, strict=True)):
        raise Wrong(f"{words}: your function has changed a tape that it was given. Copy each call with "
                    "replace(call, switches=…), and the tape with replace(tape, calls=…)")
    if not isinstance(made, Tape):
        raise Wrong(f"{words}: {type(made).__name__} came; expected was a Tape, such as "
                    "replace(tape, calls=…) gives")
    _check_calls(words, made, tape, other)
    right("the tape has its own values and filters, and the other image's switches.")


def _check_calls(words: str, made: Tape, tape: Tape, other: Tape) -> None:
    if len(made.calls) != len(tape.calls):
        raise Wrong(f"{words}: {len(made.calls)} calls came; expected were {len(tape.calls)}: those without switches "
                    "belong to the tape too")
    if not _same(made.values, tape.values) or not all(
            _same(one.given, mine.given) for one, mine in zip(made.calls, tape.calls, strict=True)):
        raise Wrong(f"{words}: the tape holds the other image's values. Only the switches are to be exchanged")
    found, wanted, own = _switches(made), _switches(other), _switches(tape)
    if len(found) != len(wanted):
        raise Wrong(f"{words}: {len(found)} calls have switches; expected were {len(wanted)}")
    for number, (switches, theirs, mine) in enumerate(zip(found, wanted, own, strict=True), 1):
        cause = " They are still the tape's own." if torch.equal(switches, mine) else ""
        if not torch.equal(switches, theirs):
            raise Wrong(f"{words}: the switches of max-pooling {number} are not those of the other tape.{cause}")


def _switches(tape: Tape) -> list[Tensor]:
    return [call.switches.clone() for call in tape.calls if call.switches is not None]


def _same(one: list[Tensor], other: list[Tensor]) -> bool:
    return len(one) == len(other) and all(map(torch.equal, one, other))


# ---- random weights ----


def randomised(function: Callable) -> None:
    """Checks ``randomised(net, layers, seed)`` → a copy of the network in which these layers' weights are random."""
    net = _learned()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    made = {seed: _randomised(function, net, ["conv3"], seed) for seed in (0, 1)}
    if any(not torch.equal(value, before[name]) for name, value in net.state_dict().items()):
        raise Wrong("layers ['conv3']: your function has changed the network that it was given. copy.deepcopy(net) "
                    "first, and change the copy")
    _check_changed("layers ['conv3']", made[0], net, ["conv3"])
    if torch.equal(made[0].conv3.weight, made[1].conv3.weight):
        raise Wrong("seeds 0 and 1: the numbers are the same. Is the seed given to the generator?")
    if not torch.equal(_randomised(function, net, ["conv3"], 0).conv3.weight, made[0].conv3.weight):
        raise Wrong("seed 0, twice: the numbers differ. torch.randn takes them from generator=torch.Generator()"
                    ".manual_seed(seed)")
    both = _randomised(function, net, ["conv3", "conv2"], 0)
    _check_changed("layers ['conv3', 'conv2']", both, net, ["conv3", "conv2"])
    if not torch.equal(both.conv3.weight, made[0].conv3.weight):
        raise Wrong("layers ['conv3', 'conv2']: conv3 has other numbers than with ['conv3'] alone. Make the generator "
                    "once, and go through the layers in the order of the list")
    right("the named layers have forgotten what they learned, and nothing else has changed.")


def _learned() -> Any:
    """A network whose weights have means and deviations that random ones have by intention only."""
    net = nn.Sequential()
    generator = torch.Generator().manual_seed(1)
    for number, (inputs, outputs) in enumerate([(3, 24), (24, 32), (32, 24)], 1):
        conv = nn.Conv2d(inputs, outputs, 3)
        conv.weight.data = 0.3 * number + 0.1 * torch.randn(conv.weight.shape, generator=generator)
        net.add_module(f"conv{number}", conv)
        net.add_module(f"relu{number}", nn.ReLU())
    return net.eval()


def _randomised(function: Callable, net: nn.Module, layers: list[str], seed: int) -> Any:
    made = case(f"layers {layers}, seed {seed}", partial(function, net, layers, seed))
    if not isinstance(made, nn.Module):
        raise Wrong(f"layers {layers}: {type(made).__name__} came; expected was a network. Does it end in return?")
    if set(made.state_dict()) != set(net.state_dict()):
        raise Wrong(f"layers {layers}: the network that came has other layers than the one that was given")
    return made


def _check_changed(words: str, made: nn.Module, net: nn.Module, layers: list[str]) -> None:
    wanted = {f"{layer}.weight" for layer in layers}
    state, old = made.state_dict(), net.state_dict()
    same = [name for name in wanted if torch.equal(state[name], old[name])]
    if same:
        raise Wrong(f"{words}: {', '.join(sorted(same))} is still what was learned")
    changed = [name for name in old if name not in wanted and not torch.equal(state[name], old[name])]
    if changed:
        raise Wrong(f"{words}: {', '.join(changed)} has changed too. Biases, and layers that are not named, stay")
    for name in sorted(wanted):
        _check_spread(f"{words}: {name}", state[name], old[name])


def _check_spread(words: str, new: Tensor, old: Tensor) -> None:
    """Mean and deviation, with room for chance: 5,000 numbers and more have them to within a fortieth."""
    mean, deviation = float(old.mean()), float(old.std())
    if new.shape != old.shape:
        raise Wrong(f"{words} has the shape {tuple(new.shape)}; expected was {tuple(old.shape)}")
    if abs(float(new.std()) - deviation) > 0.1 * deviation:
        raise Wrong(f"{words} has the standard deviation {float(new.std()):.3f}; expected was about {deviation:.3f}, "
                    "that of the weights which it replaces")
    if abs(float(new.mean()) - mean) > 0.1 * deviation:
        raise Wrong(f"{words} has the mean {float(new.mean()):.3f}; expected was about {mean:.3f}, that of the weights "
                    "which it replaces")
