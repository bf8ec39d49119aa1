"""What goes wrong around a scan: said clearly, or skipped and named; what was there before is intact."""

import ctypes
import errno
import faulthandler
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from mortal import Full
from PIL import Image
from scans import RESULT, STATE, Drawings, act, network, outcome, state

import deconvnet
from deconvnet.errors import DeconvnetError, UnreadableImage, UsageError
from deconvnet.images import Preprocess
from deconvnet.scan import scan
from deconvnet.scanned import encode

pytestmark = pytest.mark.usefixtures("one_thread")


# ---- the disk ----


class Refusing:
    """Refuses, from the so-manieth time on, one kind of thing to do to the disk."""

    def __init__(self, patch, deed: str, number: int, after: int) -> None:
        self.error, self.left = OSError(number, os.strerror(number)), after
        owner = os if deed == "fsync" else Path
        real = getattr(owner, {"write": "open"}.get(deed, deed))

        def refused(*args, **options):
            if (owner is Path and args[1:2] == ("wb",)) or deed in ("fsync", "replace"):
                self.left -= 1
            elif deed in ("open", "write"):
                return real(*args, **options)
            if self.left < 0 and deed != "write":
                raise self.error
            there = real(*args, **options)
            return Full(there, self.error) if self.left < 0 and deed == "write" else there

        patch.setattr(owner, {"write": "open"}.get(deed, deed), refused)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    act(folder)
    return outcome(folder)


DEEDS = [("open", errno.EACCES), ("open", errno.EROFS), ("open", errno.ENOSPC), ("open", errno.EMFILE),
         ("write", errno.ENOSPC), ("write", errno.EIO), ("write", errno.EDQUOT), ("fsync", errno.EIO),
         ("fsync", errno.ENOSPC), ("replace", errno.EACCES), ("replace", errno.EIO), ("replace", errno.EROFS)]


@pytest.mark.parametrize(("deed", "number"), DEEDS, ids=[f"{deed} {errno.errorcode[n]}" for deed, n in DEEDS])
@pytest.mark.parametrize("after", [0, 3])
def test_what_the_disk_refuses_is_named_and_what_was_there_is_intact(deed, number, after, whole, tmp_path, monkeypatch):
    """At the first state and at a later one; the state before it is whole, and the scan goes on from there."""
    with monkeypatch.context() as patch:
        Refusing(patch, deed, number, after)
        with pytest.raises(DeconvnetError) as refused:
            act(tmp_path)
    assert str(refused.value) == f"{tmp_path / STATE} cannot be written: {os.strerror(number)}"
    left = {path.name for path in tmp_path.iterdir()}
    assert left <= {STATE, f"{STATE}.previous"} and bool(left) == bool(after)
    assert not after or max(state(tmp_path / name) for name in left) >= 3
    act(tmp_path)
    assert outcome(tmp_path) == whole


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
def test_a_result_that_cannot_be_written_leaves_the_state_and_the_result_before(number, whole, tmp_path, monkeypatch):
    (tmp_path / RESULT).write_bytes(b"an earlier result")
    with monkeypatch.context() as patch:
        Refusing(patch, "write", number, 0)
        with pytest.raises(DeconvnetError, match=f"{RESULT} cannot be written: {os.strerror(number)}"), \
                pytest.warns(UserWarning, match=f"could not be saved: .*{STATE} cannot be written"):
            act(tmp_path, every=1e9)
    assert (tmp_path / RESULT).read_bytes() == b"an earlier result"
    act(tmp_path)
    assert outcome(tmp_path) == whole


class Gone(Drawings):
    """Images that nobody looks at."""

    def __getitem__(self, index):
        raise AssertionError(index)


def test_a_result_that_alone_cannot_be_written_leaves_the_state_of_the_whole_scan(whole, tmp_path):
    (tmp_path / RESULT).mkdir()  # as another command may make it meanwhile
    with pytest.raises(DeconvnetError, match=f"{RESULT} cannot be written: Is a directory"):
        act(tmp_path, every=1e9)
    assert state(tmp_path / STATE) == 19
    (tmp_path / RESULT).rmdir()
    act(tmp_path, Gone(), every=1e9)
    assert outcome(tmp_path) == whole


def test_images_of_which_none_could_be_read_are_looked_at_again(whole, tmp_path):
    """As where their disk was not there; the state would say for ever what it had found."""
    with pytest.raises(UsageError, match=r"None of the 23 images could be read; the first is 00\.png: gone"):
        act(tmp_path, Without(range(23), "gone"))
    act(tmp_path)
    assert outcome(tmp_path) == whole


