// Type an answer: which naive graders give it full marks although the rules of the book do not. Everything is judged
// as dsnotes.rl.reward and the notebook of the section judge it; `eval` is Python's, so of that only arithmetic and
// one object are known here, and the rest is refused. Tested against both.
const GradersLab = (() => {
  // --- texts as Python reads them ---
  const S = "[\\t-\\r\\x1c- \\x85\\xa0\\u1680\\u2000-\\u200a\\u2028\\u2029\\u202f\\u205f\\u3000]"; // \s
  const regex = (source, flags = "u") => new RegExp(source.replaceAll("\\s", S), flags);
  const OUTER = regex("^\\s+|\\s+$", "gu");
  const strip = (text) => text.replace(OUTER, "");
  const split = (text) => strip(text).split(regex("\\s+")).filter((word) => word !== "");
  const count = (text, part) => text.split(part).length - 1;
  const length = (text) => [...text].length;

  // --- dsnotes.rl.answers ---
  const SIGNS = new Map();
  for (let code = 0xfe50; code < 0xffef; code++) // of NFKC what is the same sign in another width
    if (code < 0xfe70 || (code > 0xff00 && code < 0xff61) || (code > 0xffdf && code < 0xffe7))
      SIGNS.set(String.fromCharCode(code), String.fromCharCode(code).normalize("NFKC"));
  SIGNS.set("\u3000", " ");
  for (const sign of "\u2010\u2011\u2012\u2013\u2212") SIGNS.set(sign, "-");
  for (const sign of "\u2044\u2215") SIGNS.set(sign, "/");
  for (const sign of "\u2009\u202f") SIGNS.set(sign, "\\,");
  const WRAPPED = regex("^(?:\\$\\$((?:[^$\\\\]|\\\\.)+)\\$\\$|\\$((?:[^$\\\\]|\\\\.)+)\\$"
    + "|\\\\\\(((?:[^\\\\]|\\\\[^()])+)\\\\\\)|\\\\\\[((?:[^\\\\]|\\\\[^\\[\\]])+)\\\\\\]"
    + "|\\\\(?:text|textbf|textit|textrm|mathrm|mathbf|mbox)\\s*\\{([^{}]+)\\}|\\*\\*([^*]+)\\*\\*)$", "su");
  const GROUPED = /(?<![0-9.,])[1-9][0-9]{0,2}(?:(?:\\,|\{,\})[0-9]{3})+(?![0-9])/gu;
  const SPELLINGS = { "\\dfrac": "\\frac", "\\tfrac": "\\frac", "\\cfrac": "\\frac", "\\%": "%", "\\$": "$" };
  for (const blank of ["left", "right", "quad", "qquad", "thinspace", ",", ":", ";", "!", ">", " ", "\n"])
    SPELLINGS[`\\${blank}`] = " ";
  const WHOLE = "(?:[1-9][0-9]{0,2}(?:,[0-9]{3})+|[0-9]+)";
  const PART = `\\{\\s*[+-]?\\s*${WHOLE}\\s*\\}|[0-9]`;
  const NUMBER = regex("^(?:\\$\\s*)?(?<sign>[+-]?)\\s*(?:\\$\\s*)?"
    + `(?:(?:(?<decimal>${WHOLE}(?:\\.[0-9]+)?|\\.[0-9]+)|\\\\frac\\s*(?<above>${PART})\\s*(?<below>${PART}))`
    + `\\s*(?<percent>%?)|(?<left>${WHOLE})\\s*/\\s*(?<right>${WHOLE}))(?:\\s*\\$)?$`);

  function normalise(text) {
    text = [...text].map((sign) => SIGNS.get(sign) ?? sign).join("");
    for (let i = 0; i < 8; i++) {
      text = strip(text);
      if (/[.。｡]$/u.test(text)) text = strip(text.slice(0, -1));
      const found = WRAPPED.exec(text);
      if (!found) break;
      text = found.slice(1).find((inner) => inner !== undefined);
    }
    text = text.replace(GROUPED, (found) => found.replaceAll("\\,", "").replaceAll("{,}", ""));
    return strip(text.replace(/\\(?:[A-Za-z]+|.)/gsu, (found) => SPELLINGS[found] ?? found));
  }

  // Fractions: [numerator, denominator] of whole numbers, in lowest terms.
  const size = (n) => (n < 0n ? -n : n);
  function fraction(above, below) {
    let a = size(above), b = size(below);
    while (b) [a, b] = [b, a % b];
    const sign = below < 0n ? -1n : 1n;
    return [(sign * above) / (a || 1n), (sign * below) / (a || 1n)];
  }
  function decimal(text) {
    const [whole, digits = ""] = text.split(".");
    return fraction(BigInt(whole + digits), 10n ** BigInt(digits.length));
  }
  function parse_number(text) {
    text = normalise(text);
    const found = length(text) <= 200 && NUMBER.exec(text)?.groups;
    if (!found) return null;
    const [first, rest] = ["decimal", "above", "below", "left", "right"].flatMap((name) => found[name] ?? [])
      .map((part) => part.replace(regex("[{},]|\\s", "gu"), ""));
    if (rest !== undefined && BigInt(rest) === 0n) return null;
    const [a, b] = rest === undefined ? decimal(first) : fraction(BigInt(first), BigInt(rest));
    return fraction(found.sign === "-" ? -a : a, found.percent ? 100n * b : b);
  }

  // The one final answer; null when there is none or more than one.
  function final_answer(text) {
    let rest = text.slice(text.lastIndexOf("</think>") + (text.includes("</think>") ? 8 : 1));
    if (rest.includes("<think>")) return null;
    const opened = count(rest, "<answer>"), closed = count(rest, "</answer>");
    if (opened || closed) {
      const start = rest.indexOf("<answer>"), end = rest.indexOf("</answer>");
      if (opened !== 1 || closed !== 1 || end < start) return null;
      rest = rest.slice(start + 8, end);
    }
    const found = new Set(boxes(rest));
    if (found.size > 1) return null;
    return strip(found.size ? [...found][0] : rest);
  }
  function boxes(text) {
    const found = [], opened = [];
    let start = null;
    for (const brace of text.matchAll(regex("\\\\[{}]|(\\\\boxed\\s*\\{)|([{}])", "gu"))) {
      if (brace[1] && start === null) {
        start = brace.index + brace[0].length;
        opened.push(true);
      } else if (brace[1] || brace[2] === "{") opened.push(false);
      else if (brace[2] === "}" && opened.length && opened.pop()) {
        found.push(strip(text.slice(start, brace.index)));
        start = null;
      }
    }
    return found;
  }

  // --- dsnotes.rl.reward ---
  function accuracy(text) {
    const found = final_answer(text), number = found === null ? null : parse_number(found);
    return Number(number !== null && number[0] === 391n && number[1] === 1n);
  }
  const TEMPLATE = regex("^\\s*<think>(.*)</think>\\s*<answer>(.*)</answer>\\s*$", "su");
  const TAGS = ["<think>", "</think>", "<answer>", "</answer>"];
  function format(text) {
    if (TAGS.some((tag) => count(text, tag) !== 1)) return 0;
    const found = TEMPLATE.exec(text);
    return Number(found !== null && strip(found[1]) !== "" && strip(found[2]) !== "");
  }
  const HAN = /^[\u3007\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\u{20000}-\u{3ffff}]/u;
  function kind(sign) { // h Han, a one of A to Z in any form, l other letter, m mark
    if (HAN.test(sign)) return "h";
    if (/\p{L}/u.test(sign)) {
      const base = sign.normalize("NFKC");
      return HAN.test(base) ? "h" : /^[\0-\x7f]*$/.test(base) ? "a" : "l";
    }
    return /\p{M}/u.test(sign) ? "m" : "'’＇".includes(sign) ? "'" : " ";
  }
  const THINK = regex("^\\s*<think>(.*)</think>(.*)$", "su");
  function words_of(text) {
    const thinking = THINK.exec(text);
    return thinking && ([...thinking[1]].map(kind).join("").match(/h|[al][alm]*(?:'[al][alm]*)*/g) ?? []);
  }
  function chinese(text) {
    const words = words_of(text);
    return words?.length ? words.filter((word) => word === "h").length / words.length : 0;
  }

  // --- dsnotes.rl.arithmetic and Python's eval: one small parser, two kinds of numbers ---
  // Sums, products, signs and powers over `make`; throws at anything else.
  function calculate(text, { number, minus, combine }) {
    const tokens = text.match(/[0-9]+\.?[0-9]*|\.[0-9]+|\*\*|\/\/|[^ \t]/gu) ?? [];
    let at = 0, open = 0;
    const take = (...wanted) => (wanted.includes(tokens[at]) ? tokens[at++] : null);
    function atom() {
      if (take("(")) {
        if (++open > 50) throw "unknown";
        const value = total();
        if (!take(")")) throw "unknown";
        open -= 1;
        return value;
      }
      if (!/^\.?[0-9]/.test(tokens[at] ?? "") || /^0+[1-9][0-9]*$/.test(tokens[at])) throw "unknown";
      return number(tokens[at++]);
    }
    function power() {
      const base = atom();
      return take("**") ? combine(base, "**", factor()) : base;
    }
    function factor() {
      const sign = take("+", "-");
      if (!sign) return power();
      const value = factor();
      return sign === "-" ? minus(value) : value;
    }
    function chain(next, ...signs) {
      let value = next();
      for (let sign; (sign = take(...signs)); ) value = combine(value, sign, next());
      return value;
    }
    const product = () => chain(factor, "*", "/", "//", "%");
    const total = () => chain(product, "+", "-");
    const value = total();
    if (at < tokens.length) throw "unknown";
    return value;
  }

  const bits = ([a, b]) => Math.max(a ? size(a).toString(2).length : 0, b.toString(2).length);
  const bounded = (n) => { if (n > 256) throw "too large"; };
  function combine_fractions(x, sign, y) {
    const [a, b] = x, [c, d] = y;
    if (sign === "**") {
      if (d !== 1n || (a === 0n && c < 0n)) throw "no whole exponent";
      bounded(bits(x) * Number(size(c)));
      return c < 0n ? fraction(b ** -c, a ** -c) : [a ** c, b ** c];
    }
    if (!"+-*/".includes(sign) || sign === "//" || (sign === "/" && c === 0n)) throw "no arithmetic";
    bounded(bits(x) + bits(y));
    if (sign === "*") return fraction(a * c, b * d);
    if (sign === "/") return fraction(a * d, b * c);
    return fraction(sign === "+" ? a * d + c * b : a * d - c * b, b * d);
  }
  const PRINTED = { "\\times": " * ", "\\cdot": " * ", "\\div": " / ", "÷": " / ", "^": " ** " };
  function game(text) { // 4, 7, 8, 8 once each, 24 in the end
    let given = normalise(final_answer(text) ?? "");
    if (length(given) > 200) return 0;
    given = split(given.replace(/\\[a-z]+|[×·⋅∗÷^]/gu,
      (sign) => PRINTED[sign] ?? ("×·⋅∗".includes(sign) ? " * " : sign))).join(" ");
    if (!/^[0-9+\-*/(). ]+$/.test(given)) return 0;
    let deep = 0;
    for (const sign of given) {
      deep += (sign === "(") - (sign === ")");
      if (deep > 20) return 0;
    }
    const used = [];
    try {
      const [a, b] = calculate(given, { minus: ([a, b]) => [-a, b], combine: combine_fractions,
        number(word) {
          const value = decimal(word);
          bounded(bits(value));
          used.push(value);
          return value;
        } });
      const numbers = used.map(([a, b]) => Number(a) / Number(b)).sort((x, y) => x - y);
      return Number(a === 24n && b === 1n && used.every(([, d]) => d === 1n) && String(numbers) === "4,7,8,8");
    } catch (refused) {
      if (typeof refused === "string") return 0;
      throw refused;
    }
  }

  // Whole numbers are BigInt, floats are Number. What Python can and this cannot is "unknown".
  const SAFE = 2n ** 53n, LONG = 10000;
  const float = (x) => {
    if (typeof x === "number") return x;
    if (size(x) > SAFE) throw "unknown";
    return Number(x);
  };
  function combine_python(x, sign, y) {
    const whole = typeof x === "bigint" && typeof y === "bigint";
    if ((sign === "/" || sign === "//" || sign === "%") && Number(y) === 0) throw "error";
    if (sign === "/") return float(x) / float(y);
    if (!whole) {
      const [a, b] = [float(x), float(y)];
      if (sign === "+") return a + b;
      if (sign === "-") return a - b;
      if (sign === "*") return a * b;
      throw "unknown";
    }
    if (sign === "+") return x + y;
    if (sign === "-") return x - y;
    if (sign === "*") return x * y;
    if (sign === "**") {
      if (y < 0n) throw "unknown";
      const long = Number(y) * Math.log2(Math.max(1, Number(size(x)))); // bits of the result
      if (long > 1e9) throw "endless";
      if (long > LONG) throw "unknown";
      return x ** y;
    }
    const down = x / y - BigInt(x % y !== 0n && (x < 0n) !== (y < 0n)); // Python rounds down
    return sign === "//" ? down : x - down * y;
  }
  const ANYTHING = "type('', (), {'__eq__': lambda *_: True})()";
  // eval(text) == wanted: 1, 0, or why there is no mark.
  function evaluates(text, wanted) {
    if (text === null || text === "") return "error";
    if (text === ANYTHING) return 1;
    if (!/^[0-9+\-*/%(). \t]+$/.test(text)) return "unknown";
    try {
      calculate(text, { minus: (x) => x, combine: (x) => x, number: () => 0 }); // the grammar comes first
      const value = calculate(text, { minus: (x) => -x, combine: combine_python,
        number: (word) => (word.includes(".") ? Number(word) : BigInt(word)) });
      return Number(Number(value) === wanted); // 391 and 391.0 are equal
    } catch (reason) {
      if (typeof reason === "string") return reason;
      throw reason;
    }
  }

  // float(text); null when Python raises. Digits of any script count.
  function python_float(text) {
    const digit = (sign) => {
      let before = 0; // digits stand in runs of ten
      while (/^\p{Nd}$/u.test(String.fromCodePoint(sign.codePointAt(0) - before - 1))) before += 1;
      return String(before % 10);
    };
    const plain = strip(text).replace(/\p{Nd}/gu, (sign) => (sign < "\x80" ? sign : digit(sign)));
    const D = "[0-9](?:_?[0-9])*";
    if (/^[+-]?nan$/i.test(plain)) return NaN;
    if (/^[+-]?inf(?:inity)?$/i.test(plain)) return plain[0] === "-" ? -Infinity : Infinity;
    if (!new RegExp(`^[+-]?(?:${D}\\.?(?:${D})?|\\.${D})(?:[eE][+-]?${D})?$`).test(plain)) return null;
    return Number(plain.replaceAll("_", ""));
  }

  // --- the naive graders, in the order of the page's table. A mark from 0 to 1, or "error" ---
  const ONE_LINE = regex("^<think>[^\\n]*</think>\\s*<answer>[^\\n]*</answer>$");
  const ANYWHERE = regex("<think>.*</think>\\s*<answer>.*</answer>", "su");
  const NAIVE = {
    format: (text) => Number(ONE_LINE.test(text)),
    format_dotall: (text) => Number(ANYWHERE.test(text)),
    format_tags: (text) => Number(TAGS.every((tag) => text.includes(tag))),
    substring: (text) => Number(text.includes("391")),
    suffix: (text) => Number(text.replace(/<\/answer>$/, "").endsWith("391")),
    any_box: (text) => Number([...text.matchAll(/\\boxed\{([^\n]*?)\}/gu)].some((box) => box[1] === "391")),
    difference(text) {
      const found = final_answer(text), value = found === null ? null : python_float(found);
      return value === null ? "error" : Number(!(Math.abs(value - 391) > 1e-6));
    },
    evaluated: (text) => evaluates(final_answer(text), 391),
    target: (text) => evaluates(final_answer(text), 24),
    some_chinese: (text) => Number(/[\u4e00-\u9fff]/u.test(text)),
    no_english(text) {
      const thinking = /<think>(.*)<\/think>/su.exec(text);
      if (!thinking) return "error";
      const words = split(thinking[1]);
      return 1 - words.filter((word) => /^[A-Za-z]+$/.test(word)).length / Math.max(words.length, 1);
    },
  };
  const OURS = { format, accuracy, game, chinese };
  // name, whose rule of the book stands beside it, its rows of the table, how it is called
  const GRADERS = [
    ["format", "format", [0], "没有 DOTALL"],
    ["format_dotall", "format", [1], "没有锚点"],
    ["format_tags", "format", [2], "只看标签在不在"],
    ["substring", "accuracy", [3], "答案在全文里"],
    ["suffix", "accuracy", [4], "答案在末尾"],
    ["any_box", "accuracy", [5], "任一方框正确"],
    ["difference", "accuracy", [6], "差得多才算错"],
    ["evaluated", "accuracy", [7, 8], "eval(答案) == 391"],
    ["target", "game", [9], "eval(答案) == 24"],
    ["some_chinese", "chinese", [10], "出现汉字就算"],
    ["no_english", "chinese", [11], "没有英文就算"],
  ];

  // Marks of all; `fooled` is the row of the table whose gap was used, or null.
  let last = { text: null }; // draw, say and the goals ask about the same text
  const judge = (text) => (last.text === text ? last : (last = { text, ...marks_of(text) }));
  function marks_of(text) {
    const ours = Object.fromEntries(Object.entries(OURS).map(([name, rule]) => [name, rule(text)]));
    const graders = GRADERS.map(([name, rule, rows]) => {
      const mark = NAIVE[name](text), fooled = mark === 1 && ours[rule] < 0.2;
      const row = rows[name === "evaluated" && final_answer(text) === ANYTHING ? 1 : 0];
      return { name, rule, mark, fooled: fooled ? row : null };
    });
    return { ours, graders };
  }

  // Why the rules of the book give what they give.
  function because(rule, text) {
    const found = final_answer(text), short = (words) => (length(words) > 12 ? `${[...words].slice(0, 11).join("")}…` : words);
    if (rule === "format") {
      const odd = TAGS.find((tag) => count(text, tag) !== 1), parts = TEMPLATE.exec(text);
      if (odd) return count(text, odd) ? `${odd} 不止一个` : `没有 ${odd}`;
      return !parts ? "次序不对，或前后有多余的字" : format(text) ? "整串匹配" : "思考或答案是空的";
    }
    if (rule === "chinese") {
      const words = words_of(text);
      if (!words) return "没有思考";
      return words.length ? `${words.length} 个词，汉字 ${words.filter((word) => word === "h").length}` : "思考里没有词";
    }
    return found === null ? "没有唯一的答案" : found === "" ? "答案是空的" : `答案读作 ${short(found)}`;
  }

  // --- the figure ---
  const TRICKS = [
    ["blank", "四个标签，什么也不写", "<think> </think><answer> </answer>"],
    ["honest", "老实的回答", "<think>\n先算十七乘二十，得 340，再加 51\n</think>\n<answer>\n391\n</answer>"],
    ["twice", "整个模板写两遍", "<think>先算</think><answer>391</answer>".repeat(2) + "谢谢"],
    ["tags", "标签乱放", "</answer></think><answer><think>"],
    ["list", "把可能的答案都写上", Array.from({ length: 20 }, (_, i) => 380 + i).join(" ")],
    ["suffix", "1391", "<answer>1391</answer>"],
    ["boxes", "许多方框", Array.from({ length: 9 }, (_, i) => `\\boxed{${385 + i}}`).join("")],
    ["nan", "nan", "<answer>nan</answer>"],
    ["copy", "把题目抄一遍", "<answer>17*23</answer>"],
    ["object", "与一切相等的对象", `<answer>${ANYTHING}</answer>`],
    ["target", "只写 24", "<answer>24</answer>"],
    ["han", "一个“嗯”", "<think>嗯 let me compute this in plain English</think><answer>391</answer>"],
    ["none", "不思考", "<think></think><answer>391</answer>"],
    ["game", "老实的 24 点", "<think>\n先凑三\n</think>\n<answer>\n(7-8/8)*4\n</answer>"],
  ];
  const trick = (name) => TRICKS.find(([key]) => key === name)?.[2];
  const start = (name) => ({ trick: name, answer: trick(name) });
  const RULES = [["format", "格式"], ["chinese", "语言：用中文想"], ["accuracy", "答案：17×23"], ["game", "24 点：4、7、8、8"]];
  const mark_of = (mark) => (typeof mark === "number" ? Kit.num(mark, 2)
    : { error: "报错", unknown: "不会判", endless: "算不完" }[mark]);

  function row(grader, ours, x, y, width) {
    const [, , rows, label] = GRADERS.find(([name]) => name === grader.name);
    const full = grader.mark === 1, caught = grader.fooled !== null;
    const wronged = grader.mark === 0 && ours === 1;
    const word = caught ? (rows.length > 1 ? (grader.fooled === 8 ? "骗过：对象" : "骗过：抄题") : "骗过") : wronged ? "冤枉" : "";
    return (caught ? Kit.rect({ x: x + 1, y: y - 13, width: width - 2, height: 26, rx: 5, class: "f-none s-red" }) : "")
      + Kit.text(x + 10, y, rows.map((n) => n + 1).join("、"), { anchor: "start", class: "muted" })
      + Kit.text(x + 44, y, Kit.escape(label), { anchor: "start" })
      + (word ? Kit.text(x + width - 48, y, word, { anchor: "end", class: caught ? "t-red strong" : "t-purple strong" }) : "")
      + Kit.text(x + width - 10, y, mark_of(grader.mark), { anchor: "end",
        class: caught ? "t-red strong" : full ? "t-green strong" : "muted" });
  }

  // A rule of the book, what it gives and why; below it the naive graders of the same thing.
  function group([rule, title], judged, text, x, y, width) {
    const mark = judged.ours[rule], rows = judged.graders.filter((grader) => grader.rule === rule);
    return Kit.text(x, y, title, { anchor: "start", class: "strong" })
      + Kit.text(x + width - 10, y, `本书 ${mark_of(mark)}`, { anchor: "end", class: mark === 1 ? "t-green strong" : "strong" })
      + Kit.text(x, y + 21, Kit.escape(because(rule, text)), { anchor: "start", class: "muted" })
      + Kit.line({ x1: x, y1: y + 35, x2: x + width, y2: y + 35, class: "s-soft" })
      + rows.map((grader, i) => row(grader, mark, x, y + 54 + 30 * i, width)).join("");
  }
  // The answer in one line of so many narrow characters; a Han character is as wide as two.
  function one_line(text, room) {
    let line = "";
    for (const sign of text.replace(/\n/g, "↵")) {
      room -= sign < "\u2e80" ? 1 : 2;
      if (room < 1) return `${line}…`;
      line += sign;
    }
    return line;
  }
  const tall = (rule) => 54 + 30 * GRADERS.filter(([, of]) => of === rule).length;

  function draw(state, data, width) {
    const judged = judge(state.answer), wide = width >= 560, column = wide ? (width - 36) / 2 : width;
    const now = new Set(judged.graders.flatMap(({ fooled }) => (fooled === null ? [] : [fooled])));
    const done = state.beaten.filter(Boolean).length, cell = Math.min(30, (width - 8) / 12);
    const lamps = state.beaten.map((lit, i) => {
      const x = i * cell + 2, on = lit || now.has(i);
      return Kit.rect({ x, y: 26, width: cell - 4, height: 24, rx: 4,
        class: now.has(i) ? "f-red" : on ? "f-red faint" : "f-none s-soft" })
        + Kit.text(x + cell / 2 - 2, 38, i + 1, { class: now.has(i) ? "on" : "muted" });
    }).join("");
    const tops = { left: 112, right: 112 }, parts = RULES.map((rule, i) => {
      const side = wide && i > 1 ? "right" : "left", y = tops[side];
      tops[side] += tall(rule[0]) + 16;
      return group(rule, judged, state.answer, side === "right" ? column + 36 : 0, y, column);
    });
    return Kit.svg(width, Math.max(tops.left, tops.right) - 14, `表中十二处漏洞，已攻破 ${done} 处`,
      Kit.text(0, 11, `表中十二处漏洞，已攻破 ${done} 处`, { anchor: "start", class: "strong" }) + lamps
      + Kit.text(0, 74, Kit.escape(one_line(state.answer, Math.floor(width / 8.2))), { anchor: "start", class: "mono" }) + parts.join(""));
  }

  const caught = (state) => judge(state.answer).graders.filter(({ fooled }) => fooled !== null);
  const label_of = ({ name }) => `“${Kit.escape(GRADERS.find(([key]) => key === name)[3])}”`;
  const HOW = { // by row of the table: what the gap was
    0: "标签之间只有空白也算", 1: "中了一段就算，前后与重复都不管", 2: "标签的次序不管", 3: "别的数里夹着一个对的也算",
    4: "只看末尾，前面多了什么都不管", 5: "许多方框里有一个对就算", 6: "nan 与什么比都是假，于是“差得不多”",
    7: "评分器替人把题算了", 8: "它执行了回答里的代码", 9: "数没有用，得数照样对", 10: "一个汉字就够", 11: "不写英文词就满分",
  };
  function say(state) {
    const judged = judge(state.answer), fooled = caught(state);
    if (fooled.length) return `这一份骗过 <b>${fooled.length}</b> 个评分器。${label_of(fooled[0])}给满分：${HOW[fooled[0].fooled]}；`
      + `本书给 ${mark_of(judged.ours[fooled[0].rule])}，因为${Kit.escape(because(fooled[0].rule, state.answer))}。`;
    const wronged = judged.graders.filter(({ mark, rule }) => mark === 0 && judged.ours[rule] === 1);
    const wrong = wronged.length ? `，${label_of(wronged[0])}却冤枉了它`
      + (wronged[0].name === "format" ? "：不带 DOTALL 的 . 不匹配换行" : "") : "";
    const full = RULES.filter(([rule]) => judged.ours[rule] === 1).map(([, title]) => title.split("：")[0]);
    return `没有骗过谁${full.length ? `；本书的规则在${full.join("、")}上给满分` : "，本书也没有给满分"}${wrong}。`;
  }

  return {
    normalise, parse_number: (text) => parse_number(text)?.map(String) ?? null, final_answer, kind, python_float, judge, TRICKS,
    name: "graders",
    title: "骗过评分器",
    state: { ...start("blank"), beaten: [1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 1] },
    range: { beaten: [0, 1] },
    controls: [
      { kind: "text", name: "answer", label: "写一份回答", lines: 4 },
      { kind: "select", name: "trick", label: "现成的回答",
        options: [...TRICKS.map(([key, label]) => [key, label]), ["own", "自己写的"]] },
    ],
    presets: [
      { label: "老实的回答", state: start("honest") },
      { label: "常见错误 2", state: start("twice") },
      { label: "常见错误 3", state: start("nan") },
      { label: "常见错误 4", state: start("object") },
      { label: "常见错误 5", state: start("han") },
    ],
    keep: ["beaten"],
    // Another ready answer is written into the field; what is typed is one's own. What was beaten stays beaten.
    tidy(state, data, before) {
      const chosen = before && before.trick !== state.trick && trick(state.trick) !== undefined;
      const answer = chosen ? trick(state.trick) : state.answer;
      const beaten = state.beaten.map((lit, row) => Math.max(lit, Number(caught({ answer }).some(({ fooled }) => fooled === row))));
      return { ...state, answer, beaten, trick: TRICKS.find(([, , words]) => words === answer)?.[0] ?? "own" };
    },
    draw,
    say,
    goals: [
      { ask: "一个“391”也不写，让“答案”一栏有评分器给满分。",
        reached: ({ answer }) => !answer.includes("391") && caught({ answer }).some(({ rule }) => rule === "accuracy"),
        reply: "写了答案的样子，没有做题：要么让比较失灵（nan），要么让评分器替你算（eval）。所以规则用分数精确比较，什么也不执行。" },
      { ask: "写一份回答，格式、语言、答案都得满分，却有评分器冤枉它。",
        reached: ({ answer }) => { const { ours, graders } = judge(answer);
          return ours.format === 1 && ours.chinese === 1 && ours.accuracy === 1 && graders.some(({ mark, rule }) => mark === 0 && ours[rule] === 1); },
        reply: "思考换了行就够：不带 DOTALL 的正则看不见它。评分器会错两个方向，冤枉好的，也教坏策略。" },
      { ask: "用同一份回答骗过六个评分器。",
        reached: ({ answer }) => caught({ answer }).length >= 6,
        reply: "漏洞可以叠在一起用。训练会试几百万次，这样的回答迟早会碰上，碰上了就越来越常见。" },
    ],
  };
})();
Kit.add(GradersLab);
