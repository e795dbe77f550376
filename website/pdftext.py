"""Let text be found in a PDF of Chromium by every reader.

A font says once for each glyph which character it is; Noto CJK draws 一 and the radical ⼀ with the
same glyph, and Chromium notes the radical, or nothing for a glyph that only OpenType rules choose.
It writes the true character beside each use (ActualText), which not all readers heed: they find
no 用, 大 or 一. Here the font is told what its glyph stands for most often. (Beside the text of
pictures nothing is written; there only the radicals of Unicode's own table are replaced.)
"""

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterator

from pypdf import PdfWriter
from pypdf.generic import DictionaryObject, StreamObject

TOKEN = re.compile(
    rb"/ActualText <FEFF(?P<text>\w+)>|/(?P<font>\S+) \S+ Tf\b|<(?P<codes>\w+)> Tj|(?P<end>\bEMC\b)"
)
ENTRY = re.compile(r"<(\w+)> (?:<(\w+)> )?<(\w+)>\n")
RADICALS = {f"{c:04X}": f"{ord(unicodedata.normalize('NFKC', chr(c))):04X}"
            for c in range(0x2F00, 0x2FD6)}  # fmt: skip
TAIL = "endcmap\nCMapName currentdict /CMap defineresource pop\nend\nend\n"
BLOCK = 100  # entries in one block of a CMap, by its specification


def shown(content: bytes) -> Iterator[tuple[str, str, str | None]]:
    """(name of the font, codes of glyphs, what Chromium says they are or None) of each text."""
    font, text = b"", None
    for token in TOKEN.finditer(content):
        if token["font"]:
            font = token["font"]
        elif token["text"]:
            text = token["text"]
        elif token["codes"]:
            yield "/" + font.decode(), token["codes"].decode(), text and text.decode()
        else:
            text = None


def read(cmap: str) -> dict[int, str]:
    """Code → characters (UTF-16 in hexadecimal) of the entries of a ToUnicode map."""
    found = {}
    for low, high, text in ENTRY.findall(cmap):
        for i in range(int(high or low, 16) - int(low, 16) + 1):
            found[int(low, 16) + i] = f"{int(text, 16) + i:0{len(text)}X}"
    return found


def mend(stream: StreamObject, meant: dict[int, str], digits: int) -> None:
    """Write the meanings into a ToUnicode map."""
    head, mark, body = stream.get_data().decode().partition("endcodespacerange\n")
    entries = {code: RADICALS.get(text, text) for code, text in read(body).items()} | meant
    rows = [f"<{code:0{digits}X}> <{text}>\n" for code, text in sorted(entries.items())]
    blocks = [rows[i : i + BLOCK] for i in range(0, len(rows), BLOCK)]
    body = "".join(f"{len(b)} beginbfchar\n{''.join(b)}endbfchar\n" for b in blocks)
    stream.set_data(f"{head}{mark}{body}{TAIL}".encode())


def mend_text(writer: PdfWriter) -> None:
    fonts: dict[int, DictionaryObject] = {}
    uses: dict[int, dict[str, Counter]] = defaultdict(lambda: defaultdict(Counter))
    for page in writer.pages:
        by_name = page["/Resources"].get("/Font", {})
        for name, codes, text in shown(page.get_contents().get_data()):
            key = by_name.raw_get(name).idnum
            fonts[key] = by_name[name]
            digits = 4 if by_name[name]["/Subtype"] == "/Type0" else 2
            if len(codes) == digits or text is None:
                for i in range(0, len(codes), digits):
                    uses[key][codes[i : i + digits]][text] += 1
    for key, codes in uses.items():
        meant = {code: counts.most_common(1)[0][0] for code, counts in codes.items()}
        meant = {int(code, 16): text for code, text in meant.items() if text}
        mend(fonts[key]["/ToUnicode"], meant, digits=len(next(iter(codes))))
