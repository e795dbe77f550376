"""A schedule as a figure in the manner of V3 (arXiv 2412.19437) figure 5: a row per rank.

Simulated timelines and traces of real runs are drawn in the same way, so they can be compared.
"""

from typing import TYPE_CHECKING

from dsnotes.figures.style import COLORS
from dsnotes.training.dualpipe.actions import Action, Kind
from dsnotes.training.dualpipe.timeline import Time, Timeline

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.patches import Patch

# Names are those of the book; white numbers where the colour is dark.
_LOOKS = {
    Kind.FORWARD: ("前向", COLORS["orange"]),
    Kind.BACKWARD: ("完整反向", COLORS["blue"]),
    Kind.BACKWARD_INPUT: ("输入梯度的反向", COLORS["sky"]),
    Kind.BACKWARD_WEIGHT: ("权重梯度的反向", COLORS["green"]),
}


def draw_timeline(
    ax: "Axes", timeline: Timeline, *, numbers: bool = True, legend: bool = True, unit: str = ""
) -> None:
    """Draw `timeline` on `ax`; in an overlapped pair the forward is the upper half.

    A black strip marks the second direction, so a grey print shows it too. `numbers` writes the
    micro-batch into each box; this is readable up to about 20 micro-batches on a wide figure.
    `unit` is the unit of time.

        >>> from matplotlib.figure import Figure
        >>> from dsnotes.training.dualpipe import schedule, timeline
        >>> ax = Figure().subplots()
        >>> draw_timeline(ax, timeline.simulate(schedule.dualpipe(4, 8)))
        >>> len(ax.get_yticks())
        4
    """
    for rank, events in enumerate(timeline.events):
        for action, start, end in events:
            height = 0.9 / len(action.parts)
            for i, part in enumerate(action.parts):
                _box(ax, part, start, end - start, rank - 0.45 + i * height, height, numbers)
    ranks = len(timeline.events)
    ax.set_ylim(ranks - 0.5, -0.5)
    ax.set_yticks(range(ranks), [str(rank) for rank in range(ranks)])
    ax.set_ylabel("rank")
    ax.set_xlabel(f"时间（{unit}）" if unit else "时间")
    ax.set_xlim(min(e[0].start for e in timeline.events), max(e[-1].end for e in timeline.events))
    ax.grid(False)
    if legend:
        patches = legend_patches(timeline)
        ax.legend(handles=patches, loc="upper center", bbox_to_anchor=(0.5, -0.14),
                  ncols=len(patches))  # fmt: skip


def legend_patches(*timelines: Timeline) -> list["Patch"]:
    """The entries of one legend for several timelines: the kinds of action in them, in one order.

    >>> from dsnotes.training.dualpipe import schedule, timeline
    >>> patches = legend_patches(timeline.simulate(schedule.one_f_one_b(2, 4)))
    >>> [patch.get_label() for patch in patches]
    ['前向', '完整反向']
    """
    from matplotlib.patches import Patch

    parts = [p for t in timelines for events in t.events for e in events for p in e.action.parts]
    present = {part.kind for part in parts}
    patches = [
        Patch(facecolor=color, edgecolor="black", linewidth=0.4, label=label)
        for kind, (label, color) in _LOOKS.items()
        if kind in present
    ]
    if any(part.direction for part in parts):
        patches.append(Patch(facecolor="black", label="黑条：返回方向"))
    return patches


def _box(
    ax: "Axes", part: Action, left: Time, width: Time, top: float, height: float, numbers: bool
) -> None:
    color = _LOOKS[part.kind][1]
    ax.barh(top + height / 2, width, height, left, color=color, edgecolor="black", linewidth=0.4)
    if part.direction:
        ax.barh(top + 0.95 * height, width, 0.1 * height, left, color="black")
    if numbers:
        ax.text(
            left + width / 2, top + 0.48 * height, str(part.micro_batch), ha="center", va="center",
            fontsize=5.5, color="white" if part.kind is Kind.BACKWARD else "black", clip_on=True,
        )  # fmt: skip
