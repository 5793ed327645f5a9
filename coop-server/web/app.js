/**
 * The web client: who is signed in, which page is shown, and what is told outside of rooms.
 *
 * @module app
 */

import { Coop } from "./coop.js";
import { h, setText } from "./dom.js";
import { icon } from "./icons.js";
import { List } from "./list.js";
import { RoomView } from "./room.js";

const coop = new Coop();
const app = document.getElementById("app");
const live = document.getElementById("live");
const notices = h("div.notices");
document.body.append(notices);

/** Tells people who listen instead of looking. */
export function announce(text) {
  live.textContent = "";
  // Only a change is read out.
  requestAnimationFrame(() => setText(live, text));
}

/** Shows something for a while, at once. */
export function notice(text, kind = "plain") {
  const close = h("button.plain", { type: "button", ariaLabel: "Dismiss", onclick: () => card.remove() }, icon("close"));
  const card = h(`div.notice.${kind}`, { role: "status" }, h("span", {}, text), close);
  notices.append(card);
  setTimeout(() => card.remove(), 9_000);
}

// Pages.

/** Goes to an address of this client. */
export function go(path, replace = false) {
  if (path !== location.pathname) history[replace ? "replaceState" : "pushState"](null, "", path);
  show();
}

addEventListener("popstate", show);
document.addEventListener("click", (event) => {
  const anchor = event.target.closest?.("a[href^='/']");
  if (!anchor || event.button !== 0 || event.metaKey || event.ctrlKey || event.shiftKey) return;
  event.preventDefault();
  go(anchor.getAttribute("href"));
});

/** The signed-in page, while it is shown. */
let shell = null;

function show() {
  const room = /^\/chat\/(\d+)$/.exec(location.pathname);
  if (!coop.isSignedIn) {
    if (location.pathname !== "/login") history.replaceState(null, "", "/login");
    shell = null;
    return app.replaceChildren(login());
  }
  if (!room && location.pathname !== "/chat") return go("/chat", true);
  if (!shell) {
    shell = new Shell();
    app.replaceChildren(shell.element);
    coop.connect().catch(() => {});
  }
  shell.open(room ? Number(room[1]) : null);
}

function login() {
  let isNew = false;
  const name = h("input", { id: "name", name: "username", autocomplete: "username", required: true, autocapitalize: "none", spellcheck: false });
  const email = h("input", { id: "email", name: "email", type: "email", autocomplete: "email" });
  const password = h("input", { id: "password", name: "password", type: "password", required: true, autocomplete: "current-password" });
  const emailField = h("label.field", { hidden: true }, h("span", {}, "E-mail"), email);
  const hint = h("p.hint", { hidden: true }, "At least eight characters.");
  const wrong = h("p.wrong", { role: "alert", hidden: true });
  const submit = h("button.primary", { type: "submit" }, "Sign in");
  const title = h("h1", {}, "Sign in");
  const other = h("button.link", { type: "button", onclick: () => turn(!isNew) }, "Create an account");
  const turn = (register) => {
    isNew = register;
    emailField.hidden = hint.hidden = !register;
    email.required = register;
    password.autocomplete = register ? "new-password" : "current-password";
    setText(title, register ? "Create an account" : "Sign in");
    setText(submit, register ? "Create account" : "Sign in");
    setText(other, register ? "I have an account" : "Create an account");
    wrong.hidden = true;
    name.focus();
  };
  const form = h(
    "form.login-card",
    {
      onsubmit: async (event) => {
        event.preventDefault();
        wrong.hidden = true;
        submit.disabled = true;
        try {
          if (isNew) await coop.register(name.value.trim(), email.value.trim(), password.value);
          else await coop.signIn(name.value.trim(), password.value);
          go("/chat", true);
        } catch (error) {
          setText(wrong, error.message);
          wrong.hidden = false;
        } finally {
          submit.disabled = false;
        }
      },
    },
    h("div.brand", {}, h("img", { src: "/icon.svg", alt: "", width: 36, height: 36 }), h("span", {}, "Gemini Coop")),
    title,
    h("label.field", {}, h("span", {}, "Name"), name),
    emailField,
    h("label.field", {}, h("span", {}, "Password"), password),
    hint,
    wrong,
    submit,
    other,
  );
  setTitle();
  setTimeout(() => name.focus());
  return h("main.login", {}, form, h("p.motto", {}, "People and AI bots in one room, answers live for everyone."));
}

/** The page of somebody who is signed in: the line's state, the rooms, and one of them. */
class Shell {
  constructor() {
    this.view = null;
    this.list = new List(coop);
    this.banner = h("div.banner", { role: "status", hidden: true });
    this.main = h("main.main");
    this.element = h("div.shell", {}, this.banner, h("div.columns", {}, this.list.element, this.main));
    this.ends = [
      coop.on("state", () => this.tellState()),
      coop.on("rooms", () => this.rooms()),
      coop.on("room", () => setTitle()),
      coop.on("gone", (room, reason, by) => this.gone(room, reason, by)),
      coop.on("message", (message, room) => this.said(message, room)),
      coop.on("signedOut", () => {
        this.end();
        notice("Your session has ended. Please sign in again.");
        go("/login", true);
      }),
    ];
    this.tick = setInterval(() => this.tellState(), 1_000);
    this.graceUntil = Date.now() + 1_500;
  }

