"""Figure 2: for random maps of each layer the nine strongest activations, projected, beside the patches behind them."""

from typing import Annotated, Any

from pydantic import Field

from ..exhibit import Exhibit
from ..gallery import Gallery, gallery
from ..layout import printable
from ..render import figure_2
from ..report import PAPER_MAPS, choose_units, first_filters, numbers
from ..scan import scan
from ..subject import Opened, Subject


class Settings(Subject):
    """Which maps, and how."""

    layers: Annotated[tuple[str, ...], Field(min_length=1)] = ("conv1", "conv2", "conv3", "conv4", "conv5")
    units: Annotated[str | None, Field(description="such as conv5:147,conv3:5-9; none: random ones")] = None
    count: Annotated[int | None, Field(ge=1, description="random maps a layer; none: as many as the paper")] = None
    seed: Annotated[int, Field(ge=0, description="of the random choice")] = 0
    top: Annotated[int, Field(ge=1, le=100, description="activations of each map")] = 9
    method: str = "deconvnet"
    unpool: str = "switches"


def make(settings: Settings, progress: bool = True) -> Exhibit:
    """The figure, after a scan of all images."""
    opened = settings.open("figure 2")
    pages = strongest(opened, settings, progress)
    titles = [printable(f"Layer {n}: {shown[0].layer}") for n, shown in enumerate(pages, 1)]
    drawing = figure_2(pages, first_filters(opened.net, pages[0]), k=settings.top, titles=titles)
    return Exhibit(drawing, {"units": [numbers(one) for shown in pages for one in shown]}, _caption(opened, settings),
                   opened.origin)


def strongest(opened: Opened, settings: Any, progress: bool) -> list[list[Gallery]]:
    """For each layer of the settings, its chosen units with their strongest activations and projections."""
    top = scan(opened.net, opened.images, layers=list(settings.layers), k=settings.top, progress=progress)
    addressed = settings.units is not None and ":" in settings.units
    layers = None if addressed else list(settings.layers)
    chosen = choose_units(top, layers, settings.units, settings.count, settings.seed)
    return [list(gallery(opened.net, top, layer, units, opened.images, method=settings.method, unpool=settings.unpool,
                         progress=progress)) for layer, units in chosen.items() if units]


def _caption(opened: Opened, settings: Settings) -> str:
    how = f"{settings.method}, unpooled by the {settings.unpool}" if settings.unpool == "switches" else \
        f"{settings.method}, unpooled to the {settings.unpool}"
    which = f"the maps {settings.units}" if settings.units else \
        f"{settings.count or ', '.join(map(str, PAPER_MAPS))} random maps of the layers (seed {settings.seed})"
    return (f"Figure 2 for {opened}: {which}, and for each its {settings.top} strongest activations, one an image, "
            f"projected to pixels ({how}; left) beside the image patches that caused them (right). Zero is mid-grey "
            "and each map has one symmetric scale; grey bars lie outside the image. The paper shows its network on "
            "ImageNet's validation images, with a contrast that it does not define.")
