/**
 * The list of rooms: the newest first, what was said last in each, and how much of it is unread.
 *
 * @module list
 */

import { go, notice, signOut, turnTheme } from "./app.js";
import { account, menu, newAiChat, newRoom } from "./dialogs.js";
import { avatar, h, setText, shortTime } from "./dom.js";
import { icon } from "./icons.js";

const NONE = "No rooms yet. Make one, or start an AI chat, with the buttons above.";

export class List {
  #coop;
  #rows = new Map();
  #due = 0;
  #selected = null;

  constructor(coop) {
    this.#coop = coop;
    this.items = h("nav", { ariaLabel: "Rooms" });
    this.filter = h("input", { type: "search", placeholder: "Find a room", ariaLabel: "Find a room", oninput: () => this.#draw() });
    this.me = h("span.me-name");
    this.empty = h("p.none", { hidden: true });
    this.element = h(
      "aside.list",
      {},
      h(
        "header.list-head",
        {},
        h("img", { src: "/icon.svg", alt: "", width: 28, height: 28 }),
        h("h1", {}, "Rooms"),
        h("button.plain", { type: "button", ariaLabel: "New AI chat", title: "New AI chat", onclick: () => this.newAiChat() }, icon("spark")),
        h("button.plain", { type: "button", ariaLabel: "New room", title: "New room", onclick: () => this.newRoom() }, icon("add")),
      ),
      h("label.find", {}, icon("search"), this.filter),
      h("div.rooms", {}, this.items, this.empty),
      h("footer.me", {}, this.me, h("button.plain", { type: "button", ariaLabel: "Your menu", "aria-haspopup": "menu", onclick: (event) => this.#menu(event.currentTarget) }, icon("more"))),
    );
    coop.on("rooms", () => this.#soon());
    coop.on("room", () => this.#soon());
    coop.on("state", () => this.#soon());
    this.#draw();
  }

  newRoom() {
    newRoom(this.#coop, (room) => go(`/chat/${room.id}`));
  }

  newAiChat() {
    newAiChat(this.#coop, (room) => go(`/chat/${room.id}`));
  }

  /** Marks the room that is open. */
  select(id) {
    this.#selected = id;
    for (const [room, row] of this.#rows) {
      if (room === id) row.element.setAttribute("aria-current", "page");
      else row.element.removeAttribute("aria-current");
    }
  }

  #menu(button) {
    const coop = this.#coop;
    const isNotifying = coop.notify && globalThis.Notification?.permission === "granted";
    menu(button, [
      { icon: "moon", name: "Change colours", act: turnTheme },
      {
        icon: "bell",
        name: isNotifying ? "No notifications" : "Notify me",
        act: async () => {
          coop.notify = !isNotifying && (await Notification.requestPermission()) === "granted";
          localStorage.setItem("coop.notify", coop.notify ? "yes" : "no");
          notice(coop.notify ? "You are told of messages while this page is hidden." : "No notifications.");
        },
      },
      { icon: "key", name: "Your account", act: () => account(coop) },
      { icon: "out", name: "Sign out", act: signOut },
    ]);
  }

  /** Once for everything that changes at a time. */
  #soon() {
    this.#due ||= requestAnimationFrame(() => {
      this.#due = 0;
      this.#draw();
    });
  }

  #draw() {
    const wanted = this.filter.value.trim().toLowerCase();
    const time = (room) => room.last?.created_at ?? room.createdAt;
    const rooms = [...this.#coop.rooms.values()]
      .filter((room) => room.name.toLowerCase().includes(wanted))
      .sort((a, b) => (time(a) < time(b) ? 1 : time(a) > time(b) ? -1 : b.id - a.id));
    const there = new Set(rooms.map(({ id }) => id));
    for (const [id, row] of this.#rows) {
      if (there.has(id)) continue;
      row.element.remove();
      this.#rows.delete(id);
    }
    rooms.forEach((room, index) => {
      const row = this.#rows.get(room.id) ?? this.#row(room);
      this.#fill(row, room);
      if (this.items.children[index] !== row.element) this.items.insertBefore(row.element, this.items.children[index] ?? null);
    });
    this.empty.hidden = rooms.length > 0;
    setText(this.empty, wanted ? "No room is called that." : NONE);
    setText(this.me, this.#coop.user?.name ?? "");
  }

  #row(room) {
    const row = { name: h("span.row-name"), time: h("time.row-time"), last: h("span.row-last"), unread: h("span.badge") };
    row.element = h(
      "a.row",
      { href: `/chat/${room.id}` },
      avatar(room.name, room.isAiChat),
      h("span.row-text", {}, h("span.row-top", {}, row.name, row.time), h("span.row-bottom", {}, row.last, row.unread)),
    );
    if (room.id === this.#selected) row.element.setAttribute("aria-current", "page");
    this.#rows.set(room.id, row);
    return row;
  }

  #fill(row, room) {
    const { last, unread } = room;
    setText(row.name, room.name);
    setText(row.time, shortTime(last?.created_at ?? room.createdAt));
    setText(row.last, last ? line(last, this.#coop.user?.id) : "Nothing said yet");
    row.unread.hidden = !unread;
    setText(row.unread, unread > 99 ? "99+" : String(unread));
    row.unread.ariaLabel = `${unread} unread`;
    row.element.classList.toggle("is-unread", unread > 0);
  }
}

/** A message in a line. */
function line({ author, text, status, error }, me) {
  const who = author.user === me ? "You" : author.name;
  if (status === "streaming") return `${who} is writing …`;
  const bare = (text || error || "").slice(0, 160).replace(/```\w*|[*_`#>|]/g, "").replace(/\s+/g, " ").trim();
  return `${who}: ${bare}`;
}
