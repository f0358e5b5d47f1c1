"""The report's charts: drawn by matplotlib, coloured by the page.

Every colour is a stand-in that becomes a CSS variable, so that one drawing serves light, dark and paper. Legends are HTML
beside the drawing: they wrap on a phone and can be read aloud.
"""

import io
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from markupsafe import Markup, escape

from provisioning.report.facts import CurvePoint, Learning, Missing, Round, Traffic

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["Chart", "Key", "learning_chart", "seconds_chart", "upload_chart"]

_WIDTH, _HEIGHT = 400, 256  # units of the view box: about the pixels of a phone, so that 11 units stay readable on one
_VARIABLES = ("ink", "muted", "grid", "accent", "floor", *(f"silo-{number}" for number in range(8)))
_COLOURS = {name: f"#0d0e{number:02x}" for number, name in enumerate(_VARIABLES, start=1)}
_MARKERS = "sD^vPX<>"
_MARKS = "■◆▲▼✚✖◀▶"  # the same shapes as letters, for the legend
_NOT_OURS = re.compile(
    r"<\?xml.*?\?>|<!DOCTYPE.*?>|<metadata>.*?</metadata>|<!--.*?-->|\s+xmlns(:\w+)?=\"[^\"]*\"", re.DOTALL
)
_HEADROOM = 1.18


@dataclass(frozen=True, slots=True)
class Key:
    """One entry of a legend: the CSS variable of its colour, and whether its line is solid, dashed or dotted."""

    name: str
    colour: str
    line: str = "solid"
    mark: str = ""


@dataclass(frozen=True, slots=True)
class Chart:
    """A drawing, its legend, and the numbers behind it as a table."""

    svg: Markup
    keys: tuple[Key, ...]
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def learning_chart(learning: Learning, silos: Mapping[str, str]) -> Chart:
    """Draw AUC by round: the federated encoder, every silo's own, and the floors. `silos` are display names in order."""
    alone = {name: points for name, points in learning.alone.items() if not isinstance(points, Missing)}
    places = {name: number % 8 for number, name in enumerate(silos)}

    def draw(axes: "Axes") -> None:
        for name, value in learning.floors.items():
            axes.axhline(value, color=_COLOURS["floor"], linestyle=(0, (1, 2)), linewidth=1.4, label=name)
        for name, points in alone.items():
            place = places.get(name, 7)
            _line(axes, points, f"silo-{place}", (0, (5, 2)), _MARKERS[place], 1.6)
        _line(axes, learning.federated, "accent", "solid", "o", 2.8)
        axes.set_xlabel("rounds done")
        axes.set_ylabel("AUC, held-out patients of all")

    keys = [Key("federated: all hospitals together", "accent", "solid", "●")]
    keys += [_key_alone(silos.get(name, name), places.get(name, 7)) for name in alone]
    keys += [Key(f"{name} ({value:.3f})", "floor", "dotted") for name, value in learning.floors.items()]
    series = {"federated": learning.federated, **{f"{silos.get(n, n)} alone": p for n, p in alone.items()}}
    return Chart(_svg("learning", "AUC by round", draw), tuple(keys), ("rounds done", *series), _by_round(series))


def upload_chart(traffic: Traffic) -> Chart:
    """Draw the largest upload of one hospital in each round, beside the same update as plain float32."""
    sizes = [max((s.upload_bytes or 0 for s in each.silos.values()), default=0) / 1e6 for each in traffic.rounds]
    plain = traffic.plain_bytes / 1e6 if traffic.plain_bytes else None

    def draw(axes: "Axes") -> None:
        axes.bar(range(1, len(sizes) + 1), sizes, color=_COLOURS["accent"], width=_bar_width(len(sizes)))
        if plain:
            axes.axhline(plain, color=_COLOURS["floor"], linestyle=(0, (1, 2)), linewidth=1.6)
        axes.set_ylim(0, max([*sizes, plain or 0, 0.001]) * _HEADROOM)
        _round_axis(axes, "MB from one hospital")

    sent = "encrypted update" if traffic.encryption != "none" else "update, NOT encrypted"
    keys = [Key(sent, "accent", "block")]
    if plain:
        keys.append(Key(f"plain float32 update ({plain:.1f} MB)", "floor", "dotted"))
    rows = tuple((str(each.number + 1), f"{size:.2f}") for each, size in zip(traffic.rounds, sizes, strict=True))
    return Chart(_svg("upload", "Upload by round", draw), tuple(keys), ("round", "MB from one hospital"), rows)


