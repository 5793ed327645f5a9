/**
 * Colours for code: comments, strings, numbers and the words of a language. It finds them by one pass over the text and knows
 * no grammar; a language that it does not know is left as it is.
 *
 * @module highlight
 */

const C = "//|/*";
const words = (text) => new Set(text.split(" "));

/** How comments begin (a line's, or a pair's), which marks hold strings, and which words are the language's own. */
const LANGUAGES = {
  rust: [C, "\"", words("as async await break const continue crate dyn else enum extern false fn for if impl in let loop match mod move mut pub ref return self Self static struct super trait true type unsafe use where while")],
  js: [C, "\"'`", words("async await break case catch class const continue default delete do else export extends false finally for from function if import in instanceof interface let new null of return static super switch this throw true try type typeof undefined var void while yield")],
  python: ["#", "\"'", words("and as assert async await break class continue def del elif else except False finally for from global if import in is lambda match None nonlocal not or pass raise return self True try while with yield")],
  go: [C, "\"'`", words("break case chan const continue default defer else fallthrough false for func go goto if import interface map nil package range return select struct switch true type var")],
  c: [C, "\"'", words("auto bool boolean break case catch char class const constexpr continue default delete do double else enum extends extern false final float for if implements import int interface long namespace new null nullptr override package private protected public return short signed sizeof static struct super switch template this throw true try typedef typename union unsigned using virtual void volatile while")],
  shell: ["#", "\"'", words("case do done elif else esac export fi for function if in local return set then until while")],
  sql: ["--|/*", "'\"", words("add all alter and as asc begin by case check commit constraint create default delete desc distinct drop else end exists foreign from group having if in index inner insert into is join key left like limit not null on or order outer primary references returning right rollback select set table then union unique update using values view when where with")],
  json: ["", "\"", words("true false null")],
  toml: ["#", "\"'", words("true false")],
  css: ["/*", "\"'", words("@media @import @supports @keyframes important")],
};

const NAMES = {
  rs: "rust", javascript: "js", jsx: "js", ts: "js", tsx: "js", typescript: "js", mjs: "js", py: "python", python3: "python",
  cpp: "c", "c++": "c", h: "c", java: "c", cs: "c", csharp: "c", kotlin: "c", kt: "c", swift: "c", sh: "shell", bash: "shell",
  zsh: "shell", console: "shell", postgresql: "sql", sqlite: "sql", yaml: "toml", yml: "toml", ini: "toml",
};

const WORD = /[\p{L}_$@][\p{L}\p{N}_$]*/uy;
const NUMBER = /(?:0[xob][\da-f_]+|\d[\d_]*(?:\.\d[\d_]*)?(?:e[+-]?\d+)?)/iy;

/**
 * The parts of a code: texts, and for those that have a colour what they are.
 * @param {string} code
 * @param {string} language As a fence names it.
 * @returns {{ text: string, kind?: "comment" | "string" | "number" | "word" }[]}
 */
export function highlight(code, language) {
  const name = language.toLowerCase();
  const known = LANGUAGES[NAMES[name] ?? name];
  if (!known || !Object.hasOwn(LANGUAGES, NAMES[name] ?? name)) return [{ text: code }];
  const [comments, quotes, own] = known;
  const begins = comments ? comments.split("|") : [];
  const anyCase = own.has("select");
  const parts = [];
  let plain = 0;
  let at = 0;
  const add = (end, kind) => {
    if (plain < at) parts.push({ text: code.slice(plain, at) });
    parts.push({ text: code.slice(at, end), kind });
    plain = at = end;
  };
  while (at < code.length) {
    const comment = begins.find((mark) => code.startsWith(mark, at));
    if (comment) {
      const close = comment === "/*" ? "*/" : "\n";
      const end = code.indexOf(close, at + comment.length);
      add(end < 0 ? code.length : end + (close === "\n" ? 0 : 2), "comment");
    } else if (quotes.includes(code[at])) {
      add(closing(code, at), "string");
    } else if ((NUMBER.lastIndex = at) === at && NUMBER.test(code)) {
      add(NUMBER.lastIndex, "number");
    } else if ((WORD.lastIndex = at) === at && WORD.test(code)) {
      const end = WORD.lastIndex;
      const word = code.slice(at, end);
      if (own.has(anyCase ? word.toLowerCase() : word)) add(end, "word");
      else at = end;
    } else {
      at += 1;
    }
  }
  if (plain < code.length) parts.push({ text: code.slice(plain) });
  return parts;
}

/** Where the string ends that begins here; at the end of its line if it is not closed, unless its mark may hold lines. */
function closing(code, begin) {
  const mark = code[begin];
  for (let at = begin + 1; at < code.length; at += 1) {
    if (code[at] === "\\") at += 1;
    else if (code[at] === mark) return at + 1;
    else if (code[at] === "\n" && mark !== "`") return at;
  }
  return code.length;
}
