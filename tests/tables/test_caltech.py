"""Tables 4, 5 and 7: frozen features of little trees in the layouts of torchvision's Caltech101 and Caltech256."""

import csv
import io

import pytest
import trees

from deconvnet import cli, tables
from deconvnet.errors import UsageError
from deconvnet.tables import caltech101, caltech256, layers
from deconvnet.transfer import features as module
from deconvnet.transfer.sets import labelled, learned_from

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def model(tmp_path):
    return trees.network(tmp_path)


def caltech(folder):
    """The layout of Caltech-256: numbered classes, and the clutter that is none."""
    trees.classes(folder / "caltech256" / "256_ObjectCategories",
                  {"001.ak47": 5, "002.american-flag": 6, "256.toad": 4, "257.clutter": 1})
    return str(folder)


def settings(kind, model, images, **more):
    return kind(model=model, weights=None, images=images, **({"layer": "pool1"} | more))


def test_table_5_reads_torchvisions_layout_and_leaves_the_clutter_out(tmp_path, model):
    table = caltech256.make(settings(caltech256.Settings, model, caltech(tmp_path), per_class=(1, 3)), progress=False)
    first = table.rows[0]
    assert [len(row) for row in table.rows] == [len(table.heads)] * 5
    assert first[:2] == ["tiny.py:build", "pool1, svm"]
    assert first[4:] == ["65.7 ± 0.2", "70.6 ± 0.2", "72.7 ± 0.4", "74.2 ± 0.3"]  # the paper's, beside ours
    assert float(first[3].split()[0]) > 80  # the classes have a colour each
    assert "15 images of 3 classes" in table.caption and "C = 10" in table.caption
    assert [result["per_class"] for result in table.numbers["networks"][0]["results"]] == [1, 3]
    assert str(tmp_path) not in str(table.origin) + table.caption


def test_the_folder_of_the_classes_may_be_named_itself(tmp_path, model):
    inner = str(tmp_path / "caltech256" / "256_ObjectCategories")
    caltech(tmp_path)
    table = caltech256.make(settings(caltech256.Settings, model, inner, per_class=(3,)), progress=False)
    assert "15 images of 3 classes" in table.caption


def test_more_images_than_a_class_has_are_named_before_the_work(tmp_path, model, monkeypatch):
    monkeypatch.setattr(module, "_compute", lambda *_: pytest.fail("images were read"))
    with pytest.raises(UsageError, match=r"001\.ak47 \(5\), 256\.toad \(4\)"):
        caltech256.make(settings(caltech256.Settings, model, caltech(tmp_path), per_class=(1, 5)), progress=False)


def test_images_without_classes_are_refused(tmp_path, model):
    trees.classes(tmp_path / "tree", {"ant": 3})
    with pytest.raises(UsageError, match="has no classes"):
        caltech101.make(settings(caltech101.Settings, model, str(tmp_path / "tree" / "ant")), progress=False)


def test_table_4_has_a_row_for_each_network_beside_the_papers(tmp_path, model):
    root = str(trees.classes(tmp_path / "101_ObjectCategories", {"ant": 6, "bee": 6, "BACKGROUND_Google": 1}).parent)
    another = {"model": model, "layer": "fc2", "classifier": "softmax", "like": "scratch"}
    table = caltech101.make(settings(caltech101.Settings, model, root, per_class=(2, 4), also=(another,)),
                            progress=False)
    assert [row[1] for row in table.rows[:2]] == ["pool1, svm", "fc2, softmax"]
    assert [row[4:] for row in table.rows[:2]] == [["83.8 ± 0.5", "86.5 ± 0.5"], ["22.8 ± 1.5", "46.5 ± 1.7"]]
    assert table.rows[2] == ["Bo et al. 2013", None, None, None, None, "81.4 ± 0.33"]
    assert len(table.origin["also"]) == 1 and str(tmp_path) not in str(table.origin) + table.caption


def test_what_a_network_learned_from_is_what_training_drew(tmp_path, model):
    from deconvnet.images import Preprocess
    from deconvnet.training.data import split
    from deconvnet.training.recipe import Recipe

    root = str(trees.classes(tmp_path / "tree", {"ant": 6, "bee": 7, "cow": 6}))
    images = labelled(root, Preprocess(16, 16), ("bee",))
    seen = learned_from(root, images, 5, 4)
    drawn = split(Recipe(images=root, seed=5, train_per_class=4)).train
    names = {drawn.source.files[number] for number in drawn.numbers}
    assert {images.files[number] for number in seen} == {name for name in names if not name.startswith("bee")}
    table = caltech101.make(settings(caltech101.Settings, model, root, per_class=(2, 4),
                                     learned={"seed": 5, "per_class": 4}), progress=False)
    assert "which neither has seen" in table.caption and "not removed" not in table.caption


def test_table_7_has_a_row_for_each_probe(tmp_path, model):
    root = str(trees.classes(tmp_path / "tree", {"ant": 6, "bee": 6, "cow": 6}))
    chosen = layers.Settings(model=model, weights=None, images=root, per_class=3, features=str(tmp_path / "kept"),
                             probes=({"layer": "pool1", "like": 1}, {"layer": "fc2", "classifier": "softmax"}))
    table = layers.make(chosen, progress=False)
    assert [row[0] for row in table.rows] == ["svm (pool1)", "softmax (fc2)"]
    assert [row[1] for row in table.rows] == [6 * 36, 3]
    assert table.rows[0][3:] == ["44.8 ± 0.7", "24.6 ± 0.4"] and table.rows[1][3:] == [None, None]
    assert len(list((tmp_path / "kept").iterdir())) == 2


def test_the_command_writes_tables_that_keep_hostile_names_harmless(tmp_path, model, capsys):
    (tmp_path / "tiny_&_$x|y.py").write_text((tmp_path / "tiny.py").read_text())
    root = trees.classes(tmp_path / "100%_tree", {"a|b": 4, r"\input{x}": 4})
    config = tmp_path / "table.yaml"
    config.write_text("layer: pool1\nper_class: [2]\nweights: null\n")
    model = str(tmp_path / "tiny_&_$x|y.py:build")
    code = cli.main(["table", "4", "--config", str(config), "--model", model, "--images", str(root), "--out",
                     str(tmp_path / "out")])
    assert code == 0 and "Bo et al. 2013" in capsys.readouterr().out
    latex = (tmp_path / "out" / "table4.tex").read_text()
    assert r"tiny\_\&\_\$x|y.py" in latex and r"100\%\_tree" in latex
    markdown = (tmp_path / "out" / "table4.md").read_text().splitlines()
    assert {line.replace(r"\|", "").count("|") for line in markdown if line.startswith("|")} == {6}
    rows = list(csv.reader(io.StringIO((tmp_path / "out" / "table4.csv").read_text())))
    assert {len(row) for row in rows} == {5}
    assert str(tmp_path) not in (tmp_path / "out" / "table4.json").read_text()


@pytest.mark.parametrize(("number", "values"), [
    ("4", {"per_class": []}), ("4", {"per_class": [0]}), ("4", {"classifier": "knn"}), ("4", {"unheard": 1}),
    ("7", {"probes": []}), ("7", {"penalty": {"svm": 0}}), ("5", {"pooling": {"grid": 0}}),
    ("4", {"splitting": {"folds": 0}}), ("6", {"train": "../x"}), ("2", {"like": "Figure 12"}),
    ("2", {"ensembles": [[1, 2]]})])
def test_wrong_settings_are_refused(number, values):
    with pytest.raises(ValueError):
        tables.settings(number)(**values)
