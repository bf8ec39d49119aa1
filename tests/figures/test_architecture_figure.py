"""Figure 3: its table against ``describe``, its blocks against the paper's sizes, its drawings as they were seen."""

import csv
import io

import pytest
import torch
import torch.nn.functional as F
from deconvnet.models.zfnet import ZFNet
from goldens import assert_golden, assert_not_golden
from torch import nn

import deconvnet
from deconvnet import exhibit
from deconvnet.describe import describe
from deconvnet.errors import UsageError
from deconvnet.figures import architecture
from deconvnet.figures.architecture import HEADS, Block, Settings, blocks_of, draw, is_chain, table, with_fields
from deconvnet.images import Preprocess

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def zfnet():
    """The paper's network with a narrow classifier, its blocks and its layers."""
    net = ZFNet(10, hidden=(16, 12)).eval()
    tape, layers = deconvnet.record(net, torch.zeros(1, 3, 224, 224)), describe(net)
    return net, with_fields(blocks_of(tape), layers), layers


def test_the_blocks_are_the_papers(zfnet):
    blocks = zfnet[1]
    assert is_chain(blocks)
    assert [b.size[0] for b in blocks] == [224, 110, 55, 26, 13, 13, 13, 13, 6, 1, 1, 1]
    assert [b.maps for b in blocks] == [3, 96, 96, 256, 256, 384, 384, 256, 256, 16, 12, 10]
    assert [b.kernel and (b.kernel[0], b.stride[0]) for b in blocks[:9]] == [
        None, (7, 2), (3, 2), (5, 2), (3, 2), (3, 1), (3, 1), (3, 1), (3, 2)]
    assert [b.field and b.field[0] for b in blocks[1:9]] == [7, 11, 27, 43, 75, 107, 139, 171]
    assert blocks[1].marks == ("ReLU",) and blocks[2].marks == ("max pool", "contrast norm.")
    assert architecture._layers(blocks) == ["Input image", "Layer 1", "Layer 1", "Layer 2", "Layer 2", "Layer 3",
                                            "Layer 4", "Layer 5", "Layer 5", "Layer 6", "Layer 7", "Output"]


def test_the_table_is_what_describe_says(zfnet):
    rows = {row[0]: dict(zip(HEADS, row, strict=True)) for row in table(zfnet[2])}
    assert list(rows) == [layer.name for layer in zfnet[2]]
    for layer in zfnet[2]:
        row = rows[layer.name]
        assert (row["maps"], row["height"], row["width"]) == (layer.units, *layer.size)
        assert row["kernel"] == (layer.slide and str(layer.slide.kernel[0]))
        assert (row["field"], row["every"], row["from"]) == tuple(
            str(pair[0]) for pair in (layer.field.size, layer.field.stride, layer.field.start))
    assert sum(row["parameters"] or 0 for row in rows.values()) == sum(p.numel() for p in zfnet[0].parameters())


class Branched(nn.Module):
    """A sum round two convolutions, and a concatenation."""

    def __init__(self):
        super().__init__()
        self.first, self.inner = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.norm, self.last, self.side = nn.BatchNorm2d(4), nn.Conv2d(4, 2, 1), nn.Conv2d(4, 3, (3, 1), padding=(1, 0))
        self.fc = nn.Linear(5, 7)
        self.preprocess = Preprocess(16, 16)

    def forward(self, x):
        x = F.relu(self.first(x))
        x = F.relu(self.norm(self.inner(x)) + x)
        x = torch.cat([self.last(x), torch.sigmoid(self.side(x))], 1)
        return self.fc(F.adaptive_avg_pool2d(x, 1).flatten(1))


def test_branches_are_followed():
    blocks = blocks_of(deconvnet.record(Branched().eval(), torch.zeros(1, 3, 16, 16)))
    assert [(b.name, b.kind, b.sources) for b in blocks] == [
        ("image", "image", ()), ("first", "maps", (0,)), ("inner", "maps", (1,)), ("", "sum", (2, 1)),
        ("last", "maps", (3,)), ("side", "maps", (3,)), ("", "joined", (4, 5)), ("", "pooled", (6,)),
        ("fc", "flat", (7,))]
    assert [blocks[n].marks for n in (1, 2, 3, 5)] == [("ReLU",), ("batch norm.",), ("ReLU",), ("sigmoid",)]
    assert blocks[5].kernel == (3, 1) and blocks[6].maps == 5 and blocks[8].maps == 7 and not is_chain(blocks)


