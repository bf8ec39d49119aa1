"""What an atlas says of networks that are built otherwise: without names, with branches, in other precisions."""

import checks
import numpy as np
import pytest
import tiny
import torch
import torch.nn.functional as F
from dom import read
from torch import nn

from deconvnet import record
from deconvnet.atlas import pages
from deconvnet.atlas.steps import sentence
from deconvnet.descent import chosen_only, descend
from deconvnet.images import Preprocess


def atlas(folder, net, photographs, layers, labels=None):
    net.preprocess = Preprocess(tiny.SIDE, tiny.SIDE)
    images = tiny.open_images(photographs, net.eval())
    return tiny.make(folder, net, tiny.scan(net, images, layers), images, layers, labels or {})


def sentences(net, layer):
    """The sentences of a way down, as a page has them: the strongest activation of a layer in a random image."""
    torch.manual_seed(0)
    tape = record(net.eval(), torch.rand(1, 3, 12, 12))
    maps = tape.activations(layer)[0]
    unit, y, x = np.unravel_index(int(maps.argmax()), maps.shape)
    _, (way,) = descend(tape, layer, [(0, unit, y, x)])
    steps = [{"step": stage.step, "module": stage.module, "how": stage.how, "passed": list(stage.passed),
              "of": stage.count, "follows": stage.follows} for stage in way]
    return [sentence(step, steps[max(n - 1, 0)], n == len(steps) - 1) for n, step in enumerate(steps)]


class Branches(nn.Module):
    """A sum of two ways, and two maps joined, none of them rectified before they meet; no ReLU has a name."""

    def __init__(self):
        super().__init__()
        self.main, self.down, self.join = nn.Conv2d(3, 5, 3, padding=1), nn.Conv2d(3, 5, 1), nn.Conv2d(5, 4, 1)
        self.other, self.top = nn.Conv2d(5, 7, 1), nn.Conv2d(11, 2, 1)

    def forward(self, x):
        x = F.relu(self.main(x) + self.down(x))
        return self.top(torch.cat([self.join(x), self.other(x)], 1))


def test_a_step_on_a_branch_takes_no_count_from_another_branch():
    said = " ".join(sentences(Branches(), "top"))
    assert "Filter top (1×1) with the transposed filters: 2 maps become 11." in said
    for layer, true in (("join (1×1)", 4), ("other (1×1)", 7), ("main (3×3)", 5), ("down (1×1)", 5)):
        words = said.partition(f"Filter {layer} with the transposed filters")[2].partition(".")[0]
        assert words and (" become " not in words or f"{true} maps become" in words), (layer, words)


def test_a_relu_without_a_name_is_none():
    said = sentences(Branches(), "top")
    assert any("Rectify: what is negative becomes zero." in words for words in said)
    assert not any(" :" in words for words in said)


@pytest.mark.parametrize("first", [nn.BatchNorm2d(3), nn.Dropout(0.5)])
def test_a_layer_with_no_step_below_it_is_passed_through_to_pixels(first):
    tape = record(nn.Sequential(first, nn.Conv2d(3, 2, 3)).eval(), torch.rand(1, 3, 8, 8))
    p, (way,) = descend(tape, "0", [(0, 1, 4, 4)])
    assert [stage.step for stage in way] == ["seed", "pass"] and p.values[0] > 0
    np.testing.assert_array_equal(way[-1].signal, p.pixels[0].numpy())
    assert sentences(nn.Sequential(first, nn.Conv2d(3, 2, 3)), "0")[-1].endswith("These are pixels, and stay signed.")


def test_maps_that_rectification_ends_are_shown_above_it_and_said_to_be_gone(small_atlas, tmp_path):
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 2, 3))
    with torch.no_grad():
        net[2].weight.copy_(-net[2].weight.abs())
        net[2].bias.fill_(5)
    tape = record(net.eval(), torch.rand(1, 3, 9, 9))
    _, ((_, filtered, rectified, _),) = descend(tape, "2", [(0, 1, 3, 3)],
                                                keep=lambda stages, unit: chosen_only(stages, unit, 3))
    assert (filtered.signal < 0).any(1).any(1).all() and len(filtered.chosen) == 3 and rectified.chosen == ()
    folder = atlas(tmp_path / "out", net, small_atlas.folder.parent / "photographs", ("2",))
    steps = read(folder / "2" / "1" / "index.html").one("ol", "descent").all("li")
    assert "nothing is left, 3×3 of" in steps[2].words and "maps" in steps[1].one("small").words


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_networks_of_any_precision_have_an_atlas(small_atlas, tmp_path, dtype):
    net = nn.Sequential(nn.Conv2d(3, 4, 3, 2), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 3, 3)).to(dtype)
    folder = atlas(tmp_path / "out", net, small_atlas.folder.parent / "photographs", ("0", "3"))
    assert not [fault for page in checks.pages(folder) for fault in checks.faults(folder, page)]


def test_labels_of_layers_that_are_not_shown_leave_no_heading(small_atlas, tmp_path):
    folder = tiny.make(tmp_path / "out", small_atlas.net, small_atlas.top, small_atlas.images, ("conv1",),
                       {"conv3": {0: "not here"}})
    assert "with a label" not in read(folder / "index.html").one("main").words


def test_without_classes_nothing_is_said_of_selectivity(small_atlas, tmp_path):
    """Neither as an order of a grid nor in the table of two networks."""
    for path in sorted((small_atlas.folder.parent / "photographs").rglob("c*@*.png"))[:3]:
        (tmp_path / path.name).write_bytes(path.read_bytes())
    images = tiny.open_images(tmp_path, small_atlas.net)
    top = tiny.scan(small_atlas.net, images, ("conv1",))
    for place in ("out", "out/beside"):
        folder = tiny.make(tmp_path / place, small_atlas.net, top, images, ("conv1",), {})
    one, other = pages.load(tmp_path / "out"), pages.load(folder)
    pages.write_both(tmp_path / "out", one, other)
    for name in ("conv1/index.html", "both/index.html", "both/conv1.html"):
        assert "electivity" not in read(tmp_path / "out" / name).one("main").words, name
    assert "electivity" in read(small_atlas.folder / "conv1" / "index.html").one("main").words
