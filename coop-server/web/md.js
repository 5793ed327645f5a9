/**
 * Markdown as elements, also of a text that grows: only its last block is made again. What it knows: headings, paragraphs, lists,
 * quotes, fenced code, tables, rules; emphasis, code, links. HTML is text like any other, and images become links, so that nothing is
 * ever fetched.
 *
 * Every text takes time in proportion to its length, and nesting has an end, whatever is written.
 *
 * @module md
 */

import { highlight } from "./highlight.js";

/** Quotes and lists within each other, and emphasis within each other; what is deeper stays text. */
const DEEPEST = 8;
const DEEPEST_INLINE = 16;
const LONGEST_URL = 2_000;

const FENCE = /^( {0,3})(`{3,}|~{3,})[ \t]*([^`\n]*)$/;
const HEADING = /^ {0,3}(#{1,6})(?:[ \t]+(.*?))?(?:[ \t]+#+)?[ \t]*$/;
const RULE = /^ {0,3}(?:(?:\*[ \t]*){3,}|(?:-[ \t]*){3,}|(?:_[ \t]*){3,})$/;
const QUOTE = /^ {0,3}> ?/;
const ITEM = /^( {0,3})([-*+]|\d{1,9}[.)])(?:( {1,4})(?=\S)| *$| +)/;
const DIVIDER = /^ {0,3}\|?[ \t]*:?-+:?[ \t]*(?:\|[ \t]*:?-+:?[ \t]*)*\|?[ \t]*$/;
const BLANK = /^[ \t]*$/;

const make = (name, ...children) => {
  const element = document.createElement(name);
  element.append(...children);
  return element;
};

/** A text that is shown in an element and may grow. */
export class Markdown {
  #element;
  #text = "";
  /** Where the block begins that may still grow, and how many elements stand before it. */
  #open = 0;
  #closed = 0;

  /** @param {Element} element Its children are replaced. */
  constructor(element) {
    this.#element = element;
    element.replaceChildren();
  }