def test_a_tall_graph_goes_on_beside_itself_where_a_single_block_goes_on():
    blocks = [Block("image", "image", 3, (8, 8))]
    for n in range(30):  # a chain in which every block takes the last two, but block 14
        blocks.append(Block(f"b{n}", "maps", 4, (8, 8), tuple({n, n if n == 14 else max(n - 1, 0)})))
    levels = architecture._levels(blocks)
    strips, heads = architecture._strips(blocks, levels)
    assert levels == list(range(31)) and heads == {1: 14}
    assert [strips[level] for level in (0, 13, 14, 15, 30)] == [(0, 0), (0, 13), (0, 14), (1, 1), (1, 16)]


# ---- the drawings ----------------------------------------------------------------------------------------------------

def chain():
    """An image, a convolution, a pooling and a classifier."""
    return [Block("image", "image", 3, (32, 32)),
            Block("conv1", "maps", 8, (16, 16), (0,), (5, 5), (2, 2), ("ReLU",), (5, 5)),
            Block("pool1", "pooled", 8, (8, 8), (1,), (3, 3), (2, 2), ("max pool", "contrast norm."), (9, 9)),
            Block("fc2", "flat", 10, (1, 1), (2,))]


def graph():
    """A sum round a convolution and a concatenation of two."""
    return [*chain()[:2], Block("inner", "maps", 8, (16, 16), (1,), (3, 3), (1, 1)),
            Block("", "sum", 8, (16, 16), (2, 1), marks=("ReLU",)),
            Block("left", "maps", 2, (16, 16), (3,), (1, 1), (1, 1)),
            Block("right", "maps", 4, (16, 16), (3,), (3, 3), (1, 1)), Block("", "joined", 6, (16, 16), (4, 5))]


@pytest.fixture
def coarse(monkeypatch):
    """Golden pictures of a quarter of the pixels."""
    monkeypatch.setattr(exhibit, "DPI", 72)


@pytest.mark.usefixtures("coarse")
@pytest.mark.parametrize("blocks", [chain, graph], ids=lambda made: made.__name__)
def test_the_drawing_is_the_one_that_was_looked_at(blocks):
    assert_golden(draw(blocks(), "a network"), f"architecture_{blocks.__name__}")


@pytest.mark.usefixtures("coarse")
@pytest.mark.parametrize("wrong", ["another size", "a block lost", "another kind"])
def test_a_wrong_chain_is_told_from_the_golden_one(wrong):
    blocks = chain()
    if wrong == "another size":
        blocks[1] = Block("conv1", "maps", 8, (28, 28), (0,), (5, 5), (2, 2), ("ReLU",), (5, 5))
    elif wrong == "a block lost":
        blocks = [*blocks[:2], Block("fc2", "flat", 10, (1, 1), (1,))]
    else:
        blocks[2] = Block("pool1", "maps", 8, (8, 8), (1,), (3, 3), (2, 2), blocks[2].marks, (9, 9))
    assert_not_golden(draw(blocks, "a network"), "architecture_chain")


@pytest.mark.usefixtures("coarse")
def test_a_graph_without_its_shortcut_is_told_from_the_golden_one():
    blocks = graph()
    blocks[3] = Block("", "sum", 8, (16, 16), (2,), marks=("ReLU",))
    assert_not_golden(draw(blocks, "a network"), "architecture_graph")


@pytest.mark.parametrize("blocks", [chain, graph], ids=lambda made: made.__name__)
def test_the_same_bytes_twice(blocks):
    one, other = (draw(blocks(), "a network") for _ in range(2))
    assert exhibit.png(one, {}) == exhibit.png(other, {}) and exhibit.pdf(one, {}) == exhibit.pdf(other, {})


# ---- from the settings to the files ----------------------------------------------------------------------------------

def test_the_figure_is_written_with_its_table(monkeypatch, tmp_path):
    net = Branched().eval()
    monkeypatch.setattr("deconvnet.subject.load_model", lambda name, weights: net)
    made = architecture.make(Settings(model="own"), progress=False)
    files = made.write(tmp_path, "figure3")
    assert {file.suffix for file in files} == {".png", ".pdf", ".json", ".txt", ".csv", ".md"}
    rows = list(csv.DictReader(io.StringIO((tmp_path / "figure3.csv").read_text(encoding="utf-8"))))
    assert [row["layer"] for row in rows] == [layer.name for layer in describe(net, (16, 16))]
    assert rows[4]["kernel"] == "3×1" and rows[4]["parameters"] == str(4 * 3 * 3 + 3)
    assert made.numbers["parameters"] == sum(p.numel() for p in net.parameters()) and made.numbers["size"] == 16
    assert architecture.make(Settings(model="own", size=20), progress=False).numbers["layers"][0]["height"] == 20


def test_a_network_that_is_none_is_refused():
    with pytest.raises(UsageError, match="Did you mean 'zfnet'"):
        architecture.make(Settings(model="zfnett"), progress=False)
