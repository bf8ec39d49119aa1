"""Figure 1: each stage against the rules worked by hand, the last against ``project``, and the drawing as seen."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from goldens import assert_golden, assert_not_golden
from torch import nn

import deconvnet
from deconvnet import exhibit
from deconvnet.descent import Stage, chosen_only, descend, shortened, with_chosen
from deconvnet.errors import DeconvnetError, UsageError
from deconvnet.figures import activation, descent
from deconvnet.figures.activation import Activation
from deconvnet.figures.descent import Settings, draw

pytestmark = pytest.mark.usefixtures("one_thread")


def small(norm=True):
    """Two layers with ReLUs in place, pooling and contrast normalisation, and random filters."""
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 6, 3, 2, 1), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2, ceil_mode=True),
              nn.LocalResponseNorm(3), nn.Conv2d(6, 4, 3), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers).eval()


OTHERS = [(0, 0, 1, 1), (0, 3, 5, 2)]  # they go down together with the one that is looked at


def way(tape, one, row=0, **keys):
    _, ways = descend(tape, one.layer, [*OTHERS, (row, one.unit, one.y, one.x)], **keys)
    return ways[2]


@pytest.fixture(scope="module")
def found():
    """A small network, its tape of one image, and its strongest activation in the middle."""
    net = small()
    images = torch.rand(1, 3, 40, 40, generator=torch.Generator().manual_seed(1))
    tape = deconvnet.record(net, images)
    maps = tape.activations("4")[0, :, 4:6, 4:6]
    unit, y, x = np.unravel_index(int(maps.argmax()), maps.shape)
    one = Activation("4", int(unit), 0, int(y) + 4, int(x) + 4, float(maps.max()), "an image")
    return net, images, tape, one, way(tape, one)


@torch.no_grad()
def by_hand(net, images, one):
    """The signal after each step on whole maps, written out step by step with torch alone."""
    first = F.conv2d(images, net[0].weight, net[0].bias, 2, 1)
    pooled, switches = F.max_pool2d(first.relu(), 3, 2, ceil_mode=True, return_indices=True)
    second = F.conv2d(F.local_response_norm(pooled, 3), net[4].weight, net[4].bias)
    seed = torch.zeros_like(second)
    seed[0, one.unit, one.y, one.x] = second[0, one.unit, one.y, one.x]
    filtered = F.conv_transpose2d(seed, net[4].weight)
    unpooled = torch.zeros_like(first).flatten(2).scatter_add(2, switches.flatten(2), filtered.flatten(2))
    unpooled = unpooled.view_as(first)
    rectified = unpooled.clamp(min=0)
    pixels = F.conv_transpose2d(rectified, net[0].weight, stride=2, padding=1, output_padding=1)
    return [seed, filtered, unpooled, rectified, pixels], [second.relu(), None, first.relu(), first, images], switches


def test_an_image_among_others_goes_the_same_way(found):
    net, images, _, one, stages = found
    others = torch.rand(2, *images.shape[1:], generator=torch.Generator().manual_seed(7))
    tape = deconvnet.record(net, torch.cat([others, images]))
    for alone, among in zip(stages, way(tape, one, row=2), strict=True):
        np.testing.assert_allclose(among.signal, alone.signal, atol=1e-6)
        np.testing.assert_allclose(among.maps, alone.maps, atol=1e-6)
        assert np.array_equal(among.switches, alone.switches) and among.origin == alone.origin


def test_only_the_maps_that_are_drawn_are_kept_if_asked(found):
    _, _, tape, one, stages = found
    few = way(tape, one, keep=lambda stages, unit: chosen_only(stages, unit, 2))
    for stage, whole in zip(few, with_chosen(stages, one.unit, 2), strict=True):
        assert stage.chosen == whole.chosen and 1 <= len(stage.chosen) <= 3
        assert np.array_equal(stage.signal, whole.signal[list(whole.chosen)])
        assert np.array_equal(stage.maps, whole.maps[list(whole.chosen)])


def test_what_the_relu_left_is_shown_without_computing_again(found):
    _, _, tape, one, stages = found
    for before, after in zip(stages, way(tape, one, before_relu=False), strict=True):
        rectified = before.maps.clip(min=0) if before.step == "rectify" else before.maps
        np.testing.assert_allclose(after.maps, rectified, atol=1e-6)


def window(whole, stage):
    """The part of whole maps (1, C, H, W) under a stage's window, zero outside."""
    (top, left), (h, w) = stage.origin, stage.signal.shape[1:]
    padded = np.pad(whole[0].detach().numpy(), ((0, 0), (99, 99), (99, 99)))
    return padded[:, 99 + top:99 + top + h, 99 + left:99 + left + w]


