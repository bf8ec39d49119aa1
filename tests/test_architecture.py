"""Which module may import which, and what no module may do: read from the syntax trees, each rule seen to bite."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE, MODELS = ROOT / "deconvnet", ROOT / "models"
SOURCES = sorted([*PACKAGE.rglob("*.py"), *MODELS.rglob("*.py")])

ABOUT = ast.get_docstring(ast.parse((PACKAGE / "__init__.py").read_text(encoding="utf-8")))
ORDER = " ".join(re.findall(r"^    ([\w ]+): ", ABOUT, re.M)).split()
"""A module imports only what stands before it in the package's docstring; a new one is put where it belongs."""


# ---- imports ---------------------------------------------------------------------------------------------------------

def imported(tree, package=("deconvnet",)):
    """The full names of what a module of ``package`` imports, wherever in it, relative imports resolved."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[:len(package) - node.level + 1] if node.level else ()
            origin = ".".join([*base, *([node.module] if node.module else [])])
            yield from (f"{origin}.{alias.name}" for alias in node.names)


def out_of_order(module, tree, package=("deconvnet",)):
    """What a module imports from the package although it does not stand above it."""
    rank = ORDER.index(module)
    ours = [name.split(".")[1] for name in imported(tree, package) if name.startswith("deconvnet.")]
    return [name for name in ours if name not in ("models", module) and (name not in ORDER or ORDER.index(name) > rank)]


def own(module):
    """The module, or the folder of modules, of a path in the package."""
    return module.relative_to(PACKAGE).parts[0].removesuffix(".py")


MODULES = [path for path in SOURCES if path.is_relative_to(PACKAGE) and path != PACKAGE / "__init__.py"]


@cache
def parse(path):
    return ast.parse(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_module_imports_only_what_stands_above_it(path):
    assert own(path) in ORDER, "a new module has its place in the docstring of the package"
    assert out_of_order(own(path), parse(path), ("deconvnet", *path.relative_to(PACKAGE).parts[:-1])) == []


def test_the_map_in_the_docstring_of_the_package_has_each_module_once():
    assert sorted(ORDER) == sorted({own(path) for path in MODULES})


@pytest.mark.parametrize("line", ["from .scan import scan", "import deconvnet.cli", "from . import gallery",
                                  "def f():\n    from .render import figure", "from deconvnet.scan import Scan",
                                  "from .unheard_of import x"])
def test_an_import_from_below_is_seen(line):
    assert out_of_order("tape", ast.parse(line))
    assert not out_of_order("tape", ast.parse("from .errors import UsageError\nimport torch\nfrom .models import x"))


@pytest.mark.parametrize("line", ["from ..scan import scan", "from .. import cli",
                                  "from ..errors import x\nimport deconvnet.cli"])
def test_an_import_from_below_is_seen_in_a_folder_too(line):
    in_folder = ("deconvnet", "topk")
    assert out_of_order("topk", ast.parse(line), in_folder)
    assert not out_of_order("topk", ast.parse("from ..errors import x\nfrom .other import y"), in_folder)


def leaves_models(tree):
    """What a module of ``models`` imports of the package, but for ``models`` itself."""
    names = imported(tree, ("deconvnet", "models"))
    return [name for name in names if name.split(".")[0] == "deconvnet" and name.split(".")[1:2] != ["models"]]


@pytest.mark.parametrize("path", sorted(MODELS.glob("*.py")), ids=lambda path: path.name)
def test_networks_import_nothing_of_the_package(path):
    assert leaves_models(parse(path)) == []


@pytest.mark.parametrize("line", ["from ..tape import record", "import deconvnet", "from .. import images",
                                  "from deconvnet.errors import UsageError"])
def test_a_network_that_imports_from_the_package_is_seen(line):
    assert leaves_models(ast.parse(line))
    assert not leaves_models(ast.parse("from .zfnet import classifier\nimport torch\nfrom torch import nn"))


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_module_is_named_for_what_it_does(path):
    assert not {"utils", "util", "helpers", "helper", "common", "misc"} & {path.stem, path.parent.name}


# ---- what is never done ----------------------------------------------------------------------------------------------

def name_of(node):
    """``a.b.c`` of a name or an attribute."""
    return f"{name_of(node.value)}.{node.attr}" if isinstance(node, ast.Attribute) else getattr(node, "id", "")


def calls(tree, *names):
    """The calls of functions whose dotted name ends so."""
    found = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    return [call for call in found if any(f".{name_of(call.func)}".endswith(f".{name}") for name in names)]


def has(call, **keywords):
    return any(k.arg in keywords and getattr(k.value, "value", None) is keywords[k.arg] for k in call.keywords)


def imports_any(tree, *roots):
    return any(name.split(".")[0] in roots for name in imported(tree))


def own_loader(call):
    return any(k.arg == "Loader" and name_of(k.value) in ("_Loader", "SafeLoader", "yaml.SafeLoader")
               for k in call.keywords)


BANNED = {  # rule: (whether a tree breaks it, lines that break it, lines that do not)
    "torch.load without weights_only=True": (
        lambda tree: any(not has(call, weights_only=True) for call in calls(tree, "torch.load")
                         if name_of(call.func) == "torch.load"),
        ["torch.load(f, weights_only=False)", "torch.load(f)", "torch.load(f, map_location='cpu')"],
        ["torch.load(f, weights_only=True)", "safetensors.torch.load(f)"]),
    "weights_only=False": (
        lambda tree: any(has(node, weights_only=False) for node in ast.walk(tree) if isinstance(node, ast.Call)),
        ["load(f, weights_only=False)", "partial(torch.load, weights_only=False)"], ["load(f, weights_only=True)"]),
    "torch.hub": (
        lambda tree: any(name_of(n) == "torch.hub" for n in ast.walk(tree) if isinstance(n, ast.Attribute))
        or any(name.startswith("torch.hub") for name in imported(tree))
        or bool(calls(tree, "load_state_dict_from_url")),
        ["torch.hub.load('a', 'b')", "import torch.hub", "from torch.hub import load", "from torch import hub",
         "load_state_dict_from_url(u)"], ["torch.huber(x)"]),
    "yaml without our loader": (
        lambda tree: any(not own_loader(call) for call in calls(tree, "yaml.load", "yaml.load_all"))
        or bool(calls(tree, "unsafe_load", "full_load", "unsafe_load_all", "full_load_all")),
        ["yaml.load(f)", "yaml.load(f, Loader=yaml.Loader)", "yaml.load(f, yaml.UnsafeLoader)", "yaml.full_load(f)",
         "yaml.unsafe_load(f)"],
        ["yaml.load(f, Loader=_Loader)", "yaml.safe_load(f)"]),
    "a loader that is not safe": (
        lambda tree: any(name_of(base).split(".")[-1] in ("Loader", "UnsafeLoader", "FullLoader")
                         for node in ast.walk(tree) if isinstance(node, ast.ClassDef) for base in node.bases),
        ["class _Loader(yaml.Loader): pass", "class _Loader(UnsafeLoader): pass"],
        ["class _Loader(yaml.SafeLoader): pass", "class _Loader(CSafeLoader): pass"]),
    "pickle": (
        lambda tree: imports_any(tree, "pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal")
        or any(k.arg == "allow_pickle" and getattr(k.value, "value", None) is not False
               for call in ast.walk(tree) if isinstance(call, ast.Call) for k in call.keywords),
        ["import pickle", "from pickle import loads", "import shelve as s", "np.load(f, allow_pickle=True)"],
        ["np.load(f, allow_pickle=False)", "unpickled = 1"]),
    "eval": (
        lambda tree: any(name_of(call.func) in ("eval", "exec", "compile", "builtins.eval")
                         for call in ast.walk(tree) if isinstance(call, ast.Call)),
        ["eval('1')", "exec(text)", "x = [eval(t) for t in ts]", "builtins.eval(t)"],
        ["net.eval()", "literal_eval('1')", "re.compile('a')"]),
    "extractall": (
        lambda tree: bool(calls(tree, "extractall", "unpack_archive")),
        ["tarfile.open(f).extractall(d)", "z.extractall()", "shutil.unpack_archive(f)"], ["z.namelist()"]),
    "Template": (
        lambda tree: bool(calls(tree, "Template")),
        ["Template(text)", "jinja2.Template(t).render()"], ["template(text)"]),
    "a shell": (
        lambda tree: bool(calls(tree, "os.system", "os.popen"))
        or any(has(node, shell=True) for node in ast.walk(tree) if isinstance(node, ast.Call)),
        ["os.system('ls')", "subprocess.run('ls', shell=True)"], ["subprocess.run(['ls'])"]),
}


@pytest.mark.parametrize("rule", BANNED)
@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_module_breaks(path, rule):
    assert not BANNED[rule][0](parse(path))


@pytest.mark.parametrize(("rule", "line"), [(rule, line) for rule in BANNED for line in BANNED[rule][1]])
def test_a_planted_line_is_seen(rule, line):
    assert BANNED[rule][0](ast.parse(f"def f():\n    {line}"))


@pytest.mark.parametrize(("rule", "line"), [(rule, line) for rule in BANNED for line in BANNED[rule][2]])
def test_an_innocent_line_is_not_taken_for_it(rule, line):
    assert not BANNED[rule][0](ast.parse(line))
