/* Search without a server: reads through the sections of the book (searchdata.js, written by
website/extensions/dsbook/zhsearch.py), ranks them by BM25 and shows the best of each page as the reader types. */
"use strict";

const HAN = "\\u3400-\\u9fff\\uf900-\\ufaff";
const GREEK = "\\u0370-\\u03ff";
const WORD = `(?![${HAN}])[\\p{Letter}\\p{Number}]`; // a character of a word; Chinese are letters to Unicode
const CUT = new RegExp(`[${HAN}]+|\\d+(?:[.,]\\d+)+|(?:${WORD}|_)+`, "giu");
const FIELDS = { page: 4, title: 5, text: 1, code: 0.4 }; // what an occurrence there counts
const SATURATION = 2; // k1 of BM25
const LENGTH = 0.3; // b of BM25
const PAGES = 20;
const EXCERPT = 110; // characters

/* Other names of what the book calls differently. */
const ALIASES = [["投机采样", "推测解码"], ["投机解码", "推测解码"], ["卡时", " gpu 小时"], ["成本", "费用"]];

/* A query as the book would write it: half width, simplified, small letters, by the names of the book. */
let simplified;
function fold(query) {
  const [old, now] = typeof searchFold === "undefined" ? ["", ""] : searchFold;
  simplified ??= new Map([...old].map((character, i) => [character, now[i]]));
  const known = (character) => simplified.get(character) ?? character;
  const plain = query.normalize("NFKC").toLowerCase().replace(new RegExp(`[${HAN}]`, "gu"), known);
  return ALIASES.reduce((text, [other, ours]) => text.replaceAll(other, ours), plain);
}

/* Without the blanks between Chinese and anything else, which some put there and some do not. */
const tight = (text) => text.replace(new RegExp(`(?<=[${HAN}]) +| +(?=[${HAN}])`, "gu"), "");

/* The pieces of a query. Chinese has no spaces, so every pair of neighbouring characters is a
piece: the more of them, the more likely the words. Latin words and numbers stay whole. */
function cut(query) {
  const pieces = new Set();
  for (const [run] of fold(query).matchAll(CUT)) {
    if (!new RegExp(`^[${HAN}]{2}`).test(run)) pieces.add(run);
    else for (let i = 0; i + 1 < run.length; i++) pieces.add(run.slice(i, i + 2));
  }
  const telling = [...pieces].filter((piece) => !/^[a-z0-9]$/.test(piece));
  return telling.length ? telling : [...pieces]; // a letter begins too many words
}

/* A piece in a text: Chinese and Greek anywhere, the rest from the beginning of a word or of its part. */
function pattern(piece) {
  const escaped = piece.replace(/[.]/g, "\\.");
  const begins = new RegExp(`^[${HAN}${GREEK}]`).test(piece) ? "" : `(?<!${WORD})`;
  return new RegExp(begins + escaped, "giu");
}

/* The names, the terms and the text of a section as one looks for a whole query in them; made once. */
const prepared = new WeakMap();
function inOnePiece(section) {
  if (!prepared.has(section)) {
    const small = (text) => tight(text.toLowerCase());
    const names = small(`${section.page}\n${section.title}`);
    prepared.set(section, { names, terms: section.terms.map(small), text: small(section.text) });
  }
  return prepared.get(section);
}

/* Sections for the query, best first: [{section, score}]. */
function find(sections, query) {
  const whole = tight(fold(query).trim());
  const pieces = cut(query);
  const scores = sections.map(() => [0, 0]); // of the pieces found: sum, how many
  const names = Object.keys(FIELDS);
  const mean = (name) => 1 + sections.reduce((sum, s) => sum + s[name].length, 0) / sections.length;
  const means = Object.fromEntries(names.map((name) => [name, mean(name)]));
  for (const piece of pieces) {
    const found = pattern(piece);
    const count = (text) => (text ? (text.match(found) ?? []).length : 0);
    const frequencies = sections.map((section) =>
      names.reduce((sum, name) => {
        const length = 1 - LENGTH + (LENGTH * section[name].length) / means[name];
        return sum + (FIELDS[name] * count(section[name])) / length;
      }, 0),
    );
    const holding = frequencies.filter((f) => f > 0).length;
    const rarity = Math.log(1 + (sections.length - holding + 0.5) / (holding + 0.5));
    frequencies.forEach((f, i) => {
      if (f === 0) return;
      scores[i][0] += (rarity * f) / (SATURATION + f);
      scores[i][1] += 1;
    });
  }
  const hits = sections.flatMap((section, i) => {
    const [sum, number] = scores[i];
    if (!number) return [];
    const { names, terms, text } = inOnePiece(section);
    // what defines a term comes before what only uses it often
    const together = terms.includes(whole) ? 3 : names.includes(whole) ? 2 : text.includes(whole) ? 1.5 : 1;
    return [{ section, score: sum * (number / pieces.length) * together * section.weight }];
  });
  return hits.sort((a, b) => b.score - a.score);
}

