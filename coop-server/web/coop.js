/**
 * A client of a Gemini Coop server: accounts, rooms, and what happens in them, live.
 *
 * One module without dependencies and without a page: it knows no elements, so any front end can use it, and so can a
 * program that has `fetch` and `WebSocket`. What it keeps is what was told; what cannot be known until the server says so
 * (that a message is on disk) is shown as not known.
 *
 * ```js
 * import { Coop } from "./coop.js";
 *
 * const coop = new Coop({ url: "http://127.0.0.1:8000" });
 * await coop.signIn("alice", "correct horse");
 * const room = await coop.createRoom({ name: "lab", members: ["bob"] });
 * room.on("message", (message) => console.log(message.author.name, message.text));
 * await room.join();
 * room.send("/bot What is a room?");
 * ```
 *
 * The line may break at any moment. It is opened again for ever, a little later each time; every room goes on exactly where it
 * was, an answer in its middle too, and what was not acknowledged is sent again and appears once.
 *
 * @module coop
 */

/**
 * @typedef {{ user?: number, bot?: string, name: string }} Author
 *
 * @typedef {object} Message
 * @property {number} id
 * @property {number} room
 * @property {number} seq Its place in the room.
 * @property {Author} author
 * @property {string} text
 * @property {"streaming" | "done" | "stopped" | "failed" | "interrupted"} status
 * @property {string} [error] Why it failed or was cut off, for people.
 * @property {number} [reply_to]
 * @property {object} [meta]
 * @property {string} [client_id]
 * @property {string} created_at
 * @property {string} [edited_at]
 * @property {number | null} [stopped_by] Who stopped it, where that was seen or asked for.
 *
 * @typedef {object} Pending Something said that the server has not acknowledged.
 * @property {string} clientId
 * @property {number} room
 * @property {string} text
 * @property {number} [replyTo]
 * @property {"waiting" | "unconfirmed" | "sent" | "failed"} state Not sent; sent, and nobody knows; on disk; refused.
 * @property {string} [error] Why it was refused.
 * @property {string} createdAt
 *
 * @typedef {{ id: number, bot: string, asked_by: number, ask: number, message?: number, status: "queued" | "streaming" }} Turn
 * @typedef {{ user: number, name: string, role: "owner" | "member", read: number }} Member
 * @typedef {{ handle: string, name: string }} Bot
 * @typedef {{ id: number, name: string }} User
 * @typedef {"offline" | "connecting" | "online"} State
 */

/** The longest pause before the line is opened again, in milliseconds, and the first. */
const SLOWEST = 30_000;
const FIRST = 500;
/** A line on which nothing has come for so long is asked for a sign of life, and given up if none comes. */
const SILENCE = 20_000;
const SIGN = 10_000;
/** How long somebody is shown as typing. */
const TYPING = 3_500;
/** How often one's own typing is told. */
const TELL_TYPING = 2_000;

const utf8 = new TextEncoder();
const bytes = (text) => utf8.encode(text).length;

/** Why something was not done. */
export class CoopError extends Error {
  /**
   * @param {string} detail Words for people.
   * @param {string} code A word for programs, such as `not_found` or `rate_limited`.
   * @param {{ status?: number, retryAfter?: number }} [more] The HTTP status; when to come back, in milliseconds.
   */
  constructor(detail, code, { status, retryAfter } = {}) {
    super(detail);
    this.name = "CoopError";
    this.code = code;
    this.status = status;
    this.retryAfter = retryAfter;
  }
}

/** Something that tells listeners what happens. */
class Emitter {
  #listeners = new Map();

  /**
   * Calls `listener` whenever `name` happens.
   * @param {string} name
   * @param {(...values: any[]) => void} listener
   * @returns {() => void} Ends it.
   */
  on(name, listener) {
    const all = this.#listeners.get(name) ?? new Set();
    this.#listeners.set(name, all.add(listener));
    return () => all.delete(listener);
  }

