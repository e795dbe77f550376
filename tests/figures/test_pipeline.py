"""The figure holds what the timeline says: one box per part, where and as long as it ran."""

import matplotlib

matplotlib.use("Agg")

from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from dsnotes.figures import style
from dsnotes.figures.pipeline import draw_timeline, legend_patches
from dsnotes.figures.style import COLORS
from dsnotes.training.dualpipe.schedule import dualpipe, one_f_one_b, zb1p
from dsnotes.training.dualpipe.timeline import simulate


def test_every_part_is_a_box_at_its_time() -> None:
    style.use_style()
    axes = Figure().add_subplot()
    timeline = simulate(dualpipe(2, 4))
    draw_timeline(axes, timeline, unit="ms")
    boxes = [box for box in axes.patches if to_hex(box.get_facecolor()) != "#000000"]
    strips = len(axes.patches) - len(boxes)
    parts = [(event, part) for events in timeline.events for event in events
             for part in event.action.parts]  # fmt: skip
    assert [(box.get_x(), box.get_width()) for box in boxes] == [
        (event.start, event.end - event.start) for event, _ in parts
    ]
    assert strips == sum(part.direction for _, part in parts)
    assert [text.get_text() for text in axes.texts] == [str(p.micro_batch) for _, p in parts]
    assert axes.get_xlabel() == "时间（ms）"


def test_the_legend_names_what_is_there() -> None:
    axes = Figure().add_subplot()
    draw_timeline(axes, simulate(zb1p(2, 3)), numbers=False)
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    assert labels == ["前向", "输入梯度的反向", "权重梯度的反向"]
    assert {to_hex(box.get_facecolor()).upper() for box in axes.patches} == {
        COLORS["orange"], COLORS["sky"], COLORS["green"],
    }  # fmt: skip
    assert not axes.texts


def test_one_legend_serves_several_timelines() -> None:
    patches = legend_patches(simulate(one_f_one_b(2, 3)), simulate(zb1p(2, 3)))
    labels = [patch.get_label() for patch in patches]
    assert labels == ["前向", "完整反向", "输入梯度的反向", "权重梯度的反向"]
    assert legend_patches(simulate(dualpipe(2, 4)))[-1].get_label() == "黑条：返回方向"