def seconds_chart(traffic: Traffic) -> Chart:
    """Draw where each round's seconds go: the slowest hospital's training, its encryption, and everything else."""
    parts = [_parts(each) for each in traffic.rounds]
    names = ("training at the slowest hospital", "encrypting and opening there", "waiting, transport, adding")
    colours = ("accent", "floor", "grid")

    def draw(axes: "Axes") -> None:
        floor, width = [0.0] * len(parts), _bar_width(len(parts))
        for number, colour in enumerate(colours):
            heights = [part[number] for part in parts]
            axes.bar(range(1, len(parts) + 1), heights, bottom=floor, color=_COLOURS[colour], width=width)
            floor = [low + height for low, height in zip(floor, heights, strict=True)]
        axes.set_ylim(0, max([*floor, 0.001]) * _HEADROOM)
        _round_axis(axes, "seconds")

    rows = tuple(
        (str(each.number + 1), *(f"{value:.2f}" for value in part), f"{each.seconds:.2f}")
        for each, part in zip(traffic.rounds, parts, strict=True)
    )
    keys = tuple(Key(name, colour, "block") for name, colour in zip(names, colours, strict=True))
    return Chart(_svg("seconds", "Seconds by round", draw), keys, ("round", *names, "whole round"), rows)


def _parts(each: Round) -> tuple[float, float, float]:
    """Return a round's seconds of training, of encrypting and opening, and the rest; the first two of the slowest silo."""
    busy = [(s.train_seconds or 0.0, (s.encrypt_seconds or 0.0) + (s.open_seconds or 0.0)) for s in each.silos.values()]
    training, encrypting = max(busy, key=sum, default=(0.0, 0.0))
    return training, encrypting, max(0.0, each.seconds - training - encrypting)


def _key_alone(name: str, place: int) -> Key:
    return Key(f"{name} alone", f"silo-{place}", "dashed", _MARKS[place])


def _line(axes: "Axes", points: Sequence[CurvePoint], colour: str, style: Any, marker: str, width: float) -> None:
    known = [(point.round, point.auc) for point in points if point.auc is not None]
    axes.plot(
        [number for number, _ in known],
        [auc for _, auc in known],
        color=_COLOURS[colour],
        linestyle=style,
        linewidth=width,
        marker=marker,
        markersize=width + 3,
    )


def _by_round(series: Mapping[str, Sequence[CurvePoint]]) -> tuple[tuple[str, ...], ...]:
    """Return a table: one row for each round, one column for each series."""
    values = [{point.round: point.auc for point in points} for points in series.values()]
    rounds = sorted({number for column in values for number in column})
    return tuple((str(number), *(_number(column.get(number)) for column in values)) for number in rounds)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _bar_width(rounds: int) -> float:
    """Return a width at which few bars do not become walls."""
    return min(0.6, 0.12 * rounds)


def _round_axis(axes: "Axes", label: str) -> None:
    axes.set_xlabel("round")
    axes.set_ylabel(label)


def _svg(name: str, title: str, draw: Callable[["Axes"], None]) -> Markup:
    """Return what `draw` draws as an SVG element that lives in an HTML page."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": name, "font.size": 11, "text.parse_math": False}):
        figure = Figure(figsize=(_WIDTH / 72, _HEIGHT / 72), layout="constrained")
        axes = figure.add_subplot()
        draw(axes)
        _dress(axes)
        file = io.StringIO()
        figure.savefig(file, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    return _inline(file.getvalue(), name, title)


def _dress(axes: "Axes") -> None:
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(_COLOURS["muted"])
    axes.grid(axis="y", color=_COLOURS["grid"], linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(colors=_COLOURS["muted"], length=0)
    axes.xaxis.label.set_color(_COLOURS["muted"])
    axes.yaxis.label.set_color(_COLOURS["muted"])


def _inline(text: str, name: str, title: str) -> Markup:
    """Make a stand-alone SVG file part of a page: no prolog, no foreign address, ids of its own, colours of the page."""
    text = _NOT_OURS.sub("", text)
    text = re.sub(r'\bid="', f'id="{name}-', text)
    text = re.sub(r'(href="#|url\(#)', rf"\g<1>{name}-", text)
    text = re.sub(r"font: [^;\"]*'[^;\"]*", "font-size: 11px", text)
    for variable, colour in _COLOURS.items():
        text = text.replace(colour, f"var(--{variable})")
    head = f'<svg class="chart" role="img" aria-label="{escape(title)}" viewBox="0 0 {_WIDTH} {_HEIGHT}">'
    return Markup(head + re.sub(r"^\s*<svg[^>]*>", "", text).strip())  # noqa: S704  (of our drawing; labels are escaped by it)
