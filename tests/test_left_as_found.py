"""What scans, projections and galleries leave behind: nothing, on the network, in torch, or in memory."""

import os
import subprocess
import sys
from copy import deepcopy

import pytest
import torch
from torch import nn
from torch.nn.modules import module as torch_module

from deconvnet import scan
from deconvnet.errors import DeconvnetError
from deconvnet.gallery import gallery


def network():
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 6, 5, padding=2), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2, ceil_mode=True),
              nn.LocalResponseNorm(5, 5e-4, 0.75, 2.0), nn.Conv2d(6, 8, 3), nn.BatchNorm2d(8), nn.ReLU(),
              nn.Dropout(), nn.Flatten(), nn.Linear(8 * 7 * 7, 5)]
    return nn.Sequential(*layers).eval()


def frozen(net):
    return net.requires_grad_(False)


def channels_last(net):
    return net.to(memory_format=torch.channels_last)


def hooked(net):
    net[0].register_forward_hook(lambda module, given, output: None)
    net[0].weight.grad = torch.ones_like(net[0].weight)
    return net


def images():
    return torch.rand(12, 3, 18, 18, generator=torch.Generator().manual_seed(0))


def state(net):
    """Everything about a network, and about torch, that somebody else might rely on."""
    hooks = [{k: len(v) for k, v in vars(m).items() if "hooks" in k} for m in net.modules()]
    everywhere = {k: len(v) for k, v in vars(torch_module).items() if k.startswith("_global") and isinstance(v, dict)}
    tensors = [(t.dtype, t.device, t.stride(), t.data_ptr(), t._version, t.requires_grad, t.grad is None)
               for t in (*net.parameters(), *net.buffers())]
    around = (torch.is_grad_enabled(), torch.is_inference_mode_enabled(), torch.get_num_threads(),
              torch.backends.cudnn.allow_tf32, torch.overrides._len_torch_function_stack(),
              torch.random.get_rng_state().tolist())
    return (hooks, everywhere, tensors, around, [m.training for m in net.modules()], [type(m) for m in net.modules()],
            list(net.state_dict()), [sorted(vars(m)) for m in net.modules()])


class Interrupted(torch.utils.data.Dataset):
    """Images of which one is not handed over."""

    def __init__(self, error):
        self.error = error

    def __len__(self):
        return 12

    def __getitem__(self, number):
        if number == 9:
            raise self.error
        return images()[number]


def stopped_by(error):
    def run(net):
        with pytest.raises(type(error)):
            scan(net, Interrupted(error), batch_size=4)
    return run


def inside(error):
    """An error out of the network itself, in the middle of a forward pass."""
    def run(net):
        def refuse(module, given):
            raise error
        handle = net[4].register_forward_pre_hook(refuse)
        try:
            with pytest.raises(type(error)):
                scan(net, images(), batch_size=4)
        finally:
            handle.remove()
    return run


def not_finite(net):
    with pytest.raises(DeconvnetError):
        scan(net, images() * torch.nan)


def drawn(net):
    top = scan(net, images(), k=3)
    list(gallery(net, top, "4", [0, 1], images()))


RUNS = {"scanned": lambda net: scan(net, images(), batch_size=5), "drawn": drawn,
        "an image fails": stopped_by(ValueError("broken")), "Ctrl-C at an image": stopped_by(KeyboardInterrupt()),
        "a layer fails": inside(ValueError("broken")), "Ctrl-C in a layer": inside(KeyboardInterrupt()),
        "NaN": not_finite}


@pytest.mark.parametrize("run", RUNS.values(), ids=RUNS)
@pytest.mark.parametrize("prepare", [lambda net: net, frozen, channels_last, hooked, nn.Module.double],
                         ids=["as built", "frozen", "channels last", "hooked", "double"])
def test_the_network_and_torch_are_left_as_they_were_found(prepare, run):
    net = prepare(network())
    before, weights = state(net), deepcopy(net.state_dict())
    run(net)
    assert state(net) == before
    assert all(torch.equal(value, weights[name]) for name, value in net.state_dict().items())


PROJECTIONS = """
import resource, sys
import torch
from deconvnet import load_model, project, record

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()

torch.set_num_threads(1)
net = load_model("zfnet", weights="demo")
images = torch.rand(2, 3, 224, 224, generator=torch.Generator().manual_seed(0)) - 0.5

def projected(count):
    for first in range(0, count, 50):
        tape = record(net, images)
        chosen = [(n % 2, n % 256, 1 + n % 11, 1 + n % 7) for n in range(first, first + 50)]
        project(tape, "conv2", chosen)

projected(200)
before = resident()
projected(1000)
print(before, resident())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads how much memory is resident where Linux writes it")
def test_a_thousand_projections_leave_memory_flat():
    given_back = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536"}  # at once: what is kept differs from run to run
    run = subprocess.run([sys.executable, "-c", PROJECTIONS], env=given_back, capture_output=True, text=True,
                         timeout=300, check=True)
    before, after = map(int, run.stdout.split())
    assert after < 1.01 * before, f"{before >> 20} MiB before, {after >> 20} MiB after a thousand projections"
