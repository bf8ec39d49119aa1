"""The state of a scan: damaged, the one before it is used and that is said; of another, refused with what differs."""

import os
import random
import shutil
import warnings
from pathlib import Path

import pytest
import torch
from scans import RESULT, STATE, Drawings, act, network, state

from deconvnet import resume
from deconvnet.errors import UsageError
from deconvnet.files import write_whole
from deconvnet.scanned import Scan, decode, encode

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(autouse=True)
def no_power_cut(monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda file: None)


class Stopping(Drawings):
    """Images of which one stops the scan."""

    def __init__(self, at: int) -> None:
        super().__init__()
        self.at = at

    def __getitem__(self, index):
        if index == self.at:
            raise KeyboardInterrupt
        return super().__getitem__(index)


def stopped(folder: Path, at: int = 13, **options) -> Path:
    """A folder with the last two states of a scan that was stopped, after 11 images and after 8."""
    folder.mkdir(exist_ok=True)
    with pytest.raises(KeyboardInterrupt):
        act(folder, Stopping(at), **options)
    return folder


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> bytes:
    folder = tmp_path_factory.mktemp("whole")
    act(folder)
    return (folder / RESULT).read_bytes()


@pytest.fixture(scope="module")
def left(tmp_path_factory) -> Path:
    folder = stopped(tmp_path_factory.mktemp("left"))
    assert state(folder / STATE) == 11 and state(folder / f"{STATE}.previous") == 8
    return folder


@pytest.fixture
def copy(left, tmp_path) -> Path:
    return shutil.copytree(left, tmp_path / "copy")


