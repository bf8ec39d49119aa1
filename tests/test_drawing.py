"""Many pictures at once: in order, as many as there are cores, and none left behind."""

import os
import signal
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path

import pytest
import torch
from mortal import ALONE

from deconvnet import drawing, processes
from deconvnet.drawing import counted, drawn
from deconvnet.errors import DeconvnetError


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def slowly(number):
    """The first of many takes the longest."""
    time.sleep(0.02 if number % 7 == 0 else 0)
    return number, os.getpid()


@pytest.mark.parametrize("processes", [False, True])
def test_what_is_drawn_comes_in_order_from_so_many_at_once(two_threads, processes):
    found = list(drawn(slowly, range(100), processes=processes))
    assert [number for number, _ in found] == list(range(100))
    assert len({owner for _, owner in found} - {os.getpid()}) == (2 if processes else 0)


def test_a_few_begin_no_process(two_threads):
    assert {owner for _, owner in drawn(slowly, range(drawing.FEW), processes=True)} == {os.getpid()}


@pytest.mark.parametrize("processes", [False, True])
def test_with_one_thread_everything_is_drawn_here(two_threads, processes):
    torch.set_num_threads(1)
    owners = []
    found = list(drawn(lambda number: owners.append(threading.current_thread()) or number, range(40), processes))
    assert found == list(range(40)) and set(owners) == {threading.current_thread()}


def test_two_are_drawn_at_once(two_threads):
    both = threading.Barrier(2, timeout=10)
    assert len(list(drawn(lambda _: both.wait(), range(6)))) == 6


@pytest.mark.parametrize("processes", [False, True])
def test_no_more_items_are_made_than_may_wait(two_threads, processes):
    made = []
    pictures = drawn(slowly, (made.append(number) or number for number in range(300)), processes=processes)
    for count, _ in enumerate(pictures, 1):
        assert len(made) <= count + drawing.AHEAD + 1


def test_what_is_drawn_does_not_wait_for_items_that_come_slowly(two_threads):
    made = []
    next(drawn(slowly, (made.append(number) or time.sleep(0.2) or number for number in range(300))))
    assert len(made) < 8


def fails(number):
    if number == 30:
        raise ValueError(number)
    return number


@pytest.mark.parametrize("processes", [False, True])
def test_what_fails_is_told_and_nothing_more_is_made(two_threads, processes):
    made = []
    with pytest.raises(ValueError, match="30"):
        list(drawn(fails, (made.append(n) or n for n in range(1000)), processes=processes))
    assert len(made) <= 31 + drawing.AHEAD + 1


def dies(number):
    if number == 20:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def test_a_process_that_dies_is_an_error_that_says_what_to_do(two_threads):
    with pytest.raises(DeconvnetError, match="OMP_NUM_THREADS=1"):
        list(drawn(dies, range(100), processes=True))


@pytest.mark.parametrize("processes", [False, True])
def test_closed_early_what_has_not_begun_is_left(two_threads, tmp_path, processes):
    pictures = drawn(partial(note, tmp_path), range(100), processes=processes)
    for _ in range(drawing.FEW + 1):
        next(pictures)
    pictures.close()
    count = len(list(tmp_path.iterdir()))
    time.sleep(0.2)
    assert len(list(tmp_path.iterdir())) == count < drawing.FEW + 20


def note(folder, number):
    time.sleep(0.01)
    (folder / str(number)).touch()


FOREVER = """
import os, time, torch
from deconvnet.drawing import drawn

def wait(number):
    if number >= 16:
        os.write(1, b"drawing\\n")
        time.sleep(100)

torch.set_num_threads(2)
list(drawn(wait, range(100), processes=True))
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_processes_end_with_the_one_that_began_them(tmp_path, number):
    program = tmp_path / "forever.py"
    program.write_text(FOREVER)
    with subprocess.Popen([sys.executable, str(program)], stdout=subprocess.PIPE,
                          env={**ALONE, "PYTHONPATH": str(Path(__file__).parents[1])}) as main:
        assert main.stdout.readline() == b"drawing\n"
        main.send_signal(number)
        main.communicate(timeout=10)  # the pipe is closed when nobody has it any more


def test_a_bar_counts_what_is_drawn_from_the_first_on(monkeypatch, capsys):
    monkeypatch.setattr(processes, "SLOW", 0)

    def made():
        assert not capsys.readouterr().err, "the bar of the images is still there"
        for number in range(3):
            yield number
            time.sleep(0.15)  # tqdm says something every 0.1 seconds

    assert list(counted(made(), 3, "sheets")) == [0, 1, 2]
    told = capsys.readouterr().err
    assert "sheets" in told and "2/3" in told and "units" in told
