"""What the tests of the atlas share: one small atlas, made once."""

import os
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest
import tiny
import torch

from deconvnet.atlas import pages
from deconvnet.images import ImageFolder
from deconvnet.scanned import Scan


@pytest.fixture(autouse=True, scope="session")
def one_thread():
    """Tensors this small are slower with more threads, and much slower where the processor is busy."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(autouse=True, scope="session")
def quick():
    """Nobody cuts the power during a test: the disk need not be waited for; and templates are compiled once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda file: None)
        patch.setattr(os, "sync", lambda: None, raising=False)
        patch.setattr(pages, "environment", cache(pages.environment))
        yield


@dataclass
class Atlas:
    """An atlas and what it was made from. Tests copy the folder before they change it."""

    folder: Path
    net: tiny.Tiny
    images: ImageFolder
    top: Scan


@pytest.fixture(scope="session")
def small_atlas(tmp_path_factory) -> Atlas:
    root = tmp_path_factory.mktemp("atlas")
    tiny.draw_images(root / "photographs")
    net = tiny.Tiny()
    images = tiny.open_images(root / "photographs", net)
    top = tiny.scan(net, images)
    top.save(root / "top.safetensors")
    return Atlas(tiny.make(root / "made", net, top, images), net, images, top)
