"""Processes that read images: what they hand over is what there is, whichever of them dies or hangs meanwhile."""

import faulthandler
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import time
from contextlib import closing, suppress
from pathlib import Path

import pytest
import torch
from mortal import ALONE

from deconvnet import readers
from deconvnet.errors import DeconvnetError
from deconvnet.readers import Item, read

pytestmark = [pytest.mark.usefixtures("one_thread"), pytest.mark.timeout(120)]

CHUNKS = [range(n, n + 4) for n in range(0, 24, 4)]


class Numbers:
    """Images that are their numbers; at some of them something happens, in whatever process reads them.

    It leaves a note of every process, in files that are called by the numbers.
    """

    def __init__(self, notes, deeds=(), deed=os.abort, times=99):
        self.notes, self.deeds, self.deed, self.times = notes, deeds, deed, times

    def read(self, number):
        file = self.notes / str(number)
        with file.open("a") as note:
            note.write(f"{os.getpid()} ")
        if number in self.deeds and len(file.read_text().split()) <= self.times:
            faulthandler.disable()  # pytest's, which would print where it died
            self.deed()
        return Item(number, torch.tensor([number]), -number)

    def name(self, number):
        return f"{number}.png"

    def processes(self):
        return {int(pid) for file in self.notes.iterdir() for pid in file.read_text().split()}


