"""The figure of methods: its pictures against ``project``, its correlations against NumPy, its drawing as seen."""

import copy

import numpy as np
import pytest
import torch
from goldens import assert_golden, assert_not_golden
from torch import nn

import deconvnet
from deconvnet import exhibit
from deconvnet.errors import UsageError
from deconvnet.figures import activation, methods
from deconvnet.figures.activation import Activation
from deconvnet.figures.methods import Column, Row, Settings, correlation, draw, legends
from deconvnet.images import Preprocess
from deconvnet.subject import Subject

pytestmark = pytest.mark.usefixtures("one_thread")


def build(name="small", weights=None):
    """Three convolutions and a pooling for images of 32 pixels, with random filters."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 6, 5, 2), nn.ReLU(inplace=True), nn.MaxPool2d(2), nn.Conv2d(6, 5, 3, padding=1),
                        nn.ReLU(inplace=True), nn.Conv2d(5, 4, 3, padding=1)).eval()
    net.preprocess = Preprocess(32, 32)
    return net


@pytest.fixture
def small(monkeypatch):
    """The small network in place of any that is asked for."""
    monkeypatch.setattr("deconvnet.subject.load_model", build)
    return Subject(model="small", weights=None)


@pytest.fixture
def made(small):
    """Two activations of the small network, and their pictures."""
    opened = small.open("test")
    chosen = [activation.strongest_of(opened, "5", None, image)[0] for image in (30, 55)]
    columns, rows = methods.compare(opened, chosen, 2, seed=0)
    return opened, chosen, columns, rows


def test_the_pictures_are_the_projections(made):
    opened, chosen, columns, rows = made
    tape = deconvnet.record(opened.net, activation.inputs(opened.net, opened.images, [one.image for one in chosen]))
    units = [(row, one.unit, one.y, one.x) for row, one in enumerate(chosen)]
    for n, options in enumerate([{}, {"method": "gradient"}, {"method": "guided"}, {"unpool": "center"}]):
        p = deconvnet.project(tape, "5", units, **options)
        for row in range(2):
            np.testing.assert_array_equal(rows[row].pixels[n], p.pixels[row].numpy())
    assert [column.name for column in columns][4:] == ["all filters random,\nswitches kept", "5", "5 to\n0",
                                                       "the strongest other\nat this place"]


def test_the_weights_become_random_from_the_top_and_stay_as_they_were_in_the_network(small):
    net = build()
    before = copy.deepcopy(net.state_dict())
    tape = deconvnet.record(net, torch.rand(1, 3, 32, 32))
    weights = methods.weights_below(net, tape, "5")
    assert weights == ["5.weight", "3.weight", "0.weight"]
    assert methods.weights_below(net, tape, "3") == ["3.weight", "0.weight"]
    steps = methods.randomised(net, weights, 3, seed=1)
    assert [names for names, _ in steps] == [weights[:1], weights[:2], weights]
    for names, changed in steps:
        for name, value in changed.state_dict().items():
            assert torch.equal(value, before[name]) != (name in names)
            assert name not in names or value.std() == pytest.approx(float(before[name].std()), rel=0.2)
    assert torch.equal(steps[0][1][5].weight, steps[2][1][5].weight)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


def test_random_filters_with_the_switches_kept_are_another_networks_way_down(small):
    net, images = build(), torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(3))
    other = methods.randomised(net, ["5.weight", "3.weight", "0.weight"], 1, seed=1)[0][1]
    tape = deconvnet.record(net, images)
    unit, y, x = np.unravel_index(int(tape.activations("5")[0].argmax()), tape.activations("5").shape[1:])
    got = deconvnet.project(methods.refiltered(tape, net, other), "5", [(0, int(unit), int(y), int(x))])
    signal = torch.zeros_like(tape.activations("5"))
    signal[0, unit, y, x] = tape.activations("5")[0, unit, y, x]
    with torch.no_grad():
        signal = nn.functional.conv_transpose2d(signal, other[5].weight, padding=1).clamp(min=0)
        signal = nn.functional.conv_transpose2d(signal, other[3].weight, padding=1)
        switches = next(call.switches.long() for call in tape.calls if call.switches is not None)
        whole = torch.zeros(1, 6, 14 * 14).scatter_add(2, switches.flatten(2), signal.flatten(2)).view(1, 6, 14, 14)
        pixels = nn.functional.conv_transpose2d(whole.clamp(min=0), other[0].weight, stride=2)
    expected = nn.functional.pad(pixels, (0, 1, 0, 1))
    torch.testing.assert_close(got.on_canvas(), expected, atol=1e-6, rtol=1e-5)


def test_a_projection_that_starts_from_one_is_the_same_but_for_its_scale(small):
    net, images = build(), torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(3))
    tape = deconvnet.record(net, images)
    unit, y, x = (int(n) for n in np.unravel_index(int(tape.activations("5")[0].argmax()), (4, 7, 7)))
    value = float(tape.activations("5")[0, unit, y, x])
    one, own = (deconvnet.project(t, "5", [(0, unit, y, x)]).pixels for t in (methods.of_ones(tape, "5"), tape))
    torch.testing.assert_close(one * value, own)
    silent = (0, *(int(n) for n in np.argwhere(tape.activations("5")[0].numpy() == 0)[0]))
    assert deconvnet.project(tape, "5", [silent]).pixels.abs().sum() == 0
    assert deconvnet.project(methods.of_ones(tape, "5"), "5", [silent]).pixels.abs().sum() > 0


def test_the_other_unit_is_the_strongest_of_the_same_place(made):
    opened, chosen, _, rows = made
    tape = deconvnet.record(opened.net, activation.inputs(opened.net, opened.images, [one.image for one in chosen]))
    for n, (one, row) in enumerate(zip(chosen, rows, strict=True)):
        here = tape.activations("5")[n, :, one.y, one.x].tolist()
        others = [(value, -unit) for unit, value in enumerate(here) if unit != one.unit and value > 0]
        if others:
            assert row.notes[-1] == f"5:{-max(others)[1]}"
        else:
            assert row.notes[-1] == "none fires here" and row.pixels[-1] is None


def test_correlations_are_pearsons_within_the_image():
    random = np.random.default_rng(0)
    one, other = random.normal(size=(2, 3, 6, 7))
    inside = np.arange(42).reshape(6, 7) > 9
    r, where = correlation(one, other, inside)
    assert r == pytest.approx(np.corrcoef(one[:, inside].ravel(), other[:, inside].ravel())[0, 1])
    strength = [np.abs(x).sum(0)[inside] for x in (one, other)]
    assert where == pytest.approx(np.corrcoef(*strength)[0, 1])
    assert correlation(one, -2 * one, inside) == (pytest.approx(-1), pytest.approx(1))
    assert correlation(one, other * 0, inside) == (None, None)


# ---- the drawing -----------------------------------------------------------------------------------------------------

def synthetic():
    """Two rows of ramps and stripes: the original, its negative, one that is not there, and a blurred one."""
    ramp = np.linspace(-1, 1, 64).reshape(8, 8)
    original = np.stack([ramp, ramp * 0.2, -ramp.T * 0.5])
    patch = np.kron(np.arange(16).reshape(4, 4)[:, :, None] * [[[16, 8, 3]]], np.ones((2, 2, 1))).astype(np.uint8)
    columns = [Column("a rule", "first"), Column("a rule", "negative\nof it"), Column("missing", "none"),
               Column("another", "rows turned")]
    rows = [Row(f"conv1:{n}\nfires at 1.00", patch[::step], [original * step, -original, None, original[:, ::-1]],
                ["", "", "none fires here", "conv1:9"], np.ones((8, 8), bool)) for n, step in enumerate([1, -1])]
    return columns, rows


@pytest.fixture
def coarse(monkeypatch):
    """Golden pictures of a quarter of the pixels."""
    monkeypatch.setattr(exhibit, "DPI", 72)


@pytest.mark.usefixtures("coarse")
def test_the_drawing_is_the_one_that_was_looked_at():
    assert_golden(draw(*synthetic()), "methods")


@pytest.mark.usefixtures("coarse")
@pytest.mark.parametrize("wrong", ["shifted patch", "swapped channel", "lost scale"])
def test_a_wrong_drawing_is_told_from_the_golden_one(wrong, monkeypatch):
    columns, rows = synthetic()
    if wrong == "shifted patch":
        rows = [Row(r.title, np.roll(r.patch, 2, axis=1), r.pixels, r.notes, r.inside) for r in rows]
    elif wrong == "swapped channel":
        rows = [Row(r.title, r.patch, [None if p is None else p[[2, 1, 0]] for p in r.pixels], r.notes, r.inside)
                for r in rows]
    else:
        monkeypatch.setattr(methods, "normalise", lambda pixels: deconvnet.colours.normalise(pixels, 4.0))
    assert_not_golden(draw(columns, rows), "methods")


def test_below_each_picture_stands_its_correlation():
    words = legends(synthetic()[1][0])
    assert words[:3] == ["the original", "r −1.00   where 1.00", "none fires here"] and words[3].endswith("\nconv1:9")


def test_the_same_bytes_twice():
    one, other = (draw(*synthetic()) for _ in range(2))
    assert exhibit.png(one, {}) == exhibit.png(other, {}) and exhibit.pdf(one, {}) == exhibit.pdf(other, {})


# ---- from the settings to the files ----------------------------------------------------------------------------------

def test_the_figure_is_written_with_its_numbers(small, tmp_path):
    settings = Settings(model="small", weights=None, image_numbers=(30, 55), cascade=2)
    made = methods.make(settings, progress=False)
    assert {file.suffix for file in made.write(tmp_path, "methods")} == {".png", ".pdf", ".json", ".txt"}
    assert [one["image"] for one in made.numbers["activations"]] == [30, 55]
    assert len({one["unit"] for one in made.numbers["activations"]}) == 2, "each row another unit"
    name = made.numbers["columns"][1]
    both = [one["correlations"][name][0] for one in made.numbers["activations"]]
    assert made.numbers["mean_correlations"][name][0] == pytest.approx(np.mean(both))
    again = methods.make(settings, progress=False)
    assert again.numbers == made.numbers


def test_images_of_ones_own_are_searched(small):
    settings = Settings(model="small", weights=None, images="builtin:photographs", look=3, count=2)
    chosen = methods._choose(settings.open("test"), settings, progress=False)
    assert len(chosen) == 2 and {one.image for one in chosen} <= {0, 852, 1705}
    own = Settings(model="small", weights=None, images="builtin:photographs", image_numbers=(7,))
    assert [one.image for one in methods._choose(own.open("test"), own, progress=False)] == [7]


@pytest.mark.parametrize(("keys", "says"), [
    ({"layer": "6"}, "There is no layer '6'"),
    ({"units": (4,)}, "there is no unit 4 in layer '5': there are 4, 0 to 3"),
    ({"image_numbers": (1, 472)}, "there is no image 472"),
    ({"units": (0, 1), "image_numbers": (1, 2, 3)}, "2 units and 3 image_numbers: give one for each"),
])
def test_what_does_not_exist_is_said_before_the_work(small, keys, says, monkeypatch):
    monkeypatch.setattr(methods, "compare", lambda *_: pytest.fail("began to work"))
    with pytest.raises(UsageError, match=says):
        methods.make(Settings(model="small", weights=None, **keys), progress=False)


def test_a_unit_that_does_not_fire_in_its_image_is_refused(small):
    opened = small.open("test")
    opened.net[5].weight.data[1], opened.net[5].bias.data[1] = 0, -1
    with pytest.raises(UsageError, match="5:1 does not fire in image 30"):
        activation.strongest_of(opened, "5", [1], 30)
    with pytest.raises(UsageError, match="5:1 fires in none of the 2 images"):
        activation.strongest_among(opened, "5", [1], 2, 1, progress=False)


def test_the_activation_of_an_image_is_its_strongest_whole_one(small):
    opened = small.open("test")
    one = activation.strongest_of(opened, "3", None, 30)[0]
    tape = deconvnet.record(opened.net, activation.inputs(opened.net, opened.images, [30]))
    maps, field = tape.activations("3")[0], deconvnet.receptive_field(opened.net, "3", (32, 32))
    best = max((float(maps[u, y, x]), -u, -y, -x) for u in range(5) for y in range(7) for x in range(7)
               if min(field.box(y, x).start) >= 0 and max(a + field.size[0] for a in field.box(y, x).start) <= 32)
    assert (one.value, one.unit, one.y, one.x) == (best[0], -best[1], -best[2], -best[3])
    assert isinstance(one, Activation) and one.address == f"3:{one.unit}"
