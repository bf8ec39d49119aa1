"""Images in batches: pixels that become inputs late give what each item gives, from any number of processes."""

import faulthandler
import os
import signal
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from test_scan import contents, identity

from deconvnet.batches import batches
from deconvnet.errors import UnreadableImage
from deconvnet.images import Images, Preprocess
from deconvnet.scan import scan

pytestmark = pytest.mark.usefixtures("one_thread")

ODD = Preprocess(6, 8, (0.1, 0.5, 0.93), (0.25, 1 / 3, 7.0))


class Noise(Images):
    """Pictures of noise, some of which cannot be read."""

    def __init__(self, count, broken=(), preprocess=ODD):
        self.preprocess, self.broken, self.classes = preprocess, broken, ["a", "b"]
        self.files, self.labels = [f"{n}.png" for n in range(count)], [n % 2 for n in range(count)]

    def view(self, index):
        if index in self.broken:
            raise UnreadableImage(self.files[index], "an empty file")
        size = self.preprocess.size
        return Image.fromarray(np.random.default_rng(index).integers(0, 256, (size, size, 3), np.uint8))


class Mirrored(Noise):
    """Whose items are not what Images would make of its pictures."""

    def __getitem__(self, index):
        image, label = super().__getitem__(index)
        return image.flip(2), label


def means():
    return np.random.default_rng(7).random((3, 6, 6))


@pytest.mark.parametrize("preprocess", [ODD, Preprocess(6, 8, mean_picture=means())], ids=["mean", "mean picture"])
def test_inputs_are_the_arithmetic_in_float64_rounded_once(preprocess):
    pixels = np.arange(256, dtype=np.uint8).repeat(3)[:756].reshape(7, 6, 6, 3)
    subtracted = preprocess.mean if preprocess.mean_picture is None else means().transpose(1, 2, 0)
    exact = ((pixels / 255 - subtracted) / preprocess.std).astype(np.float32).transpose(0, 3, 1, 2)
    inputs = preprocess.inputs(torch.from_numpy(pixels))
    assert inputs.dtype == torch.float32 and inputs.numpy().tobytes() == exact.tobytes()
    for image, one in zip(pixels, inputs, strict=True):
        assert torch.equal(preprocess.tensor(Image.fromarray(image)), one)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("kind", [Noise, Mirrored])
def test_a_batch_holds_the_items_in_their_slots_and_zeros_elsewhere(kind, workers):
    data = kind(11, broken=(4, 9))
    seen = {}
    for batch in batches(data, (0, 1), 0, 4, workers):
        assert batch.images.shape == (4, 3, 6, 6) and batch.images.dtype == torch.float32
        empty = sorted({*range(4)} - {*batch.slots})
        assert not batch.images[empty].any()
        seen |= {number: (slot, batch.images[slot], label)
                 for slot, number, label in zip(batch.slots, batch.numbers, batch.labels, strict=True)}
    assert sorted(seen) == [n for n in range(11) if n not in data.broken]
    for number, (slot, image, label) in seen.items():
        assert slot == number % 4 and torch.equal(image, data[number][0]) and label == data[number][1] == number % 2


@pytest.mark.parametrize("workers", [0, 1])
def test_a_scan_of_pictures_is_that_of_their_tensors(workers, tmp_path):
    data = Noise(13)
    tensors = [(torch.stack([data[n][0] for n in range(13)]), torch.tensor(data.labels))]
    found, expected = scan(identity(), data, batch_size=4, workers=workers), scan(identity(), tensors, batch_size=4)
    expected.files, expected.classes, expected.labels = data.files, data.classes, data.labels
    assert contents(found, tmp_path) == contents(expected, tmp_path)


def test_a_labelled_iterable_that_begins_anew_goes_on_where_it_was(tmp_path):
    inputs = torch.randn(23, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(23) % 4

    def source(until=99, size=5):
        for start in range(0, 23, size):
            if start >= until:
                raise KeyboardInterrupt
            yield inputs[start:start + size], labels[start:start + size]

    for until in (8, 15, 20):
        with pytest.raises(KeyboardInterrupt):
            scan(identity(), source(until), batch_size=3, checkpoint=tmp_path / "state")
    found = scan(identity(), source(size=4), batch_size=3, checkpoint=tmp_path / "state")  # cut otherwise, in one order
    assert found.count == 23
    assert contents(found, tmp_path) == contents(scan(identity(), source(), batch_size=3), tmp_path)


@pytest.mark.skipif(not hasattr(signal, "SIGCHLD"), reason="nobody hears here of a process that ends")
@pytest.mark.parametrize("workers", [0, 1])
def test_of_its_own_processes_the_caller_hears_as_before(workers):
    heard = []

    def hear(*_):
        heard.append(len(begun))

    before, begun = signal.signal(signal.SIGCHLD, hear), []
    try:
        for _ in batches(Noise(6), (0, 1), 0, 2, workers):
            begun.append(subprocess.Popen([sys.executable, "-S", "-c", ""]))
            begun[-1].wait()
        assert heard[:3] == [1, 2, 3] and signal.getsignal(signal.SIGCHLD) == hear  # and perhaps of the reader itself
    finally:
        signal.signal(signal.SIGCHLD, before)


class Deadly(Noise):
    """Of whose pictures two kill whatever reads them; notes by which process each was read."""

    def view(self, index):
        with (self.notes / str(index)).open("a") as file:
            file.write(f"{os.getpid()} ")
        if index in (3, 6):
            faulthandler.disable()  # pytest's, which would print where it died
            os.abort()
        return super().view(index)


def test_not_every_image_needs_a_process_where_some_kill_theirs(tmp_path):
    data = Deadly(24)
    data.notes = tmp_path
    with pytest.warns(UserWarning, match="read again, one by one"):
        [batch] = batches(data, (0, 1), 0, 24, 1)
    assert [number for number, *_ in batch.unreadable] == [3, 6] and len(batch.numbers) == 22
    readers = [(tmp_path / str(index)).read_text().split() for index in range(24)]
    assert len(readers[3]) >= 2 and all(readers)
    assert len({pid for pids in readers for pid in pids}) < 12  # seven, or more if deaths outran what was read
