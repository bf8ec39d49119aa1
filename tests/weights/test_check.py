"""``describe --check``: it finds how inputs should be made, names units that are dead, and counts what is right."""

import numpy as np
import pytest
import torch
from PIL import Image
from squeezenet import DATA
from torch import nn

import deconvnet
from deconvnet import cli
from deconvnet.check import Check, Outcome, _advice, check, match, usual_ways
from deconvnet.errors import DeconvnetError
from deconvnet.images import Preprocess

COLOURS = {"red": (200, 30, 30), "green": (30, 200, 30), "blue": (30, 30, 200), "grey": (128, 128, 128)}


def network(mean, std, turned=False, classes=tuple(COLOURS)):
    """A network that tells colours apart if its inputs are made with this mean and std, and with no others."""
    net = nn.Sequential()
    net.conv1, net.relu1, net.pool = nn.Conv2d(3, 6, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1)
    net.flatten, net.fc = nn.Flatten(), nn.Linear(6, 4)
    weight = torch.zeros(6, 3, 3, 3)
    for unit, signs in enumerate([(2, -1, -1), (-1, 2, -1), (-1, -1, 2)]):
        weight[unit, :, 1, 1] = torch.tensor(signs).float() * torch.tensor(std)  # of pixels, 0..1
    weight[3, :, 1, 1] = -torch.tensor(std)
    net.conv1.weight.data = weight.flip(1) if turned else weight
    offsets = torch.tensor([(2, -1, -1), (-1, 2, -1), (-1, -1, 2), (-1, -1, -1), (0, 0, 0), (0, 0, 0)]).float()
    net.conv1.bias.data = offsets @ torch.tensor(mean) + torch.tensor([0, 0, 0, 1.9, -1, -1])
    net.fc.weight.data = torch.zeros(4, 6)
    net.fc.weight.data[:, :4] = torch.tensor([[9, 0, 0, 0], [0, 9, 0, 0], [0, 0, 9, 0], [-3, -3, -3, 5]])
    net.fc.bias.data = torch.tensor([0.0, 0, 0, 1.5])
    net.classes = list(classes)
    return net.eval()


@pytest.fixture
def folder(tmp_path):
    random = np.random.default_rng(0)
    for name, colour in COLOURS.items():
        (tmp_path / "images" / name).mkdir(parents=True)
        for n in range(6):
            noise = np.clip(np.array(colour) + random.normal(0, 12, (24, 24, 3)), 0, 255)
            Image.fromarray(noise.astype(np.uint8)).save(tmp_path / "images" / name / f"{n}.png")
    return tmp_path / "images"


ZERO, ONE, BYTE = (0.0,) * 3, (1.0,) * 3, (1 / 255,) * 3
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
HALF = (0.5,) * 3


def seen(net, preprocess, folder):
    net.preprocess = preprocess
    return check(net, deconvnet.open_images(folder, preprocess))


@pytest.mark.parametrize(("mean", "std"), [(ZERO, ONE), (MEAN, ONE), (ZERO, BYTE), (MEAN, BYTE), (MEAN, STD),
                                           (HALF, HALF)])
@pytest.mark.parametrize("turned", [False, True])
def test_the_right_way_is_found_from_a_wrong_one(folder, mean, std, turned):
    """Whatever it was made for, of all ways the right one is the best, and it is named if it is not the current one."""
    net = network(mean, std, turned)
    right = "BGR" if turned else "RGB"
    wrong = Preprocess(24, 24, HALF, HALF) if std == BYTE else Preprocess(24, 24, ZERO, BYTE)
    found = seen(net, wrong, folder)
    best = max(found.outcomes, key=lambda outcome: outcome.accuracy)
    true = next(o for o in found.outcomes if o.way.order == right and o.way.preprocess == Preprocess(24, 24, mean, std))
    assert true.accuracy == (1.0, 1.0) and best.accuracy == (1.0, 1.0)
    assert "wrong way" in found.advice and "100%" in found.advice


@pytest.mark.parametrize(("mean", "std"), [(ZERO, ONE), (MEAN, BYTE), (MEAN, STD), (HALF, HALF)])
def test_the_right_way_is_left_alone(folder, mean, std):
    found = seen(network(mean, std), Preprocess(24, 24, mean, std), folder)
    assert found.advice == "Its inputs look as the network expects them." and found.outcomes[0].current
    assert found.whole.accuracy == (1.0, 1.0) and found.classes == 4 and len(found.whole.right) == 24