/* The best sections of each page; a page with more of them comes earlier. */
function byPage(hits) {
  const pages = new Map();
  for (const hit of hits) {
    if (hit.score < hits[0].score * 0.12) break; // far weaker: found by chance
    const { doc } = hit.section;
    pages.set(doc, [...(pages.get(doc) ?? []), hit].slice(0, 4));
  }
  const worth = (page) => page.reduce((sum, hit, i) => sum + hit.score / 2 ** i, 0);
  return [...pages.values()].sort((a, b) => worth(b) - worth(a)).slice(0, PAGES);
}

/* The stretch of a section that holds the most of the query: [[text, is it a piece of the query]]. */
function excerpt(section, pieces) {
  const any = new RegExp(pieces.map((piece) => pattern(piece).source).join("|"), "giu");
  const hitsIn = (text) => [...text.matchAll(any)].map((m) => [m.index, m.index + m[0].length, m[0].toLowerCase()]);
  const inText = hitsIn(section.text);
  const inCode = inText.length ? [] : hitsIn(section.code);
  const [text, hits] = inCode.length ? [section.code, inCode] : [section.text, inText];
  let [best, start] = [0, 0];
  for (const [from] of hits) {
    const near = hits.filter(([a, b]) => a >= from && b <= from + EXCERPT * 0.8);
    const worth = new Set(near.map(([, , piece]) => piece)).size + near.length / 100;
    if (worth > best) [best, start] = [worth, Math.max(0, Math.round(from - EXCERPT * 0.2))];
  }
  const end = Math.min(text.length, start + EXCERPT);
  const parts = [[start ? "…" : "", false]];
  let at = start;
  for (const [from, to] of hits) {
    if (to <= at || from >= end) continue;
    parts.push([text.slice(at, from), false], [text.slice(Math.max(from, at), Math.min(to, end)), true]);
    at = Math.min(to, end);
  }
  return [...parts, [text.slice(at, end) + (end < text.length ? "…" : ""), false]];
}

function element(name, properties, ...children) {
  const node = Object.assign(document.createElement(name), properties);
  node.append(...children);
  return node;
}

function link({ section }, text) {
  const root = document.documentElement.dataset.content_root;
  return element("a", { href: `${root}${section.doc}.html${section.anchor}` }, text);
}

function show(query) {
  const pages = query ? byPage(find(searchData, query)) : [];
  const pieces = cut(query);
  const items = pages.map(([first, ...others]) => {
    const { page, title } = first.section;
    const parts = excerpt(first.section, pieces);
    const words = parts.map(([text, found]) => (found ? element("mark", {}, text) : text));
    const more = others.map((hit) => element("li", {}, link(hit, hit.section.title)));
    return element(
      "li",
      {},
      link(first, title === page ? page : `${page} › ${title}`),
      element("p", { className: "context" }, ...words),
      ...(more.length ? [element("ul", {}, ...more)] : []),
    );
  });
  const none = "没有找到。换一个词，或者只留下最要紧的几个字。";
  document.getElementById("search-status").textContent = query ? (pages.length ? `${pages.length} 页` : none) : "";
  document.getElementById("search-results").replaceChildren(element("ol", { className: "search" }, ...items));
}

function start() {
  const field = document.querySelector(".bd-search-container input[name=q]");
  const search = () => show(field.value.trim());
  field.value = new URLSearchParams(location.search).get("q") ?? "";
  field.focus();
  search();
  field.addEventListener("input", search);
  // before a result is opened, so that the way back leads to the same query
  field.addEventListener("change", () => {
    history.replaceState(null, "", `?${new URLSearchParams({ q: field.value })}`);
  });
}

if (typeof document !== "undefined") document.addEventListener("DOMContentLoaded", start);
