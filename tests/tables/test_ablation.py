"""Table 3: from the runs that are there; the others with the command that makes them."""

import json
from pathlib import Path

import pytest

from deconvnet import tables
from deconvnet.errors import DeconvnetError
from deconvnet.tables.ablation import PAPER, make

CONFIGS = Path(__file__).parents[2] / "configs" / "train" / "table3"
Settings = tables.settings("3")


def run(folder, name, **card):
    (folder / name).mkdir(parents=True)
    (folder / name / "weights.json").write_text(json.dumps({"recipe": {}, "images_sha256": "a", **card}))


def test_every_configuration_has_a_row():
    assert {file.stem for file in CONFIGS.glob("*.yaml")} == set(PAPER)


def test_without_runs_every_row_has_its_command(tmp_path):
    table = make(Settings(runs=str(tmp_path), configs=str(CONFIGS)))
    assert len(table.rows) == 12 and all(row[1:4] == [None] * 3 for row in table.rows)
    assert table.rows[2][0] == "without layer 7" and table.rows[2][4:7] == [27.4, 40.0, 18.4]
    assert str(tmp_path) not in str(table.rows)
    relative = make(Settings()).rows[2][7]
    assert relative == "deconvnet train --config configs/train/table3/alexnet_without_7.yaml " \
                       "--out runs/alexnet_without_7"


def test_a_finished_run_fills_its_row_from_ten_views_if_it_has_them(tmp_path):
    run(tmp_path, "zfnet", held_out={"top1": 0.6, "top5": 0.9}, held_out_ten_views={"top1": 0.625, "top5": 0.75})
    run(tmp_path, "alexnet", held_out={"top1": 0.5, "top5": 0.75})
    table = make(Settings(runs=str(tmp_path)))
    rows = {row[0]: row for row in table.rows}
    assert rows["the paper's network (Figure 3)"][1:4] == [None, 37.5, 25]
    assert rows["replica of Krizhevsky et al."][1:4] == [None, 50, 25]
    assert "2 of 12" in table.caption and "some of ten views" in table.caption and "NOT all" not in table.caption


def test_runs_on_other_images_are_said(tmp_path):
    run(tmp_path, "zfnet", held_out={"top1": 0.6, "top5": 0.9})
    run(tmp_path, "alexnet", held_out={"top1": 0.5, "top5": 0.75}, images_sha256="b")
    assert "NOT all on the same images" in make(Settings(runs=str(tmp_path))).caption


def test_further_configurations_come_after_the_papers(tmp_path):
    (tmp_path / "my_own.yaml").write_text("base: zfnet.yaml")
    run(tmp_path / "runs", "my_own", held_out={"top1": 0.25, "top5": 0.5})
    table = make(Settings(runs=str(tmp_path / "runs"), configs=str(tmp_path)))
    assert table.rows[-1] == ["my own", None, 75, 50, None, None, None, "my_own"]


@pytest.mark.parametrize("text", ["{", "[]", "{}"])
def test_a_card_that_is_none_is_named(tmp_path, text):
    (tmp_path / "zfnet").mkdir()
    (tmp_path / "zfnet" / "weights.json").write_text(text)
    with pytest.raises(DeconvnetError, match=r"weights\.json"):
        make(Settings(runs=str(tmp_path)))
