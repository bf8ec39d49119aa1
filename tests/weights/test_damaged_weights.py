"""Files of weights with a bit turned, a piece gone or a piece more, and headers of every kind of nonsense.

None gives a foreign error, and none loads as something else than what was saved: not where a SHA-256 is known, nor
from the archives, which have checksums. Of a safetensors file without a SHA-256 only header and sizes can be checked.
"""

import hashlib
import json
import random
import struct

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import deconvnet
from deconvnet.errors import DeconvnetError
from deconvnet.importing.weights import misfits, read_weights

SOURCE = """
from torch import nn
def build():
    net = nn.Sequential()
    net.conv1, net.norm1 = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)
    return net
"""
SHAPES = {"conv1.weight": (4, 3, 3, 3), "conv1.bias": (4,), "norm1.weight": (4,), "norm1.bias": (4,),
          "norm1.running_mean": (4,), "norm1.running_var": (4,)}
GOOD = {name: torch.rand(shape, generator=torch.Generator().manual_seed(len(name))) for name, shape in SHAPES.items()}
ENDINGS = (".safetensors", ".npz", ".pt", ".legacy.pt")


def good(folder, ending):
    file = folder / f"w{ending}"
    if ending == ".safetensors":
        save_file(GOOD, file, {"format": "pt"})
    elif ending == ".npz":
        np.savez_compressed(file, **{name: value.numpy() for name, value in GOOD.items()})
    else:
        torch.save(GOOD, file, _use_new_zipfile_serialization="legacy" not in ending)
    return file


def mutations(content, count, rng):
    """As many changed copies, evenly over the file: bits turned, bytes set, pieces gone, doubled, zeroed, added."""
    for n in range(count):
        at = min(int((n + rng.random()) * len(content) / count), len(content) - 1)
        kind = n % 8
        length = rng.randint(1, 40)
        yield {
            0: lambda at=at: content[:at] + bytes([content[at] ^ 1 << rng.randrange(8)]) + content[at + 1:],
            1: lambda at=at: content[:at] + bytes([rng.randrange(256)]) + content[at + 1:],
            2: lambda at=at: content[:at],
            3: lambda at=at, length=length: content[:at] + content[at + length:],
            4: lambda at=at, length=length: content[:at] + content[at:at + length] + content[at:],
            5: lambda at=at, length=length: content[:at] + bytes(length) + content[at + length:],
            6: lambda length=length: content + rng.randbytes(length),
            7: lambda at=at: content[:at] + b"\xff" * 8 + content[at + 8:],
        }[kind]()


def outcome(call):
    """The state that a call gives, or None where it gives our error; any other error is the test's."""
    try:
        return call()
    except DeconvnetError:
        return None


def same(state):
    return all(torch.equal(state[name], value) for name, value in GOOD.items())


def turned(tmp_path, ending, count, call):
    """How many changed files gave (an error, the same, something else)."""
    file = good(tmp_path, ending)
    content, rng, counts = file.read_bytes(), random.Random(ending), [0, 0, 0]
    for changed in mutations(content, count, rng):
        if changed == content:
            continue
        file.write_bytes(changed)
        state = outcome(lambda: call(file))
        counts[0 if state is None else 1 if same(state) else 2] += 1
        assert state is None or all(torch.isfinite(value).all() for value in state.values())
    return counts


COUNTS = [pytest.param(160, id="some"), pytest.param(3000, id="many", marks=pytest.mark.extended)]


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("ending", ENDINGS)
def test_where_a_sha256_is_known_nothing_changed_is_loaded(tmp_path, ending, count):
    file = good(tmp_path, ending)
    (tmp_path / "mine.py").write_text(SOURCE)
    sha = hashlib.sha256(file.read_bytes()).hexdigest()
    (tmp_path / "card.yaml").write_text(f"weights: {file.name}\nsha256: {sha}\n")
    net = f"{tmp_path / 'mine.py'}:build"
    assert same(deconvnet.load_model(net, tmp_path / "card.yaml").state_dict())
    errors, alike, other = turned(tmp_path, ending, count,
                                  lambda file: deconvnet.load_model(net, tmp_path / "card.yaml").state_dict())
    assert errors >= count * 0.95 and alike == other == 0


