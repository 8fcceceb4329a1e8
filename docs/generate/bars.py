"""Stacked bars as SVG, readable on a light and on a dark page, and the same bytes for the same figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import svg

_WIDTH, _LEFT, _RIGHT = 860, 190, 230  # pixels: all, labels, what stands behind a bar
_BAR, _STEP, _TOP = 22, 38, 64
_LEGEND_STEP = 20
_CHARACTER = 6.6  # mean width of one in 12 px, which nothing here measures

# Of a page that follows the reader's setting; hues that hold on white and on black.
_STYLE = """
text { font: 12px ui-sans-serif, system-ui, sans-serif; fill: #1f2328; }
.title { font-size: 14px; font-weight: 600; }
.quiet { fill: #59636e; }
.inside { fill: #ffffff; font-weight: 600; }
.grid { stroke: #d1d9e0; stroke-width: 1; }
.k0 { fill: #2f6fb5; } .k1 { fill: #a8572b; } .k2 { fill: #8250a8; } .k3 { fill: #b0357a; }
.k4 { fill: #2d7d46; } .k5 { fill: #6e7781; } .rest { fill: none; stroke: #8c959f; stroke-dasharray: 3 3; }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3; } .quiet { fill: #9198a1; } .grid { stroke: #3d444d; }
}
"""


@dataclass(frozen=True)
class Bar:
    """One row: `parts` in the order of the legend, in the unit of the axis."""

    label: str
    under: str  # second line of the label
    parts: Mapping[str, float]
    behind: str  # what is said behind the bar


def stacked(
    title: str, bars: Sequence[Bar], kinds: Sequence[str], *, end: float, tick: float, unit: str, room: str = ""
) -> str:
    """The picture. `kinds` are the parts in order, `room` the one that is left empty; the axis goes from 0 to `end`."""
    scale = (_WIDTH - _LEFT - _RIGHT) / end
    classes = {kind: "rest" if kind == room else f"k{number}" for number, kind in enumerate(kinds)}
    bottom = _TOP + _STEP * len(bars)
    elements: list[svg.Element] = [
        svg.Title(text=title),
        svg.Style(text=_STYLE),
        svg.Text(x=0, y=18, class_=["title"], text=title),
    ]
    for number in range(int(end / tick) + 1):
        x = round(_LEFT + number * tick * scale, 1)
        elements.append(svg.Line(x1=x, y1=_TOP - 8, x2=x, y2=bottom, class_=["grid"]))
        words = unit.format(f"{number * tick:g}")
        elements.append(svg.Text(x=x, y=_TOP - 14, text_anchor="middle", class_=["quiet"], text=words))
    for number, bar in enumerate(bars):
        elements += _bar(bar, _TOP + number * _STEP, classes, scale)
    legend, height = _legend(classes, bottom + 18)
    elements += legend
    picture = svg.SVG(
        viewBox=svg.ViewBoxSpec(0, 0, _WIDTH, height), width=_WIDTH, extra={"role": "img"}, elements=elements
    )
    return picture.as_str() + "\n"


def _bar(bar: Bar, y: float, classes: Mapping[str, str], scale: float) -> list[svg.Element]:
    middle = y + _BAR / 2
    elements: list[svg.Element] = [
        svg.Text(x=0, y=middle - 1, text=bar.label),
        svg.Text(x=0, y=middle + 13, class_=["quiet"], text=bar.under),
    ]
    x = float(_LEFT)
    for kind, drawn_as in classes.items():
        value = bar.parts.get(kind, 0.0)
        width = value * scale
        if width <= 0:
            continue
        elements.append(
            svg.Rect(
                x=round(x, 1),
                y=y,
                width=round(width, 1),
                height=_BAR,
                class_=[drawn_as],
                elements=[svg.Title(text=f"{kind}: {value:.2f}")],
            )
        )
        words = f"{value:.1f}" if value < 100 else f"{value:.0f}"
        if width > len(words) * _CHARACTER + 6:
            told = [] if drawn_as == "rest" else ["inside"]
            elements.append(
                svg.Text(x=round(x + width / 2, 1), y=middle + 4, text_anchor="middle", class_=told, text=words)
            )
        x += width
    elements.append(svg.Text(x=_WIDTH - _RIGHT + 10, y=middle + 4, text=bar.behind))
    return elements


def _legend(classes: Mapping[str, str], y: float) -> tuple[list[svg.Element], float]:
    """What each colour stands for, in as many lines as it takes, and where the picture ends."""
    elements: list[svg.Element] = []
    x = 0.0
    for kind, drawn_as in classes.items():
        width = 18 + len(kind) * _CHARACTER + 18
        if x + width > _WIDTH:
            x, y = 0.0, y + _LEGEND_STEP
        elements.append(svg.Rect(x=round(x, 1), y=y, width=12, height=12, class_=[drawn_as]))
        elements.append(svg.Text(x=round(x + 18, 1), y=y + 10, text=kind))
        x += width
    return elements, y + _LEGEND_STEP