  end() {
    clearInterval(this.tick);
    this.ends.forEach((end) => end());
    this.view?.end();
  }

  /** Shows a room, or none. */
  open(id) {
    this.id = id;
    this.element.classList.toggle("in-room", id !== null);
    this.list.select(id);
    if (this.view && this.view.room.id === id) return;
    this.view?.end();
    this.view = null;
    const room = coop.rooms.get(id);
    if (room) {
      this.view = new RoomView(coop, room);
      this.main.replaceChildren(this.view.element);
      this.view.shown();
    } else {
      this.main.replaceChildren(this.nothing(id));
    }
    setTitle();
  }

  nothing(id) {
    if (id !== null && coop.state !== "online" && !coop.user) return h("div.empty", {}, h("div.spinner"), h("p", {}, "Opening the room …"));
    if (id !== null) {
      return h(
        "div.empty",
        {},
        h("h2", {}, "This room is not yours"),
        h("p", {}, "It does not exist, or you are not in it."),
        h("a.button", { href: "/chat" }, "To your rooms"),
      );
    }
    const isNew = coop.user && coop.rooms.size === 0;
    return h(
      "div.empty",
      {},
      h("div.empty-sign", {}, icon("spark")),
      h("h2", {}, isNew ? `Welcome, ${coop.user.name}` : "Choose a room"),
      h("p", {}, isNew ? "Make a room and invite people, or start a chat with the bot." : "Or start a new one: everybody in it sees the bot's answers as they are written."),
      h("div.actions", {}, h("button.primary", { type: "button", onclick: () => this.list.newRoom() }, icon("add"), "New room"), h("button", { type: "button", onclick: () => this.list.newAiChat() }, icon("spark"), "AI chat")),
    );
  }

  rooms() {
    if (!this.view || !coop.rooms.has(this.view.room.id)) this.open(this.id);
    setTitle();
  }

  gone(room, reason, by) {
    const mine = by === coop.user?.id;
    if (reason === "deleted") notice(mine ? `You deleted “${room.name}”.` : `“${room.name}” was deleted by its owner.`, mine ? "plain" : "bad");
    else notice(mine ? `You left “${room.name}”.` : `You were removed from “${room.name}”.`, mine ? "plain" : "bad");
    if (this.id === room.id) go("/chat", true);
  }

  said(message, room) {
    if (message.author.user === coop.user.id) return;
    const isOpen = this.view?.room === room;
    if (isOpen) announce(`${message.author.name}: ${message.text.slice(0, 2_000) || message.error || "no answer"}`);
    if (document.hidden && globalThis.Notification?.permission === "granted" && coop.notify) {
      const shown = new Notification(`${message.author.name} in ${room.name}`, { body: message.text.slice(0, 200), tag: `coop-${room.id}` });
      shown.onclick = () => {
        focus();
        go(`/chat/${room.id}`);
      };
    }
  }

  tellState() {
    const isOnline = coop.state === "online";
    // At the start a moment without a line is nothing to speak of.
    this.banner.hidden = isOnline || (!coop.user && Date.now() < this.graceUntil);
    if (this.banner.hidden) {
      this.banner.replaceChildren();
      return;
    }
    const seconds = Math.max(0, Math.ceil((coop.againAt - Date.now()) / 1_000));
    const words = coop.state === "connecting" ? "Connecting …" : `No connection. Trying again in ${seconds} s. What you write is kept.`;
    if (!this.banner.firstChild) {
      this.banner.append(icon("warn"), h("span"), h("button.small", { type: "button", onclick: () => coop.retryNow() }, "Try now"));
    }
    setText(this.banner.children[1], words);
  }
}

/** Signs out and shows the way in. */
export function signOut() {
  shell?.end();
  coop.signOut();
  go("/login", true);
}

function setTitle() {
  const unread = [...coop.rooms.values()].reduce((sum, { unread }) => sum + unread, 0);
  const name = shell?.view?.room.name;
  const title = `${unread ? `(${unread}) ` : ""}${name ? `${name} · ` : ""}Gemini Coop`;
  if (document.title !== title) document.title = title;
}

/** Light, dark, or as the system has it. */
export function turnTheme() {
  const order = { auto: "light", light: "dark", dark: "auto" };
  const next = order[document.documentElement.dataset.theme ?? "auto"];
  setTheme(next);
  localStorage.setItem("coop.theme", next);
  notice({ auto: "Colours follow your system.", light: "Light colours.", dark: "Dark colours." }[next]);
}

function setTheme(theme) {
  if (theme === "auto" || !theme) delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme;
}

setTheme(localStorage.getItem("coop.theme"));
coop.notify = localStorage.getItem("coop.notify") === "yes";
show();
