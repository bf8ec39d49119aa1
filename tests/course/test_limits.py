"""Notebook 7: what is right passes, and the mistakes that students make are told."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from answers import answers, refused

from deconvnet.course import limits as check

RIGHT = answers("7_what_deconvnets_do_not_show")


@pytest.mark.parametrize("exercise", ["likeness", "through_relu", "with_switches_of", "randomised"])
def test_the_solution_is_right(exercise, capsys):
    getattr(check, exercise)(RIGHT[exercise])
    assert capsys.readouterr().out.startswith("Right: ")


def _cosine(one, other, inside):
    a, b = one[:, inside].ravel(), other[:, inside].ravel()
    length = np.sqrt((a * a).sum() * (b * b).sum())
    return float((a * b).sum() / length) if length else None


def _even_is_zero(one, other, inside):
    return RIGHT["likeness"](one, other, inside) or 0.0


@pytest.mark.parametrize(("wrong", "words"), [
    (lambda a, b, inside: RIGHT["likeness"](a, b, np.ones_like(inside)), "outside the image are counted too"),
    (_cosine, "the means are not subtracted"),
    (lambda a, b, inside: RIGHT["likeness"](abs(a), abs(b), inside), "negative: .*the sign is lost"),
    (lambda a, b, inside: RIGHT["likeness"](a.mean(0)[None], b.mean(0)[None], inside), "colours are averaged first"),
    (lambda a, b, inside: (RIGHT["likeness"](a, b, inside) or 0) ** 2, "(root is missing|negative)"),
    (_even_is_zero, "picture of zeros: 0.0 came; expected was None"),
    (lambda a, b, inside: np.corrcoef(a[:, inside].ravel(), b[:, inside].ravel())[0, 1],
     "a picture of zeros: (nan came|np.float64.nan. came|.*RuntimeWarning)"),
    (lambda a, b, inside: np.corrcoef(a[inside], b[inside])[0, 1], "raised IndexError"),
    (lambda a, b, inside: None, "gave None. Does it end in return")])
def test_likeness(wrong, words):
    refused(check.likeness, wrong, f"(?s){words}")


def _with(**changed):
    """The three rules with some of them exchanged."""
    def through_relu(signal, forward, method):
        rule = changed.get(method)
        return rule(signal, forward) if rule else RIGHT["through_relu"](signal, forward, method)
    return through_relu


@pytest.mark.parametrize(("wrong", "words"), [
    (_with(deconvnet=lambda s, f: s * (f > 0)), "'deconvnet': .*this is the rule of gradient"),
    (_with(deconvnet=lambda s, f: s.clamp(min=0) * (f > 0)), "'deconvnet': .*this is the rule of guided"),
    (_with(gradient=lambda s, f: s.clamp(min=0) * (f > 0)), "'gradient': .*this is the rule of guided"),
    (_with(guided=lambda s, f: s * (f > 0)), "'guided': .*this is the rule of gradient"),
    (_with(gradient=lambda s, f: s * (f >= 0)), "exactly 0 the ReLU is off"),
    (_with(guided=lambda s, f: s.clamp(min=0) * (f >= 0)), "exactly 0 the ReLU is off, for guided"),
    (_with(gradient=lambda s, f: s * f.clamp(min=0)), "forward values instead of their mask"),
    (_with(guided=lambda s, f: s * ((s > 0) | (f > 0))), "either mask is enough"),
    (_with(gradient=lambda s, f: (f > 0).float()), "the mask came instead"),
    (_with(guided=lambda s, f: s[..., 0]), "shape .* came"),
    (lambda signal, forward: signal, "raised TypeError")])
def test_through_relu(wrong, words):
    refused(check.through_relu, wrong, f"(?s){words}")


def _in_place(tape, other):
    for call, theirs in zip(tape.calls, other.calls, strict=True):
        call.switches = theirs.switches
    return tape


def _in_place_in_a_new_list(tape, other):
    made = replace(tape, calls=list(tape.calls))
    return _in_place(made, other)


def _only_the_first(tape, other):
    calls, done = [], False
    for call, theirs in zip(tape.calls, other.calls, strict=True):
        calls.append(call if done or call.switches is None else replace(call, switches=theirs.switches))
        done = done or call.switches is not None
    return replace(tape, calls=calls)


def _only_the_pools(tape, other):
    return replace(tape, calls=[replace(call, switches=theirs.switches) for call, theirs in
                                zip(tape.calls, other.calls, strict=True) if call.switches is not None])


@pytest.mark.parametrize(("wrong", "words"), [
    (_in_place, "has changed a tape that it was given"),
    (_in_place_in_a_new_list, "has changed a tape that it was given"),
    (_only_the_first, "max-pooling 2 are not those of the other tape. They are still the tape's own"),
    (_only_the_pools, "2 calls came; expected were 6: those without switches"),
    (lambda tape, other: other, "holds the other image's values"),
    (lambda tape, other: replace(tape, calls=other.calls), "holds the other image's values"),
    (lambda tape, other: replace(tape, calls=[replace(c, switches=None) for c in tape.calls]), "0 calls have switches"),
    (lambda tape, other: tape, "max-pooling 1 .* still the tape's own"),
    (lambda tape, other: tape.calls, "list came; expected was a Tape"),
    (lambda tape, other: other.calls[99], "raised IndexError")])
def test_with_switches_of(wrong, words):
    refused(check.with_switches_of, wrong, words)


def _random(net, layers, seed=0, copied=True, bias=False, deviation=None, mean=None, seeded=True, anew=False):
    """The solution, with the mistakes that one can make in it."""
    changed = copy.deepcopy(net) if copied else net
    generator = torch.Generator().manual_seed(seed) if seeded else torch.Generator()
    if seeded is None:
        generator.seed()
    for layer in layers:
        module = changed.get_submodule(layer)
        if anew:
            generator = torch.Generator().manual_seed(seed + len(layers))
        for part in (module.weight, module.bias) if bias else (module.weight,):
            noise = torch.randn(part.shape, generator=generator)
            part.data = (noise * (part.std() if deviation is None else deviation)
                         + (part.mean() if mean is None else mean)).detach()
    return changed


def _mistake(**how):
    return lambda net, layers, seed=0: _random(net, layers, seed, **how)


@pytest.mark.parametrize(("wrong", "words"), [
    (_mistake(copied=False), "has changed the network that it was given"),
    (_mistake(deviation=1.0), "standard deviation 1.* expected was about 0.1"),
    (_mistake(mean=0.0), "the mean .*expected was about 0.9"),
    (_mistake(bias=True), "conv3.bias has changed too"),
    (_mistake(seeded=False), "seeds 0 and 1: the numbers are the same"),
    (_mistake(seeded=None), "seed 0, twice: the numbers differ"),
    (_mistake(anew=True), "conv3 has other numbers than with"),
    (lambda net, layers, seed=0: _random(net, ["conv1", "conv2", "conv3"], seed), "conv1.weight.* has changed too"),
    (lambda net, layers, seed=0: copy.deepcopy(net), "conv3.weight is still what was learned"),
    (lambda net, layers, seed=0: _random(net, layers[:1], seed), r"'conv2'\]: conv2.weight is still what was learned"),
    (lambda net, layers, seed=0: _random(net, layers[::-1], seed), "conv3 has other numbers than with"),
    (lambda net, layers, seed=0: copy.deepcopy(net)[:3], "other layers than the one that was given"),
    (lambda net, layers, seed=0: None, "NoneType came; expected was a network")])
def test_randomised(wrong, words):
    refused(check.randomised, wrong, words)