def test_every_stage_is_the_papers_step_worked_by_hand(found):
    net, images, _, one, stages = found
    signals, maps, _ = by_hand(net, images, one)
    assert [stage.step for stage in stages] == ["seed", "filter", "unpool", "rectify", "filter"]
    for stage, signal, own in zip(stages, signals, maps, strict=True):
        np.testing.assert_allclose(stage.signal, window(signal, stage), atol=1e-6)
        assert np.abs(stage.signal).sum() == pytest.approx(float(signal.abs().sum()), rel=1e-4), "nothing outside"
        if own is not None:
            np.testing.assert_allclose(stage.maps, window(own, stage), atol=1e-6)
    assert (stages[3].maps < 0).any(), "what the ReLU in place wrote over is seen as it was"
    assert (stages[2].signal < 0).any() and not (stages[3].signal < 0).any()


def test_the_last_stage_is_the_projection(found):
    _, _, tape, one, stages = found
    p = deconvnet.project(tape, one.layer, [*OTHERS, (0, one.unit, one.y, one.x)])
    np.testing.assert_array_equal(stages[-1].signal, p.pixels[2].numpy())
    assert list(stages[-1].origin) == p.origin[2].tolist()


def test_the_switches_are_where_the_maxima_were(found):
    net, images, _, one, stages = found
    switches = by_hand(net, images, one)[2]
    marks = torch.zeros(1, 6, 20, 20).flatten(2).scatter(2, switches.flatten(2), 1.0).view(1, 6, 20, 20)
    np.testing.assert_array_equal(stages[2].switches, window(marks, stages[2]) > 0)
    assert (np.abs(stages[2].signal)[~stages[2].switches] == 0).all()


@pytest.mark.parametrize("pool", [
    nn.MaxPool2d(3, 2), nn.MaxPool2d(2, 1, dilation=3), nn.MaxPool2d(5, 2, 2), nn.MaxPool2d((1, 4), (3, 1)),
    nn.MaxPool2d(2, 3), nn.MaxPool2d(4, 3, 2, ceil_mode=True), nn.AdaptiveMaxPool2d(5)], ids=str)
