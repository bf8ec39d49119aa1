"""Figure 9: drawn from given arrays as it was when someone looked, and made from a little tree."""

from dataclasses import replace

import numpy as np
import pytest
from goldens import assert_golden, assert_not_golden
from PIL import Image

from deconvnet.errors import UsageError
from deconvnet.figures.few import BEST, PAPER, Curve, Settings, draw, make

OURS = Curve("ours on photographs", (1, 2, 5, 10, 30), (12.0, 21.0, 40.0, 52.0, 66.0), (3.0, 2.5, 1.5, 1.0, 0.8))

SOURCE = """
from torch import nn
from deconvnet.images import Preprocess

def build():
    net = nn.Sequential()
    net.conv1 = nn.Conv2d(3, 6, 3)
    net.preprocess = Preprocess(16, 16)
    return net
"""


def test_looks_as_it_did():
    assert_golden(draw(OURS, PAPER, BEST), "few")


@pytest.mark.parametrize("wrong", [
    lambda: draw(replace(OURS, accuracy=[a / 100 for a in OURS.accuracy]), PAPER, BEST),        # a lost scale
    lambda: draw(OURS, (PAPER[1], PAPER[0], PAPER[2]), BEST),                                   # colours swapped
    lambda: draw(replace(OURS, counts=(1, 2, 5, 15, 30)), PAPER, BEST),                         # a shifted point
    lambda: draw(replace(OURS, deviation=[5 * d for d in OURS.deviation]), PAPER, BEST),        # wrong bars
    lambda: draw(OURS, PAPER)])                                                                 # no dashed line
def test_what_is_wrong_is_seen(wrong):
    assert_not_golden(wrong(), "few")


def test_the_papers_curves_are_those_of_its_table_5():
    ours, bo, sohn = PAPER
    at = dict(zip(ours.counts, zip(ours.accuracy, ours.deviation, strict=True), strict=True))
    assert [at[n] for n in (15, 30, 45, 60)] == [(65.7, 0.2), (70.6, 0.2), (72.7, 0.4), (74.2, 0.3)]
    assert bo.accuracy[-1] == BEST == 55.2 and sohn.accuracy[-1] == 47.9


def test_a_name_with_dollars_is_drawn_as_it_is(tmp_path):
    draw(replace(OURS, name=r"$\notacommand$ \input{x}")).savefig(tmp_path / "names.png")


@pytest.fixture
def tree(tmp_path):
    rng = np.random.default_rng(0)
    for name, red in (("ant", 40), ("bee", 200)):
        (tmp_path / "tree" / name).mkdir(parents=True)
        for index in range(6):
            pixels = rng.integers(0, 50, (16, 16, 3)) + np.array([red, 90, 90])
            Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / "tree" / name / f"{index}.png")
    (tmp_path / "plain.py").write_text(SOURCE)
    return Settings(model=f"{tmp_path / 'plain.py'}:build", weights=None, images=str(tmp_path / "tree"),
                    layer="conv1", per_class=(4, 1, 2, 2), paper=False)


@pytest.mark.usefixtures("one_thread")
def test_a_point_for_each_number_of_images(tree, tmp_path):
    exhibit = make(tree, progress=False)
    assert [result["per_class"] for result in exhibit.numbers["results"]] == [1, 2, 4]
    assert exhibit.numbers["results"][-1]["mean"] == 100  # one class is red
    assert "12 images of 2 classes" in exhibit.caption and "Behind" not in exhibit.caption
    assert str(tmp_path) not in exhibit.caption + str(exhibit.origin)
    exhibit.write(tmp_path, "figure9")


@pytest.mark.usefixtures("one_thread")
def test_too_many_images_a_class_are_named(tree):
    with pytest.raises(UsageError, match=r"ant \(6\), bee \(6\)"):
        make(tree.model_copy(update={"per_class": (2, 6)}), progress=False)
