"""OpenCV's own reading of Caffe's files, in a process of its own: there are files that crash whatever reads them.

A prototxt without a number that OpenCV divides by is enough. That process imports this module and nothing heavier, so
that it is there in a tenth of a second.
"""

import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from threading import Timer
from time import monotonic
from types import TracebackType
from typing import IO, Any

import numpy as np
from safetensors.numpy import load, save

from ..errors import DeconvnetError, UsageError, brief
from ..stopping import how_it_ended, wait_for_the_parent

PATIENCE = 300  # seconds for an answer; the largest of Caffe's networks are read and run in ten
_PROGRAM = ["-P", "-m", "deconvnet.caffe.opencv"]  # with multiprocessing a caller would need __name__ == "__main__"


class OpenCV:
    """What OpenCV makes of a prototxt and a caffemodel; the process is begun at the first question and ends with this.

    Raises UsageError where no OpenCV is installed that reads them. Each question raises DeconvnetError, which names the
    file, where OpenCV cannot answer, does not answer for ``PATIENCE`` seconds, or dies of it.
    """

    def __init__(self, prototxt: Path, caffemodel: Path) -> None:
        _check_library()
        self.prototxt, self.caffemodel = prototxt, caffemodel
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> "OpenCV":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 traceback: TracebackType | None) -> None:
        if self._process:
            self._process.kill()
            with suppress(OSError), self._process:  # what it did not take any more
                pass

    def learned(self, layer: str) -> list[np.ndarray]:
        """What a layer learned, in Caffe's order: weight, bias."""
        self._open()
        found = self._ask(f"The layer {layer} cannot be read from {self.caffemodel}: it is not there, or of other "
                          f"sizes than in {self.prototxt.name}", layer, {})
        if not found:
            raise DeconvnetError(f"{self.caffemodel} has no weights for the layer {layer}")
        return [found[str(number)] for number in range(len(found))]

    def forward(self, layer: str, images: np.ndarray) -> np.ndarray:
        """What a layer puts out for images (N, 3, H, W) in blue, green, red."""
        self._open()
        return self._ask(f"OpenCV cannot run {self.prototxt}", layer, {"images": images})["0"]

    def _open(self) -> None:
        if self._process is None:
            self._process = subprocess.Popen(
                [sys.executable, *_PROGRAM, str(self.prototxt), str(self.caffemodel)], stdin=subprocess.PIPE,
                stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)})
            self._hear(f"{self.caffemodel} cannot be read as the weights of {self.prototxt}: it may be cut off, or of "
                       "another network")

    def _ask(self, failure: str, layer: str, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        assert self._process and self._process.stdin
        with suppress(OSError):  # it is gone: how it went is told below
            _send(self._process.stdin, layer.encode(), save(dict(arrays)))
        return self._hear(failure)

    def _hear(self, failure: str) -> dict[str, np.ndarray]:
        """The arrays of an answer. Raises DeconvnetError, which begins with ``failure``, where there is none."""
        assert self._process and self._process.stdout
        begun, late = monotonic(), Timer(PATIENCE, self._process.kill)
        late.start()
        try:
            problem, content = _received(self._process.stdout), _received(self._process.stdout)
        except EOFError:
            code = self._process.wait()
            if monotonic() - begun >= PATIENCE:
                raise DeconvnetError(f"{failure}: OpenCV gave no answer for {PATIENCE} seconds") from None
            raise DeconvnetError(f"{failure}: OpenCV crashed over it ({how_it_ended(code)})") from None
        finally:
            late.cancel()
        if problem:
            raise DeconvnetError(f"{failure}: {problem.decode()}")
        return load(content)


def _send(pipe: IO[bytes], *messages: bytes) -> None:
    """Sends messages, each after its length."""
    for message in messages:
        pipe.write(len(message).to_bytes(8) + message)
    pipe.flush()


def _received(pipe: IO[bytes]) -> bytes:
    """The next message. Raises EOFError where nobody is there to send it."""
    length = pipe.read(8)
    message = pipe.read(int.from_bytes(length)) if len(length) == 8 else b""
    if len(length) < 8 or len(message) < int.from_bytes(length):
        raise EOFError
    return message


def _check_library() -> None:
    try:
        import cv2
    except ImportError as error:
        raise UsageError("OpenCV reads Caffe's weights: pip install 'deconvnet[caffe]'") from error
    if not hasattr(cv2.dnn, "readNetFromCaffe"):
        raise UsageError(f"OpenCV {cv2.__version__} reads no Caffe files any more: pip install 'deconvnet[caffe]'")


# ---- in the other process ----

def _answer_all(asked: IO[bytes], answers: IO[bytes], prototxt: str, caffemodel: str) -> None:
    """Opens the files, and answers questions (the name of a layer, and images or nothing) until nobody is there."""
    wait_for_the_parent()
    net = _answer(answers, lambda: (_opened(prototxt, caffemodel), []))
    while True:
        try:
            layer, given = _received(asked).decode(), load(_received(asked))
        except EOFError:
            return
        _answer(answers, partial(_found, net, layer, given))


def _answer(answers: IO[bytes], find: Callable[[], tuple[Any, Sequence[np.ndarray]]]) -> Any:
    """Sends what went wrong, if anything did, and the arrays that were found, by their numbers; gives the network."""
    problem, net, arrays = "", None, {}
    try:
        net, found = find()
        arrays = {str(number): np.array(array, order="C") for number, array in enumerate(found)}
    except Exception as error:  # cv2.error, and what its binding raises
        problem = brief(error) or type(error).__name__
    _send(answers, problem.encode(), save(arrays))
    return net


def _opened(prototxt: str, caffemodel: str) -> Any:
    """OpenCV's network, as it was learned: no two layers in one."""
    import cv2

    net = cv2.dnn.readNetFromCaffe(*(np.fromfile(path, np.uint8) for path in (prototxt, caffemodel)))
    net.enableFusion(False)
    return net


def _found(net: Any, layer: str, given: Mapping[str, np.ndarray]) -> tuple[Any, Sequence[np.ndarray]]:
    """What the layer puts out for images; without images, what it learned."""
    if not given:
        return net, net.getLayer(layer).blobs
    net.setInput(given["images"])
    return net, [net.forward(layer)]


if __name__ == "__main__":
    pipe = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever OpenCV prints is no answer
    _answer_all(sys.stdin.buffer, pipe, *sys.argv[1:])
