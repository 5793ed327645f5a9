/**
 * Making elements. Texts are always texts: nothing here, or anywhere, makes elements of a string.
 *
 * @module dom
 */

/**
 * An element.
 * @param {string} name Its tag, and perhaps classes: `"div.card.wide"`.
 * @param {object} [properties] `on…` are listeners, `aria…` and other properties are set, what has a dash is an attribute.
 * @param {...(Node | string | null | undefined | false)} children
 */
export function h(name, properties = {}, ...children) {
  const [tag, ...classes] = name.split(".");
  const element = document.createElement(tag);
  if (classes.length) element.className = classes.join(" ");
  for (const [key, value] of Object.entries(properties)) {
    if (value === undefined || value === null) continue;
    if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else if (key.includes("-")) element.setAttribute(key, value);
    else if (key === "data") Object.assign(element.dataset, value);
    else element[key] = value;
  }
  element.append(...children.filter((child) => child || child === ""));
  return element;
}

/** Sets a text only if it is another: nothing is laid out anew for nothing. */
export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** A number for a name, always the same, to choose its colour by. */
export function hue(name) {
  let sum = 7;
  for (const character of name) sum = (sum * 31 + character.codePointAt(0)) % 997;
  return sum % 10;
}

/** The round sign of somebody. */
export function avatar(name, isBot = false) {
  const letters = [...name.replace(/[^\p{L}\p{N} _.-]/gu, "")];
  const sign = h(`span.avatar.hue-${hue(name)}${isBot ? ".bot" : ""}`, { "aria-hidden": "true" }, (letters[0] ?? "?").toUpperCase());
  return sign;
}

const TIME = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit" });
const DAY = new Intl.DateTimeFormat(undefined, { weekday: "long", day: "numeric", month: "long" });
const DAY_AND_YEAR = new Intl.DateTimeFormat(undefined, { dateStyle: "long" });
const SHORT_DAY = new Intl.DateTimeFormat(undefined, { day: "numeric", month: "short" });
const WHOLE = new Intl.DateTimeFormat(undefined, { dateStyle: "full", timeStyle: "medium" });

const midnight = (date) => new Date(date.getFullYear(), date.getMonth(), date.getDate()).getTime();
const daysAgo = (date) => Math.round((midnight(new Date()) - midnight(date)) / 86_400_000);

export const isSameDay = (a, b) => midnight(new Date(a)) === midnight(new Date(b));

/** Today, yesterday, or the day by its name. */
export function dayName(time) {
  const date = new Date(time);
  const ago = daysAgo(date);
  if (ago === 0) return "Today";
  if (ago === 1) return "Yesterday";
  return ago < 180 ? DAY.format(date) : DAY_AND_YEAR.format(date);
}

/** When something was, in a list. */
export function shortTime(time) {
  const date = new Date(time);
  return daysAgo(date) === 0 ? TIME.format(date) : SHORT_DAY.format(date);
}

export const clock = (time) => TIME.format(new Date(time));
export const wholeTime = (time) => WHOLE.format(new Date(time));

/** Names in a sentence: "Anne", "Anne and Bob", "Anne, Bob and 3 others". */
export function names(list, most = 2) {
  if (list.length <= 1) return list[0] ?? "";
  if (list.length <= most) return `${list.slice(0, -1).join(", ")} and ${list.at(-1)}`;
  return `${list.slice(0, most).join(", ")} and ${list.length - most} other${list.length - most > 1 ? "s" : ""}`;
}