  /**
   * Shows a text. If it goes on from the one before, only what has changed is made again.
   * @param {string} text
   */
  show(text) {
    if (text === this.#text) return;
    if (!text.startsWith(this.#text)) [this.#open, this.#closed] = [0, 0];
    this.#text = text;
    const lines = text.slice(this.#open).split("\n");
    const found = blocks(lines, 0);
    while (this.#element.childNodes.length > this.#closed) this.#element.lastChild.remove();
    for (const block of found) this.#element.append(block.node());
    // What a line begins may be another thing when it, or for a table the next one, goes on: the last block that begins
    // above those is where the next text is taken up.
    const last = found.findLastIndex(({ from }) => from < lines.length - 2);
    if (last < 0) return;
    for (const line of lines.slice(0, found[last].from)) this.#open += line.length + 1;
    this.#closed += last;
  }
}

/**
 * The elements of a text.
 * @param {string} text
 * @returns {DocumentFragment}
 */
export function render(text) {
  const fragment = document.createDocumentFragment();
  for (const block of blocks(text.split("\n"), 0)) fragment.append(block.node());
  return fragment;
}

/** The blocks of these lines: where each begins, and how it becomes an element. What a block is depends on nothing after it. */
function blocks(lines, depth) {
  const found = [];
  let at = 0;
  while (at < lines.length) {
    if (BLANK.test(lines[at])) {
      at += 1;
      continue;
    }
    const from = at;
    const [to, node] = block(lines, at, depth);
    found.push({ from, node });
    at = to;
  }
  return found;
}

function block(lines, at, depth) {
  const line = lines[at];
  const fence = FENCE.exec(line);
  if (fence) return code(lines, at, fence);
  const heading = HEADING.exec(line);
  if (heading) return [at + 1, () => make(`h${heading[1].length}`, inline(heading[2] ?? ""))];
  if (RULE.test(line)) return [at + 1, () => make("hr")];
  if (depth < DEEPEST && QUOTE.test(line)) return quote(lines, at, depth);
  if (depth < DEEPEST && ITEM.test(line)) return list(lines, at, depth);
  if (isTable(lines, at)) return table(lines, at);
  return paragraph(lines, at, depth);
}

/** Whether a line begins something that a paragraph ends before. */
function interrupts(lines, at, depth) {
  const line = lines[at];
  if (FENCE.test(line) || HEADING.test(line) || RULE.test(line) || isTable(lines, at)) return true;
  if (depth >= DEEPEST) return false;
  const item = ITEM.exec(line);
  // Only a list from 1 on: a number that happens to begin a line is a number.
  return QUOTE.test(line) || Boolean(item && item[3] && (/^[-*+]$/.test(item[2]) || /^1[.)]$/.test(item[2])));
}

function paragraph(lines, at, depth) {
  let to = at + 1;
  while (to < lines.length && !BLANK.test(lines[to]) && !interrupts(lines, to, depth)) to += 1;
  const text = lines.slice(at, to).map((line) => line.trimStart()).join("\n").trimEnd();
  return [to, () => make("p", inline(text))];
}

function code(lines, at, [, indent, mark, info]) {
  let to = at + 1;
  const closes = (line) => {
    const bare = line.trim();
    return bare.length >= mark.length && [...bare].every((character) => character === mark[0]);
  };
  while (to < lines.length && !closes(lines[to])) to += 1;
  const isClosed = to < lines.length;
  const text = lines
    .slice(at + 1, to)
    .map((line) => (line.startsWith(indent) ? line.slice(indent.length) : line.trimStart()))
    .join("\n");
  const language = info.trim().split(/\s/)[0];
  return [isClosed ? to + 1 : to, () => codeBlock(text, language, isClosed)];
}

function codeBlock(text, language, isClosed) {
  const body = make("code");
  // While it is still being written its colours would change with every piece.
  if (isClosed && language) {
    for (const { text: part, kind } of highlight(text, language)) {
      if (!kind) body.append(part);
      else body.append(Object.assign(make("span", part), { className: `code-${kind}` }));
    }
  } else {
    body.append(text);
  }
  const pre = make("pre", body);
  pre.tabIndex = 0;
  const copy = Object.assign(make("button", "Copy"), { type: "button", className: "copy" });
  const label = Object.assign(make("span", language || "text"), { className: "language" });
  const block = make("div", Object.assign(make("div", label, copy), { className: "code-head" }), pre);
  block.className = "code-block";
  return block;
}

function quote(lines, at, depth) {
  const inner = [];
  let to = at;
  while (to < lines.length) {
    if (QUOTE.test(lines[to])) inner.push(lines[to].replace(QUOTE, ""));
    // A paragraph goes on without the mark.
    else if (BLANK.test(lines[to]) || BLANK.test(inner.at(-1)) || interrupts(lines, to, depth)) break;
    else inner.push(lines[to]);
    to += 1;
  }
  return [to, () => make("blockquote", ...blocks(inner, depth + 1).map((block) => block.node()))];
}

function list(lines, at, depth) {
  const kind = (mark) => (/\d/.test(mark) ? mark.at(-1) : mark);
  const [, , first] = ITEM.exec(lines[at]);
  const items = [];
  let isLoose = false;
  let to = at;
  while (to < lines.length) {
    const begun = ITEM.exec(lines[to]);
    if (!begun || kind(begun[2]) !== kind(first) || RULE.test(lines[to])) break;
    const width = begun[1].length + begun[2].length + (begun[3]?.length ?? 1);
    const inner = [lines[to].slice(width)];
    to += 1;
    while (to < lines.length) {
      const line = lines[to];
      const indent = line.length - line.trimStart().length;
      if (BLANK.test(line)) inner.push("");
      else if (indent >= width) inner.push(line.slice(width));
      else if (inner.at(-1) === "" || ITEM.test(line) || interrupts(lines, to, depth)) break;
      else inner.push(line);
      to += 1;
    }
    let trailing = 0;
    while (inner.at(-1) === "") {
      inner.pop();
      trailing += 1;
    }
    const goesOn = trailing > 0 && to < lines.length && ITEM.test(lines[to]);
    isLoose ||= inner.includes("") || goesOn;
    items.push(inner);
  }
  return [to, () => listElement(first, items, isLoose, depth)];
}

function listElement(mark, items, isLoose, depth) {
  const isOrdered = /\d/.test(mark);
  const element = make(isOrdered ? "ol" : "ul");
  if (isOrdered && parseInt(mark) !== 1) element.start = parseInt(mark);
  for (let lines of items) {
    const item = make("li");
    const task = /^\[([ xX])\] /.exec(lines[0]);
    if (task) {
      lines = [lines[0].slice(4), ...lines.slice(1)];
      const box = Object.assign(make("input"), { type: "checkbox", checked: task[1] !== " ", disabled: true });
      box.ariaLabel = box.checked ? "done" : "to do";
      item.append(box);
    }
    for (const block of blocks(lines, depth + 1)) {
      const node = block.node();
      // A list whose items stand close has texts, not paragraphs.
      if (!isLoose && node.nodeName === "P") item.append(...node.childNodes);
      else item.append(node);
    }
    element.append(item);
  }
  return element;
}

function isTable(lines, at) {
  const [head, divider] = [lines[at], lines[at + 1]];
  if (divider === undefined || !head.includes("|") || !divider.includes("-") || !DIVIDER.test(divider)) return false;
  return cells(head).length === cells(divider).length;
}

function cells(line) {
  const bare = line.trim().replace(/^\|/, "").replace(/(?<!\\)\|$/, "");
  return bare.split(/(?<!\\)\|/).map((cell) => cell.trim().replaceAll("\\|", "|"));
}

function table(lines, at) {
  const head = cells(lines[at]);
  const sides = cells(lines[at + 1]).map((cell) => (cell.endsWith(":") ? (cell.startsWith(":") ? "center" : "right") : ""));
  const rows = [];
  let to = at + 2;
  while (to < lines.length && !BLANK.test(lines[to]) && lines[to].includes("|")) {
    rows.push(cells(lines[to]));
    to += 1;
  }
  const row = (name, texts) =>
    make(
      "tr",
      ...head.map((_, column) => {
        const cell = make(name, inline(texts[column] ?? ""));
        if (sides[column]) cell.className = sides[column];
        return cell;
      }),
    );
  const node = () => {
    const body = make("tbody", ...rows.map((texts) => row("td", texts)));
    const scroller = make("div", make("table", make("thead", row("th", head)), body));
    scroller.className = "table";
    scroller.tabIndex = 0;
    return scroller;
  };
  return [to, node];
}

const TAGS = { "*": "em", _: "em", "**": "strong", __: "strong", "~~": "del" };
const SPECIAL = /[\\`*_~[\]!\n]|https?:\/\//g;
const isSpace = (character) => character === undefined || /\s/.test(character);
const isWord = (character) => character !== undefined && /[\p{L}\p{N}]/u.test(character);

/** A text within a block. One pass: what is opened is kept on a stack, and what is never closed becomes text again. */
function inline(text) {
  const stack = [{ mark: null, nodes: [] }];
  const runs = backticks(text);
  const put = (node) => {
    const { nodes } = stack.at(-1);
    if (typeof node === "string" && typeof nodes.at(-1) === "string") nodes[nodes.length - 1] += node;
    else nodes.push(node);
  };
  const unwrap = () => {
    const { mark, nodes } = stack.pop();
    put(mark);
    nodes.forEach(put);
  };
  const closeTo = (index, wrap) => {
    while (stack.length - 1 > index) unwrap();
    put(wrap(stack.pop().nodes));
  };
  let at = 0;
  while (at < text.length) {
    SPECIAL.lastIndex = at;
    const found = SPECIAL.exec(text);
    const next = found?.index ?? text.length;
    if (next > at) put(text.slice(at, next));
    if (!found) break;
    at = next;
    const character = text[at];
    if (character === "\\" && /[!-/:-@[-`{-~]/.test(text[at + 1] ?? "")) {
      put(text[at + 1]);
      at += 2;
    } else if (character === "\n") {
      put(make("br"));
      at += 1;
    } else if (character === "`") {
      at = codeSpan(text, at, runs, put);
    } else if (character === "h") {
      const url = /^https?:\/\/[^\s<>"'`|]*[^\s<>"'`|.,;:!?*_~)\]}]/.exec(text.slice(at, at + LONGEST_URL))?.[0];
      put(url ? link(url, [url]) : text.slice(at, at + 4));
      at += url?.length ?? 4;
    } else if (character === "[" || (character === "!" && text[at + 1] === "[")) {
      const mark = character === "[" ? "[" : "![";
      if (stack.length < DEEPEST_INLINE) stack.push({ mark, nodes: [] });
      else put(mark);
      at += mark.length;
    } else if (character === "]") {
      at = closeLink(text, at, stack, put, closeTo);
    } else if (character === "*" || character === "_" || character === "~") {
      at = emphasis(text, at, stack, put, closeTo);
    } else {
      put(character);
      at += 1;
    }
  }
  while (stack.length > 1) unwrap();
  const fragment = document.createDocumentFragment();
  fragment.append(...stack[0].nodes);
  return fragment;
}

/** Where runs of backticks begin, by their length, in order. */
function backticks(text) {
  const runs = new Map();
  for (const { 0: run, index } of text.matchAll(/`+/g)) {
    if (!runs.has(run.length)) runs.set(run.length, []);
    runs.get(run.length).push(index);
  }
  return runs;
}

function codeSpan(text, at, runs, put) {
  let end = at;
  while (text[end] === "`") end += 1;
  const same = runs.get(end - at) ?? [];
  while (same.length && same[0] < end) same.shift();
  if (!same.length) {
    put(text.slice(at, end));
    return end;
  }
  const inside = text.slice(end, same[0]).replaceAll("\n", " ");
  const isPadded = /^ .*[^ ].* $/.test(inside) || /^ [^ ] $/.test(inside);
  put(make("code", isPadded ? inside.slice(1, -1) : inside));
  return same[0] + end - at;
}

function closeLink(text, at, stack, put, closeTo) {
  const index = stack.findLastIndex(({ mark }) => mark === "[" || mark === "![");
  if (index < 0) {
    put("]");
    return at + 1;
  }
  const target = /^\(\s*<?([^\s()<>]*(?:\([^\s()<>]*\)[^\s()<>]*)*)>?(?:\s+(?:"[^"\n]*"|'[^'\n]*'))?\s*\)/.exec(
    text.slice(at + 1, at + LONGEST_URL),
  );
  if (!target || !/^(https?:|mailto:)/i.test(target[1])) {
    // Not a link: what was opened is text, and so is this.
    while (stack.length > index) {
      const { mark, nodes } = stack.pop();
      put(mark);
      nodes.forEach(put);
    }
    put("]");
    return at + 1;
  }
  const isImage = stack[index].mark === "![";
  closeTo(index, (nodes) => link(target[1], nodes.length ? nodes : [isImage ? "image" : target[1]]));
  return at + 1 + target[0].length;
}

function emphasis(text, at, stack, put, closeTo) {
  const character = text[at];
  let end = at;
  while (text[end] === character) end += 1;
  const [before, after] = [text[at - 1], text[end]];
  const isOpening = !isSpace(after) && !(character === "_" && isWord(before));
  const isClosing = !isSpace(before) && !(character === "_" && isWord(after));
  while (at < end) {
    const rest = end - at;
    const fits = ({ mark }) => mark && mark[0] === character && mark !== "[" && mark.length <= rest;
    const index = isClosing ? stack.findLastIndex(fits) : -1;
    if (index > 0 && stack[index].nodes.length) {
      const { mark } = stack[index];
      closeTo(index, (nodes) => make(TAGS[mark], ...nodes));
      at += mark.length;
      continue;
    }
    const mark = character === "~" || rest >= 2 ? character.repeat(2) : character;
    if (isOpening && mark.length <= rest && rest <= 3 && stack.length < DEEPEST_INLINE) {
      stack.push({ mark, nodes: [] });
      at += mark.length;
    } else {
      put(text.slice(at, end));
      at = end;
    }
  }
  return end;
}

function link(url, nodes) {
  const anchor = make("a", ...nodes);
  Object.assign(anchor, { href: url, target: "_blank", rel: "noopener noreferrer nofollow" });
  return anchor;
}
