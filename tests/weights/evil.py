"""Files that run code when they are unpickled, or read as if they were their own author's: each writes a canary."""

import gzip
import io
import os
import pickle
import runpy
import tarfile
import warnings
import zipfile
from pathlib import Path

import numpy as np
import torch
import yaml
from torch import nn


class Payload:
    """Writes a file when it is unpickled, by whichever function is told."""

    def __init__(self, canary, way="exec"):
        self.canary, self.way = str(canary), way

    def __reduce__(self):
        code = f"open({self.canary!r}, 'w').close()"
        if self.way == "touch":
            return Path.touch, (Path(self.canary),)
        if self.way == "system":
            return os.system, (f"touch {self.canary}",)
        if self.way == "run":
            return runpy.run_path, (f"{self.canary}.py",)
        return exec, (code,)


def zipped(members):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return out.getvalue()


def saved(content, legacy=False):
    out = io.BytesIO()
    torch.save(content, out, _use_new_zipfile_serialization=not legacy)
    return out.getvalue()


def npz(**arrays):
    out = io.BytesIO()
    np.savez(out, **arrays)
    return out.getvalue()


def tar(members):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return out.getvalue()


def package(canary):
    """A torch.package, with a module of its own."""
    out = io.BytesIO()
    with torch.package.PackageExporter(out) as exporter:
        exporter.extern("**")
        exporter.save_source_string("evil", f"open({str(canary)!r}, 'w').close()")
        exporter.save_pickle("model", "model.pkl", Payload(canary))
    return out.getvalue()


def script():
    out = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it is going out of use
        torch.jit.save(torch.jit.trace(nn.ReLU(), torch.zeros(1), check_trace=False), out)
    return out.getvalue()


def with_pickles(archive, evil):
    """An archive in which every pickle is another one."""
    with zipfile.ZipFile(io.BytesIO(archive)) as old:
        return zipped({name: evil if name.endswith(".pkl") else old.read(name) for name in old.namelist()})


class InAState(dict):
    """A state dict with something else in it."""


def forms(canary):
    """{name: (the end of the file's name, its content)}."""
    evil = pickle.dumps(Payload(canary))
    state = {"conv1.weight": torch.zeros(4, 3, 3, 3), "conv1.bias": torch.zeros(4)}
    hidden = np.array([Payload(canary)], dtype=object)
    return {
        "pickle": (".pt", evil),
        "pickle, protocol 0": (".pth", pickle.dumps(Payload(canary), 0)),
        "pickle by a method": (".pt", pickle.dumps(Payload(canary, "touch"))),
        "pickle by system": (".pt", pickle.dumps(Payload(canary, "system"))),
        "pickle by a file beside": (".pt", pickle.dumps(Payload(canary, "run"))),
        "torch": (".pt", saved(Payload(canary))),
        "torch, legacy": (".pth", saved(Payload(canary), legacy=True)),
        "nested in a checkpoint": (".pt", saved({"state_dict": {**state, "more": Payload(canary, "system")}})),
        "in a list in a state": (".pt", saved({**state, "conv1.bias": [Payload(canary)]})),
        "as a key": (".pt", saved({**state, (Payload(canary),): torch.zeros(1)})),
        "as a dict of one's own": (".pt", saved(InAState(state, more=Payload(canary)))),
        "a whole module": (".pt", saved(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()))),
        "legacy tar": (".pt", tar({"sys_info": pickle.dumps({}), "pickle": evil, "storages": evil, "tensors": evil})),
        "zip in zip": (".pt", zipped({"archive/data.pkl": saved(Payload(canary)), "archive/version": b"3"})),
        "data.pkl by hand": (".pt", zipped({"archive/data.pkl": evil, "archive/version": b"3"})),
        "torch.package": (".pt", package(canary)),
        "torchscript": (".pt", with_pickles(script(), evil)),
        "torchscript as it is": (".pt", script()),
        "pt2": (".pt2", zipped({"archive_format": b"pt2", "data/c.pt": saved(Payload(canary)), "m.pkl": evil})),
        "pt2, renamed": (".pt", zipped({"archive/archive_format": b"pt2", "archive/data/constants/c.pt": evil,
                                        "archive/data.pkl": evil})),
        "npz of objects": (".npz", npz(**{"conv1.weight": hidden, "conv1.bias": hidden})),
        "npz that is a pickle": (".npz", evil),
        "npz that is an npy of objects": (".npz", _npy(hidden)),
        "npz with other members": (".npz", zipped({"conv1.weight.pkl": evil, "conv1.weight.pyd": evil,
                                                   "conv1.py": f"open({str(canary)!r}, 'w')".encode()})),
        "safetensors that is a pickle": (".safetensors", evil),
        "safetensors that is torch's": (".safetensors", saved(Payload(canary))),
        "gzip": (".pt", gzip.compress(evil)),
        "a line for site": (".pth", f"import sys; open({str(canary)!r}, 'w').close()\n".encode()),
        "bin": (".bin", evil),
        "pickle by its name": (".pkl", evil),
        "joblib": (".joblib", evil),
    }


def _npy(array):
    out = io.BytesIO()
    np.save(out, array, allow_pickle=True)
    return out.getvalue()


def yamls(canary):
    """{name: text} of YAML that a careless loader would act upon."""
    touch = f"touch {canary}"
    return {
        "apply": f'weights: !!python/object/apply:os.system ["{touch}"]\n',
        "new": f'!!python/object/new:os.system ["{touch}"]\n',
        "name": "weights: !!python/name:os.system\n",
        "module": "weights: !!python/module:os\n",
        "key": f'? !!python/object/apply:os.system ["{touch}"]\n: 1\n',
        "in a layer": f'layers: [{{name: !!python/object/apply:os.system ["{touch}"], kind: relu}}]\n',
        "code": f"network: {canary}.py:build\nweights: w.safetensors\n",
        "a folder up": "network: zfnet\nweights: ../w.safetensors\n",
        "base": f'base: !!python/object/apply:os.system ["{touch}"]\n',
    }


def opens_carelessly(end, content):
    """What a program does that is not careful."""
    if end == ".npz":
        found = np.load(io.BytesIO(content), allow_pickle=True)
        return [found[name] for name in found.files] if hasattr(found, "files") else found
    if end.startswith(".y"):
        return yaml.load(content, Loader=yaml.UnsafeLoader)
    return torch.load(io.BytesIO(content), weights_only=False)