@pytest.mark.parametrize("above", [nn.Conv2d(5, 6, 3, padding=1), nn.Conv2d(5, 6, 1, padding=3)], ids=str)
def test_the_switches_of_pooling_windows_that_only_reach_in_are_there_too(pool, above):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 5, 3, padding=1), nn.ReLU(), pool, above)
    tape = deconvnet.record(net, torch.rand(2, 3, 25, 20))
    _, _, height, width = tape.maps("3").shape
    places = [(0, 0), (height - 1, width - 1), (height // 2, 0), (height // 2, width // 2)]
    _, ways = descend(tape, "3", [(image, unit, *place) for image in (0, 1) for unit in (0, 3) for place in places])
    _, places = nn.functional.max_pool2d_with_indices(tape.values[2], pool.kernel_size, pool.stride, pool.padding,
                                                      pool.dilation, pool.ceil_mode) \
        if isinstance(pool, nn.MaxPool2d) else nn.functional.adaptive_max_pool2d_with_indices(tape.values[2], 5)
    marks = torch.zeros(2, 5, 25 * 20).scatter(2, places.flatten(2), 1.0).view(2, 5, 25, 20)
    for number, way in enumerate(ways):
        stage = next(stage for stage in way if stage.switches is not None)
        np.testing.assert_array_equal(stage.switches, window(marks[number // 8, None], stage) > 0)


def test_the_maps_drawn_are_the_strongest_and_stay_the_same_from_unpooling_to_filtering(found):
    one, stages = found[3], found[4]
    drawn = with_chosen(stages, one.unit, 3)
    strongest = np.argsort(-np.abs(stages[3].signal).max((1, 2)), kind="stable")[:3].tolist()
    assert [stage.chosen for stage in drawn] == [(one.unit,), *3 * [tuple(strongest)], (0, 1, 2)]


def test_branches_are_added_before_the_pixels():
    torch.manual_seed(0)

    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.other, self.top = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(3, 4, 1), nn.Conv2d(4, 2, 1)

        def forward(self, x):
            out = self.one(x)
            out += self.other(x)
            return self.top(F.relu(out, inplace=True))

    net, images = Two().eval(), torch.rand(1, 3, 9, 9)
    tape = deconvnet.record(net, images)
    unit = int(tape.activations("top")[0, :, 4, 4].argmax())
    _, (stages,) = descend(tape, "top", [(0, unit, 4, 4)])
    p = deconvnet.project(tape, "top", [(0, unit, 4, 4)])
    np.testing.assert_array_equal(stages[-1].signal, p.pixels[0].numpy())
    both = (net.one(images) + net.other(images)).detach()
    np.testing.assert_allclose(stages[2].maps, window(both, stages[2]), atol=1e-6)
    assert (stages[2].maps < 0).any(), "the sum as it was before the ReLU in place"
    assert np.abs(stages[-1].signal).sum() > 0
    assert [stage.follows for stage in stages] == [True, True, True, True, False]


def test_of_many_stages_the_first_and_the_last_are_drawn(found):
    stages = found[4] * 4
    drawn = shortened(stages, 9)
    assert drawn[:3] == stages[:3] and drawn[4:] == stages[-5:]
    assert drawn[3].passed == ("… 11 stages in between are not drawn",) and not drawn[3].follows
    assert shortened(stages, 20) == stages


# ---- the drawing -----------------------------------------------------------------------------------------------------

@pytest.fixture
def coarse(monkeypatch):
    """Golden pictures of a quarter of the pixels."""
    monkeypatch.setattr(exhibit, "DPI", 72)


def synthetic():
    """Stages with a ramp, an unpooling and three colours that differ, and a picture of stripes."""
    ramp = np.linspace(-1, 1, 32).reshape(2, 4, 4)
    spots = np.kron(ramp, [[1, 0], [0, 0]])
    colours = np.stack([np.linspace(-1, 1, 256).reshape(16, 16) * sign for sign in (1, -0.5, 0)])
    sizes = {"origin": (2, 3), "size": (20, 20)}
    stages = [Stage("seed", "conv2", "", (), ramp[:1] * 0 + np.eye(4), ramp[:1], None, (0, 0), (4, 4), chosen=(0,)),
              Stage("filter", "conv2", "3×3, stride 1", (), ramp, -ramp, None, **sizes, chosen=(1, 0)),
              Stage("unpool", "pool1", "2×2, stride 2", ("noted",), spots, np.abs(spots), spots != 0, **sizes,
                    chosen=(1, 0)),
              Stage("filter", "conv1", "3×3, stride 2", (), colours, colours, None, **sizes, chosen=(0, 1, 2))]
    picture = np.zeros((20, 20, 3), np.uint8)
    picture[:, ::4], picture[::3, :, 0] = 200, 90
    return stages, picture


@pytest.mark.usefixtures("coarse")
def test_the_drawing_is_the_one_that_was_looked_at():
    stages, picture = synthetic()
    assert_golden(draw(stages, picture, "conv2:0"), "descent")


@pytest.mark.usefixtures("coarse")
@pytest.mark.parametrize("wrong", ["shifted patch", "swapped channel", "lost scale"])
def test_a_wrong_drawing_is_told_from_the_golden_one(wrong, monkeypatch):
    stages, picture = synthetic()
    if wrong == "shifted patch":
        picture = np.roll(picture, 2, axis=1)
    elif wrong == "swapped channel":
        stages[-1] = replace(stages[-1], signal=stages[-1].signal[[1, 0, 2]])
    else:
        monkeypatch.setattr(descent, "normalise", lambda pixels, scale=None: deconvnet.colours.normalise(pixels, 5.0))
    assert_not_golden(draw(stages, picture, "conv2:0"), "descent")


def test_the_same_bytes_twice():
    one, other = (draw(*synthetic(), "conv2:0") for _ in range(2))
    assert exhibit.png(one, {}) == exhibit.png(other, {}) and exhibit.pdf(one, {}) == exhibit.pdf(other, {})


# ---- from the settings to the files ----------------------------------------------------------------------------------

def test_the_default_draws_the_strongest_activation_of_its_image(tmp_path):
    made = descent.make(Settings(), progress=False)
    files = made.write(tmp_path, "figure1")
    assert {file.suffix for file in files} == {".png", ".pdf", ".json", ".txt"}
    numbers = made.numbers["activation"]
    assert numbers["layer"] == "conv5" and numbers["value"] > 1 and "zfnet (demo)" in made.caption
    assert [s["step"] for s in made.numbers["stages"]] == ["seed", *["filter", "rectify"] * 2, "filter",
                                                           *["unpool", "rectify", "filter"] * 2]


@pytest.mark.parametrize(("keys", "says"), [
    ({"layer": "konv5"}, "Did you mean 'conv5'"),
    ({"unit": 256}, "there is no unit 256 in layer 'conv5': there are 256, 0 to"),
    ({"image": 472}, "there is no image 472: there are 472, 0 to 471"),
])
def test_what_does_not_exist_is_said_before_the_work(keys, says, monkeypatch):
    monkeypatch.setattr(descent, "descend", lambda *_: pytest.fail("began to work"))
    monkeypatch.setattr(activation, "scan", lambda *_, **__: pytest.fail("began to work"))
    with pytest.raises(UsageError, match=says):
        descent.make(Settings(**keys), progress=False)


def test_a_layer_that_cannot_be_projected_from_is_refused(monkeypatch):
    def build(name, weights):
        net = nn.Sequential(nn.Conv2d(3, 2, 3), nn.Sigmoid(), nn.Conv2d(2, 2, 3)).eval()
        net.preprocess = deconvnet.images.Preprocess(32, 32)
        return net

    monkeypatch.setattr("deconvnet.subject.load_model", build)
    with pytest.raises(DeconvnetError, match="sigmoid in 1: it has no rule"):
        descent.make(Settings(model="own", weights=None, layer="2"), progress=False)
    made = descent.make(Settings(model="own", weights=None, look=2, image=None), progress=False)
    assert made.numbers["activation"]["layer"] == "0", "without a name, the last one that can"
