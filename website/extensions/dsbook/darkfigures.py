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
from functools import lru_cache
from pathlib import Path

INK = "#d7dce1"
GROUND = (0x15, 0x19, 0x1D)  # --pst-color-background of the dark theme in book.css
CONTRAST = 4.5  # of a line or a letter against the ground
NAMED = {"black": "#000000", "white": "#ffffff", "gray": "#808080", "grey": "#808080"}
PAINT = re.compile(
    r"(?<![-\w])((?:fill|stroke|stop-color|color)\s*:\s*)(#[0-9a-fA-F]{3,6}|[a-z]+)\b"
)
KEPT = re.compile(r"keep|QuadMesh")
IMAGE = re.compile(r'<img\b[^>]*?\bsrc="([^"]+\.svg)"[^>]*>')
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


def twin(tag: str, source: str, page: Path) -> str:
    """Replace one ``<img>`` by the pair; writes the dark file beside the light one."""
    path = (page.parent / source).resolve()
    if "keep-colors" in tag or "logo__image" in tag or "ink-" in tag or not path.is_file():
        return tag
    svg = path.read_text("utf8")
    dark = path.with_name(f"{path.stem}-dark.svg")
    if not dark.exists() or dark.stat().st_mtime < path.stat().st_mtime:
        dark.write_text(darken(svg), "utf8")
    if (wide := size(svg)) and " width=" not in tag:
        tag = tag.replace("<img", f'<img width="{wide[0]}" height="{wide[1]}"', 1)

    def with_class(name: str, text: str) -> str:
        if 'class="' in text:
            return text.replace('class="', f'class="{name} dark-light ', 1)
        return text.replace("<img", f'<img class="{name} dark-light"', 1)

    version = hashlib.sha256(dark.read_bytes()).hexdigest()[:8]
    second = tag.replace(
        f'src="{source}"', f'src="{source[:-4]}-dark.svg?v={version}" loading="lazy"'
    )
    return with_class("ink-light", tag) + with_class("ink-dark", second)


def pair_figures(app, exception):
    if exception or app.builder.format != "html":
        return
    for page in Path(app.outdir).rglob("*.html"):
        old = page.read_text("utf8")
        new = IMAGE.sub(lambda m: twin(m[0], m[1], page), old)  # noqa: B023
        if new != old:
            page.write_text(new, "utf8")


def setup(app):
    app.connect("build-finished", pair_figures, priority=850)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
