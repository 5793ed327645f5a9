/**
 * One room: what was said, answers as they grow, and everything around them.
 *
 * @module room
 */

import { announce, notice } from "./app.js";
import { confirm, members, menu, rename } from "./dialogs.js";
import { avatar, clock, dayName, h, isSameDay, names, setText, wholeTime } from "./dom.js";
import { icon } from "./icons.js";
import { Markdown } from "./md.js";
import { Composer } from "./send.js";

/** So near to the end counts as being there, in pixels. */
const NEAR = 80;
/** Messages of one author so close to each other are shown as one, in milliseconds. */
const CLOSE = 5 * 60_000;

export class RoomView {
  #coop;
  #ends = [];
  /** Rows by message id, and by client id while there is no message. */
  #rows = new Map();
  #grown = new Set();
  #frame = 0;
  #isFollowing = true;
  #missed = 0;

  constructor(coop, room) {
    this.#coop = coop;
    this.room = room;
    this.composer = new Composer(coop, room);
    this.#build();
    const on = (name, act) => this.#ends.push(room.on(name, act));
    on("reset", () => this.#reset());
    on("message", (message, before) => this.#message(message, before));
    on("text", (message) => this.#grows(message));
    on("removed", (id) => this.#removed(id));
    on("older", (messages) => this.#older(messages));
    on("pending", (pending) => this.#pending(pending));
    on("settled", (pending) => this.#settled(pending));
    on("turns", (change) => this.#turns(change));
    on("typing", () => this.#typing());
    on("members", () => this.#head());
    on("read", () => this.#seen());
    this.#ends.push(coop.on("room", (other) => other === room && this.#head()));
    const read = () => this.#read();
    document.addEventListener("visibilitychange", read);
    addEventListener("focus", read);
    this.#ends.push(() => {
      document.removeEventListener("visibilitychange", read);
      removeEventListener("focus", read);
    });
    this.resizing = new ResizeObserver(() => this.#isFollowing && this.#toEnd());
    this.resizing.observe(this.content);
    this.resizing.observe(this.scroller);
    room.join();
    if (room.isLoaded) this.#reset();
    else room.pending.forEach((pending) => this.#pending(pending));
    this.#head();
  }

  /** It is on the page now. */
  shown() {
    this.#toEnd();
    this.#read();
    if (matchMedia("(pointer: fine)").matches) this.composer.focus();
  }

  end() {
    this.#ends.forEach((end) => end());
    this.resizing.disconnect();
    this.composer.end();
    cancelAnimationFrame(this.#frame);
    if (!this.room.isGone) this.room.leave();
  }

  #build() {
    const { room } = this;
    this.title = h("h1.room-name");
    this.subtitle = h("p.room-sub");
    this.content = h("div.content", { role: "log", ariaLabel: "Messages", "aria-live": "off" });
    this.loading = h("div.loading", {}, h("div.spinner"), h("span.unseen", {}, "Loading"));
    this.scroller = h("div.scroller", { tabIndex: 0, role: "region", ariaLabel: "Conversation", onscroll: () => this.#scrolled() }, this.loading, this.content);
    this.newest = h("button.newest", { type: "button", hidden: true, onclick: () => this.#toEnd(true) }, icon("down"), h("span", {}, "Newest"));
    this.queue = h("div.queue", { role: "status" });
    this.typists = h("div.typists", {}, h("span.dots", { "aria-hidden": "true" }, h("i"), h("i"), h("i")), h("span"));
    this.typists.hidden = true;
    this.search = h("section.search", { hidden: true, ariaLabel: "Search in this room" });
    const more = h("button.plain", { type: "button", ariaLabel: "More about this room", "aria-haspopup": "menu", onclick: () => this.#menu(more) }, icon("more"));
    this.element = h(
      "section.room",
      { ariaLabel: room.name },
      h(
        "header.room-head",
        {},
        h("a.plain.back", { href: "/chat", ariaLabel: "Back to the rooms" }, icon("back")),
        h("div.room-title", {}, this.title, this.subtitle),
        h("button.plain", { type: "button", ariaLabel: "Search in this room", onclick: () => this.#toggleSearch() }, icon("search")),
        h("button.plain", { type: "button", ariaLabel: "People", onclick: () => members(this.#coop, room) }, icon("people")),
        more,
      ),
      this.search,
      h("div.middle", {}, this.scroller, this.newest),
      this.queue,
      this.typists,
      this.composer.element,
    );
    this.content.addEventListener("click", (event) => copy(event.target.closest?.(".copy")));
  }

  #head() {
    const { room } = this;
    setText(this.title, room.name);
    const others = [...room.members.values()].filter(({ user }) => user !== this.#coop.user?.id).map(({ name }) => name);
    const who = others.length ? names(["You", ...others], 4) : "Only you";
    setText(this.subtitle, room.isAiChat ? `${who} · AI chat` : who);
    this.loading.hidden = room.isLoaded && !room.hasOlder;
    this.#typing();
  }

  #menu(button) {
    const { room } = this;
    const owners = [
      { icon: "edit", name: "Rename", act: () => rename(room) },
      {
        icon: "trash",
        name: "Delete room",
        isDanger: true,
        act: () => confirm("Delete this room?", `“${room.name}” and everything that was said in it will be gone, for everybody.`, "Delete room", () => room.destroy()),
      },
    ];
    const guests = [
      {
        icon: "out",
        name: "Leave room",
        isDanger: true,
        act: () => confirm("Leave this room?", `You will not see “${room.name}” any more until somebody invites you again.`, "Leave", () => room.quit()),
      },
    ];
    menu(button, [{ icon: "people", name: "People", act: () => members(this.#coop, room) }, ...(room.isOwner ? owners : guests)]);
  }

  // Rows.

  #reset() {
    const { room } = this;
    const kept = new Set(room.messages.map(({ id }) => id));
    for (const [key, row] of this.#rows) {
      if (typeof key === "number" && !kept.has(key)) this.#drop(key, row);
    }
    let last = null;
    for (const message of room.messages) {
      const row = this.#adopt(message) ?? this.#make(message.id);
      row.update(message);
      if (row.element.previousElementSibling !== last || !row.element.isConnected) {
        if (last) last.after(row.element);
        else this.content.prepend(row.element);
      }
      last = row.element;
    }
    for (const pending of room.pending) this.#pending(pending);
    for (const row of this.#rows.values()) this.#arrange(row);
    this.loading.hidden = !room.hasOlder;
    this.#empty();
    this.#turns();
    this.#seen();
    if (this.#isFollowing) this.#toEnd();
    this.#read();
  }

  /** The row of a message, which may have been one that was pending: the element stays. */
  #adopt(message) {
    const row = this.#rows.get(message.id) ?? this.#rows.get(message.client_id);
    if (!row || message.author.user !== this.#coop.user.id) return this.#rows.get(message.id);
    this.#rows.delete(message.client_id);
    this.#rows.set(message.id, row);
    return row;
  }

  #make(key) {
    const row = new Row(this.#coop, this.room, this);
    this.#rows.set(key, row);
    return row;
  }

  #drop(key, row) {
    const next = rowAfter(row.element);
    row.element.remove();
    this.#rows.delete(key);
    if (next) this.#arrange(next);
  }

  #message(message, before) {
    const row = this.#adopt(message) ?? this.#make(message.id);
    row.update(message);
    if (!before) {
      const place = [...this.content.children].findLast((element) => rows.get(element)?.seq < message.seq && element !== row.element);
      if (place ? place.nextElementSibling !== row.element : this.content.firstElementChild !== row.element) {
        if (place) place.after(row.element);
        else this.content.prepend(row.element);
      }
      if (!this.#isFollowing && message.author.user !== this.#coop.user.id) this.#missed += 1;
      this.#empty();
    }
    this.#arrange(row);
    const next = rowAfter(row.element);
    if (next) this.#arrange(next);
    this.#after();
  }

  #grows(message) {
    this.#grown.add(message.id);
    // Many pieces may come between two pictures.
    this.#frame ||= requestAnimationFrame(() => {
      this.#frame = 0;
      for (const id of this.#grown) {
        const grown = this.room.message(id);
        if (grown) this.#rows.get(id)?.write(grown.text);
      }
      this.#grown.clear();
      if (this.#isFollowing) this.#toEnd();
    });
  }

  #removed(id) {
    const row = this.#rows.get(id);
    if (row) this.#drop(id, row);
    this.#empty();
    this.#seen();
  }

  #older(messages) {
    const height = this.scroller.scrollHeight;
    const top = this.scroller.scrollTop;
    const fresh = messages.map((message) => {
      const row = this.#make(message.id);
      row.update(message);
      return row;
    });
    this.content.prepend(...fresh.map(({ element }) => element));
    fresh.forEach((row) => this.#arrange(row));
    const next = fresh.length && rowAfter(fresh.at(-1).element);
    if (next) this.#arrange(next);
    this.loading.hidden = !this.room.hasOlder;
    this.scroller.scrollTop = top + this.scroller.scrollHeight - height;
  }

  #pending(pending) {
    const row = this.#rows.get(pending.clientId) ?? this.#make(pending.clientId);
    row.wait(pending);
    if (!row.element.isConnected) {
      this.content.append(row.element);
      this.#toEnd();
    }
    this.#arrange(row);
    this.#empty();
  }

  #settled(pending) {
    const row = this.#rows.get(pending.clientId);
    if (row) this.#drop(pending.clientId, row);
  }

  /** The line of the day, and whether it goes on from the row before. */
  #arrange(row) {
    const before = rows.get(row.element.previousElementSibling);
    const isNewDay = !before || !isSameDay(before.time, row.time);
    const isSame = before && before.author === row.author && Date.parse(row.time) - Date.parse(before.time) < CLOSE;
    row.arrange(isNewDay ? dayName(row.time) : "", Boolean(isSame && !isNewDay && !row.isReply));
  }

  #empty() {
    const isEmpty = this.room.isLoaded && this.#rows.size === 0;
    if (!isEmpty) return this.hello?.remove();
    const { room } = this;
    const bot = this.#coop.bots[0];
    const words = room.isAiChat ? "Ask anything. While you are alone here, every message goes to the bot." : bot ? "Say hello, or ask the bot: begin with /bot." : "Say hello.";
    this.hello ??= h("div.hello", {}, h("div.empty-sign", {}, icon("spark")), h("h3", {}, room.name), h("p", {}, words));
    this.scroller.append(this.hello);
  }

  // Answers and those who wait.

  #turns(change) {
    for (const row of this.#rows.values()) row.tools();
    const waiting = [...this.room.turns.values()].filter(({ status }) => status === "queued");
    const line = (turn) => {
      const who = nameOf(this.#coop, this.room, turn.asked_by);
      const stop = h("button.small", { type: "button", ariaLabel: `Cancel what ${turn.bot} would answer ${who}`, onclick: () => this.#stop(turn.id) }, "Cancel");
      return h("p", {}, icon("clock"), `${turn.bot} will answer ${who} as soon as it is done.`, stop);
    };
    // A turn that starts at once is no queue to speak of.
    clearTimeout(this.queueing);
    this.queueing = setTimeout(() => this.queue.replaceChildren(...waiting.map(line)), waiting.length ? 400 : 0);
    if (change && !change.ended?.message && change.status === "failed") notice(`${change.bot}: ${change.error?.words ?? "no answer"}`, "bad");
  }

  async #stop(turn) {
    try {
      await this.room.stop(turn);
    } catch (error) {
      notice(error.message, "bad");
    }
  }

  #typing() {
    const typing = this.room.typing;
    this.typists.hidden = !typing.length;
    setText(this.typists.lastChild, typing.length ? `${names(typing)} ${typing.length > 1 ? "are" : "is"} typing` : "");
  }

  /** Under one's own newest message: who has read it. */
  #seen() {
    const me = this.#coop.user?.id;
    const mine = this.room.messages.findLast(({ author }) => author.user === me);
    const readers = mine ? [...this.room.members.values()].filter(({ user, read }) => user !== me && read >= mine.seq) : [];
    const text = readers.length ? `Seen by ${names(readers.map(({ name }) => name), 3)}` : "";
    for (const [key, row] of this.#rows) row.seen(key === mine?.id ? text : "");
  }

  // Where one is.

  #after() {
    this.#seen();
    if (this.#isFollowing) this.#toEnd();
    this.#button();
    this.#read();
  }

  #toEnd(smoothly = false) {
    this.#isFollowing = true;
    this.#missed = 0;
    this.scroller.scrollTo({ top: this.scroller.scrollHeight, behavior: smoothly && !matchMedia("(prefers-reduced-motion: reduce)").matches ? "smooth" : "instant" });
    this.#button();
    this.#read();
  }

  #scrolled() {
    const { scrollTop, scrollHeight, clientHeight } = this.scroller;
    const isAtEnd = scrollHeight - scrollTop - clientHeight < NEAR;
    if (isAtEnd) this.#missed = 0;
    // Only people scroll up: what grows moves the end away, and that is no wish to stay behind.
    if (isAtEnd || scrollTop < (this.lastTop ?? 0)) this.#isFollowing = isAtEnd;
    this.lastTop = scrollTop;
    this.#button();
    if (isAtEnd) this.#read();
    if (scrollTop < 400 && this.room.isLoaded && this.room.hasOlder) this.room.older().catch(() => {});
  }

  #button() {
    this.newest.hidden = this.#isFollowing;
    setText(this.newest.lastChild, this.#missed ? `${this.#missed} new` : "Newest");
  }

  /** What is before one's eyes is read. */
  #read() {
    if (document.hidden || !document.hasFocus() || !this.#isFollowing || !this.room.isLoaded) return;
    if (this.element.isConnected) this.room.markRead();
  }

  /** Shows a message, wherever it is. */
  async reach(message) {
    await this.room.reach(message.seq);
    const row = this.#rows.get(message.id);
    if (!row) return notice("This message is not here any more.");
    this.#isFollowing = false;
    row.element.scrollIntoView({ block: "center" });
    row.element.classList.remove("found-row");
    requestAnimationFrame(() => row.element.classList.add("found-row"));
    this.#button();
  }

  // Search.

  #toggleSearch() {
    this.search.hidden = !this.search.hidden;
    if (this.search.hidden) return this.composer.focus();
    const found = h("ul.results");
    let asked = 0;
    const look = async () => {
      const mine = (asked += 1);
      const text = input.value.trim();
      if (!/[\p{L}\p{N}]/u.test(text)) return found.replaceChildren();
      try {
        const { messages, more } = await this.room.search(text);
        if (mine !== asked) return;
        found.replaceChildren(...messages.reverse().map((message) => this.#result(message)));
        if (!messages.length) found.append(h("li.none", {}, "Nothing found."));
        if (more) found.append(h("li.none", {}, "There is more; another word helps."));
      } catch (error) {
        if (mine === asked) found.replaceChildren(h("li.none", {}, error.message));
      }
    };
    const input = h("input", {
      type: "search",
      placeholder: "Search in this room",
      ariaLabel: "Words to search for",
      oninput: () => {
        clearTimeout(this.searching);
        this.searching = setTimeout(look, 200);
      },
      onkeydown: (event) => event.key === "Escape" && this.#toggleSearch(),
    });
    const close = h("button.plain", { type: "button", ariaLabel: "Close the search", onclick: () => this.#toggleSearch() }, icon("close"));
    this.search.replaceChildren(h("div.find", {}, icon("search"), input, close), found);
    input.focus();
  }

  #result(message) {
    const text = message.text.replace(/\s+/g, " ").slice(0, 200);
    const who = h("span.result-who", {}, message.author.name, h("time", {}, `${dayName(message.created_at)}, ${clock(message.created_at)}`));
    return h("li", {}, h("button.result", { type: "button", onclick: () => this.reach(message) }, who, h("span.result-text", {}, text)));
  }
}

/** Somebody of a room, in the middle of a sentence. */
function nameOf(coop, room, user) {
  return user === coop.user.id ? "you" : (room.members.get(user)?.name ?? "somebody");
}

/** Which row an element is. */
const rows = new WeakMap();
const rowAfter = (element) => rows.get(element?.nextElementSibling);

/** A message, or what will be one. */
class Row {
  message = null;
  pending = null;

  constructor(coop, room, view) {
    Object.assign(this, { coop, room, view });
    this.day = h("div.day", { hidden: true, role: "separator" }, h("span"));
    this.who = h("span.who");
    this.when = h("time.when");
    this.tag = h("span.tag", { hidden: true }, "bot");
    this.quoted = h("button.quoted", { type: "button", hidden: true });
    this.body = h("div.body");
    this.md = new Markdown(this.body);
    this.state = h("div.state", { hidden: true });
    this.bar = h("div.bar");
    this.seenBy = h("p.seen", { hidden: true });
    this.sign = h("div.sign");
    this.bubble = h("div.message", {}, this.sign, h("div.text", {}, h("div.top", {}, this.who, this.tag, this.when), this.quoted, this.body, this.state, this.seenBy), this.bar);
    this.element = h("article.message-row", {}, this.day, this.bubble);
    rows.set(this.element, this);
  }

  get seq() {
    return this.message?.seq ?? Infinity;
  }

  get time() {
    return this.message?.created_at ?? this.pending.createdAt;
  }

  get author() {
    const { author } = this.message ?? { author: { user: this.coop.user?.id } };
    return author.bot ? `bot ${author.bot}` : author.user;
  }

  get isReply() {
    return !this.quoted.hidden;
  }

  get isMine() {
    return this.author === this.coop.user?.id;
  }

  /** Shows a message. */
  update(message) {
    [this.message, this.pending] = [message, null];
    this.#head(message.author);
    this.write(message.text);
    this.#quote(message.reply_to, Boolean(message.author.bot));
    this.#status();
    this.tools();
    this.room.whoStopped(message).catch(() => {});
  }

  /** Shows what is not yet one. */
  wait(pending) {
    this.pending = pending;
    this.#head({ user: this.coop.user?.id, name: this.coop.user?.name ?? "You" });
    this.write(pending.text);
    this.#quote(pending.replyTo, false);
    this.#status();
    this.bar.replaceChildren();
  }

  write(text) {
    this.md.show(text);
  }

  #head({ name, bot }) {
    setText(this.who, name);
    this.tag.hidden = !bot;
    if (this.sign.dataset.of !== name) {
      this.sign.dataset.of = name;
      this.sign.replaceChildren(avatar(name, Boolean(bot)));
    }
    this.element.classList.toggle("mine", this.isMine);
    this.element.classList.toggle("of-bot", Boolean(bot));
    this.when.dateTime = this.time;
    this.when.title = wholeTime(this.time);
    setText(this.when, clock(this.time) + (this.message?.edited_at ? " · edited" : ""));
    this.element.ariaLabel = `${name}, ${clock(this.time)}`;
  }

  #quote(id, isAnswer) {
    const quoted = id && this.room.message(id);
    this.quoted.hidden = !id || (isAnswer && this.element.previousElementSibling === null && !quoted);
    if (this.quoted.hidden) return;
    const words = quoted ? `${quoted.author.name}: ${quoted.text.replace(/\s+/g, " ").slice(0, 120)}` : "an earlier message";
    this.quoted.replaceChildren(icon("reply"), h("span", {}, words));
    this.quoted.ariaLabel = `In answer to ${words}`;
    this.quoted.onclick = () => quoted && this.view.reach(quoted);
  }

  /** How far it has come, where that is not as it should be. */
  #status() {
    const { message, pending } = this;
    const parts = [];
    const small = (name, act, what = name) => h("button.small", { type: "button", ariaLabel: what, onclick: act }, name);
    let kind = "";
    if (pending) {
      kind = pending.state;
      if (kind === "waiting") parts.push(icon("clock"), "Waiting for a connection", small("Drop", () => this.room.drop(pending), "Drop this message"));
      if (kind === "unconfirmed" && this.coop.state !== "online") parts.push(icon("clock"), "Not confirmed; it will be sent again");
      if (kind === "failed") {
        parts.push(icon("warn"), pending.error ?? "It was not sent", small("Send again", () => this.room.sendAgain(pending)), small("Drop", () => this.room.drop(pending), "Drop this message"));
      }
    } else {
      kind = message.status;
      const words = {
        stopped: message.error ?? `Stopped${message.stopped_by ? ` by ${nameOf(this.coop, this.room, message.stopped_by)}` : ""}`,
        failed: message.error ?? "The bot failed",
        interrupted: "Interrupted: the server stopped while this was written",
      }[kind];
      if (words) parts.push(icon(kind === "stopped" ? "stop" : "warn"), words, small("Try again", () => this.#retry()));
    }
    this.element.dataset.state = kind;
    this.element.ariaBusy = String(kind === "streaming");
    this.state.hidden = !parts.length;
    this.state.replaceChildren(...(parts.length ? parts : []));
  }

  /** What can be done with it. */
  tools() {
    const { message, room } = this;
    if (!message) return;
    const tool = (sign, name, act) => h("button.plain", { type: "button", ariaLabel: name, title: name, onclick: act }, icon(sign));
    const isStreaming = message.status === "streaming";
    const can = [!isStreaming && "reply", !isStreaming && message.text && "copy", !isStreaming && message.author.bot && "retry", this.isMine && "edit", (this.isMine || room.isOwner) && !isStreaming && "delete", isStreaming && "stop"];
    const key = can.filter(Boolean).join();
    if (this.bar.dataset.has === key && this.bar.childNodes.length) return;
    this.bar.dataset.has = key;
    const made = {
      reply: () => tool("reply", "Reply", () => this.view.composer.replyTo(this.message)),
      copy: () => tool("copy", "Copy text", () => toClipboard(this.message.text)),
      retry: () => tool("retry", "Try again", () => this.#retry()),
      edit: () => tool("edit", "Edit", () => this.view.composer.edit(this.message)),
      delete: () => tool("trash", "Delete", () => this.#delete()),
      stop: () => h("button.stop", { type: "button", onclick: () => this.#stop() }, icon("stop"), "Stop"),
    };
    this.bar.replaceChildren(...can.filter(Boolean).map((name) => made[name]()));
    this.bar.classList.toggle("stays", isStreaming);
  }

  async #trying(act) {
    try {
      await act();
    } catch (error) {
      notice(error.message, "bad");
    }
  }

  #retry() {
    this.#trying(() => this.room.retry(this.message.id));
  }

  #stop() {
    const turn = this.room.turnOf(this.message.id);
    if (turn) this.#trying(() => this.room.stop(turn.id));
  }

  #delete() {
    confirm("Delete this message?", "It will be gone for everybody.", "Delete", () => this.room.delete(this.message.id));
  }

  arrange(day, isGrouped) {
    this.day.hidden = !day;
    setText(this.day.firstChild, day);
    this.element.classList.toggle("grouped", isGrouped);
  }

  seen(text) {
    this.seenBy.hidden = !text;
    setText(this.seenBy, text);
  }
}

async function toClipboard(text) {
  try {
    await navigator.clipboard.writeText(text);
    announce("Copied");
    return true;
  } catch {
    notice("The browser does not let this page copy.", "bad");
    return false;
  }
}

/** The copy button of a block of code. */
async function copy(button) {
  if (!button) return;
  if (!(await toClipboard(button.closest(".code-block").querySelector("code").textContent))) return;
  setText(button, "Copied");
  setTimeout(() => setText(button, "Copy"), 1_500);
}