def there(pid):
    """Whether a process is there; one that ended and was not asked after is not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def gone(pids, seconds=10.0):
    """Whether processes end within a time."""
    until = time.monotonic() + seconds
    while any(map(there, pids)) and time.monotonic() < until:
        time.sleep(0.02)
    return not any(map(there, pids))


def items(images, chunks=CHUNKS, processes=2):
    """All items, once it is clear that they came in their chunks and that nobody was left behind."""
    found = list(read(images, chunks, processes))
    assert [[item.number for item in chunk] for chunk in found] == [list(chunk) for chunk in chunks]
    assert os.getpid() not in images.processes() and not any(map(there, images.processes()))
    return [item for chunk in found for item in chunk]


def hang():
    time.sleep(1e6)


@pytest.mark.parametrize("processes", [1, 2, 9])
def test_images_come_in_order_from_so_many_processes(processes, tmp_path):
    images = Numbers(tmp_path)
    for item in items(images, processes=processes):
        assert item.image.tolist() == [item.number] and item.label == -item.number and item.unreadable is None
    assert len(images.processes()) == min(processes, len(CHUNKS))


VALUES = {
    "float32": torch.randn(3, 4, 5), "float64": torch.randn(3, 4, 5, dtype=torch.float64),
    "bfloat16": torch.randn(3, 4, 5).bfloat16(), "pixels": torch.arange(60, dtype=torch.uint8).reshape(4, 5, 3),
    "from a network": torch.randn(3, 4, requires_grad=True), "nothing": torch.zeros(3, 0, 5),
    "a number": torch.tensor(2.5), "turned": torch.randn(5, 4, 3).permute(2, 1, 0),
    "NaN": torch.full((3, 1, 1), torch.nan), "large": torch.randn(3, 600, 600),
}


class Values:
    def read(self, number):
        image = list(VALUES.values())[number]
        return Item(number, image, torch.tensor([number]) if number % 2 else torch.tensor(number))


def test_what_comes_from_a_process_is_what_it_read_to_the_bit():
    [found] = read(Values(), [range(len(VALUES))], 1)
    for item, value in zip(found, VALUES.values(), strict=True):
        assert item.image.dtype == value.dtype and item.image.shape == value.shape
        assert item.image.double().allclose(value.double(), rtol=0, atol=0, equal_nan=True)
        assert int(item.label) == item.number


class Others:
    """Images that are no tensors, or not there."""

    found = (Item(0, "a picture", None), Item(1, None, [1, 2]), Item(2, unreadable=("2.png", "an empty file")))

    def read(self, number):
        return self.found[number]


def test_what_is_no_tensor_comes_as_it_is():
    [found] = read(Others(), [range(3)], 1)
    assert tuple(found) == Others.found


# ---- those that die, and those that hang ----


@pytest.mark.parametrize("processes", [1, 2])
def test_an_image_at_which_a_process_dies_twice_is_given_up(processes, tmp_path):
    images, deadly = Numbers(tmp_path, (0, 6, 7, 23)), {0, 6, 7, 23}
    with pytest.warns(UserWarning, match=r"A process that read images died \(SIGABRT\)"):
        found = items(images, processes=processes)
    assert {item.number: item.unreadable for item in found if item.unreadable} == {
        number: (f"{number}.png", "whatever decodes it dies of it (SIGABRT)") for number in deadly}
    assert [item.image.item() for item in found if not item.unreadable] == sorted({*range(24)} - deadly)
    assert [len((tmp_path / str(number)).read_text().split()) for number in deadly] == [2] * 4
    assert len(images.processes()) <= processes + 8


def test_an_image_at_which_a_process_hangs_twice_is_given_up(tmp_path, monkeypatch):
    monkeypatch.setattr(readers, "PATIENCE", 1)
    images = Numbers(tmp_path, (6,), hang)
    with pytest.warns(UserWarning, match="A process that read images gave no answer for 1 seconds"):
        found = items(images)
    assert [item.unreadable for item in found if item.unreadable] == [
        ("6.png", "decoding it takes more than 1 seconds")]
    assert [item.image.item() for item in found if not item.unreadable] == sorted({*range(24)} - {6})
    assert len((tmp_path / "6").read_text().split()) == 2


@pytest.mark.parametrize("deed", [os.abort, hang])
def test_an_image_at_which_a_process_is_lost_once_is_read(deed, tmp_path, monkeypatch):
    """As where memory was short, or the network."""
    monkeypatch.setattr(readers, "PATIENCE", 1 if deed is hang else 60)
    with pytest.warns(UserWarning, match="read again"):
        found = items(Numbers(tmp_path, (5,), deed, times=1))
    assert [item.image.item() for item in found] == [*range(24)]


def test_who_waits_long_for_other_reasons_takes_nobody_to_hang(tmp_path, monkeypatch):
    """The network's time is not the reader's."""
    monkeypatch.setattr(readers, "PATIENCE", 2)
    with closing(read(Numbers(tmp_path), CHUNKS, 1)) as reading:
        next(reading)
        time.sleep(2.2)
        assert not any(item.unreadable for chunk in reading for item in chunk)


def test_a_process_that_dies_when_it_has_handed_over_everything_costs_nothing(tmp_path):
    """As some crash on their way out, and the system kills others, in a race with the last images."""
    images = Numbers(tmp_path)
    with closing(read(images, CHUNKS[:2], 1)) as reading:
        assert [item.number for item in next(reading)] == [0, 1, 2, 3]
        while not (tmp_path / "7").exists():  # read ahead
            time.sleep(0.01)
        time.sleep(0.1)
        [pid] = images.processes()
        os.kill(pid, signal.SIGKILL)
        assert [item.image.item() for chunk in reading for item in chunk] == [*range(4, 8)]
    assert images.processes() == {pid}


def test_a_process_that_dies_idle_is_followed_by_another(tmp_path):
    reader = readers._Reader(Numbers(tmp_path), readers._Row())
    reader.ask(range(2))
    assert [reader.next().number for _ in range(2)] == [0, 1]
    os.kill(reader._process.pid, signal.SIGKILL)
    reader._process.join()
    reader.ask(range(2, 4))
    with pytest.warns(UserWarning, match=r"died \(SIGKILL\)"):
        assert [reader.next().image.item() for _ in range(2)] == [2, 3]
    reader.end()


@pytest.mark.parametrize("processes", [1, 3])
def test_where_every_image_kills_it_is_not_the_images_fault(processes, tmp_path):
    images = Numbers(tmp_path, range(1, 24))
    with pytest.warns(UserWarning), pytest.raises(DeconvnetError) as refused:
        items(images, processes=processes)
    assert str(refused.value).startswith(f"{readers.MOST_IN_A_ROW} images in a row could not be read, at last 10.png: "
                                         "whatever decodes it dies of it (SIGABRT). That is not the images' fault")
    assert gone(images.processes(), 1.0) and len(images.processes()) <= 2 * readers.MOST_IN_A_ROW + processes + 2


def test_one_that_can_be_read_ends_the_row(tmp_path):
    images = Numbers(tmp_path, {*range(24)} - {readers.MOST_IN_A_ROW - 1})
    chunks = [range(2 * readers.MOST_IN_A_ROW - 1)]
    with pytest.warns(UserWarning):
        found = items(images, chunks, 1)
    assert [item.number for item in found if not item.unreadable] == [readers.MOST_IN_A_ROW - 1]


@pytest.mark.parametrize("times", [1, 99])
def test_an_image_is_not_given_up_for_a_process_that_never_came_to_read(times, tmp_path, monkeypatch):
    """As where it is not forked, and the caller's script scans also when it is imported."""
    images, work = Numbers(tmp_path / "notes"), readers._work
    images.notes.mkdir()

    def end_early(*what):
        with (tmp_path / "begun").open("a") as begun:
            begun.write("x")
        work(*what) if (tmp_path / "begun").stat().st_size > times else os._exit(3)

    monkeypatch.setattr(readers, "_work", end_early)
    with pytest.warns(UserWarning, match=r"died \(exit code 3\)"):
        if times == 1:
            assert [item.image.item() for item in items(images, processes=1)] == [*range(24)]
        else:
            with pytest.raises(DeconvnetError, match=r"before they read any; .* died \(exit code 3\).*__main__"):
                items(images, processes=1)
    assert (tmp_path / "begun").stat().st_size == 2


