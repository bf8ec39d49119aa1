"""The descent: when the rate falls by itself, and that a run goes through in either precision."""

from pathlib import Path

import pytest
import torch
from recipes import tiny

from deconvnet.training import Stage, data
from deconvnet.training.run import Run, plateaus


@pytest.mark.parametrize(("errors", "patience", "expected"), [
    ([], 2, 0),
    ([0.5], 1, 0),
    ([0.5, 0.4, 0.3, 0.2], 1, 0),                      # falls all the time
    ([0.5, 0.5], 1, 1),                                # the same is not less
    ([0.5, 0.6, 0.4], 2, 0),                           # fell just in time
    ([0.5, 0.6, 0.5], 2, 1),                           # back is not below
    ([0.5, 0.6, 0.7, 0.8, 0.9], 2, 2),                 # counts anew after each
    ([0.5, 0.6, 0.7, 0.8], 2, 1),
    ([0.5, 0.6, 0.6, 0.55, 0.52], 2, 2),               # falls, but not below the best: that was before the first drop
    ([0.5, 0.6, 0.6, 0.4, 0.5, 0.3, 0.3, 0.3], 2, 2),
    ([0.5] * 11, 5, 2),
])
def test_plateaus_worked_by_hand(errors: list[float], patience: int, expected: int) -> None:
    assert plateaus(errors, patience) == expected


def test_the_rate_falls_to_a_tenth_at_each_plateau(tree: Path) -> None:
    settings = tiny(tree, schedule="plateau", patience=2, rate=0.5, stages=(Stage(epochs=9),))
    run = Run(settings, data.load(settings, progress=False))
    rates = []
    for top1 in (0.2, 0.3, 0.3, 0.1, 0.3, 0.4, 0.4, 0.4):
        rates.append(run.rate(run.done * run.steps))
        run.log.append({"top1": top1})
        run.done += 1
    rates.append(run.rate(run.done * run.steps))
    assert rates == pytest.approx([0.5, 0.5, 0.5, 0.5, 0.05, 0.05, 0.05, 0.05, 0.005])


def test_a_plateau_schedule_measures_after_every_epoch(tree: Path) -> None:
    settings = tiny(tree, schedule="plateau", patience=1, rate=1e-9, measure=5, batch=12, train_per_class=None,
                    held_out=str(tree), test_per_class=2, stages=(Stage(epochs=3, size=128), Stage(epochs=1)))
    run = Run(settings, data.load(settings, progress=False))
    told = [run.epoch() for _ in range(3)]  # with no rate to speak of, nothing gets better
    assert all("top1" in entry for entry in told) and told[0]["top1"] == told[1]["top1"]
    assert [entry["rate"] for entry in told] == pytest.approx([1e-9, 1e-9, 1e-10])


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_both_precisions_learn(tree: Path, precision: str) -> None:
    settings = tiny(tree, precision=precision, batch_norm=True, rate=0.01, widths=(8,) * 5, hidden=(8,), dropout=0,
                    stages=(Stage(epochs=7, size=128), Stage(epochs=1)), batch=12)
    run = Run(settings, data.load(settings, progress=False))
    seen = []
    run.net.conv2.register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))
    losses = [run.epoch()["loss"] for _ in range(7)]
    assert losses[-1] < 0.8 * losses[0]
    assert set(seen) == {getattr(torch, precision)}
    assert {p.dtype for p in run.net.parameters()} == {torch.float32}
