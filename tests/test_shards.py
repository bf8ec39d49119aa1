"""Tar files in WebDataset's layout: the same as a folder of what lies in them, and harmless whatever lies in them."""

import bz2
import gzip
import io
import lzma
import os
import pickle
import random
import tarfile
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch
from bad_images import ODD, PIXELS, PNG, REFUSED, encode
from PIL import Image
from test_cli import SOURCE
from test_scan import entries, identity

from deconvnet.cli import main
from deconvnet.errors import UnreadableImage, UsageError
from deconvnet.images import ENDINGS, ImageFolder, ImageShards, Preprocess, open_images
from deconvnet.scan import scan
from deconvnet.scanned import read_scan
from deconvnet.shards import Shards, named, there
from deconvnet.training.data import Files

pytestmark = pytest.mark.usefixtures("one_thread")

SMALL = Preprocess(40, 48)


def info(name, size=0, kind=tarfile.REGTYPE, **more):
    """The header of a member."""
    header = tarfile.TarInfo(name)
    header.size, header.type = size, kind
    for key, value in more.items():
        setattr(header, key, value)
    return header


def tar(path, *members, form=tarfile.PAX_FORMAT):
    """A tar file of (name, bytes), or of headers."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=form) as archive:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                archive.addfile(member)
            else:
                archive.addfile(info(member[0], len(member[1])), io.BytesIO(member[1]))
    return path


def block(name, size=b"%011o\0" % 0, kind=b"0", prefix=b""):
    """A header as bytes, with a checksum that fits, whatever it says."""
    plain = name.ljust(100, b"\0") + b"0000644\0" + b"0000000\0" * 2 + size.ljust(12, b"\0") + b"%011o\0" % 0
    rest = kind + b"\0" * 100 + b"ustar\00000" + b"\0" * 80 + prefix.ljust(155, b"\0") + b"\0" * 12
    return plain + b"%06o\0 " % (sum(plain + b" " * 8 + rest)) + rest


def octal(size):
    return b"%011o\0" % size


def padded(content):
    return content + b"\0" * (-len(content) % 512)


def shards(*paths):
    return ImageShards(paths, SMALL)


def pictures(count, seed=0):
    """PNG files of noise."""
    noise = np.random.default_rng(seed)
    return [encode(Image.fromarray(noise.integers(0, 256, (48, 56, 3), np.uint8)), "PNG") for _ in range(count)]


# ---- the same as a folder ----


def outcome(images, index):
    try:
        return images.image(index).tobytes()
    except UnreadableImage as error:
        assert error.name == images.files[index]
        return error.reason


@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT])
def test_every_image_good_or_bad_is_what_it_is_in_a_folder(form, tmp_path):
    files = {f"{'cat' if n % 3 else 'dog/deep'}/{name}": content for n, (name, content) in enumerate(
        [(name, bad[0]) for name, bad in REFUSED.items()] + [(name, odd[0]) for name, odd in ODD.items()])
        if name.isascii() and "." not in name.rpartition(".")[0] and len(name) < 90}
    assert len(files) > 50
    for name, content in files.items():
        (tmp_path / "folder" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "folder" / name).write_bytes(content)
    folder = ImageFolder(tmp_path / "folder", SMALL)
    order = {name: content for name, content in sorted(files.items(), key=lambda item: folder.files.index(item[0]))}
    packed = shards(tar(tmp_path / "x.tar", *order.items(), form=form))
    assert packed.files == [f"x.tar/{name}" for name in folder.files]
    assert (packed.classes, packed.labels) == (folder.classes, folder.labels) and len(folder.classes) == 2
    assert [outcome(packed, n) for n in range(len(packed))] == [outcome(folder, n) for n in range(len(folder))]


def test_a_folder_packed_with_dots_and_hidden_names_keeps_its_classes(tmp_path):
    packed = shards(tar(tmp_path / "x.tar", info("./", kind=tarfile.DIRTYPE), ("./dog/1.png", PNG),
                        ("./dog/._1.png", b"of macOS"), ("./cat/my.holiday.png", PNG), (".git/2.png", PNG)))
    assert packed.files == ["x.tar/dog/1.png", "x.tar/cat/my.holiday.png"]
    assert (packed.classes, packed.labels, packed.ignored) == (["cat", "dog"], [1, 0], 0)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_scan_of_shards_is_that_of_the_folder_and_goes_on_where_it_was_cut_off(workers, tmp_path, monkeypatch):
    contents = pictures(23)
    (tmp_path / "folder").mkdir()
    for number, content in enumerate(contents):
        (tmp_path / "folder" / f"{number:02d}.png").write_bytes(content)
    for part in range(4):
        names = range(part * 6, min(part * 6 + 6, 23))
        tar(tmp_path / f"s-{part:02d}.tar", *((f"{n:02d}.png", contents[n]) for n in names))
    images, calls = open_images(str(tmp_path / "s-{00..03}.tar"), SMALL), []
    inputs = ImageShards.inputs

    def interrupted(self, pixels):
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return inputs(self, pixels)

    monkeypatch.setattr(ImageShards, "inputs", interrupted)
    with pytest.raises(KeyboardInterrupt):
        scan(identity(), images, batch_size=4, workers=workers, checkpoint=tmp_path / "state")
    assert (tmp_path / "state").exists()
    found = scan(identity(), images, batch_size=4, workers=workers, checkpoint=tmp_path / "state")
    expected = scan(identity(), ImageFolder(tmp_path / "folder", SMALL), batch_size=4)
    assert entries(found["conv1"]) == entries(expected["conv1"]) and found.count == 23
    assert torch.equal(found["conv1"].fired, expected["conv1"].fired)
    assert [name.partition("/")[2] for name in found.files] == expected.files


# ---- classes ----


@pytest.mark.parametrize("members, classes, labels", [
    ([("0.png", PNG), ("0.cls", b"2"), ("1.png", PNG), ("1.cls", b" 0\n"), ("2.png", PNG)],
     ["0", "1", "2"], [2, 0, -1]),
    ([("0.cls", b"dog"), ("0.png", PNG), ("1.cls", "été".encode()), ("1.JPG", PNG)], ["dog", "été"], [0, 1]),
    ([("0.cls", b"7"), ("0.png", PNG), ("1.cls", b"dog"), ("1.png", PNG)], ["7", "dog"], [0, 1]),
    ([("0.png", PNG), ("0.json", b'{"label": 1, "x": [1]}'), ("1.json", b'{"cls": 0}'), ("1.png", PNG)],
     ["0", "1"], [1, 0]),
    ([("0.png", PNG), ("0.json", b'{"label": "cat"}'), ("0.cls", b"dog"), ("1.cls", b"emu"), ("1.png", PNG),
      ("1.json", b'{"label": "cat"}')], ["dog", "emu"], [0, 1]),
    ([("0.png", PNG), ("0.json", b'{"class": "cat"}'), ("a/0.png", PNG), ("a/0.cls", b"a")], ["a", "cat"], [1, 0]),
    ([("a/0.png", PNG), ("a/0.cls", b"1"), ("b/0.png", PNG)], ["0", "1"], [1, -1]),
    ([("a/0.png", PNG), ("a/0.json", b"{}"), ("b/0.png", PNG), ("0.png", PNG), ("a/0.txt", b"1")],
     ["a", "b"], [0, 1, -1]),
    *[([("0.png", PNG), ("0.json", note)], [], [-1]) for note in (
        b"", b"[", b"7", b'"label"', b'{"label": null}', b'{"label": true}', b'{"label": 1.5}', b'{"label": [1]}',
        b"[" * 100_000, b'{"label": ' + b"9" * 5_000 + b"}", b"\xff\xfe", b" " * (1 << 21))],
])
def test_the_class_is_what_is_said_of_an_image_or_else_its_folder(members, classes, labels, tmp_path):
    packed = shards(tar(tmp_path / "x.tar", *members))
    assert (packed.classes, packed.labels) == (classes, labels)


@pytest.mark.parametrize("name, said", [
    ("0.cls", b""), ("0.cls", b"x" * 257), ("0.cls", b"1" * 300), ("0.cls", b"65536"), ("0.json", b'{"label": -1}'),
    ("0.json", b'{"label": 1000000000000}'), ("0.json", b'{"label": ""}'),
    ("0.json", b'{"label": "%s"}' % (b"x" * 257)),
    ("0.json", b'{"label": "\\udc80%s"}' % (b"x" * 255))])
def test_what_is_no_class_is_refused_with_the_shard_and_the_member(name, said, tmp_path):
    with pytest.raises(UsageError, match=rf"'{name}' in .*x\.tar says no class"):
        shards(tar(tmp_path / "x.tar", ("0.png", PNG), (name, said)))


def test_an_image_that_says_something_of_another_is_passed_over(tmp_path):
    packed = shards(tar(tmp_path / "x.tar", ("0.mask.png", PNG), ("0.png", PNG), ("1.left.png", PNG),
                        ("1.right.png", PNG), ("2.png", PNG), ("2.depth.npy", b""), ("3.png", b"old"), ("3.png", PNG)))
    assert packed.files == [f"x.tar/{name}" for name in ("0.png", "1.left.png", "1.right.png", "2.png", "3.png")]
    assert packed.ignored == 2 and outcome(packed, 4) == outcome(packed, 0)  # of two with one name the last


class Canary:
    def __init__(self, place):
        self.place = place

    def __reduce__(self):
        return Path.touch, (self.place,)


@pytest.mark.parametrize("ending", ["pyd", "pickle", "pkl", "pth", "pt", "npy", "npz", "ten", "json", "png", "txt"])
def test_nothing_is_unpickled(ending, tmp_path):
    payload = pickle.dumps(Canary(tmp_path / "canary"))
    path = tar(tmp_path / "x.tar", ("0.png", PNG), ("0.cls", b"1"), (f"1.{ending}", payload))
    packed = shards(path)
    assert outcome(packed, 0) and [outcome(packed, n) for n in range(len(packed))]
    assert not (tmp_path / "canary").exists()
    pickle.loads(payload)
    assert (tmp_path / "canary").exists(), "or this test shows nothing"


# ---- which files ----


def test_what_may_stand_for_tar_files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("s/t-08.tar", "s/t-09.tar", "s/t-10.tar", "s/other.TAR", "s/a[1].tar", "mixed/x.tar", "{1..2}.tar"):
        tar(tmp_path / name, ("0.png", PNG))
    (tmp_path / "mixed/1.png").write_bytes(PNG)
    three = [Path(f"s/t-{n}.tar") for n in ("08", "09", "10")]
    assert named("s/t-{08..10}.tar") == named("s/t-*.tar") == named("s/t-{0..1}[0-9].tar") == three
    assert named("s/t-{1..1}{0..0}.tar") == three[2:] and named("s/a[1].tar") == [Path("s/a[1].tar")]
    assert named("{1..2}.tar") == [Path("{1..2}.tar")]
    assert [path.name for path in named("s")] == ["a[1].tar", "other.TAR", "t-08.tar", "t-09.tar", "t-10.tar"]
    assert named("gone") == named("x" * 5000) == named("a\0b") == []
    assert open_images("s/t-{08..10}.tar", SMALL).files == ["t-08.tar/0.png", "t-09.tar/0.png", "t-10.tar/0.png"]
    assert len(open_images("s", SMALL)) == 5 and open_images("mixed", SMALL).files == ["1.png"]
    assert open_images("{1..2}.tar", SMALL).files == ["{1..2}.tar/0.png"]
    assert Shards([Path("s/t-08.tar"), Path("mixed/x.tar")], ENDINGS).files == ["s/t-08.tar/0.png", "mixed/x.tar/0.png"]
    assert all(map(there, ("s", "s/t-08.tar", "s/t-{08..10}.tar", "s/t-*.tar")))
    assert not any(map(there, ("gone", "s/t-{08..11}.tar", "s/u-*.tar", "x" * 5000, "a\0b.tar")))


@pytest.mark.parametrize("spec, says", [
    ("t-{00..02}.tar", r"t-01\.tar is not there, nor are 1 others"), ("u-*.tar", r"u-\*\.tar is not there"),
    ("gone.tar", "gone.tar is not there"), ("t-{3..1}.tar", "counts backwards"),
    ("t-{0..999999999}.tar", "further than"), ("{0..999}{0..999}.tar", "more than 100,000"),
    ("x.tar.gz", "x.tar.gz is not there"), ("gone.tgz", "is not there"),
    ("nul\0.tar", "is not there"), ("x" * 5000 + ".tar", "is not there")])
def test_tar_files_that_are_not_there_are_named(spec, says, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tar(tmp_path / "t-00.tar", ("0.png", PNG))
    with pytest.raises(UsageError, match=says):
        open_images(spec, SMALL)


def test_a_folder_that_cannot_be_listed_is_named(tmp_path, monkeypatch):
    def denied(self):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "iterdir", denied)
    with pytest.raises(UsageError, match=f"cannot list the folder {tmp_path}: permission denied"):
        open_images(tmp_path, SMALL)


def test_shards_without_images_say_what_was_looked_for(tmp_path):
    with pytest.raises(UsageError, match=r"no images in .*x\.tar .2 other members.*\.jpeg"):
        shards(tar(tmp_path / "x.tar", ("0.cls", b"1"), ("1.txt", b""), ("2.npy", b"")))


# ---- damaged ----


@pytest.mark.parametrize("name, pack", {
    "gzip": gzip.compress, "bzip2": bz2.compress, "xz": lzma.compress, "zstd": lambda data: b"\x28\xb5\x2f\xfd" + data,
    "zip": lambda data: b"PK\3\4" + data}.items())
def test_a_compressed_tar_is_refused_with_what_to_do(name, pack, tmp_path):
    data = tar(tmp_path / "plain.tar", ("0.png", PNG)).read_bytes()
    for path in (tmp_path / "x.tar", tmp_path / "x.tar.gz"):
        path.write_bytes(pack(data))
        with pytest.raises(UsageError, match=rf"{path.name} is compressed \({name}\).*make a plain .tar"):
            open_images(path, SMALL)


def test_a_shard_that_is_cut_off_anywhere_is_named_and_never_read_as_if_it_were_whole(tmp_path):
    whole = tar(tmp_path / "whole.tar", *((f"{n}.png", content) for n, content in enumerate(pictures(3))),
                ("3.cls", b"1")).read_bytes()
    end = len(whole.rstrip(b"\0")) // 512 * 512 + 512  # where the mark of the end begins
    assert len(shards(tmp_path / "whole.tar")) == 3
    cuts = [*range(0, end + 512, 512), *random.Random(0).sample(range(end + 512), 100)]
    for cut in cuts:
        (tmp_path / "cut.tar").write_bytes(whole[:cut])
        with pytest.raises(UsageError, match=r"cut\.tar is damaged, cut off, or no tar file.*at byte [\d,]+.*Fetch it"):
            shards(tmp_path / "cut.tar")
    (tmp_path / "cut.tar").write_bytes(whole[:end + 512])
    assert len(shards(tmp_path / "cut.tar")) == 3


def test_a_changed_byte_in_a_header_is_seen_and_one_in_an_image_is_the_image_s(tmp_path):
    contents = pictures(3)
    path = tar(tmp_path / "x.tar", *((f"{n}.png", content) for n, content in enumerate(contents)))
    whole, draw = path.read_bytes(), random.Random(1)
    with tarfile.open(path) as archive:
        headers = [member.offset for member in archive]
        data = [member.offset_data for member in archive]
    for _ in range(300):
        changed, byte = bytearray(whole), draw.randrange(512)
        changed[draw.choice(headers) + byte] ^= 1 << draw.randrange(8)
        path.write_bytes(changed)
        if 154 <= byte < 156:  # what ends the checksum, and says nothing
            continue
        with pytest.raises(UsageError, match="damaged"):
            shards(path)
    changed = bytearray(whole)
    changed[data[1] + 60] ^= 1
    path.write_bytes(changed)
    packed = shards(path)
    assert [isinstance(outcome(packed, n), bytes) for n in range(3)] == [True, False, True]


def test_a_shard_that_changes_after_it_was_listed_costs_images_and_not_the_scan(tmp_path):
    contents = pictures(3)
    path = tar(tmp_path / "x.tar", *((f"{n}.png", content) for n, content in enumerate(contents)))
    packed, size = shards(path), path.stat().st_size
    with path.open("r+b") as file:
        file.truncate(512 + len(contents[0]) + 1600)
    assert all("shorter" in outcome(packed, n) for n in range(3))
    path.write_bytes(bytes(size))
    assert "was written to since it was listed" in outcome(packed, 1)
    path.unlink()
    assert outcome(packed, 0) == "its tar file cannot be read: No such file or directory"
    found = scan(identity(), shards(tar(path, ("0.png", PNG), ("1.png", b""))))
    assert found.skipped == [("x.tar/1.png", "an empty file")]


# ---- hostile ----

END = bytes(1024)
GOOD = block(b"good.png", octal(len(PNG))) + padded(PNG)


def pax(text, declared=None):
    return block(b"x", octal(len(text) if declared is None else declared), b"x") + padded(text)


def record(key, value):
    """A line of a pax header, which begins with its own length."""
    line = b" " + key + b"=" + value + b"\n"
    size = len(line) + 1
    while len(b"%d" % size) + len(line) != size:
        size = len(b"%d" % size) + len(line)
    return b"%d" % size + line


HOSTILE = {  # what lies before a good image; None: refused, else the names of images and whether each can be read
    "nothing": (b"", []),
    "up": (block(b"../../up.png", octal(len(PNG))) + padded(PNG), [("../../up.png", True)]),
    "absolute": (block(b"/etc/x.png", octal(len(PNG))) + padded(PNG), [("/etc/x.png", True)]),
    "prefix": (block(b"x.png", octal(len(PNG)), prefix=b"../..") + padded(PNG), [("../../x.png", True)]),
    "newline": (block(b"a\n<img>.png", octal(len(PNG))) + padded(PNG), [("a\n<img>.png", True)]),
    "not utf-8": (block(b"\xff\xfe.png", octal(len(PNG))) + padded(PNG), [("\udcff\udcfe.png", True)]),
    "no name": (block(b"", octal(len(PNG))) + padded(PNG), []),
    "pax name": (pax(record(b"path", b"../" * 1000 + b"x.png")) + block(b"y", octal(len(PNG))) + padded(PNG),
                 [("../" * 1000 + "x.png", True)]),
    **{f"{what} called png": (block(b"x.png", kind=kind), [("x.png", False)]) for what, kind in {
        "hard link": b"1", "symbolic link": b"2", "device": b"3", "block device": b"4", "FIFO": b"6"}.items()},
    "folder called png": (block(b"x.png/", kind=b"5"), [("x.png", False)]),
    "of an unknown type": (block(b"x.png", octal(len(PNG)), b"Z") + padded(PNG), [("x.png", False)]),
    "sparse": (block(b"x.png", octal(0), b"S"), [("x.png", False)]),
    "pax sparse": (pax(record(b"GNU.sparse.size", b"9999999999") + record(b"GNU.sparse.map", b"0,1"))
                   + block(b"x.png", octal(1)) + padded(b"x"), [("x.png", False)]),
    "sparse map without end": (pax(record(b"GNU.sparse.major", b"1") + record(b"GNU.sparse.minor", b"0"))
                               + block(b"x.png", octal(9 << 20)) + b"99999999\n" + b"1\n" * (4 << 20), None),
    "beyond the end": (block(b"x.png", octal(1 << 30)), None),
    "too large for a file": (block(b"x.png", b"\x80" + b"\x7f" + b"\xff" * 10), None),
    "negative": (block(b"x.png", b"\xff" * 10 + b"\xfe\x00"), None),
    "back to itself": (block(b"a.txt") + block(b"x.png", b"\xff" * 10 + b"\xfe\x00"), None),
    "back to the beginning": (block(b"a.txt") + pax(record(b"size", b"-2000")) + block(b"x.png"), None),
    "negative in pax": (pax(record(b"size", b"-1024")) + block(b"x.png"), None),
    "negative pax header": (block(b"x", b"\xff" * 10 + b"\xfc\x00", b"x"), None),
    "size that is no number": (pax(record(b"size", b"many")) + block(b"x.png"), [("x.png", False)]),
    "pax header beyond the end": (block(b"x", octal(1 << 32), b"x"), None),
    "pax header of a megabyte": (pax(record(b"comment", b"x" * (1 << 20))) + block(b"x.png"), None),
    "digits": (pax(b"1" * 15_000), []),
    "global digits": (block(b"x", octal(15_000), b"g") + padded(b"1" * 15_000), []),
    "long name of a megabyte": (block(b"x", octal(1 << 20), b"L") + b"x" * (1 << 20) + block(b"x.png"), None),
    "long names without end": ((block(b"x", octal(1), b"L") + padded(b"x")) * 3_000, None),
    "headers of headers": (pax(record(b"comment", b"x")) * 3_000, None),
}


@pytest.mark.timeout(20)
@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_tar_is_refused_or_harmless(name, tmp_path, capfd):
    before, expected = HOSTILE[name]
    (tmp_path / "in").mkdir()
    path = tmp_path / "in" / "x.tar"
    path.write_bytes(before + GOOD + END)
    begun = time.process_time()
    tracemalloc.start()
    try:
        if expected is None:
            with pytest.raises(UsageError, match=r"x\.tar is damaged, cut off, or no tar file"):
                shards(path)
        else:
            packed = shards(path)
            assert packed.files == [*(f"x.tar/{image.removeprefix('./')}" for image, _ in expected), "x.tar/good.png"]
            assert [isinstance(outcome(packed, n), bytes) for n in range(len(packed))] == [
                *(read for _, read in expected), True]
        assert tracemalloc.get_traced_memory()[1] < 3 << 20
    finally:
        tracemalloc.stop()
    assert time.process_time() - begun < 5
    assert [file.name for file in tmp_path.rglob("*")] == ["in", "x.tar"] and capfd.readouterr() == ("", "")


@pytest.mark.timeout(20)
def test_what_is_no_regular_file_is_refused(tmp_path):
    os.mkfifo(tmp_path / "fifo.tar")  # opening it would wait for ever
    (tmp_path / "folder.tar").mkdir()
    (tmp_path / "loop.tar").symlink_to(tmp_path / "loop.tar")
    for name, says in (("fifo.tar", "not a regular file"), ("folder.tar", "no images"), ("loop.tar", "loop.tar")):
        with pytest.raises(UsageError, match=says):
            open_images(tmp_path / name, SMALL)


def test_bytes_at_random_are_no_tar_file(tmp_path):
    draw = random.Random(0)
    for length in (0, 1, 511, 512, 513, 1024, 10_240):
        for _ in range(20):
            (tmp_path / "x.tar").write_bytes(draw.randbytes(length))
            with pytest.raises(UsageError, match=r"x\.tar is"):
                shards(tmp_path / "x.tar")


def test_a_shard_that_is_exchanged_for_one_as_large_is_noticed(tmp_path):
    """What lies where an image lay would be taken for it; a copy that kept its time is the shard that was listed."""
    path, other = (tar(tmp_path / name, ("0.png", pictures(1, seed)[0])) for name, seed in (("x.tar", 0), ("y.tar", 1)))
    packed, then = shards(path), path.stat()
    assert isinstance(outcome(packed, 0), bytes) and other.stat().st_size == then.st_size
    other.replace(path)
    os.utime(path, ns=(then.st_atime_ns, then.st_mtime_ns + 1))
    assert "written to" in outcome(packed, 0)
    os.utime(path, ns=(0, then.st_mtime_ns))
    assert isinstance(outcome(packed, 0), bytes)


def test_an_image_that_claims_to_be_huge_is_not_read(tmp_path):
    path = tmp_path / "x.tar"
    with path.open("wb") as file:  # a hole: 1 GiB that takes no room on the disk
        file.write(block(b"x.png", octal(1 << 30)))
        file.seek(512 + (1 << 30))
        file.write(GOOD + END)
    tracemalloc.start()
    packed = shards(path)
    assert "too large: 1,073,741,824 bytes" in outcome(packed, 0) and isinstance(outcome(packed, 1), bytes)
    assert tracemalloc.get_traced_memory()[1] < 3 << 20
    tracemalloc.stop()


def many(path, count):
    """A tar file of so many empty members that are no images, and a good one."""
    with path.open("wb") as file:
        for number in range(count):
            file.write(block(b"%07d.txt" % number))
        file.write(GOOD + END)
    return path


@pytest.mark.parametrize("count", [5_000, pytest.param(1_000_000, marks=pytest.mark.extended)])
def test_members_cost_no_memory(count, tmp_path):
    path = many(tmp_path / "x.tar", count)
    tracemalloc.start()
    packed = shards(path)
    assert len(packed) == 1 and packed.ignored == count
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()


# ---- from end to end ----


def test_shards_are_scanned_drawn_and_found_again(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(SOURCE)
    for part in range(2):
        tar(tmp_path / f"s/t-{part}.tar", *((f"{n}.png", content) for n, content in enumerate(pictures(4, part))),
            *((f"{n}.cls", b"%d" % (n % 2)) for n in range(4)), ("4.png", b"\x89PNG cut"), ("5.txt", b""))
    words = ["--model", "mine.py:build", "--out", "top.safetensors"]
    assert main(["scan", *words, "--images", "s/t-{0..1}.tar"]) == 0
    said = capsys.readouterr().out
    assert "'t-1.tar/4.png'" in said and "2 of 10 images could not be read" in said and "2 files are no images" in said
    top = read_scan("top.safetensors")
    assert top.provenance["images"] == "t-{0..1}.tar" and "--images t-{0..1}.tar" in top.provenance["command"]
    assert top.classes == ["0", "1"] and top["conv1"].class_counts.tolist() == [4, 4]
    monkeypatch.chdir(tmp_path / "s")
    assert main(["gallery", "../top.safetensors", "--out", "../sheets"]) == 0
    (tmp_path / "s").rename(tmp_path / "moved")
    monkeypatch.chdir(tmp_path)
    assert main(["gallery", "top.safetensors", "--out", "sheets"]) == 2
    assert "add --images" in capsys.readouterr().err
    assert main(["gallery", "top.safetensors", "--out", "sheets", "--images", "moved"]) == 0
    tar(tmp_path / "moved/t-1.tar", *((f"{n}.png", content) for n, content in enumerate(pictures(4, 1))))
    assert main(["gallery", "top.safetensors", "--out", "sheets", "--images", "moved"]) == 1
    assert "not those of the scan" in capsys.readouterr().err


def test_what_learns_from_images_learns_from_shards(tmp_path):
    path = tar(tmp_path / "x.tar", ("dog/0.png", PNG), ("cat/1.png", PNG), ("cat/2.png", b""))
    files = Files(str(path))
    assert np.array_equal(np.asarray(files.picture(0)), PIXELS) and files.classes == ["cat", "dog"]
    with pytest.raises(UnreadableImage, match=r"x\.tar/cat/2\.png: an empty file"):
        files.picture(2)


def test_the_manifest_changes_with_a_name_a_size_or_a_class(tmp_path):
    seen = {shards(tar(tmp_path / "x.tar", *members)).manifest for members in (
        [("0.png", PNG)], [("1.png", PNG)], [("0.png", PNG + b"!")], [("0.png", PNG), ("0.cls", b"1")],
        [("0.png", PNG), ("1.png", PNG)])}
    assert len(seen) == 5 and shards(tar(tmp_path / "x.tar", ("0.png", PNG))).manifest in seen