def test_what_it_says_to_write_is_what_mends_it(folder, tmp_path):
    """The YAML's keys, as they stand in the advice, with the preprocessing that they give."""
    import re

    from deconvnet.importing.beside import Beside
    found = seen(network(MEAN, BYTE, turned=True), Preprocess(24, 24, HALF, HALF), folder)
    values = {key: tuple(map(float, text.split(","))) for key, text in re.findall(r"(\w+): \[([^\]]+)\]", found.advice)}
    assert "channels: BGR" in found.advice and "scale: 255" in found.advice
    mended = Beside(preset="caffe", scale=255, channels="BGR", **values).preprocess(24)
    best = max(found.outcomes, key=lambda outcome: (outcome.accuracy, outcome.information))
    assert mended.mean == pytest.approx(best.way.preprocess.mean, abs=1e-3)
    assert mended.std == pytest.approx(best.way.preprocess.std, rel=1e-3)


def test_without_labels_it_gives_a_hint(folder):
    net = network(MEAN, BYTE, classes=("a", "b", "c", "d", "e"))
    found = seen(net, Preprocess(24, 24, HALF, HALF), folder)
    assert found.classes == 0 and found.whole.accuracy is None and found.advice.startswith("A hint")
    found = seen(net, Preprocess(24, 24, MEAN, BYTE), folder)
    assert found.advice.startswith("Nothing speaks for other inputs")


def test_weights_that_are_random_are_said_to_know_nothing(folder):
    net = network(MEAN, STD)
    for parameter in net.parameters():
        parameter.data = torch.zeros_like(parameter)
    assert "hardly more often than by chance" in seen(net, Preprocess(24, 24, MEAN, STD), folder).advice


def test_dead_units_are_those_that_never_fire(folder):
    found = seen(network(MEAN, STD), Preprocess(24, 24, MEAN, STD), folder)
    assert found.whole.fired["conv1"].tolist() == [True, True, True, True, False, False]
    assert found.whole.dead == pytest.approx(2 / 6) and list(found.whole.fired) == ["conv1"], "scores are no units"


def test_a_network_of_maps_has_dead_units_only(folder):
    net = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Conv2d(6, 4, 3))
    net.classes = []
    found = seen(net.eval(), Preprocess(24, 24), folder)
    assert "maps and no classes" in found.advice and list(found.whole.fired) == ["0", "2"]
    assert found.outcomes[0].cells()[3:9] == [""] * 6


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_a_network_of_any_precision_is_checked(folder, dtype):
    found = seen(network(MEAN, STD).to(dtype), Preprocess(24, 24, MEAN, STD), folder)
    assert found.whole.accuracy == (1.0, 1.0) and found.whole.probabilities.dtype == torch.float32


def test_a_network_that_ends_in_probabilities_is_not_squashed_again(folder):
    net = network(MEAN, STD)
    scores = seen(net, Preprocess(24, 24, MEAN, STD), folder)
    net.softmax = nn.Softmax(1)
    found = seen(net, Preprocess(24, 24, MEAN, STD), folder)
    assert torch.allclose(found.whole.probabilities, scores.whole.probabilities, atol=1e-6)


def test_information_and_entropy_are_what_they_are_called(folder):
    found = seen(network(MEAN, STD), Preprocess(24, 24, MEAN, STD), folder).outcomes[0]
    found.probabilities = torch.eye(4)
    assert found.information == pytest.approx(2) and found.uncertainty == 0 and found.same == 0.25
    found.probabilities = torch.full((8, 4), 0.25)
    assert found.information == pytest.approx(0) and found.uncertainty == pytest.approx(2) and found.confidence == 0.25


# ---- classes ----

def test_classes_match_by_name():
    known = ["tench, Tinca tinca", "grand_piano", "leopard", "crane", "crane"]
    theirs = ["Grand piano", "Leopards", "tinca-tinca", "cranes", "x"]
    assert match(theirs, known) == {0: {1}, 1: {2}, 2: {0}, 3: {3, 4}}


def test_or_by_number():
    assert match(["n01", "n02"], ["a", "b"]) == {0: {0}, 1: {1}}
    assert match(["2", "0"], ["a", "b", "c"]) == {0: {2}, 1: {0}}
    assert match(["n01", "n02"], ["a", "b", "c"]) == {} and match(["0"], []) == {} and match([], ["a"]) == {}


def test_every_way_is_there_once_and_the_own_one_first():
    ways = usual_ways(Preprocess(8, 8, (0.48, 0.46, 0.41), BYTE))
    assert len(ways) == len({str(way) for way in ways}) == 14 and str(ways[0]) == "RGB, 0..255, mean subtracted"
    ways = usual_ways(Preprocess(8, 8, (0.48, 0.46, 0.41), (3.0, 3.0, 3.0)))
    assert len(ways) == 15 and ways[0].scale == "its own"
    ways = usual_ways(Preprocess(8, 8, (0.1307,), (0.3081,)))
    assert len(ways) == 8 and {way.order for way in ways} == {"RGB"}
    ways = usual_ways(Preprocess(8, 8, mean_picture=np.full((3, 8, 8), 0.45), std=ONE))
    assert str(ways[0]) == "RGB, 0..1, mean subtracted" and len(ways) == 14


