"""What several tests need."""

import os
import shutil
import signal
import tempfile
from pathlib import Path

import pytest

# threads of torch do not spin while they wait: other processes need the time
os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # before torch is there

# what is noted of where images lie stays among these tests
CACHE = Path(tempfile.mkdtemp(prefix="deconvnet-tests-"))
os.environ["XDG_CACHE_HOME"] = str(CACHE)

# where pytest was begun in the background, a shell had Ctrl-C ignored, and so would be all that tests begin
signal.signal(signal.SIGINT, signal.default_int_handler)

import torch  # noqa: E402


def pytest_unconfigure():
    shutil.rmtree(CACHE, ignore_errors=True)


@pytest.fixture(scope="module")
def one_thread():
    """Tensors this small are slower with more threads, and much slower where the processor is busy."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
