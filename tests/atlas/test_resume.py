"""An atlas that was cut off goes on, to the same bytes; what cannot be written is said, what is not ours left alone."""

import errno
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import killed
import mortal
import pytest
import tiny
import torch

from deconvnet.atlas import build
from deconvnet.errors import DeconvnetError, UsageError

ONE = killed.LAYERS


@pytest.fixture(scope="module")
def one_layer(small_atlas, tmp_path_factory):
    """What the atlas of one layer holds, made without a break."""
    folder = tmp_path_factory.mktemp("whole")
    return tiny.content(make(small_atlas, folder))


def make(small_atlas, folder, layers=ONE, **options):
    return tiny.make(folder, small_atlas.net, small_atlas.top, small_atlas.images, layers, **options)


@pytest.fixture
def copy(small_atlas, tmp_path):
    return shutil.copytree(small_atlas.folder, tmp_path / "copy")


def test_a_second_time_changes_no_byte_and_makes_no_picture(small_atlas, copy):
    before = {path: path.stat().st_mtime_ns for path in copy.rglob("*.webp")}
    make(small_atlas, copy, tiny.LAYERS)
    assert tiny.content(copy) == tiny.content(small_atlas.folder)
    assert before == {path: path.stat().st_mtime_ns for path in copy.rglob("*.webp")}


def test_the_same_atlas_made_elsewhere_has_the_same_bytes(small_atlas, tmp_path):
    assert tiny.content(make(small_atlas, tmp_path / "else where", tiny.LAYERS)) == tiny.content(small_atlas.folder)


@pytest.mark.parametrize("unit", [0, 1, 4])
def test_interrupted_in_a_unit_it_goes_on_to_the_same_bytes(small_atlas, one_layer, tmp_path, monkeypatch, unit):
    real, units = build.unit_picture, iter(range(100))

    def interrupted(one):
        if next(units) == unit:
            raise KeyboardInterrupt
        return real(one)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(build, "unit_picture", interrupted)
        make(small_atlas, tmp_path)
    assert not (tmp_path / "index.html").exists()
    assert tiny.content(make(small_atlas, tmp_path)) == one_layer


def test_interrupted_it_does_not_wait_for_what_has_not_begun(small_atlas, one_layer, tmp_path, monkeypatch):
    galleries, stopped, after = build.gallery, [], []

    def interrupted(*args, **options):
        yield from galleries(*args, **options)
        stopped.append(True)
        raise KeyboardInterrupt

    def slow(own, one, sprites):
        after.extend(stopped)
        time.sleep(0.05)
        return {}

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(build, "gallery", interrupted)
        patch.setattr(build, "_write_unit", slow)
        make(small_atlas, tmp_path)
    assert stopped and len(after) <= torch.get_num_threads()
    assert tiny.content(make(small_atlas, tmp_path)) == one_layer


