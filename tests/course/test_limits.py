"""Notebook 7: what is right passes, and the mistakes that students make are told."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from answers import answers, refused

from deconvnet.course import limits as check

RIGHT = answers("7_what_deconvnets_do_not_show")


@pytest.mark.parametrize("exercise", ["likeness", "rectify_and_note", "with_switches_of", "randomised"])
def test_the_solution_is_right(exercise, capsys):
    getattr(check, exercise)(RIGHT[exercise])
    assert capsys.readouterr().out.startswith("Right: ")


def _cosine(one, other, inside):
    a, b = one[:, inside].ravel(), other[:, inside].ravel()
    length = np.sqrt((a * a).sum() * (b * b).sum())
    return float((a * b).sum() / length) if length else None


def _rootless(one, other, inside):
    a, b = (picture[:, inside] - picture[:, inside].mean() for picture in (one, other))
    return (a * b).sum() / ((a * a).sum() * (b * b).sum())


def _even_is_zero(one, other, inside):
    return RIGHT["likeness"](one, other, inside) or 0.0


@pytest.mark.parametrize(("wrong", "words"), [
    (lambda a, b, inside: RIGHT["likeness"](a, b, np.ones_like(inside)), "outside the image are counted too"),
    (_cosine, "the means are not subtracted"),
    (lambda a, b, inside: RIGHT["likeness"](abs(a), abs(b), inside), "negative: .*the sign is lost"),
    (lambda a, b, inside: RIGHT["likeness"](a.mean(0)[None], b.mean(0)[None], inside), "colours are averaged first"),
    (lambda a, b, inside: (RIGHT["likeness"](a, b, inside) or 0) ** 2, "a picture and its negative: this came: 1"),
    (_rootless, "the root is missing below the fraction"),
    (_even_is_zero, "picture of zeros: 0.0 came; expected was None"),
    (lambda a, b, inside: np.corrcoef(a[:, inside].ravel(), b[:, inside].ravel())[0, 1],
     "a picture of zeros: (nan came|np.float64.nan. came|.*RuntimeWarning)"),
    (lambda a, b, inside: np.corrcoef(a[inside], b[inside])[0, 1], "raised IndexError"),
    (lambda a, b, inside: None, "gave None. Does it end in return")])
def test_likeness(wrong, words):
    refused(check.likeness, wrong, f"(?s){words}")


def _share(signal):
    return float(signal.values.clamp(max=0).abs().sum() / signal.values.abs().sum().clamp(min=1e-12))


def _rule(left=lambda s: replace(s, values=s.values.clamp(min=0)), share=_share, wrap=lambda s: [s], note=None):
    """The solution, with the mistakes that one can make in it."""
    def rectify_and_note(call, signal, lost):
        share_of_it = share(signal)
        if note is None:
            lost.append((call.module, share_of_it))
        else:
            note(call, lost, share_of_it)
        return wrap(left(signal))
    return rectify_and_note


def _clamp_in_place(signal):
    signal.values.clamp_(min=0)
    return signal


@pytest.mark.parametrize(("wrong", "words"), [
    (_rule(left=_clamp_in_place), "has changed the signal that it was given"),
    (_rule(wrap=lambda s: s), "Signal came; expected was a list of one Signal"),
    (_rule(wrap=lambda s: None), "NoneType came; expected was a list"),
    (_rule(left=lambda s: replace(s, values=s.values.clamp(max=0))), "negative part is kept instead"),
    (_rule(left=lambda s: s), "nothing is rectified"),
    (_rule(left=lambda s: replace(s, values=s.values.abs())), "the size is taken"),
    (_rule(left=lambda s: replace(s, values=s.values.clamp(min=0), origin=s.origin * 0)), "origin or image"),
    (_rule(share=lambda s: float((s.values < 0).float().mean())), "the share of the cells, not of the strength"),
    (_rule(share=lambda s: 1 - _share(s)), "the share that is kept"),
    (_rule(share=lambda s: -_share(s)), "the sign of what is lost"),
    (_rule(share=lambda s: float(s.values.clamp(max=0).abs().sum())), "it is an amount"),
    (_rule(share=lambda s: float(s.values.clamp(max=0).abs().sum() / s.values.clamp(min=0).sum().clamp(min=1e-9))),
     "divided by what is kept"),
    (_rule(share=lambda s: 0.0), "the share that is lost: this came: 0"),
    (_rule(share=lambda s: float(s.values.clamp(max=0).abs().sum() / s.values.abs().sum())),
     "a signal of zeros, .*NaN came, since 0 was divided by 0"),
    (_rule(note=lambda call, lost, share: None), r"\[\] is in lost; expected was one entry \('relu1', share\)"),
    (_rule(note=lambda call, lost, share: lost.append(share)), "is in lost; expected was one entry"),
    (_rule(note=lambda call, lost, share: lost.append((call.name, share))), "'relu', .* is in lost; expected"),
    (lambda call, signal: [signal], "raised TypeError")])
def test_rectify_and_note(wrong, words):
    refused(check.rectify_and_note, wrong, f"(?s){words}")


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


def _transposed(net, layers, seed=0):
    changed = _random(net, layers, seed)
    for layer in layers:
        weight = changed.get_submodule(layer).weight
        weight.data = weight.data.transpose(0, 1).contiguous()
    return changed


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
    (_transposed, r"conv3.weight has the shape \(32, 24, 3, 3\); expected was \(24, 32, 3, 3\)"),
    (lambda net, layers, seed=0: copy.deepcopy(net)[:3], "other layers than the one that was given"),
    (lambda net, layers, seed=0: None, "NoneType came; expected was a network")])
def test_randomised(wrong, words):
    refused(check.randomised, wrong, words)