def test_stopped_while_the_disk_is_full_it_is_still_stopped(tmp_path, monkeypatch):
    class Stopping(Drawings):
        def __getitem__(self, index):
            if index == 12:
                raise KeyboardInterrupt
            return super().__getitem__(index)

    Refusing(monkeypatch, "write", errno.ENOSPC, 0)
    with pytest.warns(UserWarning, match=r"state of the scan could not be saved: .*No space left"), \
            pytest.raises(KeyboardInterrupt):
        act(tmp_path, Stopping(), every=1e9)


@contextmanager
def small_disk(folder: Path, size: str):
    """A disk of its own, if this user may have one."""
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], capture_output=True,
                          check=False) if sys.platform == "linux" and os.geteuid() == 0 else None
    if made is None or made.returncode:
        pytest.skip("only root may mount a disk")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


class Doing(Drawings):
    """Images at one of which something happens, once."""

    def __init__(self, at: int, deed) -> None:
        super().__init__()
        self.at, self.deed = at, deed

    def __getitem__(self, index):
        if index == self.at:
            self.at = -1
            self.deed()
        return super().__getitem__(index)


def test_a_real_disk_that_is_full(whole, tmp_path):
    with small_disk(tmp_path, "128k") as disk:
        filler = disk / "filler"

        def fill():
            with pytest.raises(OSError), filler.open("wb", buffering=0) as file:
                while file.write(bytes(1024)):
                    pass

        with pytest.raises(DeconvnetError, match="No space left on device"):
            act(disk, Doing(12, fill))
        filler.unlink()
        assert {path.name for path in disk.iterdir()} == {STATE, f"{STATE}.previous"} and state(disk / STATE) >= 3
        act(disk)
        assert outcome(disk) == whole


# ---- the images, in mid-run ----


def photographs(folder: Path) -> Path:
    noise = np.random.default_rng(0)
    folder.mkdir()
    for n in range(12):
        Image.fromarray(noise.integers(0, 256, (20, 24, 3), np.uint8)).save(folder / f"{n:02}.png")
    return folder


def larger(path: Path) -> None:
    Image.new("RGB", (90, 90), "red").save(path)


def as_large(path: Path) -> None:
    """Another picture in as many bytes."""
    then = path.stat()
    other = path.with_name("07.png").read_bytes()
    path.write_bytes(other[:then.st_size].ljust(then.st_size, b"\0"))  # what follows a PNG is passed over
    assert path.stat().st_size == then.st_size
    os.utime(path, ns=(then.st_atime_ns, then.st_mtime_ns + 1))  # however coarse this disk's clock is


def folder_instead(path: Path) -> None:
    path.unlink()
    path.mkdir()


def pipe_instead(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def link_to_itself(path: Path) -> None:
    path.unlink()
    path.symlink_to(path)


def refuse(path: Path) -> None:
    path.chmod(0)
    if os.geteuid() == 0:
        pytest.skip("root may read everything")


FAULTS = {"removed": (Path.unlink, "no such file"), "emptied": (lambda path: path.write_bytes(b""), "changed|empty"),
          "cut off": (lambda path: path.write_bytes(path.read_bytes()[:-40]), "changed|cut off"),
          "another image": (larger, "changed since it was listed"), "a folder": (folder_instead, "folder|changed"),
          "a pipe": (pipe_instead, "not a regular file|changed"), "a loop": (link_to_itself, "too many levels"),
          "text": (lambda path: path.write_text("<html>"), "changed|not an image"),
          "permission": (refuse, "permission"), "another image as large": (as_large, "written to, though it has")}


@pytest.mark.parametrize("fault", FAULTS)
def test_an_image_that_is_no_longer_what_it_was_is_skipped_and_named(fault, tmp_path):
    folder = photographs(tmp_path / "photographs")
    deed, reason = FAULTS[fault]
    images = deconvnet.open_images(folder, Preprocess(8, 8))
    assert images.manifest  # as the command asks for it
    real, done = images.image, []

    def image(index):
        if index == 3 and not done:
            done.append(deed(folder / "08.png"))
        return real(index)

    images.image = image
    net = network()
    top = scan(net, images, batch_size=4, checkpoint=tmp_path / STATE)
    [(name, why)] = top.skipped
    assert name == "08.png" and any(word in why.lower() for word in reason.split("|")), why
    rest = [n for n in range(12) if n != 8]
    again = deconvnet.open_images(photographs(tmp_path / "again"), Preprocess(8, 8))
    alone = scan(net, torch.stack([again[n][0] for n in rest]), batch_size=4)
    assert torch.equal(top["conv2"].values, alone["conv2"].values)
    assert torch.equal(top["conv2"].images, torch.tensor([-1, *rest])[alone["conv2"].images + 1])


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE], ids=["this process", "the computer"])
def test_where_no_more_files_can_be_opened_no_image_is_to_blame(number, workers, tmp_path, monkeypatch):
    images = deconvnet.open_images(photographs(tmp_path / "images"), Preprocess(8, 8))
    opened = Path.open

    def refuse(path, *args):
        if path.name == "05.png":
            raise OSError(number, os.strerror(number))
        return opened(path, *args)

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(DeconvnetError) as error:
        scan(network(), images, batch_size=4, workers=workers)
    assert str(error.value) == f"05.png cannot be opened: {os.strerror(number)}. Allow more with ulimit -n"


