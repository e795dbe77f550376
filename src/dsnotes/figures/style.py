"""One look for every figure of the book, with Chinese labels on any machine.

`use_style()` registers the font of the package, sets sizes and a colour cycle, and makes notebooks
write SVG that is the same in every run. The font is a subset of Noto Sans SC (OFL): all of GB 2312,
the symbols of our formulas, and newer characters that are common in names, such as 镕 and 喆;
matplotlib warns of any other character. Backgrounds are transparent: the page chooses light or
dark, and its style sheet adapts the colour of lines and text.

The colours are those of Okabe and Ito (safe for colour-blind readers), in an order in which
neighbours also differ in grey; the cycle changes the dash pattern as well.
"""

from importlib.resources import as_file, files
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLORS = {
    "blue": "#0072B2",
    "orange": "#E69F00",
    "green": "#009E73",
    "red": "#D55E00",
    "purple": "#CC79A7",
    "sky": "#56B4E9",
    "grey": "#7F7F7F",
}
HEATMAP = "cividis"  # perceptually even, the same order in grey
_DASHES = ["-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 2)), "-"]


def use_style() -> None:
    """Set the style of all figures made after this call; a second call changes nothing.

    >>> from dsnotes.figures import style
    >>> style.use_style()
    """
    import matplotlib as mpl
    from cycler import cycler
    from matplotlib import font_manager

    with as_file(files("dsnotes.figures") / "fonts" / "NotoSansSC-subset.ttf") as path:
        font_manager.fontManager.addfont(str(path))
    mpl.rcParams.update(
        {
            # The Chinese family comes first: the other way round a label that mixes Chinese
            # and mathematics loses its Chinese.
            "font.family": ["Noto Sans SC", "DejaVu Sans"],
            "axes.unicode_minus": False,
            "font.size": 10,
            "axes.titlesize": 11,
            "axes.labelsize": 10,
            "legend.fontsize": 9,
            "legend.frameon": False,
            "figure.figsize": (6.4, 3.4),
            "figure.constrained_layout.use": True,
            "figure.facecolor": "none",
            "axes.facecolor": "none",
            "savefig.facecolor": "none",
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.grid": True,
            "axes.axisbelow": True,
            "grid.color": "#B0B0B0",
            "grid.linewidth": 0.5,
            "grid.alpha": 0.5,
            "lines.linewidth": 1.8,
            "image.cmap": HEATMAP,
            "axes.prop_cycle": cycler(color=list(COLORS.values())) + cycler(linestyle=_DASHES),
            # Text as paths and fixed identifiers: no fonts needed to view, no change without cause.
            "svg.fonttype": "path",
            "svg.hashsalt": "dsnotes",
        }
    )
    _use_svg_in_notebooks()


def _use_svg_in_notebooks() -> None:
    try:
        from IPython.core.getipython import get_ipython
        from matplotlib_inline.backend_inline import set_matplotlib_formats
    except ImportError:  # matplotlib without IPython
        return
    if get_ipython() is not None:
        set_matplotlib_formats("svg", metadata={"Date": None})


def heatmap_axes(ax: "Axes") -> None:
    """Prepare `ax` for an image: no grid over the cells, all four borders."""
    ax.grid(False)
    ax.spines[["top", "right"]].set_visible(True)