def test_a_process_may_be_slow_to_begin(tmp_path, monkeypatch):
    """It may load torch first, from a disk that is slow."""
    work = readers._work
    monkeypatch.setattr(readers, "PATIENCE", 1)
    monkeypatch.setattr(readers, "_work", lambda *what: (time.sleep(1.5), work(*what)))
    assert [item.image.item() for item in items(Numbers(tmp_path), CHUNKS[:1], 1)] == [*range(4)]


def test_a_signal_without_a_name_is_said_by_its_number(tmp_path):
    images = Numbers(tmp_path, (5,), lambda: os.kill(os.getpid(), 40))
    with pytest.warns(UserWarning, match=r"died \(signal 40\)"):
        assert [item.number for item in items(images) if item.unreadable] == [5]


def test_where_no_process_can_be_begun_it_is_said(tmp_path, monkeypatch):
    def refuse():
        raise OSError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(os, "fork", refuse)
    with pytest.raises(DeconvnetError, match=r"can be begun: Resource temporarily unavailable\. Try fewer --workers"):
        list(read(Numbers(tmp_path), CHUNKS, 2))


# ---- errors ----


class Odd(Exception):
    """That cannot be put together again."""

    def __init__(self, one, two):
        super().__init__(f"{one} and {two}")


class Raising(Numbers):
    def __init__(self, notes, error):
        super().__init__(notes, (5,), self.act)
        self.error = error

    def act(self):
        raise self.error


@pytest.mark.parametrize(("error", "kind", "text"), [
    (KeyError("mine"), KeyError, "mine"), (DeconvnetError("see to it"), DeconvnetError, "see to it"),
    (Odd(1, 2), RuntimeError, "Odd: 1 and 2"), (OSError(5, "no disk"), OSError, "no disk"),
    (EOFError("no more"), EOFError, "no more")])
def test_what_reading_raises_is_raised_with_the_place(error, kind, text, tmp_path):
    images = Raising(tmp_path, error)
    with pytest.raises(kind, match=text) as raised:
        list(read(images, CHUNKS, 2))
    assert raised.type is kind and not any(map(there, images.processes()))
    assert "in act" in "".join([str(raised.value), *getattr(raised.value, "__notes__", [])])


class Unsendable(Numbers):
    def read(self, number):
        item = super().read(number)
        return item._replace(label=lambda: 1) if number == 5 else item


def test_what_cannot_be_handed_over_is_said_and_not_taken_for_an_image_that_kills(tmp_path):
    with pytest.raises((AttributeError, pickle.PicklingError), match=r"pickle.*lambda"):
        items(Unsendable(tmp_path))


