"""Every SVG figure twice: as drawn, for the light page, and with its ink recoloured for the dark
page.

Figures are drawn with dark ink on a transparent ground. For the dark page black and grey turn over
in lightness, so do very dark and very pale colours; the colours of data keep their hue and are
lightened only where they would not stand out. Pictures of data keep their colours: embedded
bitmaps (``imshow``), the cells of ``pcolormesh``, the texts matplotlib wrote on either, and
whatever stands in a group whose id begins with ``keep`` (in matplotlib: ``set_gid("keep")``).

An image with the class ``keep-colors`` is left alone. The style sheet shows one of the two; the
hidden one is not even fetched. The size written into the HTML spares the reader a jumping page.
"""

from __future__ import annotations

import colorsys
import hashlib
import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from copy import copy
from functools import lru_cache
from pathlib import Path

from lxml.etree import ElementBase as Element

INK = "#d7dce1"
GROUND = (0x15, 0x19, 0x1D)  # --pst-color-background of the dark theme in book.css
CONTRAST = 4.5  # of a line or a letter against the ground
NAMED = {"black": "#000000", "white": "#ffffff", "gray": "#808080", "grey": "#808080"}
PAINT = re.compile(
    r"(?<![-\w])((?:fill|stroke|stop-color|color)\s*:\s*)(#[0-9a-fA-F]{3,6}|[a-z]+)\b"
)
KEPT = re.compile(r"keep|QuadMesh")
SVG = "http://www.w3.org/2000/svg"
ET.register_namespace("", SVG)
ET.register_namespace("xlink", "http://www.w3.org/1999/xlink")


def _luminance(rgb) -> float:
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in rgb]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(rgb) -> float:
    """Contrast ratio (WCAG) of a colour, three numbers from 0 to 1, against the dark page."""
    return (_luminance(rgb) + 0.05) / (_luminance([c / 255 for c in GROUND]) + 0.05)


@lru_cache(maxsize=4096)
def recolour(colour: str) -> str:
    """The colour for the dark page.

    >>> recolour("#000000"), recolour("none")
    ('#e0e0e0', 'none')
    """
    colour = NAMED.get(colour, colour)
    if not re.fullmatch(r"#[0-9a-fA-F]{3}([0-9a-fA-F]{3})?", colour):
        return colour
    digits = colour[1:] if len(colour) == 7 else "".join(2 * d for d in colour[1:])
    rgb = [int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4)]
    hue, light, saturation = colorsys.rgb_to_hls(*rgb)
    if max(rgb) - min(rgb) < 0.16 or not 0.3 <= light <= 0.82:
        light, saturation = 0.88 - 0.76 * light, saturation * 0.6
        rgb = colorsys.hls_to_rgb(hue, light, saturation)
    else:
        while contrast(rgb) < CONTRAST and light < 0.9:
            light += 0.01
            rgb = colorsys.hls_to_rgb(hue, light, saturation)
    return "#" + "".join(f"{round(c * 255):02x}" for c in rgb)


def _cell_labels(root: ET.Element) -> Iterator[ET.Element]:
    """The texts that matplotlib wrote on top of a picture of data (not its title or ticks)."""
    for axes in root.iter(f"{{{SVG}}}g"):
        cells = axes.find(f".//{{{SVG}}}image") is not None or any(
            child.get("id", "").startswith("QuadMesh") for child in axes
        )
        frame = axes.find(f"{{{SVG}}}g/{{{SVG}}}path")
        if not axes.get("id", "").startswith("axes_") or not cells or frame is None:
            continue
        numbers = [float(n) for n in re.findall(r"-?[\d.]+", frame.get("d", ""))]
        xs, ys = numbers[::2], numbers[1::2]
        for child in axes:
            inner = child.find(f"{{{SVG}}}g")
            if inner is None or not child.get("id", "").startswith("text_"):
                continue
            at = re.match(r"translate\((-?[\d.]+)[ ,]+(-?[\d.]+)\)", inner.get("transform", ""))
            inside = (
                at and min(xs) <= float(at[1]) <= max(xs) and min(ys) <= float(at[2]) <= max(ys)
            )
            if inside:
                yield child


def darken(svg: str) -> str:
    """The SVG for the dark page."""
    root = ET.fromstring(svg)

    labels = set(_cell_labels(root))

    def walk(element):
        if element in labels or KEPT.match(element.get("id", "")):
            element.set("fill", element.get("fill", "#000000"))  # what it inherited has changed
            return
        for key in ("fill", "stroke", "stop-color", "color"):
            if key in element.attrib:
                element.set(key, recolour(element.get(key)))
        if "style" in element.attrib:
            style = PAINT.sub(lambda m: m[1] + recolour(m[2]), element.get("style"))
            element.set("style", style)
        if element.tag == f"{{{SVG}}}style" and element.text:
            element.text = PAINT.sub(lambda m: m[1] + recolour(m[2]), element.text)
        for child in element:
            walk(child)

    walk(root)
    if "fill" not in root.attrib:
        root.set("fill", INK)  # what names no colour is black
    return ET.tostring(root, encoding="unicode")


def size(svg: str) -> tuple[int, int] | None:
    """Width and height in CSS pixels, as far as the head of the file tells."""
    head = svg[: svg.find(">", svg.find("<svg"))]
    box = re.search(r'viewBox="[\d.e+-]+[ ,]+[\d.e+-]+[ ,]+([\d.]+)[ ,]+([\d.]+)"', head)
    if not box:
        return None
    scale = 4 / 3 if re.search(r'\bwidth="[\d.]+pt"', head) else 1
    return round(float(box[1]) * scale), round(float(box[2]) * scale)


def pair(page: Element, path: Path) -> None:
    """Put beside every drawing its twin, and write the twin's file beside the drawing's."""
    for image in page.xpath("//img[contains(@src, '.svg')]"):
        names = image.get("class", "")
        drawing = (path.parent / image.get("src")).resolve()
        if re.search("keep-colors|logo__image|ink-", names) or not drawing.is_file():
            continue
        svg = drawing.read_text("utf8")
        dark = drawing.with_name(f"{drawing.stem}-dark.svg")
        if not dark.exists() or dark.stat().st_mtime < drawing.stat().st_mtime:
            dark.write_text(darken(svg), "utf8")
        if (wide := size(svg)) and "width" not in image.attrib:
            image.set("width", str(wide[0]))
            image.set("height", str(wide[1]))
        twin = copy(image)
        image.tail = None  # the text behind it is behind the twin
        version = hashlib.sha256(dark.read_bytes()).hexdigest()[:8]
        twin.set("src", f"{image.get('src')[:-4]}-dark.svg?v={version}")
        twin.set("loading", "lazy")
        for element, ink in ((image, "ink-light"), (twin, "ink-dark")):
            element.set("class", f"{ink} dark-light {names}".rstrip())
        image.addnext(twin)
