"""The paper's figures and tables by number, and two networks compared."""

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from ..errors import UsageError
from .shared import print_table, print_written, sole_folder

if TYPE_CHECKING:
    from ..exhibit import Exhibit, Table
    from ..settings import Part


def run_figure(number: str, out: str = "deconvnet-figures", config: str | None = None, model: str | None = None,
               weights: str | None = None, images: str | None = None) -> None:
    """One of the paper's figures (arXiv v3), by number, for a network and images of your own or for what ships.

    1 the deconvnet on a real activation, 2 features, 3 architecture, 4 evolution of features, 5 invariance, 6
    architecture selection, 7 occlusion, 8 correspondence, 9 accuracy against training images; and methods: the same
    activation by several methods. Each as PNG and PDF, with its numbers and provenance in JSON and its caption as text.

    Args:
        number: 1 to 9, or methods.
        out: folder for the files.
        config: a YAML file with the figure's settings, such as those in configs/figures.
        model: in place of the one in the settings; see deconvnet scan.
        weights: in place of those in the settings.
        images: in place of those in the settings.
    """
    from .. import figures

    settings = settings_from(figures.settings(number), config, {"model": model, "weights": weights, "images": images})
    _make(partial(figures.make, number, settings), out, f"figure{number}" if number.isdigit() else number)


def run_table(number: str, out: str = "deconvnet-tables", config: str | None = None, model: str | None = None,
              weights: str | None = None, images: str | None = None) -> None:
    """One of the paper's tables (arXiv v3), by number, with the paper's own values beside.

    1 correspondence, 2 errors, 3 ablation, 4 Caltech-101, 5 Caltech-256, 6 PASCAL VOC 2012, 7 features layer by layer.
    On the screen, and as CSV, Markdown, LaTeX and JSON.

    Args:
        number: 1 to 7.
        out: folder for the files.
        config: a YAML file with the table's settings, such as those in configs/tables.
        model: in place of the one in the settings; see deconvnet scan.
        weights: in place of those in the settings.
        images: in place of those in the settings.
    """
    from .. import tables

    settings = settings_from(tables.settings(number), config, {"model": model, "weights": weights, "images": images})
    _make(partial(tables.make, number, settings), out, f"table{number}")


def run_compare(model1: str, model2: str, weights1: str | None = None, weights2: str | None = None,
                images: str = "builtin:photographs-apart", out: str = "deconvnet-compare") -> None:
    """Filter settings side by side: the first and second layers of any two networks, and what is measured of them.

    The paper's Figure 6 for networks of your own: their first layers' filters, random maps of their second layers with
    the nine strongest activations projected to pixels, and how their frequencies, orientations, norms, likenesses and
    aliasing are distributed. As PNG and PDF, with the numbers in JSON and as a table in CSV, Markdown and LaTeX.

    Args:
        model1: zfnet, zfnet_wide, alexnet, alexnet_dense; torchvision:NAME; package.module:function; file.py:function;
            net.onnx; net.yaml.
        model2: the network beside it; the same one with other weights will do.
        weights1: of the first network: demo; a .safetensors, .npz, .pt or .pth file, or a .yaml that names one; of
            torchvision's networks, DEFAULT or another name, which is fetched. Without, the networks of ours and of
            torchvision are random.
        weights2: of the second.
        images: a folder of images, or builtin:photographs or builtin:photographs-apart.
        out: folder for the files.
    """
    from ..figures import selection

    with sole_folder(out) as folder:
        left, right = selection.Side(model=model1, weights=weights1), selection.Side(model=model2, weights=weights2)
        chosen = selection.Settings(left=left, right=right, unrestrained=None, images=images)
        exhibit, table = selection.compare(chosen)
        files = [*exhibit.write(folder, "compare"), *table.write(folder, "compare_table")]
        print_table("", table.heads, table.cells())
        print_written(exhibit.caption, folder, files)


def _make(make: "Callable[[], Exhibit | Table]", out: str, name: str) -> None:
    """Makes a figure or a table, writes its files and says what it shows."""
    from ..exhibit import Table

    with sole_folder(out) as folder:
        made = make()
        files = made.write(folder, name)
        if isinstance(made, Table):
            print_table("", made.heads, made.cells())
        print_written(made.caption, folder, files)


def settings_from(kind: "type[Part]", config: str | None, words: dict[str, str | None]) -> "Part":
    """Settings from a file, if there is one, with what the command line says in its place."""
    from ..config import load

    said: dict[str, str | None] = {key: value for key, value in words.items() if value is not None}
    for key in said.keys() - kind.model_fields.keys():
        raise UsageError(f"--{key} does not go with this one, whose settings are {', '.join(kind.model_fields)}: give "
                         "--config FILE")
    if "model" in said and "weights" not in said and "weights" in kind.model_fields:
        said["weights"] = None  # another network's weights would not fit
    return load(config, kind, said) if config else kind(**said)