  /** @protected */
  emit(name, ...values) {
    for (const listener of [...(this.#listeners.get(name) ?? [])]) {
      try {
        listener(...values);
      } catch (error) {
        // A listener's mistake must not keep the others from hearing.
        queueMicrotask(() => {
          throw error;
        });
      }
    }
  }
}

/**
 * A server, as one user sees it.
 *
 * It tells `state` (a {@link State}), `rooms` (the list has changed), `room` (one room's entry has changed), `gone` (a room was
 * lost: the room, why, by whom), `message` (said in any room: the message, the room), `signedOut` (the token is no longer good).
 */
export class Coop extends Emitter {
  /** @type {Map<number, Room>} */
  rooms = new Map();
  /** @type {User | null} */
  user = null;
  /** @type {Bot[]} The first is the one that `/bot` asks, where a room has no other. */
  bots = [];
  /** @type {State} */
  state = "offline";
  /** When the line will be opened again, in milliseconds since 1970; 0 while it is open or being opened. */
  againAt = 0;

  #url;
  #storage;
  #socket = null;
  #opened = false;
  #wanted = false;
  #failures = 0;
  /** When to come back, in milliseconds, as the server said that closes. */
  #comeBack = 0;
  #timer = null;
  #life = null;
  #ref = 0;
  /** What was asked on this line: by its number, what to do with the answer. */
  #asked = new Map();
  #token = null;
  /** Resolved when everything has been told for the first time. */
  #ready = null;
  /** @type {Pending[]} What is not acknowledged, of the user whose it is. */
  #outbox = [];
  #outboxOf = null;

  /**
   * @param {{ url?: string, storage?: Storage | null }} [options] Where the server is (this page's own by default), and where the
   * token and what is not yet sent are kept over a reload (`localStorage` by default where there is one, `null` for nowhere).
   */
  constructor({ url = globalThis.location?.origin, storage = globalThis.localStorage ?? null } = {}) {
    super();
    this.#url = url.replace(/\/$/, "");
    this.#storage = storage;
    this.#token = this.#stored("token");
    globalThis.addEventListener?.("online", () => this.#now());
    globalThis.addEventListener?.("offline", () => this.#drop());
    globalThis.document?.addEventListener("visibilitychange", () => {
      if (!document.hidden) this.#now();
    });
  }

  // Accounts.

  /** Whether there is a token, which may turn out not to be good any more. */
  get isSignedIn() {
    return this.#token !== null;
  }

  /**
   * Makes an account and signs in.
   * @param {string} name
   * @param {string} email
   * @param {string} password
   */
  async register(name, email, password) {
    await this.request("POST", "/api/auth/register", { username: name, email, password });
    await this.signIn(name, password);
  }

  /**
   * @param {string} name
   * @param {string} password
   */
  async signIn(name, password) {
    const { access_token } = await this.request("POST", "/api/auth/login", { username: name, password });
    this.#token = access_token;
    this.#store("token", access_token);
  }

  /**
   * Changes one's password: everybody else who is signed in as this user is signed out.
   * @param {string} current
   * @param {string} next
   */
  async changePassword(current, next) {
    // The server closes the line of the old token; what was missed on it comes with the next.
    const wanted = this.#wanted;
    this.disconnect();
    try {
      const body = { current_password: current, new_password: next };
      const { access_token } = await this.request("POST", "/api/auth/password", body);
      this.#token = access_token;
      this.#store("token", access_token);
    } finally {
      if (wanted && this.#token) this.connect().catch(() => {});
    }
  }

  /** Signs out, here and everywhere else. */
  async signOutEverywhere() {
    await this.request("POST", "/api/auth/logout-everywhere");
    this.signOut();
  }

  /**
   * Deletes the account of this user.
   * @param {string} password
   * @param {{deleteRooms?: boolean, deleteMessages?: boolean}} [also] their rooms, instead of handing them over; what they said
   */
  async deleteAccount(password, { deleteRooms = false, deleteMessages = false } = {}) {
    await this.request("DELETE", "/api/auth/me", {
      password,
      rooms: deleteRooms ? "delete" : "hand_over",
      messages: deleteMessages ? "purge" : "keep",
    });
    this.signOut();
  }

  /** Forgets the token and everything that was told. */
  signOut() {
    this.disconnect();
    this.#token = null;
    this.#store("token", null);
    this.user = null;
    // What was not sent stays where it is kept, until this user comes back.
    [this.#outbox, this.#outboxOf] = [[], null];
    this.rooms.clear();
    this.emit("rooms");
  }

  // Requests.

  /**
   * One request. Most of what there is has a method of its own.
   * @param {string} method
   * @param {string} path
   * @param {object} [body]
   * @returns {Promise<any>}
   */
  async request(method, path, body) {
    const headers = {};
    if (body !== undefined) headers["content-type"] = "application/json";
    if (this.#token) headers.authorization = `Bearer ${this.#token}`;
    let response;
    try {
      response = await fetch(this.#url + path, { method, headers, body: body && JSON.stringify(body), cache: "no-store" });
    } catch {
      throw new CoopError("The server cannot be reached.", "unavailable");
    }
    const answer = await response.json().catch(() => ({}));
    if (response.ok) return answer;
    if (response.status === 401 && this.#token && !path.startsWith("/api/auth/login")) this.#refused();
    throw new CoopError(answer.detail ?? `The server answered ${response.status}.`, answer.code ?? "internal", {
      status: response.status,
      retryAfter: Number(response.headers.get("retry-after") ?? 0) * 1000,
    });
  }

  /**
   * People whose name contains this.
   * @param {string} text
   * @returns {Promise<User[]>}
   */
  async people(text) {
    const found = await this.request("GET", `/api/users/search?query=${encodeURIComponent(text)}`);
    return found.map(({ id, username }) => ({ id, name: username }));
  }

  /**
   * Makes a room.
   * @param {{ name?: string, members?: string[], isAiChat?: boolean }} draft
   * @returns {Promise<Room>}
   */
  async createRoom({ name, members = [], isAiChat = false }) {
    const made = await this.request("POST", "/api/chats", {
      name,
      is_group: !isAiChat,
      is_ai_chat: isAiChat,
      participant_usernames: members,
    });
    const entry = await this.request("GET", `/api/rooms/${made.id}`);
    return this.#entered(entry);
  }

  // The line.

  /** Opens the line and keeps it open. Resolves when everything has been told for the first time. */
  connect() {
    this.#wanted = true;
    this.#ready ??= Promise.withResolvers();
    if (!this.#socket && !this.#timer) this.#open();
    return this.#ready.promise;
  }

  /** Closes the line, until {@link connect} is called again. */
  disconnect() {
    this.#wanted = false;
    clearTimeout(this.#timer);
    this.#timer = null;
    this.#ready = null;
    const socket = this.#socket;
    this.#lost(socket);
    socket?.close();
    this.#tell("offline");
  }

  /** Tries at once what would be tried later. */
  retryNow() {
    this.#now();
  }

  #now() {
    if (!this.#wanted || !this.#timer) return;
    clearTimeout(this.#timer);
    this.#timer = null;
    this.#open();
  }

  #open() {
    this.againAt = 0;
    this.#tell("connecting");
    const socket = new WebSocket(`${this.#url.replace(/^http/, "ws")}/ws`, ["coop.v1", `bearer.${this.#token}`]);
    this.#socket = socket;
    this.#opened = false;
    socket.onopen = () => {
      this.#opened = true;
    };
    socket.onmessage = ({ data }) => {
      if (socket !== this.#socket) return;
      this.#alive();
      const said = JSON.parse(data);
      for (const frame of Array.isArray(said) ? said : [said]) this.#hear(frame);
    };
    socket.onclose = ({ code }) => this.#closed(socket, code);
    this.#alive();
  }

  #closed(socket, code) {
    if (socket !== this.#socket) return;
    const opened = this.#opened;
    this.#lost(socket);
    if (code === 4401 || code === 4403) return this.#refused();
    if (!this.#wanted) return;
    // A page is not told why a line could not be opened: it may be the token.
    if (!opened) this.request("GET", "/api/auth/me").catch(() => {});
    const most = Math.min(SLOWEST, FIRST * 2 ** this.#failures++);
    const pause = Math.max(this.#comeBack, most * (0.5 + Math.random() / 2));
    this.#comeBack = 0;
    this.againAt = Date.now() + pause;
    this.#timer = setTimeout(() => {
      this.#timer = null;
      this.#open();
    }, pause);
    this.#tell("offline");
  }

  /** What was asked on a line that is gone has no answer any more. */
  #lost(socket) {
    if (!socket || socket !== this.#socket) return;
    this.#socket = null;
    clearTimeout(this.#life);
    const asked = [...this.#asked.values()];
    this.#asked.clear();
    for (const { reject } of asked) reject(new CoopError("The line broke.", "unavailable"));
    for (const room of this.rooms.values()) room._offline();
  }

  #refused() {
    if (!this.#token) return;
    this.#ready?.reject(new CoopError("The session has ended.", "unauthorized", { status: 401 }));
    this.signOut();
    this.emit("signedOut");
  }

  #tell(state) {
    if (this.state === state && state !== "offline") return;
    this.state = state;
    this.emit("state", state);
  }

  /** Something has come, so the line is alive; if nothing comes for a while the server is asked for a sign. */
  #alive() {
    clearTimeout(this.#life);
    this.#life = setTimeout(() => {
      // To leave where one is not is always free, and answered.
      if (this.state === "online") this.ask({ type: "leave", room: 0 }).catch(() => {});
      this.#life = setTimeout(() => this.#drop(), SIGN);
    }, SILENCE);
  }

  /** Gives the line up without waiting for the other side. */
  #drop() {
    const socket = this.#socket;
    if (!socket) return;
    this.#closed(socket, 1006);
    socket.close();
  }

  /**
   * Asks something on the line.
   * @param {object} command As PROTOCOL.md has them, without `ref`.
   * @returns {Promise<any>} The `ok`, or the `page`.
   */
  ask(command) {
    if (this.state !== "online") return Promise.reject(new CoopError("There is no line.", "unavailable"));
    const ref = ++this.#ref;
    const { promise, resolve, reject } = Promise.withResolvers();
    this.#asked.set(ref, { resolve, reject });
    this.#socket.send(JSON.stringify({ ...command, ref }));
    return promise;
  }

  /** Says something that is not answered. */
  tell(command) {
    if (this.state === "online") this.#socket.send(JSON.stringify(command));
  }

  #hear(frame) {
    switch (frame.type) {
      case "ready":
        return this.#welcome(frame);
      case "ok":
      case "page":
        this.#asked.get(frame.ref)?.resolve(frame);
        return this.#asked.delete(frame.ref);
      case "error":
        this.#asked
          .get(frame.ref)
          ?.reject(new CoopError(frame.detail, frame.code, { retryAfter: frame.retry_after_ms }));
        return this.#asked.delete(frame.ref);
      case "room":
        return this.#entered(frame.room);
      case "gone": {
        const room = this.rooms.get(frame.room);
        if (!room) return;
        this.rooms.delete(frame.room);
        this.#outbox = this.#outbox.filter((pending) => pending.room !== frame.room);
        this.#keep();
        room._gone();
        this.emit("rooms");
        return this.emit("gone", room, frame.reason, frame.by);
      }
      case "bye":
        // Everybody else is sent away, too, and told another time.
        return (this.#comeBack = frame.retry_after_ms ?? 0);
      default:
        // Types that are not known are to be ignored.
        return this.rooms.get(frame.room)?._hear(frame);
    }
  }

  #welcome({ user, rooms, bots }) {
    this.user = { id: user.id, name: user.name };
    this.bots = bots;
    this.#failures = 0;
    if (this.#outboxOf !== user.id) [this.#outbox, this.#outboxOf] = [this.#kept(user.id), user.id];
    const there = new Set(rooms.map(({ id }) => id));
    this.#outbox = this.#outbox.filter(({ room }) => there.has(room));
    this.#keep();
    for (const room of [...this.rooms.values()]) {
      if (there.has(room.id)) continue;
      this.rooms.delete(room.id);
      room._gone();
      this.emit("gone", room, "removed", null);
    }
    this.#tell("online");
    for (const entry of rooms) this.#entered(entry, true);
    const joined = [...this.rooms.values()].filter((room) => room.isJoined);
    const positions = joined.filter((room) => room._position()).map((room) => [room.id, room._position()]);
    if (positions.length) {
      for (const room of joined) room._isResuming = true;
      const taken = this.ask({ type: "resume", rooms: Object.fromEntries(positions) });
      // Where they cannot be taken up they are opened anew.
      taken.then(() => joined.forEach((room) => (room._isResuming = false))).catch(() => joined.forEach((room) => room._open()));
    }
    for (const room of joined) if (!room._position()) room._open();
    this.emit("rooms");
    this.#flush();
    this.#ready?.resolve();
  }

  #entered(entry, quiet = false) {
    let room = this.rooms.get(entry.id);
    if (!room) {
      room = new Room(this, entry.id);
      this.rooms.set(entry.id, room);
      room.pending = this.#outbox.filter((pending) => pending.room === entry.id);
    }
    room._enter(entry);
    if (!quiet) this.emit("rooms");
    return room;
  }

  /** @internal A room's entry has changed. */
  _changed(room) {
    this.emit("room", room);
  }

  /** @internal Something was said. */
  _said(message, room) {
    this.emit("message", message, room);
  }

  // What is not yet acknowledged.

  /** @internal */
  _send(room, text, replyTo) {
    const pending = {
      clientId: crypto.randomUUID?.() ?? `${Date.now()}-${Math.random()}`,
      room: room.id,
      text,
      replyTo,
      state: "waiting",
      createdAt: new Date().toISOString(),
    };
    this.#outbox.push(pending);
    this.#keep();
    room._pend(pending);
    this.#transmit(pending);
    return pending;
  }

  /** @internal Sends a refused message again, as a new one: the server has not taken it. */
  _again(pending) {
    Object.assign(pending, { state: "waiting", error: undefined });
    this.#keep();
    this.rooms.get(pending.room)?._pend(pending);
    this.#transmit(pending);
  }

  /** @internal It need not be sent any more. */
  _forget(pending) {
    this.#outbox = this.#outbox.filter((other) => other.clientId !== pending.clientId);
    this.#keep();
  }

  #flush() {
    for (const pending of [...this.#outbox]) if (pending.state !== "failed") this.#transmit(pending);
  }

  async #transmit(pending) {
    // It may have been dropped, or acknowledged on another line, while this waited.
    if (this.state !== "online" || !this.#outbox.includes(pending)) return;
    const { room, text, replyTo: reply_to, clientId: client_id } = pending;
    pending.state = "unconfirmed";
    this.#keep();
    this.rooms.get(room)?._pend(pending);
    try {
      const made = await this.ask({ type: "send", room, client_id, text, reply_to });
      this._forget(pending);
      this.rooms.get(room)?._acknowledged(pending, made);
    } catch (error) {
      // The line broke, or the store is away: nobody knows, so it is sent again.
      if (error.code === "unavailable") {
        if (this.state === "online") setTimeout(() => this.#transmit(pending), error.retryAfter || 1_000);
        return;
      }
      Object.assign(pending, { state: "failed", error: error.message });
      this.#keep();
      this.rooms.get(room)?._pend(pending);
    }
  }

  #kept(user) {
    try {
      return JSON.parse(this.#stored(`outbox.${user}`) ?? "[]");
    } catch {
      return [];
    }
  }

  #keep() {
    if (this.user) this.#store(`outbox.${this.user.id}`, this.#outbox.length ? JSON.stringify(this.#outbox) : null);
  }

  #stored(name) {
    return this.#storage?.getItem(`coop.${name}`) ?? null;
  }

  #store(name, value) {
    if (value === null) this.#storage?.removeItem(`coop.${name}`);
    else this.#storage?.setItem(`coop.${name}`, value);
  }
}

/**
 * A room. Its messages are kept while it is joined.
 *
 * It tells `reset` (everything is another), `message` (a message is new, or is another than before: the message, the one
 * before or undefined), `text` (an answer has grown: the message), `removed` (a message's id), `older` (messages were put before the
 * others: they), `pending` and `settled` (something is not yet acknowledged; it is, or was given up), `turns`, `members`, `typing`, `read`.
 */
export class Room extends Emitter {
  name = "";
  owner = 0;
  isGroup = true;
  isAiChat = false;
  /** @type {"owner" | "member"} */
  role = "member";
  unread = 0;
  /** @type {Message | null} The newest message. */
  last = null;
  createdAt = "";
  /** @type {Map<number, Member>} */
  members = new Map();
  /** @type {Message[]} In the order of their seq. */
  messages = [];
  /** Whether there are messages before those. */
  hasOlder = false;
  /** @type {Map<number, Turn>} Those that have not ended. */
  turns = new Map();
  /** @type {Pending[]} */
  pending = [];
  /** Whether everything of it is told, or will be as soon as there is a line. */
  isJoined = false;
  /** Whether it is known what was said: false between joining and the snapshot. */
  isLoaded = false;
  isGone = false;
  /** @type {Set<number>} Who is here, as far as that was told. */
  present = new Set();
  /** @internal Whether it was asked to go on, and that has not been answered. */
  _isResuming = false;

  #coop;
  #epoch = 0;
  #seq = 0;
  #ends = new Map();
  #byId = new Map();
  #typing = new Map();
  #toldTyping = 0;
  #loading = null;
  #read = 0;

  /** @internal */
  constructor(coop, id) {
    super();
    this.#coop = coop;
    this.id = id;
  }

  get isOwner() {
    return this.role === "owner";
  }

  /** The names of those who are typing. */
  get typing() {
    return [...this.#typing.values()].map(({ name }) => name);
  }

  /** @param {number} id @returns {Message | undefined} */
  message(id) {
    return this.#byId.get(id);
  }

  /** Opens it: its messages are told from now on. */
  join() {
    if (this.isJoined || this.isGone) return;
    this.isJoined = true;
    this._open();
  }

  /** @internal Asks for everything of it, until it comes. */
  _open() {
    if (!this.isJoined || this.#coop.state !== "online") return;
    this.#coop
      .ask({ type: "join", room: this.id })
      .then(() => (this._isResuming = false))
      .catch(({ code, retryAfter }) => {
        // Whoever has lost the line goes on when it is back, and whoever has lost the room is told so.
        const isAway = code === "unavailable" && this.#coop.state === "online";
        if (isAway) setTimeout(() => this._open(), retryAfter || 1_000);
      });
  }

  /** Closes it and forgets its messages. */
  leave() {
    if (!this.isJoined) return;
    this.isJoined = false;
    this.isLoaded = false;
    this.messages = [];
    this.#byId.clear();
    this.#ends.clear();
    this.#forgetTyping();
    this.#coop.tell({ type: "leave", room: this.id });
  }

  /**
   * Says something. It is shown as pending at once and sent as soon as there is a line.
   * @param {string} text
   * @param {{ replyTo?: number }} [options]
   * @returns {Pending}
   */
  send(text, { replyTo } = {}) {
    this.#toldTyping = 0;
    return this.#coop._send(this, text, replyTo);
  }

  /** Sends again what was refused. @param {Pending} pending */
  sendAgain(pending) {
    this.#coop._again(pending);
  }

  /** Gives up what was refused or waits. @param {Pending} pending */
  drop(pending) {
    this.#settle(pending);
  }

  /** @param {number} message @param {string} text */
  edit(message, text) {
    return this.#coop.ask({ type: "edit", room: this.id, message, text });
  }

  /** @param {number} message */
  delete(message) {
    return this.#coop.ask({ type: "delete", room: this.id, message });
  }

  /** Ends a turn for everyone. @param {number} turn */
  stop(turn) {
    return this.#coop.ask({ type: "stop", room: this.id, turn });
  }

  /** Asks again what a message answers. @param {number} message */
  retry(message) {
    return this.#coop.ask({ type: "retry", room: this.id, message });
  }

  /** The open turn whose answer this is. @param {number} message @returns {Turn | undefined} */
  turnOf(message) {
    return [...this.turns.values()].find((turn) => turn.message === message);
  }

  /** Tells the others that one is writing; as often as one likes. */
  isTyping() {
    if (Date.now() - this.#toldTyping < TELL_TYPING) return;
    this.#toldTyping = Date.now();
    this.#coop.tell({ type: "typing", room: this.id });
  }

  /** Everything that is here is read. */
  markRead() {
    this.unread = 0;
    this.#coop._changed(this);
    if (this.#read >= this.#seq) return;
    this.#read = this.#seq;
    this.#coop.tell({ type: "read", room: this.id, seq: this.#seq });
  }

  /** Fetches older messages. Resolves when they are there, at once if there are none. */
  older() {
    if (!this.hasOlder || !this.messages.length) return Promise.resolve();
    this.#loading ??= this.#coop
      .ask({ type: "history", room: this.id, before: this.messages[0].seq, limit: 50 })
      .then(({ messages, more }) => {
        this.hasOlder = more;
        const fresh = messages.filter(({ id }) => !this.#byId.has(id));
        for (const message of fresh) this.#byId.set(message.id, message);
        this.messages.unshift(...fresh);
        this.emit("older", fresh);
      })
      .finally(() => {
        this.#loading = null;
      });
    return this.#loading;
  }

  /**
   * Messages that have all these words, or words that begin so; the newest, oldest first.
   * @param {string} text
   * @param {number} [before] Only those before this seq.
   * @returns {Promise<{ messages: Message[], more: boolean }>}
   */
  search(text, before) {
    const more = before === undefined ? "" : `&before=${before}`;
    return this.#coop.request("GET", `/api/rooms/${this.id}/search?query=${encodeURIComponent(text)}${more}`);
  }

  /**
   * Finds out who stopped an answer, where that was not seen; then the message is told again.
   * @param {Message} message
   */
  async whoStopped(message) {
    if (message.status !== "stopped" || message.stopped_by !== undefined) return;
    // Asked once, whatever comes of it.
    message.stopped_by = null;
    const { end } = await this.#coop.request("GET", `/api/rooms/${this.id}/messages/${message.id}/turn`);
    message.stopped_by = end?.by ?? null;
    if (this.#byId.get(message.id) === message) this.emit("message", message, message);
  }

  /** Fetches older messages until this one is there. @param {number} seq */
  async reach(seq) {
    while (this.hasOlder && this.messages.length && this.messages[0].seq > seq) await this.older();
  }

  /** @param {string} name A user's name. */
  async invite(name) {
    await this.#coop.request("POST", `/api/chats/${this.id}/invite`, { username: name });
  }

  /** @param {number} user */
  async remove(user) {
    await this.#coop.request("DELETE", `/api/chats/${this.id}/participants/${user}`);
  }

  /** Gives up one's membership. */
  async quit() {
    await this.#coop.request("POST", `/api/chats/${this.id}/leave`);
  }

  /** @param {string} name */
  async rename(name) {
    await this.#coop.request("PATCH", `/api/rooms/${this.id}`, { name });
  }

  /** Makes another member the owner. @param {number} user */
  async handOver(user) {
    await this.#coop.request("PATCH", `/api/rooms/${this.id}`, { owner: user });
  }

  /** Deletes the room with everything in it. */
  async destroy() {
    await this.#coop.request("DELETE", `/api/chats/${this.id}`);
  }

  // What is told.

  /** @internal */
  _enter(entry) {
    this.#describe(entry);
    this.role = entry.role;
    this.unread = entry.unread;
    this.last = entry.last_message;
    // A joined room is brought up to date by what it is told.
    if (!this.isJoined) [this.#epoch, this.#seq] = [entry.epoch, entry.seq];
    this.#coop._changed(this);
  }

  #describe({ name, owner, is_group, is_ai_chat, created_at }) {
    Object.assign(this, { name, owner, isGroup: is_group, isAiChat: is_ai_chat, createdAt: created_at });
  }

  /** @internal Where it stands, once it has been told everything. */
  _position() {
    if (!this.isLoaded) return null;
    return { epoch: this.#epoch, seq: this.#seq, tapes: Object.fromEntries(this.#ends) };
  }

  /** @internal */
  _offline() {
    this.#forgetTyping();
    this.present.clear();
  }

  /** @internal */
  _gone() {
    this.isGone = true;
    this.isJoined = false;
    this.emit("gone");
  }

  /** @internal */
  _hear(frame) {
    switch (frame.type) {
      case "event":
        return this.#event(frame);
      case "delta":
        return this.#delta(frame);
      case "snapshot":
        return this.#snapshot(frame);
      case "hint":
        return this.#hint(frame);
    }
  }

  #snapshot({ info, epoch, seq, members, messages, turns, tapes }) {
    if (!this.isJoined) return;
    this.#describe(info);
    [this.#epoch, this.#seq] = [epoch, seq];
    this.members = new Map(members.map((member) => [member.user, member]));
    this.role = this.members.get(this.#coop.user.id)?.role ?? this.role;
    this.messages = messages;
    this.#byId = new Map(messages.map((message) => [message.id, message]));
    this.hasOlder = messages.length >= 50;
    this.turns = new Map(turns.map((turn) => [turn.id, turn]));
    this.#ends.clear();
    for (const message of messages) if (message.status === "streaming") this.#ends.set(message.id, bytes(message.text));
    for (const { message, end, text } of tapes) {
      const answer = this.#byId.get(message);
      if (answer) answer.text = text;
      this.#ends.set(message, end);
    }
    this.last = messages.at(-1) ?? null;
    const said = new Set(messages.map(({ client_id }) => client_id));
    const told = ({ clientId, state, seq }) => said.has(clientId) || (state === "sent" && seq <= this.#seq);
    for (const pending of this.pending.filter(told)) this.#settle(pending);
    this.#read = this.members.get(this.#coop.user.id)?.read ?? 0;
    this.isLoaded = true;
    this.emit("reset");
    this.#coop._changed(this);
  }

  #event(frame) {
    if (frame.seq <= this.#seq) return;
    if (this.isLoaded && frame.seq > this.#seq + 1) {
      // Heard before the room was taken up again, which brings it once more. Otherwise there are no gaps.
      if (!this._isResuming) this._open();
      return;
    }
    this.#seq = frame.seq;
    switch (frame.kind) {
      case "message_posted":
        this.#put(frame.message);
        if (frame.message.author.user === this.#coop.user.id) [this.unread, this.#read] = [0, frame.seq];
        else this.unread += 1;
        this.#coop._said(frame.message, this);
        break;
      case "message_edited":
        this.#put(frame.message);
        break;
      case "message_deleted":
        this.#take(frame.message);
        break;
      case "member_joined":
        this.members.set(frame.user, { user: frame.user, name: frame.name, role: "member", read: 0 });
        this.emit("members");
        break;
      case "member_left":
        this.members.delete(frame.user);
        this.emit("members");
        break;
      case "room_updated":
        this.#describe(frame.info);
        for (const member of this.members.values()) member.role = member.user === this.owner ? "owner" : "member";
        this.role = this.owner === this.#coop.user.id ? "owner" : "member";
        this.emit("members");
        break;
      case "turn_queued":
        this.turns.set(frame.turn, { ...frame, id: frame.turn, status: "queued" });
        this.emit("turns");
        break;
      case "turn_started":
        this.turns.set(frame.turn, { ...frame, id: frame.turn, message: frame.message.id, status: "streaming" });
        this.#ends.set(frame.message.id, bytes(frame.message.text));
        this.#put(frame.message);
        if (frame.asked_by !== this.#coop.user.id) this.unread += 1;
        this.emit("turns");
        break;
      case "turn_ended":
        this.#ended(frame);
        break;
    }
    this.#coop._changed(this);
  }

  #ended({ turn, message, status, text, end, error, by, bot }) {
    const ended = this.turns.get(turn);
    this.turns.delete(turn);
    this.emit("turns", { ended, status, error, by, bot });
    if (message === undefined) return;
    // Without a text it is where the pieces have led.
    const isElsewhere = text === undefined && this.#ends.has(message) && this.#ends.get(message) !== end;
    if (isElsewhere) this._open();
    this.#ends.delete(message);
    const before = this.#byId.get(message) ?? (this.last?.id === message ? this.last : undefined);
    if (!before) return;
    const after = { ...before, status, text: text ?? before.text, error: error?.words, stopped_by: by };
    this.#put(after);
    this.#coop._said(after, this);
  }

  /** A piece of an answer goes on where the text is, or is the whole text from its beginning. */
  #delta({ message, offset, end, text }) {
    const at = this.#ends.get(message);
    const answer = this.#byId.get(message);
    if (at === undefined || !answer || end <= at) return;
    if (offset === at) answer.text += text;
    else if (offset === 0) answer.text = text;
    else return this._open();
    this.#ends.set(message, end);
    this.emit("text", answer);
  }

  #hint({ kind, user, name, here, seq }) {
    if (kind === "read") {
      const member = this.members.get(user);
      if (member) member.read = Math.max(member.read, seq);
      if (user === this.#coop.user.id && seq >= this.#seq) {
        this.#read = Math.max(this.#read, seq);
        this.unread = 0;
        this.#coop._changed(this);
      }
      return this.emit("read");
    }
    if (kind === "presence") {
      this.present[here ? "add" : "delete"](user);
      if (!here) this.#stopTyping(user);
      return this.emit("members");
    }
    if (kind === "typing" && user !== this.#coop.user.id) {
      clearTimeout(this.#typing.get(user)?.timer);
      this.#typing.set(user, { name, timer: setTimeout(() => this.#stopTyping(user), TYPING) });
      this.emit("typing");
    }
  }

  #stopTyping(user) {
    if (!this.#typing.has(user)) return;
    clearTimeout(this.#typing.get(user).timer);
    this.#typing.delete(user);
    this.emit("typing");
  }

  #forgetTyping() {
    for (const user of [...this.#typing.keys()]) this.#stopTyping(user);
  }

  /** A message is new, or another than it was. */
  #put(message) {
    if (message.author.user) this.#stopTyping(message.author.user);
    if (!this.last || message.seq >= this.last.seq) this.last = message;
    if (this.isLoaded) this.#place(message);
    const isMine = ({ clientId }) => clientId === message.client_id && message.author.user === this.#coop.user.id;
    // Last, so that what is shown of it can become what is shown of the message.
    const mine = this.pending.find(isMine);
    if (mine) this.#settle(mine);
  }

  #place(message) {
    const before = this.#byId.get(message.id);
    // An edited message that is older than what is here.
    if (!before && this.messages.length && message.seq < this.messages[0].seq && this.hasOlder) return;
    this.#byId.set(message.id, message);
    const at = before ? this.messages.indexOf(before) : this.messages.findLastIndex(({ seq }) => seq < message.seq) + 1;
    this.messages.splice(at, before ? 1 : 0, message);
    this.emit("message", message, before);
  }

  #take(id) {
    const message = this.#byId.get(id);
    this.#byId.delete(id);
    this.#ends.delete(id);
    if (message) this.messages.splice(this.messages.indexOf(message), 1);
    if (this.last?.id === id) this.last = this.messages.at(-1) ?? null;
    this.emit("removed", id);
  }

  /** @internal It is on disk. It is shown as pending until its event has come, if that is still to come. */
  _acknowledged(pending, { seq }) {
    Object.assign(pending, { state: "sent", seq });
    if (seq <= this.#seq) this.#settle(pending);
    else this._pend(pending);
  }

  /** @internal */
  _pend(pending) {
    const at = this.pending.findIndex(({ clientId }) => clientId === pending.clientId);
    if (at < 0) this.pending.push(pending);
    else this.pending[at] = pending;
    this.emit("pending", pending);
  }

  #settle(pending) {
    this.#coop._forget(pending);
    this.pending = this.pending.filter(({ clientId }) => clientId !== pending.clientId);
    this.emit("settled", pending);
  }
}
