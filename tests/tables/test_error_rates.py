"""Table 2: errors of networks and ensembles, by hand and on a little tree."""

import pytest
import torch
import trees

from deconvnet import network, tables
from deconvnet.errors import UsageError
from deconvnet.images import open_images
from deconvnet.network import load_model
from deconvnet.tables.errors import class_numbers, errors, make, probabilities
from deconvnet.training.data import Files, PictureSet

pytestmark = pytest.mark.usefixtures("one_thread")
Settings = tables.settings("2")


def test_errors_by_hand():
    labels = torch.tensor([0, 0, 0, 1])
    best = [[0, 1, 2, 3, 4], [1, 2, 3, 4, 0], [1, 2, 3, 4, 5], [1, 0, 2, 3, 4]]  # the five best of six classes
    chances = torch.zeros(4, 6)
    for row, order in enumerate(best):
        chances[row, order] = torch.tensor([0.5, 0.4, 0.3, 0.2, 0.1])
    assert errors(chances, labels) == pytest.approx({
        "top1_images": 50, "top1_classes": 100 * (2 / 3 + 0) / 2, "top5_images": 25, "top5_classes": 100 / 6})


@pytest.fixture
def tree(tmp_path):
    return trees.classes(tmp_path / "tree", {"ant": 4, "bee": 4, "Cow": 5})


def test_probabilities_are_the_networks_own_for_one_view(tmp_path, tree):
    net = load_model(trees.network(tmp_path))
    images = open_images(tree, net.preprocess)
    found = probabilities(net, PictureSet(Files(str(tree)), [0, 7]), ten=False)
    with torch.no_grad():
        direct = net(torch.stack([images[0][0], images[7][0]])).softmax(1)
    torch.testing.assert_close(found, direct)


def test_ten_views_are_averaged_as_probabilities(tmp_path, tree):
    net = load_model(trees.network(tmp_path))
    pictures = PictureSet(Files(str(tree)), [0])
    views, _ = tables.errors.Inputs(pictures, net.preprocess, True, None)[0]
    with torch.no_grad():
        torch.testing.assert_close(probabilities(net, pictures, ten=True)[0], net(views).softmax(1).mean(0))


def test_the_table_has_networks_ensembles_and_the_papers(tmp_path, tree):
    model = trees.network(tmp_path)
    first, second = trees.weights(tmp_path, "first"), trees.weights(tmp_path, "second", -5.0)
    table = make(Settings(model=model, weights=first, also=({"model": model, "weights": second},), ensembles=((1, 2),),
                          images=str(tree), views="centre"), progress=False)
    pictures = PictureSet(Files(str(tree)), list(range(13)))  # the tree lists Cow first, the network last
    chances = [probabilities(load_model(model, weights), pictures, ten=False) for weights in (first, second)]
    labels = torch.tensor([2] * 5 + [0] * 4 + [1] * 4)
    for row, chance in zip(table.rows, (*chances, (chances[0] + chances[1]) / 2), strict=False):
        expected = errors(chance, labels)
        assert row[1:5] == [expected[key] for key in ("top1_images", "top5_images", "top1_classes", "top5_classes")]
    assert table.rows[0][5:] == [38.4, 16.5, None]
    assert table.rows[2][0] == "2 networks: 1, 2"
    assert "13 images of 3 classes" in table.caption and str(tmp_path) not in str(table.origin) + table.caption


def test_an_image_that_cannot_be_read_is_counted_and_changes_nothing(tmp_path, tree):
    chosen = Settings(model=trees.network(tmp_path), weights=None, images=str(tree), views="centre")
    before = make(chosen, progress=False).rows[0]
    (tree / "ant" / "damaged.png").write_bytes(b"no picture")
    table = make(chosen, progress=False)
    assert table.rows[0] == before and "13 images of 3 classes in tree; 1 could not be read" in table.caption


def test_no_readable_image_is_said(tmp_path):
    (tmp_path / "tree" / "ant").mkdir(parents=True)
    (tmp_path / "tree" / "ant" / "damaged.png").write_bytes(b"no picture")
    with pytest.raises(UsageError, match="none of the images can be read"):
        make(Settings(model=trees.network(tmp_path), weights=None, images=str(tmp_path / "tree")), progress=False)


def test_what_was_learned_from_is_left_out(tmp_path, tree):
    table = make(Settings(model=trees.network(tmp_path), weights=None, images=str(tree), learned={"per_class": 3},
                          views="centre"), progress=False)
    assert "4 images of 3 classes" in table.caption and "3 images a class that the networks learned from" in \
        table.caption


def test_without_images_the_cards_are_shown(tmp_path):
    card = {"held_out": {"top1": 0.75, "top5": 1.0}, "held_out_ten_views": {"top1": 0.8, "top5": 1.0}}
    weights = trees.weights(tmp_path, "carded", **card)
    chosen = Settings(model=trees.network(tmp_path), weights=weights)
    assert make(chosen).rows[0][1:5] == [None, None, pytest.approx(20), 0]
    assert str(tmp_path) not in str(make(chosen).origin)
    assert make(chosen.model_copy(update={"views": "centre"})).rows[0][3] == pytest.approx(25)


def test_a_network_without_a_card_has_an_empty_row(tmp_path):
    table = make(Settings(model=trees.network(tmp_path), weights=None, like=None))
    assert table.rows[0][1:] == [None] * 7
    assert network.read_card("zfnet", None) == {}


def test_class_names_are_matched_but_for_capitals_underscores_and_synonyms():
    known = ["tench, Tinca tinca", "cellular telephone, cellular phone", "crane", "crane"]
    assert class_numbers(["Tench", "cellular_phone"], known, "net") == {"Tench": 0, "cellular_phone": 1}


@pytest.mark.parametrize(("name", "message"), [
    ("tinch", r"'tinch' \(did you mean 'tench, Tinca tinca'"), ("house", r"are not net's: 'house'\. Rename"),
    ("Crane", "'Crane' could be any of 'crane', 'crane'")])
def test_a_class_that_the_network_has_not_is_named_with_what_is_near(name, message):
    with pytest.raises(UsageError, match=message):
        class_numbers([name], ["tench, Tinca tinca", "crane", "crane"], "net")


def test_a_network_that_does_not_name_its_classes_is_refused():
    with pytest.raises(UsageError, match="does not say what its classes are called"):
        class_numbers(["ant"], [], "net")


def test_nothing_left_to_measure_is_said(tmp_path, tree):
    with pytest.raises(UsageError, match=r"no image of .* is left"):
        make(Settings(model=trees.network(tmp_path), weights=None, images=str(tree), learned={"per_class": 9}),
             progress=False)