# ---- a decoder that ends its process ----


def address_zero():
    ctypes.string_at(0)


def out_of_memory():
    os.kill(os.getpid(), signal.SIGKILL)  # as the kernel does it


DEATHS = {"abort": (os.abort, "SIGABRT"), "segfault": (address_zero, "SIGSEGV"), "killed": (out_of_memory, "SIGKILL"),
          "exit 3": (lambda: os._exit(3), "exit code 3"), "exit 0": (lambda: os._exit(0), "exit code 0"),
          "sys.exit": (lambda: sys.exit(4), "exit code 4")}


class Deadly(Drawings):
    """Images, reading some of which ends the process: always, or as long as a file is not there."""

    def __init__(self, deadly, deed, once: Path | None = None) -> None:
        super().__init__()
        self.deadly, self.deed, self.once = deadly, deed, once

    def __getitem__(self, index):
        if index in self.deadly and not (self.once and self.once.exists()):
            if self.once:
                self.once.touch()
            faulthandler.disable()  # pytest's, which would print where every process died
            self.deed()
        return super().__getitem__(index)


class Without(Drawings):
    """The same images, of which some more cannot be read, for a reason."""

    def __init__(self, lost, reason) -> None:
        super().__init__()
        self.lost, self.reason = lost, reason

    def __getitem__(self, index):
        if index in self.lost:
            raise UnreadableImage(self.files[index], self.reason)
        return super().__getitem__(index)


SLOW = [pytest.param(death, marks=pytest.mark.extended) for death in ("exit 3", "exit 0", "sys.exit")]


@pytest.mark.parametrize("death", ["abort", "segfault", "killed", *SLOW])
def test_an_image_that_kills_what_reads_it_is_skipped_and_named(death, tmp_path):
    deed, how = DEATHS[death]
    began = time.monotonic()
    with pytest.warns(UserWarning, match="A process that read images died"):
        found = act(tmp_path, Deadly([7], deed), workers=2)
    [reason] = [reason for name, reason in found.skipped if name == "07.png"]
    assert "dies of it" in reason and how in reason
    assert encode(found) == encode(act(tmp_path, Without([7], reason)))
    assert time.monotonic() - began < 30


@pytest.mark.extended
def test_several_that_kill(tmp_path):
    with pytest.warns(UserWarning, match="died"):
        found = act(tmp_path, Deadly([0, 1, 13, 22], os.abort), workers=2)
    [reason] = {reason for name, reason in found.skipped if "SIGABRT" in reason}
    assert encode(found) == encode(act(tmp_path, Without([0, 1, 13, 22], reason)))


def test_a_process_that_dies_by_chance_costs_nothing(tmp_path):
    """As where memory was short: read once more, the image is there."""
    with pytest.warns(UserWarning, match="read again, one by one"):
        found = act(tmp_path, Deadly([7], out_of_memory, once=tmp_path / "done"), workers=2)
    assert encode(found) == encode(act(tmp_path))


def test_strictly_an_image_that_kills_ends_the_scan_by_name(tmp_path):
    with pytest.warns(UserWarning), pytest.raises(UnreadableImage, match=r"02\.png: .*SIGABRT"):
        act(tmp_path, Deadly([2], os.abort), workers=1, strict=True)


def test_an_error_of_the_images_own_is_not_taken_for_a_death(tmp_path):
    def raises():
        raise RuntimeError("DataLoader worker is only a word here")

    with pytest.raises(RuntimeError, match="only a word"):
        act(tmp_path, Deadly([7], raises), workers=2)


def test_the_handlers_are_as_before(tmp_path):
    before = [signal.getsignal(number) for number in (signal.SIGCHLD, signal.SIGINT, signal.SIGTERM)]
    act(tmp_path, workers=2)
    with pytest.warns(UserWarning):
        act(tmp_path, Deadly([7], os.abort), workers=2)
    assert [signal.getsignal(number) for number in (signal.SIGCHLD, signal.SIGINT, signal.SIGTERM)] == before
