"""What several tests need."""

import os

# threads of torch do not spin while they wait: other processes need the time
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import pytest
import torch


@pytest.fixture(scope="module")
def one_thread():
    """Tensors this small are slower with more threads, and much slower where the processor is busy."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