def fitting(file):
    """What ``load_model`` would put into the network; its error where it would refuse."""
    state = read_weights(file)
    if problems := misfits(GOOD, state):
        raise DeconvnetError("\n".join(problems))
    return state


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("ending", [".npz", ".pt"])
def test_archives_notice_by_themselves(tmp_path, ending, count):
    errors, _, other = turned(tmp_path, ending, count, fitting)
    assert other == 0 and errors >= count / 2  # what stands between the members may change


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("ending", [".safetensors", ".legacy.pt"])
def test_without_a_checksum_sizes_names_and_kinds_are_checked(tmp_path, ending, count):
    errors, alike, other = turned(tmp_path, ending, count, fitting)
    assert errors > other and errors + alike + other >= count * 0.95


@pytest.mark.parametrize("count", COUNTS)
def test_a_changed_yaml_gives_our_error_or_a_network(tmp_path, count):
    good(tmp_path, ".safetensors")
    text = (b"weights: w.safetensors\nsize: 16\nresize: 16\nmean: [0.5, 0.5, 0.5]\nlayers:\n"
            b"  - {name: conv1, kind: convolution, stride: 2}\n  - {name: norm1, kind: batch_norm}\n")
    for changed in mutations(text, count, random.Random(0)):
        (tmp_path / "net.yaml").write_bytes(changed)
        net = outcome(lambda: deconvnet.load_model(str(tmp_path / "net.yaml")))
        if net is not None:
            assert torch.isfinite(net(torch.zeros(1, net.preprocess.channels, 16, 16))).all()


# ---- headers of safetensors ----

def headers(content, count, rng):
    """Damaged headers before whole data."""
    length = int.from_bytes(content[:8], "little")
    header, data = content[8:8 + length], content[8 + length:]
    about = json.loads(header)
    words = [b"F16", b"I32", b"F64", b"BOOL", b"-1", b"1e9", b"null", b"{}", b"[", b'"', b"\x00", b"\xff",
             b"99999999999", b"conv1.weight", b"4,3", b"__metadata__", b"data_offsets", b"\\u0000", b"NaN"]
    for n in range(count):
        at = rng.randrange(length)
        kind = n % 7
        if kind == 0:
            made = bytes([*header[:at], header[at] ^ 1 << rng.randrange(8), *header[at + 1:]])
        elif kind == 1:
            made = header[:at] + rng.choice(words) + header[at:]
        elif kind == 2:
            made = header[:at] + rng.choice(words) + header[at + rng.randint(1, 12):]
        elif kind == 3:
            made = rng.randbytes(rng.randrange(200))
        elif kind == 4:
            made = json.dumps(_wrong(about, rng)).encode()
        elif kind == 5:  # the length of the header
            wrong = rng.choice([0, 1, length - 1, length + 1, length * 2, 2**31, 2**63, 2**64 - 1])
            yield struct.pack("<Q", wrong) + header + data
            continue
        else:
            made = header[:at]
        yield struct.pack("<Q", len(made)) + made + data


def _wrong(about, rng):
    """A header in which one value is another."""
    about = json.loads(json.dumps(about))
    name = rng.choice([name for name in about if name != "__metadata__"])
    key = rng.choice(["dtype", "shape", "data_offsets", None])
    value = rng.choice([None, -1, 2**70, [], [-1], [2**40, 2**40], [4, 3, 3, 4], [0, 0], [0, 2**62], "F8_E4M3", "X", {},
                        [3, 4, 3], 1.5, True, ["4"]])
    if key is None:
        about[rng.choice([name, name + "x", ""])] = value
    else:
        about[name][key] = value
    return about


@pytest.mark.parametrize("count", [pytest.param(1500, id="some"),
                                   pytest.param(20_000, id="many", marks=pytest.mark.extended)])
def test_a_damaged_header_gives_our_error_or_what_was_saved(tmp_path, count):
    file = good(tmp_path, ".safetensors")
    content, errors = file.read_bytes(), 0
    for changed in headers(content, count, random.Random(1)):
        file.write_bytes(changed)
        state = outcome(lambda: fitting(file))
        assert state is None or same(state)
        errors += state is None
    assert errors >= 0.7 * count