def go_on(folder: Path) -> list[str]:
    """What the scan says that goes on in a folder."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        act(folder)
    assert {path.name for path in folder.iterdir()} == {RESULT}
    return [str(warning.message) for warning in said]


def test_a_state_holds_no_names_however_many_there_are(left, whole, tmp_path):
    """Which a result does; of a million images they would be most of what is written each time."""
    assert b"00.png" in whole and b"00.png" not in (left / STATE).read_bytes()
    files = [f"{n:06}.jpg" for n in range(100_000)]
    one, other = (resume.Checkpoint(tmp_path / name) for name in ("none", "many"))
    one.finish(Scan({}))
    other.finish(Scan({}, files=files, labels=list(range(100_000)), classes=files))
    assert one.files[0].read_bytes() == other.files[0].read_bytes()
    blank = Scan({}, files=files, k=7)
    assert other.through(blank).files == files and other.load(blank).k == 7


# ---- damaged ----


def damages(good: bytes, other: bytes, scan: bytes, cases: int):
    """What a state may have become, by name."""
    chance = random.Random(0)
    yield "empty", b""
    yield "zeros", bytes(len(good))
    yield "of another scan", other
    yield "a scan that is over", scan
    yield "text", b"<html>404</html>"
    yield "one byte more", good + b"\0"
    for length in (1, 7, 8, 9, 45, 46, 110, 111, len(good) // 2, len(good) - 1):
        yield f"cut off after {length} bytes", good[:length]
    for _ in range(cases // 4):
        length = chance.randrange(len(good))
        yield f"cut off after {length} bytes", good[:length]
        start = chance.randrange(len(good) - 64)
        yield f"zeros from {start} on", good[:start] + bytes(len(good) - start)
    for _ in range(cases - cases // 2):
        bit = chance.randrange(len(good) * 8)
        changed = bytearray(good)
        changed[bit // 8] ^= 1 << bit % 8
        yield f"bit {bit} flipped", bytes(changed)


@pytest.fixture(scope="module")
def others(tmp_path_factory, whole) -> tuple[bytes, bytes]:
    """The state of another scan, and a scan that is over."""
    folder = stopped(tmp_path_factory.mktemp("other"), k=5)
    return (folder / STATE).read_bytes(), whole


def test_of_a_damaged_state_the_one_before_is_used_and_that_is_said(left, whole, others, tmp_path):
    good, count = (left / STATE).read_bytes(), 0
    for how, content in damages(good, *others, 200):
        if content == good:
            continue  # the zeros were zeros before
        folder = shutil.copytree(left, tmp_path / str(count))
        (folder / STATE).write_bytes(content)
        [said] = go_on(folder)
        assert "from the state before the last, 8 images" in said and "\n" not in said, how
        assert f"{folder / STATE} is " in said, how
        assert (folder / RESULT).read_bytes() == whole, how
        shutil.rmtree(folder)
        count += 1
    assert count >= 200


def test_where_both_are_damaged_the_scan_begins_again_and_that_is_said(left, whole, tmp_path):
    good, before = (left / STATE).read_bytes(), (left / f"{STATE}.previous").read_bytes()
    for number, (one, two) in enumerate([(b"", b""), (good[:-1], before[:-1]), (bytes(99), before[:50]), (b"", None)]):
        folder = shutil.copytree(left, tmp_path / str(number))
        (folder / STATE).write_bytes(one)
        (folder / f"{STATE}.previous").unlink()
        if two is not None:
            (folder / f"{STATE}.previous").write_bytes(two)
        [said] = go_on(folder)
        assert "The scan begins again" in said and f"{folder / STATE} is damaged" in said and "\n" not in said
        assert (two is None) == ("previous" not in said)
        assert (folder / RESULT).read_bytes() == whole


def test_the_state_before_is_enough_and_nothing_is_said_of_it(copy, whole):
    """As after a kill between the two renamings."""
    (copy / STATE).unlink()
    assert go_on(copy) == []
    assert (copy / RESULT).read_bytes() == whole


def test_a_damaged_state_never_takes_the_place_of_the_good_one(copy, monkeypatch):
    (copy / STATE).write_bytes(b"damaged")
    good = (copy / f"{STATE}.previous").read_bytes()

    def refused(path, content, flush=True, previous=None):
        write_whole(path, content, flush, previous)
        raise KeyboardInterrupt  # after the first state that is written

    monkeypatch.setattr(resume, "write_whole", refused)
    with pytest.warns(UserWarning, match="before the last"), pytest.raises(KeyboardInterrupt):
        act(copy)
    assert (copy / f"{STATE}.previous").read_bytes() == good and state(copy / STATE) == 11


def test_a_state_that_cannot_be_read_is_taken_for_a_damaged_one(copy, whole, monkeypatch):
    real = Path.read_bytes

    def refused(path):
        if path.name == STATE:
            raise PermissionError(13, "Permission denied")
        return real(path)

    monkeypatch.setattr(Path, "read_bytes", refused)
    [said] = go_on(copy)
    monkeypatch.undo()
    assert "cannot be read: Permission denied" in said
    assert (copy / RESULT).read_bytes() == whole


# ---- of something else ----


def entries(facts: dict, above: tuple[str, ...] = ()):
    """The way to every value, however deep."""
    for key, value in facts.items():
        yield from entries(value, (*above, key)) if isinstance(value, dict) else [(*above, key)]


def about(file: Path) -> dict:
    return decode(file.read_bytes(), file)[1]


def altered(file: Path, way: tuple[str, ...]) -> None:
    """The state with another value in its fingerprint, sealed anew."""
    scan, facts = decode(file.read_bytes(), file)
    place = facts["fingerprint"]
    for key in way[:-1]:
        place = place[key]
    place[way[-1]] = "altered"
    file.write_bytes(encode(scan, fingerprint=facts["fingerprint"]))


def test_every_entry_of_the_fingerprint_counts(copy, left):
    ways = list(entries(about(left / STATE)["fingerprint"]))
    assert {way[0] for way in ways} >= {"k", "per_image", "shard", "images", "names", "weights", "device", "layers",
                                        "batch_size", "versions", "model", "images_content", "images_preprocess"}
    assert {way[1] for way in ways if way[0] == "versions"} == {"deconvnet", "torch", "numpy", "python"}
    for way in ways:
        for name in (STATE, f"{STATE}.previous"):
            shutil.copyfile(left / name, copy / name)
            altered(copy / name, way)
        before = {path: path.read_bytes() for path in copy.iterdir()}
        with pytest.raises(UsageError) as refused:
            act(copy)
        first, *lines, last = str(refused.value).splitlines()
        assert first == f"{copy / STATE} is the state of another scan:"
        assert len(lines) == 1 and lines[0].startswith(f"  {'.'.join(way)}: altered there, ") and "here" in lines[0]
        assert last.startswith("Delete the files") and str(copy / STATE) in last
        assert {path: path.read_bytes() for path in copy.iterdir()} == before


def test_all_that_differs_is_listed(copy):
    net = network(seed=1)
    with pytest.raises(UsageError) as refused:
        act(copy, net=net, k=5, batch_size=4, layers=["conv2"])
    assert [line.split(":")[0] for line in str(refused.value).splitlines()[1:-1]] == [
        "  batch_size", "  k", "  layers", "  weights"]


def test_another_version_is_refused(copy, monkeypatch):
    now = resume.versions()
    monkeypatch.setattr(resume, "versions", lambda: {**now, "deconvnet": "99.1"})
    with pytest.raises(UsageError, match=rf"versions.deconvnet: {now['deconvnet']} there, 99.1 here"):
        act(copy)


def test_a_state_in_another_format_is_refused(copy, monkeypatch):
    monkeypatch.setattr("deconvnet.scanned._FORMAT", 99)
    with pytest.raises(UsageError, match=r"(?s)has format \d+, and this version reads 99.*Delete the files"):
        act(copy)


@pytest.mark.parametrize("images", [torch.ones(9, 3, 6, 5), Drawings()], ids=["a tensor", "files with a manifest"])
def test_other_content_under_the_same_names_is_refused(images, tmp_path, monkeypatch):
    monkeypatch.setattr(Drawings, "manifest", "before", raising=False)
    monkeypatch.setattr("deconvnet.resume.Checkpoint.remove", lambda self: None)
    act(tmp_path, images)
    if isinstance(images, torch.Tensor):
        images[8, 2, 5, 4] = 2
    else:
        monkeypatch.setattr(Drawings, "manifest", "after")
    with pytest.raises(UsageError, match=r"images_content: .* there, .* here"):
        act(tmp_path, images)


def test_a_scan_that_is_over_is_not_overwritten(copy, whole):
    for name in (STATE, f"{STATE}.previous"):
        (copy / name).write_bytes(whole)
    with pytest.raises(UsageError, match="is a scan that is over"):
        act(copy)
    assert (copy / STATE).read_bytes() == whole
