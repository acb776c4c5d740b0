"""Plots of the report, as SVG: as wide as a phone, text as text, readable on white and on black, the same bytes for the same figures."""

import matplotlib
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, NullFormatter, NullLocator

# Mid-tones, which stand out from both backgrounds.
INK, RAW, OURS, THEIRS = "#787878", "#9a9a9a", "#2f81d6", "#d9730d"
STYLE = {
    "svg.hashsalt": "lakeward", "svg.fonttype": "none", "savefig.transparent": True, "figure.constrained_layout.use": True, "font.size": 10,
    "text.color": INK, "axes.labelcolor": INK, "axes.edgecolor": INK, "xtick.color": INK, "ytick.color": INK,
    "axes.spines.top": False, "axes.spines.right": False, "axes.titlesize": 10, "axes.titlelocation": "left", "figure.titlesize": 12,
}
WIDTH_INCHES = 5


def save(drawing, path, title):
    drawing.suptitle(title, x=0.01, ha="left", weight="bold")
    drawing.savefig(path, metadata={"Title": title, "Date": None, "Creator": None})


@matplotlib.rc_context(STYLE)
def bars(path, title, unit, panels, write):
    """Panels one below the other, each with its own scale: `panels` has (label, value, colour) of each bar by the panel's name, `write`
    makes text of a value."""
    lengths = [len(panel) for panel in panels.values()]
    drawing = Figure(figsize=(WIDTH_INCHES, 0.7 + 0.8 * len(panels) + 0.23 * sum(lengths)))
    all_axes = drawing.subplots(len(panels), squeeze=False, gridspec_kw={"height_ratios": lengths})[:, 0]
    for axes, (name, panel) in zip(all_axes, panels.items()):
        labels, values, colours = zip(*panel)
        drawn = axes.barh(range(len(panel)), values, color=colours, height=0.75)
        axes.bar_label(drawn, [write(value) for value in values], padding=3)
        axes.set_yticks(range(len(panel)), labels)
        axes.tick_params(axis="y", length=0)
        axes.invert_yaxis()
        axes.margins(x=0.3, y=0.01)
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
        axes.locator_params(axis="x", nbins=5)
        axes.set_title(name)
        axes.set_xlabel(unit)
    save(drawing, path, title)


@matplotlib.rc_context(STYLE)
def lines(path, title, x_unit, y_unit, curves, write_x, write_y):
    """Both scales logarithmic: `curves` has (name, colour, points)."""
    drawing = Figure(figsize=(WIDTH_INCHES, 3.6))
    axes = drawing.subplots()
    for name, colour, points in curves:
        axes.plot(*zip(*points), color=colour, marker="o", linewidth=2)
        axes.annotate(name, points[0], (4, -16), textcoords="offset points", color=colour, weight="bold")
        for point in points:
            axes.annotate(write_y(point[1]), point, (-2, 5), textcoords="offset points", color=colour, ha="right")
    axes.set_xscale("log")
    axes.set_yscale("log")
    ticks = sorted({x for _, _, points in curves for x, _ in points})
    axes.set_xticks(ticks, [write_x(x) for x in ticks])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.margins(x=0.2, y=0.25)
    axes.set_xlabel(f"{x_unit} (log scale)")
    axes.set_ylabel(f"{y_unit} (log scale)")
    save(drawing, path, title)
