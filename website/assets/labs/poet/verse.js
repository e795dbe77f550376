// The rules of regulated verse (dsnotes.rl.regulated): which are broken, and where, also of a poem still being written.
const Verse = (() => {
  const LEVEL = "平", OBLIQUE = "仄", PUNCTUATION = "，。", MADE_UP_FOR = "平平仄平仄";
  const HAN = /^[\u3007\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\u{20000}-\u{3ffff}]$/u; // as in dsnotes.rl.answers
  const RULES = ["form", "lines", "rhyme", "words", "ends", "alternation", "dui", "nian", "guping", "sanping", "jokers"];

  // From { rhyme group or 仄: characters } to character → its readings, in that order.
  function readings(table) {
    const found = new Map();
    for (const [name, characters] of Object.entries(table))
      for (const character of characters) found.set(character, (found.get(character) ?? "") + name);
    return found;
  }

  // 平, 仄, both, or none where the table does not know the character.
  function tones(known, character) {
    const found = known.get(character) ?? "";
    return ([...found].some((name) => name !== OBLIQUE) ? LEVEL : "") + (found.includes(OBLIQUE) ? OBLIQUE : "");
  }

  const rhymes = (known, character) => (known.get(character) ?? "").replace(OBLIQUE, "");

  // The lines of a text as lists of characters, the last of them perhaps unfinished; null when a sign stands where none should.
  function split(text, length, count) {
    const lines = [], characters = [...text];
    for (let i = 0; i < characters.length; i++) {
      const place = i % (length + 1), line = Math.floor(i / (length + 1));
      if (line >= count) return null;
      if (place === 0) lines.push([]);
      if (place === length ? characters[i] !== PUNCTUATION[line % 2] : !HAN.test(characters[i])) return null;
      if (place < length) lines[line].push(characters[i]);
    }
    return lines;
  }

  const alike = (line, other) => line.length === other.length
    && line.filter((character, i) => character === other[i]).length >= line.length - 1;

  // The even places of a line that do not alternate from the tone `start` of the second place.
  function misfits(row, start, odd) {
    const other = start === OBLIQUE ? LEVEL : OBLIQUE, found = [], tail = row.slice(-MADE_UP_FOR.length);
    for (let place = 1; place < row.length - 1; place += 2)
      if (!row[place].includes((place >> 1) % 2 ? other : start)) found.push(place);
    const made_up_for = tail.length === MADE_UP_FOR.length && tail.every((place, i) => place.includes(MADE_UP_FOR[i]));
    return odd && made_up_for && found.length === 1 && found[0] === row.length - 2 ? [] : found;
  }

  const before = (a, b) => { // whether one list comes before the other, as tuples do
    const i = a.findIndex((value, j) => value !== b[j]);
    return i >= 0 && a[i] < b[i];
  };
  const least = (lists) => lists.reduce((best, list) => (before(list, best) ? list : best));

  // The tone of the second place of every line, by the pattern that breaks least, alternation being given up last.
  function starts(rows) {
    let best = { "": [0, 0, ""] };
    rows.forEach((row, i) => {
      const next = {};
      for (const tone of [LEVEL, OBLIQUE]) {
        const own = misfits(row, tone, i % 2 === 0).length;
        const [total, inside, path] = least(Object.entries(best).map(([last, [all, within, tones_so_far]]) =>
          [all + own + (i > 0 && Number(tone === last) === i % 2 ? 1 : 0), within + own, tones_so_far]));
        next[tone] = [total, inside, path + tone];
      }
      best = next;
    });
    return least(Object.values(best))[2];
  }

  function is_guping(row) { // 仄平仄仄平 at the end of a line
    const [a, b, c, d, e] = row.slice(-5);
    return row.length >= 5 && b.includes(LEVEL) && e.includes(LEVEL) && a === OBLIQUE && c === OBLIQUE && d === OBLIQUE;
  }

  // Lines that must not end level: the odd ones, but for the first if it rhymes.
  const closed = (known, lines, rhyme) => lines.map((_, i) => i)
    .filter((i) => i % 2 === 0 && (i || !rhymes(known, lines[0].at(-1)).includes(rhyme)));

  // Places whose tone is prescribed, as "line.place": the even ones, and the ends of closed lines.
  function bound(known, lines, rhyme) {
    const ends = closed(known, lines, rhyme);
    return lines.flatMap((line, i) => line.map((_, place) => place)
      .filter((place) => (place % 2 && place < line.length - 1) || (place === line.length - 1 && ends.includes(i)))
      .map((place) => [i, place]));
  }

  // Every place of some whole lines that breaks a rule, [rule, line, place], in the order of the rules.
  function breaches(known, lines, rhyme) {
    const even = lines.map((_, i) => i).filter((i) => i % 2), ends = lines.map((line) => line.at(-1)), last = lines.map((line) => line.length - 1);
    const rhyming = (i) => rhymes(known, ends[i]).includes(rhyme);
    const rows = lines.map((line) => line.map((character) => tones(known, character)));
    for (const i of [0, ...even]) if (rhyming(i)) rows[i][last[i]] = LEVEL; // a rhyme word is read as it rhymes
    const begin = starts(rows), found = [], at = (rule, i, place) => found.push([rule, i, place]);
    lines.forEach((line, i) => { if (lines.slice(0, i).some((other) => alike(line, other))) at("lines", i, 0); });
    for (const i of even) if (!rhyming(i)) at("rhyme", i, last[i]);
    for (const i of even) if (ends.some((word, j) => j < i && (j === 0 || j % 2) && word === ends[i])) at("words", i, last[i]);
    for (const i of closed(known, lines, rhyme)) if (!rows[i].at(-1).includes(OBLIQUE)) at("ends", i, last[i]);
    rows.forEach((row, i) => { for (const place of misfits(row, begin[i], i % 2 === 0)) at("alternation", i, place); });
    for (const i of even) if (begin[i] === begin[i - 1]) at("dui", i, 1);
    for (let i = 2; i < lines.length; i += 2) if (begin[i] !== begin[i - 1]) at("nian", i, 1);
    rows.forEach((row, i) => { if (is_guping(row)) at("guping", i, last[i] - 3); });
    rows.forEach((row, i) => { if (row.length >= 3 && row.slice(-3).every((tone) => tone === LEVEL)) at("sanping", i, last[i] - 2); });
    bound(known, lines, rhyme).filter(([i, place]) => rows[i][place].length === 2).slice(even.length)
      .forEach(([i, place]) => at("jokers", i, place)); // one a couplet
    return found;
  }

  // Of so many lines and places, how far each rule is kept, from 0 to 1; all 0 without the form.
  function judge(known, text, rhyme, count, length) {
    const lines = split(text, length, count), couplets = count / 2, even = count * ((length - 1) >> 1);
    const none = !lines || lines.length < count || [...text].length < count * (length + 1);
    const broken = none ? [] : breaches(known, lines, rhyme).map(([rule]) => rule);
    const places = { form: 1, lines: count - 1, rhyme: couplets, words: couplets, ends: couplets, alternation: even,
      dui: couplets, nian: couplets - 1, guping: count, sanping: count, jokers: even };
    return Object.fromEntries(RULES.map((rule) => {
      const times = broken.filter((name) => name === rule).length;
      return [rule, none ? 0 : 1 - times / Math.max(places[rule], times, 1)];
    }));
  }

  return { readings, tones, rhymes, split, bound, breaches, judge, RULES };
})();
