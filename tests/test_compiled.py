"""Networks that torch.compile was given, whole or in part: as they were written, they compute the same call by call."""

from collections import OrderedDict

import pytest
import torch
from torch import nn

import deconvnet
from deconvnet.describe import describe, fingerprint, obstacles
from deconvnet.network import load_model
from deconvnet.scanned import encode

pytestmark = pytest.mark.usefixtures("one_thread")

IMAGES = torch.randn(5, 3, 12, 12, generator=torch.Generator().manual_seed(1))
made: list[int] = []


def backend(graph, _inputs):
    """A compiler that notes that it was asked, and compiles nothing."""
    made.append(1)
    return graph.forward


def written() -> nn.Module:
    torch.manual_seed(0)
    block = nn.Sequential(OrderedDict(conv2=nn.Conv2d(4, 5, 2), relu2=nn.ReLU()))
    return nn.Sequential(OrderedDict(conv1=nn.Conv2d(3, 4, 3), relu1=nn.ReLU(inplace=True), pool1=nn.MaxPool2d(2),
                                     block=block)).eval()


def whole() -> nn.Module:
    return torch.compile(written(), backend=backend)


def in_place() -> nn.Module:
    net = written()
    net.compile(backend=backend)
    return net


def part_in_place() -> nn.Module:
    net = written()
    net.block.compile(backend=backend)
    return net


def part() -> nn.Module:
    net = written()
    net.block = torch.compile(net.block, backend=backend)
    return net


@pytest.mark.parametrize("compiled", [whole, in_place, part_in_place, part])
def test_a_compiled_network_gives_what_it_was_written_to_give(compiled):
    plain, net = written(), compiled()
    name = "block._orig_mod.conv2" if compiled is part else "block.conv2"
    made.clear()
    top = deconvnet.scan(net, IMAGES, k=3)
    tape, expected = deconvnet.record(net, IMAGES), deconvnet.record(plain, IMAGES)
    assert not made  # nothing that is not seen call by call
    assert [str(call.function) for call in tape.calls] == [str(call.function) for call in expected.calls]
    assert list(top) == ["conv1", name]
    if compiled is not part:
        assert encode(top) == encode(deconvnet.scan(plain, IMAGES, k=3))
        assert fingerprint(net) == fingerprint(plain) and describe(net, (12, 12)) == describe(plain, (12, 12))
        assert obstacles(net, size=(12, 12)) == {}
    there, here = (deconvnet.project(one, layer, [(0, 2, 1, 1)]).pixels
                   for one, layer in ((expected, "block.conv2"), (tape, name)))
    assert torch.equal(there, here)
    with torch.no_grad():
        assert torch.equal(net(IMAGES), plain(IMAGES)) and made  # and is compiled for others as before


def test_ones_own_function_may_give_a_compiled_network(tmp_path):
    (tmp_path / "mine.py").write_text("""
import torch
from torch import nn
from deconvnet.images import Preprocess

def build():
    net = torch.compile(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()), backend="eager")
    net.preprocess = Preprocess(20, 20)
    return net
""")
    net = load_model(f"{tmp_path / 'mine.py'}:build")
    assert net.layers == ["0", "1"] and net.preprocess.size == 20
    assert list(deconvnet.scan(net, IMAGES)) == ["0"]