# ---- the end ----


def test_closed_early_it_leaves_nobody(tmp_path):
    images = Numbers(tmp_path, (2,), hang)
    with closing(read(images, CHUNKS[:1] + CHUNKS[4:], 2)) as reading:
        del reading
    reading = read(images, [range(2), range(2, 4)], 2)
    next(reading)
    reading.close()
    assert images.processes() and not any(map(there, images.processes()))


PROGRAM = """
import os, sys, time
from pathlib import Path
sys.path.insert(0, {tests!r})
from test_readers import CHUNKS, {images}, hang
from deconvnet.readers import read
if __name__ == "__main__":
    import multiprocessing
    multiprocessing.set_start_method({method!r})
    notes = Path({notes!r})
    reading = read({images}(notes, (8,), hang), CHUNKS, 1)
    print([item.image.item() for _ in range(2) for item in next(reading)], flush=True)
    while not (notes / "8").exists():
        time.sleep(0.01)
    print("here", flush=True)
    {then}
"""


def run(then, folder, method="fork", images="Numbers"):
    """How a program ended, and what it said, that is left in some way while one of its processes hangs; and these."""
    notes, file = folder / "notes", folder / "program.py"
    notes.mkdir()
    file.write_text(PROGRAM.format(tests=str(Path(__file__).parent), notes=str(notes), then=then, method=method,
                                   images=images))
    with subprocess.Popen([sys.executable, file], stdout=subprocess.PIPE, text=True, env=ALONE,
                          start_new_session=True) as program:
        try:
            said = program.communicate(timeout=60)[0]  # until all have ended that could say something
            return program.returncode, said, Numbers(notes).processes()
        finally:
            with suppress(ProcessLookupError):
                os.killpg(program.pid, signal.SIGKILL)


FORKED = "os.fork() or (os.close(1), time.sleep(99)); os.kill(os.getpid(), 9)"
"""Killed, with a child that holds what it had open."""


@pytest.mark.parametrize(("then", "code"), [("sys.exit(3)", 3), (FORKED, -9)], ids=["ends", "is killed"])
def test_whoever_ends_and_however_takes_them_along(then, code, tmp_path):
    ended, said, processes = run(then, tmp_path)
    assert ended == code and said.endswith("here\n") and gone(processes)


def test_what_the_program_forks_ends_without_them(tmp_path):
    then = """os.fork() or sys.exit(0)
    os.wait()
    time.sleep(0.2)
    from test_readers import there
    print(*map(there, Numbers(notes).processes()))
    sys.exit(3)"""
    ended, said, processes = run(then, tmp_path)
    assert (ended, said.split("\n")[1:]) == (3, ["here", "True", ""]) and gone(processes)


def test_a_signal_while_a_process_begins_leaves_none(tmp_path, monkeypatch):
    start = multiprocessing.Process.start

    def asked(process):
        start(process)
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(multiprocessing.Process, "start", asked)
    images = Numbers(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        items(images)
    assert not multiprocessing.active_children()


class Lingering:
    """A label that takes a while to let go of, which is told where a program ended before."""

    def __del__(self):
        if multiprocessing.parent_process() is None:
            time.sleep(0.3)
            print("let go", flush=True)


class Labelled(Numbers):
    def read(self, number):
        return super().read(number)._replace(label=Lingering() if number == 7 else None)


def test_no_thread_still_lets_go_of_tensors_while_the_program_ends(tmp_path):
    """Python ends such a thread, at which torch aborts: exit code -6, on a busy machine in eight of a hundred."""
    ended, said, _ = run("sys.exit(3)", tmp_path, images="Labelled")
    assert (ended, said.split("\n")[1:]) == (3, ["here", "let go", ""])


@pytest.mark.parametrize("method", ["forkserver", pytest.param("spawn", marks=pytest.mark.extended)])
def test_processes_may_begin_otherwise(method, tmp_path):
    """As they do elsewhere, and in later Pythons."""
    _, said, processes = run("os.kill(os.getpid(), 9)", tmp_path, method)
    assert said.startswith("[0, 1, 2, 3, 4, 5, 6, 7]") and gone(processes)