def test_of_one_class_alone_a_way_that_is_less_sure_is_no_hint():
    """All predictions that are alike tell nothing apart, and yet are right."""
    sure = torch.tensor([[0.85, 0.1, 0.05]]).expand(6, 3)
    vague = torch.tensor([[0.4, 0.3, 0.3], [0.3, 0.4, 0.3], [0.3, 0.3, 0.4]]).repeat(2, 1)
    ways = usual_ways(Preprocess(8, 8, MEAN, STD))
    outcomes = [Outcome(ways[0], True, sure), Outcome(ways[1], False, vague)]
    assert outcomes[1].information > 1.25 * outcomes[0].information
    assert "Nothing speaks for other inputs" in _advice(Check(outcomes, outcomes[0], 0, []), 3)
    outcomes[1].probabilities = torch.eye(3).repeat(2, 1) * 0.9 + 0.1 / 3
    assert "A hint" in _advice(Check(outcomes, outcomes[0], 0, []), 3)


# ---- the command ----

def test_the_command_says_it_all(folder, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (folder / "red" / "broken.png").write_bytes(b"no picture")
    torch.save(network(MEAN, BYTE).state_dict(), tmp_path / "w.pt")
    (tmp_path / "net.yaml").write_text(
        "weights: w.pt\nsize: 24\nresize: 24\nclasses: [red, green, blue, grey]\nlayers:\n"
        "  - {name: conv1, kind: convolution}\n  - {name: relu1, kind: relu}\n"
        "  - {name: pool, kind: global_average_pool}\n  - {name: flat, kind: flatten}\n  - {name: fc, kind: linear}\n")
    assert cli.main(["describe", "net.yaml", "--check", "images"]) == 0
    out = capsys.readouterr().out
    for words in ("33.3%", "24 images of 4 classes", "← now", "0..255", "BGR", "skipped: 'red/broken.png'", "wrong way",
                  "100%"):
        assert words in out, words
    assert "left out" not in out
    (folder / "blue").rename(folder / "pink")
    assert cli.main(["describe", "net.yaml", "--check", "images"]) == 0
    assert "6 of 25 images are left out" in capsys.readouterr().out
    assert out.count("← now") == 1


@pytest.mark.parametrize("classes", [[*COLOURS][:3], ["background", *COLOURS]])
def test_names_that_are_too_few_or_too_many_are_an_error(folder, classes):
    with pytest.raises(DeconvnetError, match=f"4 numbers for an image, and its classes have {len(classes)} names"):
        seen(network(MEAN, STD, classes=classes), Preprocess(24, 24), folder)


def test_images_that_cannot_be_read_are_an_error(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.png").write_bytes(b"no picture")
    with pytest.raises(DeconvnetError, match=r"a\.png"):
        seen(network(MEAN, STD), Preprocess(24, 24), tmp_path / "images")


# ---- a network trained on ImageNet, and photographs of Caltech-101 ----

@pytest.mark.skipif(not (DATA / "squeezenet").is_dir() or not (DATA / "caltech101").is_dir(),
                    reason="needs SqueezeNet and Caltech-101 beside the checkout")
@pytest.mark.parametrize("each", [2, pytest.param(20, marks=pytest.mark.extended)])
def test_squeezenet_is_as_right_as_its_readme_states(tmp_path, monkeypatch, each):
    """It states 52.2 % and 70.8 % for 20 pictures of each of 32 classes; 27 of them have ImageNet's very names."""
    monkeypatch.setattr("deconvnet.check.SAMPLE", 4 if each == 2 else 128)
    net = deconvnet.load_model("configs/networks/squeezenet.yaml", DATA / "squeezenet/squeezenet_v1.0_chain_rgb.npz")
    names = sorted(path.name for path in (DATA / "caltech101/images").iterdir())
    shared = [names[label] for label in match(names, net.classes)]
    for name in shared:
        (tmp_path / name).mkdir()
        for file in sorted((DATA / "caltech101/images" / name).iterdir())[:each]:
            (tmp_path / name / file.name).symlink_to(file)
    found = check(net, deconvnet.open_images(tmp_path, net.preprocess))
    first, five = found.whole.accuracy
    assert len(shared) == 27
    margin = 0.04 if each == 20 else 0.15
    assert first == pytest.approx(0.522, abs=margin) and five == pytest.approx(0.708, abs=margin)
    assert str(found.outcomes[0].way) == "RGB, 0..255, mean subtracted" and "wrong way" not in found.advice
    if each == 20:
        best = max(found.outcomes, key=lambda outcome: outcome.accuracy)
        assert best.current, [outcome.cells() for outcome in found.outcomes]
