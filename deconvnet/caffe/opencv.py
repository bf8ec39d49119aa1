"""OpenCV's own reading of Caffe's files, in a process of its own: there are files that crash whatever reads them.

A prototxt without a number that OpenCV divides by is enough. That process imports this module and nothing heavier, so
that it is there in a tenth of a second.
"""

import multiprocessing
import signal
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from safetensors.numpy import load, save

from ..errors import DeconvnetError, UsageError, brief
from ..stopping import wait_for_the_parent

PATIENCE = 300  # seconds for an answer; the largest of Caffe's networks are read and run in ten


class OpenCV:
    """What OpenCV makes of a prototxt and a caffemodel; the process is begun at the first question and ends with this.

    Raises UsageError where no OpenCV is installed that reads them. Each question raises DeconvnetError, which names the
    file, where OpenCV cannot answer, does not answer for ``PATIENCE`` seconds, or dies of it.
    """

    def __init__(self, prototxt: Path, caffemodel: Path) -> None:
        _check_library()
        self.prototxt, self.caffemodel = prototxt, caffemodel
        self._spawn = multiprocessing.get_context("spawn")
        self._ours, self._theirs = self._spawn.Pipe()
        self._process = self._spawn.Process(target=_answer_all, daemon=True,
                                            args=(self._theirs, str(prototxt), str(caffemodel)))

    def __enter__(self) -> "OpenCV":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 traceback: TracebackType | None) -> None:
        if self._process.pid is not None:
            self._process.kill()
            self._process.join()
        self._ours.close()

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
        if self._process.pid is None:
            self._process.start()
            self._theirs.close()  # so that this end hears when that process is gone
            self._hear(f"{self.caffemodel} cannot be read as the weights of {self.prototxt}: it may be cut off, or of "
                       "another network")

    def _ask(self, failure: str, layer: str, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        try:
            self._ours.send_bytes(layer.encode())
            self._ours.send_bytes(save(dict(arrays)))
        except OSError:  # it is gone: how it went is told below
            pass
        return self._hear(failure)

    def _hear(self, failure: str) -> dict[str, np.ndarray]:
        """The arrays of an answer. Raises DeconvnetError, which begins with ``failure``, where there is none."""
        try:
            if not self._ours.poll(PATIENCE):
                raise DeconvnetError(f"{failure}: OpenCV gave no answer for {PATIENCE} seconds")
            problem, content = self._ours.recv_bytes().decode(), self._ours.recv_bytes()
        except (EOFError, OSError):
            self._process.join()
            raise DeconvnetError(f"{failure}: OpenCV crashed over it ({self._how_it_ended()})") from None
        if problem:
            raise DeconvnetError(f"{failure}: {problem}")
        return load(content)

    def _how_it_ended(self) -> str:
        code = self._process.exitcode or 0
        return signal.Signals(-code).name if code < 0 else f"exit code {code}"


def _check_library() -> None:
    try:
        import cv2
    except ImportError as error:
        raise UsageError("OpenCV reads Caffe's weights: pip install 'deconvnet[caffe]'") from error
    if not hasattr(cv2.dnn, "readNetFromCaffe"):
        raise UsageError(f"OpenCV {cv2.__version__} reads no Caffe files any more: pip install 'deconvnet[caffe]'")


# ---- in the other process ----

def _answer_all(asked: Connection, prototxt: str, caffemodel: str) -> None:
    """Opens the files, and answers questions (the name of a layer, and images or nothing) until nobody is there."""
    wait_for_the_parent()
    net = _answer(asked, lambda: (_opened(prototxt, caffemodel), []))
    while True:
        try:
            layer, given = asked.recv_bytes().decode(), load(asked.recv_bytes())
        except EOFError:
            return
        _answer(asked, partial(_found, net, layer, given))


def _answer(asked: Connection, find: Callable[[], tuple[Any, Sequence[np.ndarray]]]) -> Any:
    """Sends what went wrong, if anything did, and the arrays that were found, by their numbers; gives the network."""
    problem, net, arrays = "", None, {}
    try:
        net, found = find()
        arrays = {str(number): np.array(array, order="C") for number, array in enumerate(found)}
    except Exception as error:  # cv2.error, and what its binding raises
        problem = brief(error) or type(error).__name__
    asked.send_bytes(problem.encode())
    asked.send_bytes(save(arrays))
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
