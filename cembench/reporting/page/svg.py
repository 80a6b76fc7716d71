"""Figures as inline SVG: in the colours of the page, without what the page does not need."""

from __future__ import annotations

import re
from collections.abc import Mapping
from xml.etree import ElementTree as ET

from markupsafe import Markup
from matplotlib.figure import Figure

from cembench.reporting.page.charts import PlacedChart
from cembench.reporting.plots.draw import draw
from cembench.reporting.plots.style import INK, part, render
from cembench.util.display.charts import Scatter
from cembench.util.files.names import shown

SVG, XLINK = "http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"
UNUSED = {f"{{{SVG}}}metadata", f"{{{SVG}}}style"}
PLACES, LONG = {"d", "x", "y", "transform"}, re.compile(r"-?\d+\.\d{3,}")
ET.register_namespace("", SVG)


def drawn(placed: PlacedChart) -> Markup:
    """Return a chart that has panels as an SVG element; its legend is for the page to write."""
    label = f"{placed.title}. {placed.chart.caption}"
    points = [p for one in placed.chart.panels if isinstance(one, Scatter) for p in one.points]
    tips = {point.link: point.tip for point in points if point.link}
    figure = draw(placed.chart)
    for legend in list(figure.legends):
        legend.remove()  # that of the page wraps and hides runs
    return inline(figure, placed.stem, label, tips, placed)


def inline(
    figure: Figure, name: str, label: str, tips: Mapping[str, str], placed: PlacedChart
) -> Markup:
    """Return a figure as an SVG element.

    Args:
        figure: the figure.
        name: tells its ids from those of other figures on the page.
        label: says what it is to those who do not see it.
        tips: by link, what to say of it.
        placed: the chart that it is of.
    """
    root = ET.fromstring(render(figure, "svg", name))
    for parent in list(root.iter()):
        for child in [one for one in parent if one.tag in UNUSED]:
            parent.remove(child)
    anchors = {part(number): anchor for number, anchor in enumerate(placed.anchors)}
    for element in root.iter():
        if element.get("id", "") in anchors:
            element.set("data-of", anchors[element.attrib.pop("id")])
        element.attrib.pop("target", None)  # links lead to other places of the page
        link = element.attrib.pop(f"{{{XLINK}}}href", None)
        if link is not None:
            element.set("href", link)
        if link is not None and link in tips:
            ET.SubElement(element, f"{{{SVG}}}title").text = shown(tips[link])
        for key in PLACES & set(element.attrib):
            # two digits: coordinates are most of the size of a figure
            short = LONG.sub(lambda number: f"{float(number[0]):.2f}", element.attrib[key])
            element.set(key, short)
        element.text, element.tail = _tight(element.text), _tight(element.tail)
    for key in ("width", "height", "version"):
        del root.attrib[key]
    width = float(root.attrib["viewBox"].split()[2])
    size = f"min-width: {width:.0f}px; max-width: {1.5 * width:.0f}px"
    root.attrib |= {"role": "group", "aria-label": shown(label), "style": size, "tabindex": "0"}
    root.set("data-points", placed.points(figure))
    _drop_ids(root)
    text = ET.tostring(root, encoding="unicode")
    return Markup(re.sub(f"(stroke|fill): {INK}", r"\1: currentColor", text))


def _tight(text: str | None) -> str | None:
    return text if text is None or text.strip() else None


def _drop_ids(root: ET.Element) -> None:
    """Remove ids that nothing refers to: they would occur once per figure."""
    values = [value for element in root.iter() for value in element.attrib.values()]
    links = (value for value in values if "#" in value)
    wanted = {found for value in links for found in re.findall(r"(?:url\(#|^#)([\w-]+)", value)}
    for element in root.iter():
        if element.get("id") not in wanted:
            element.attrib.pop("id", None)