def test_images_that_a_power_cut_emptied_are_made_again(small_atlas, one_layer, tmp_path):
    """They are flushed with their layer: before, the name of one may be on the disk and its content not."""
    make(small_atlas, tmp_path)
    for layer in ONE:
        (tmp_path / layer / "units.json").unlink()
    for path in (tmp_path / "images").iterdir():
        path.write_bytes(b"")
    assert tiny.content(make(small_atlas, tmp_path)) == one_layer


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the lives are forks")
def test_killed_at_any_moment_it_goes_on_to_the_same_bytes(small_atlas, one_layer, tmp_path):
    """Nothing half-written ever bears its final name, and nothing is left behind."""
    root = small_atlas.folder.parent
    program = [sys.executable, killed.__file__, root / "top.safetensors", root / "photographs", tmp_path, "30"]
    ran = subprocess.run(program, env=mortal.ALONE, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    seen = json.loads(ran.stdout)
    assert seen["kills"] >= 30 and seen["atlases"] >= 1 and len(set(seen["files"])) > 5  # at many different moments
    for number in range(seen["atlases"]):
        assert tiny.content(tmp_path / str(number)) == one_layer


def test_other_labels_change_pages_only(small_atlas, copy):
    make(small_atlas, copy, tiny.LAYERS, labels={"conv1": {3: "stripes"}})
    before, after = tiny.content(small_atlas.folder), tiny.content(copy)
    changed = {name for name in before if before[name] != after[name]}
    assert set(before) == set(after) and changed and all(name.endswith(".html") for name in changed)
    assert {"index.html", "conv1/index.html", "conv1/3/index.html", "conv2/1/index.html"} <= changed
    assert b"stripes" in after["conv1/3/index.html"] and b"corners" not in b"".join(after.values())
    make(small_atlas, copy, tiny.LAYERS)
    assert tiny.content(copy) == before


# ---- what is refused ----


def test_an_atlas_of_another_scan_or_of_other_layers_is_left_alone(small_atlas, copy):
    other = tiny.scan(small_atlas.net, small_atlas.images, ("conv1", "conv2", "conv3"))
    other.provenance["command"] = "another"
    with pytest.raises(UsageError, match="another scan"):
        tiny.make(copy, small_atlas.net, other, small_atlas.images)
    with pytest.raises(UsageError, match="another scan, or of other layers"):
        make(small_atlas, copy)
    assert tiny.content(copy) == tiny.content(small_atlas.folder)


@pytest.mark.parametrize("name", ["thesis.doc", ".hidden", "index.html", "folder/file"])
def test_a_folder_with_anything_else_in_it_is_left_alone(small_atlas, tmp_path, name):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("mine")
    with pytest.raises(UsageError, match=f"{tmp_path} is not empty, and not an atlas"):
        make(small_atlas, tmp_path)
    assert tiny.content(tmp_path) == {name: b"mine"}


@pytest.mark.parametrize("file", ["atlas.json", "conv2/units.json"])
@pytest.mark.parametrize("damage", [b"", b"{", b"\xff\xfe", b"[]", b"{}", b"null"])
def test_a_damaged_atlas_is_said_to_be_so(small_atlas, copy, file, damage):
    (copy / file).write_bytes(damage)
    with pytest.raises(DeconvnetError, match=str(copy)):
        make(small_atlas, copy, tiny.LAYERS)


# ---- when the disk says no ----

KINDS = ("atlas.json", "images/*.webp", "conv3/*/unit.webp", "conv3/*/way.webp", "conv3/r0.webp", "conv3/p0.webp",
         "conv3/units.json", "static/atlas.css", "static/atlas.js", "conv3/*/index.html", "conv3/index.html",
         "index.html")
FOLDERS = ("images", "conv3", "conv3/*", "static")


class Refusing:
    """Refuses one kind of thing to do to the disk, for one kind of file or folder."""

    def __init__(self, patch, root: Path, kind: str, operation: str, number: int) -> None:
        self.root, self.kind, self.operation, self.times = root, kind, operation, 0
        self.error = OSError(number, os.strerror(number))
        opening, renaming, making = Path.open, Path.replace, Path.mkdir

        def opened(path, mode="r", *rest, **named):
            whole = sys._getframe(1).f_locals.get("path")  # what write_whole was asked to write
            if mode == "wb" and self.meant("open", whole):
                raise self.error
            file = opening(path, mode, *rest, **named)
            return mortal.Full(file, self.error) if mode == "wb" and self.meant("write", whole) else file

        def renamed(path, target):
            if self.meant("replace", target):
                raise self.error
            return renaming(path, target)

        def made(path, *rest, **named):
            if self.meant("mkdir", path):
                raise self.error
            return making(path, *rest, **named)

        for name, replacement in (("open", opened), ("replace", renamed), ("mkdir", made)):
            patch.setattr(Path, name, replacement)

    def meant(self, operation, path):
        inside = path.relative_to(self.root)
        deep = len(inside.parts) == self.kind.count("/") + 1
        meant = operation == self.operation and inside.match(self.kind) and deep
        self.times += meant
        return meant


CASES = [(kind, operation, number) for kind in KINDS for operation, number in
         (("open", errno.EACCES), ("write", errno.ENOSPC), ("replace", errno.EIO))]
CASES += [(kind, "mkdir", number) for kind in FOLDERS for number in (errno.ENOSPC, errno.EROFS)]


def test_what_cannot_be_written_is_named_and_leaves_nothing_half_done(small_atlas, one_layer, tmp_path, monkeypatch):
    """Each failure happens to the same folder, in which the next attempt goes on; at the end all is as it should be.

    A unit's pictures are written beside those of others, so that more than one may fail before it is told.
    """
    folder = tmp_path / "out"
    folder.mkdir()
    for kind, operation, number in CASES:
        if operation == "mkdir":
            shutil.rmtree(folder)
            folder.mkdir()
        with monkeypatch.context() as patch:
            refusing = Refusing(patch, folder, kind, operation, number)
            with pytest.raises(DeconvnetError, match=r"cannot be (written|made)") as caught:
                make(small_atlas, folder)
        assert refusing.times >= 1 and os.strerror(number) in str(caught.value), (kind, operation)
        assert str(folder) in str(caught.value) and "\n" not in str(caught.value)
        there = tiny.content(folder)
        assert all(one_layer[name] == content for name, content in there.items()), (kind, operation)
    assert tiny.content(make(small_atlas, folder)) == one_layer
