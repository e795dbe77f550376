// The rules of regulated verse (dsnotes.rl.verse): tones and rhymes of a poem, also of one that is still being written.
const Verse = (() => {
  const LEVEL = "平", OBLIQUE = "仄", MAX_JOKERS = 2, PUNCTUATION = "，。";
  const HAN = /^[\u3007\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\u{20000}-\u{3ffff}]$/u; // as in dsnotes.rl.answers

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

  // Prescribed tones [line, place, tone] of a poem whose second character is `first`: the second line of a couplet is the
  // opposite of the first (對), the next line begins as that one (粘).
  function pattern(count, length, first) {
    const other = first === OBLIQUE ? LEVEL : OBLIQUE, places = [];
    for (let line = 0; line < count; line++) {
      const begin = line % 4 === 0 || line % 4 === 3 ? first : other;
      const turned = begin === first ? other : first;
      for (let place = 1; place < length - 1; place += 2) places.push([line, place, (place >> 1) % 2 ? turned : begin]);
    }
    return places;
  }

  // The lines of a text, the last of them perhaps unfinished; null when a sign stands where none should.
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

  // Every place with a prescribed tone [line, place, fits], by the pattern that fits better; what is not written yet is left out.
  function tone_places(known, lines, rhyme, count, length) {
    const ends = [];
    for (let line = 0; line < count; line += 2)
      if (line || !(lines[0]?.[length - 1] && rhymes(known, lines[0][length - 1]).includes(rhyme)))
        ends.push([line, length - 1, OBLIQUE]);
    let best = null, most = -1;
    for (const first of [LEVEL, OBLIQUE]) {
      let jokers = 0, fitting = 0;
      const places = [];
      for (const [line, place, tone] of [...pattern(count, length, first), ...ends]) {
        const character = lines[line]?.[place];
        if (!character) continue;
        const found = tones(known, character);
        if (found.length === 2) jokers++;
        const fits = found.includes(tone) && (found.length < 2 || jokers <= MAX_JOKERS);
        fitting += fits;
        places.push([line, place, fits]);
      }
      if (fitting > most) [best, most] = [places, fitting];
    }
    return best;
  }

  // [line, kept] of the lines that must rhyme and are written: in the group, with a word that no rhyme before had.
  function rhyme_places(known, lines, rhyme, count, length) {
    const words = [], places = [];
    for (let line = 0; line < count; line++) {
      const word = lines[line]?.[length - 1];
      if ((line && line % 2 === 0) || !word) continue;
      if (line) places.push([line, rhymes(known, word).includes(rhyme) && !words.includes(word)]);
      words.push(word);
    }
    return places;
  }

  // As judge() of dsnotes: { form, rhyme, tones }, the last two as shares; all 0 without the form.
  function judge(known, text, rhyme, count, length) {
    const lines = split(text, length, count), share = (list) => list.filter((place) => place.at(-1)).length / list.length;
    const whole = lines && lines.length === count && [...text].length === count * (length + 1);
    if (!whole || new Set(lines.map((line) => line.join(""))).size < count) return { form: false, rhyme: 0, tones: 0 };
    return { form: true, rhyme: share(rhyme_places(known, lines, rhyme, count, length)),
      tones: share(tone_places(known, lines, rhyme, count, length)) };
  }

  return { readings, tones, rhymes, pattern, split, tone_places, rhyme_places, judge };
})();
