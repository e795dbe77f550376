"""Make the font of the figures, NotoSansSC-subset.ttf, from the whole family.

    python website/font.py NotoSansSC-Regular.ttf      # version 2.004, as Google Fonts gives it out

Only what figures need stays: the outlines, without hints (figures are drawn as paths) and without
the tables of a typesetter.
"""

import argparse
import string
from pathlib import Path

from fontTools import subset

FONT = (
    Path(__file__).parent.parent / "src" / "dsnotes" / "figures" / "fonts" / "NotoSansSC-subset.ttf"
)
# What GB 2312 (1980) lacks and people write today: 〇 of numbers, and what stands in many names.
BEYOND = (
    "〇喆镕堃瑄翀赟祎昇珺旻炘玥瑢晞韡犇骉燊鋆珮彧昉琤堉頔勍奭曌甡燚瀞玙珅瑀璟曈暐濛禛翃莙囧啰槑"
    "烜玚栢琇璘珣玹琎焜暻沄洺湉湜澔玘祐禔竑翾芃袆贇赪锜锳镠闿阇霨颋飏鹓龑"
)
SIGNS = string.printable.strip() + " ²³·—⇒∂∇∋−≅✓"  # of formulas and numbers


def gb2312() -> set[str]:
    """The 7,445 characters of the standard."""
    pairs = (bytes([row, cell]) for row in range(0xA1, 0xF8) for cell in range(0xA1, 0xFF))
    return {pair.decode("gb2312", "ignore") for pair in pairs} - {""}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("source", type=Path)
    wanted = {ord(character) for character in gb2312() | {*BEYOND, *SIGNS}}
    options = subset.Options(layout_features=[], hinting=False, glyph_names=False)
    options.drop_tables += ["BASE", "GDEF", "GPOS", "GSUB", "STAT", "vhea", "vmtx", "gasp"]
    font = subset.load_font(str(parser.parse_args().source), options)
    missing = "".join(chr(code) for code in sorted(wanted - set(font.getBestCmap())))
    if missing:
        raise SystemExit(f"the source has no {missing}")
    cutter = subset.Subsetter(options)
    cutter.populate(unicodes=wanted)
    cutter.subset(font)
    subset.save_font(font, str(FONT), options)


if __name__ == "__main__":
    main()
