/**
 * Where one writes: a text that grows, replies and edits, what begins with `/` and `@`, and drafts.
 *
 * It is never switched off: what is written without a line is kept and sent when there is one.
 *
 * @module send
 */

import { notice } from "./app.js";
import { avatar, h } from "./dom.js";
import { icon } from "./icons.js";

export class Composer {
  #coop;
  #room;
  #replying = null;
  #editing = null;
  #options = [];
  #chosen = 0;

  constructor(coop, room) {
    this.#coop = coop;
    this.#room = room;
    this.input = h("textarea", {
      rows: 1,
      placeholder: room.isAiChat ? "Ask the bot" : `Message ${room.name}`,
      ariaLabel: "Message",
      "aria-autocomplete": "list",
      "aria-haspopup": "listbox",
      "aria-controls": "options",
      oninput: () => this.#typed(),
      onkeydown: (event) => this.#key(event),
      onblur: () => setTimeout(() => this.#close(), 150),
    });
    this.options = h("ul.options", { id: "options", role: "listbox", ariaLabel: "Bots and people", hidden: true });
    this.about = h("div.about", { hidden: true });
    this.submit = h("button.send", { type: "submit", ariaLabel: "Send" }, icon("send"));
    this.hint = h("p.keys", {}, this.#keys());
    this.element = h(
      "form.composer",
      {
        onsubmit: (event) => {
          event.preventDefault();
          this.#send();
        },
      },
      this.options,
      this.about,
      h("div.write", {}, this.input, this.submit),
      this.hint,
    );
    this.input.value = localStorage.getItem(this.#draft()) ?? "";
    this.#size();
  }

  #keys() {
    const bot = this.#coop.bots[0];
    return bot && !this.#room.isAiChat ? "Enter sends · Shift+Enter is a new line · /bot asks the bot · @ names somebody" : "Enter sends · Shift+Enter is a new line";
  }

  focus() {
    this.input.focus();
  }

  end() {
    this.#close();
  }

  /** The next message answers this one. */
  replyTo(message) {
    this.#cancel();
    this.#replying = message;
    this.#tell(`Reply to ${message.author.name}`, message.text);
  }

  /** The next message is instead of this one. */
  edit(message) {
    this.#cancel();
    this.#editing = message;
    this.#tell("Edit message", message.text);
    this.input.value = message.text;
    this.#size();
    this.input.setSelectionRange(message.text.length, message.text.length);
  }

  #tell(what, text) {
    const close = h("button.plain", { type: "button", ariaLabel: "Cancel", onclick: () => this.#cancel() }, icon("close"));
    this.about.replaceChildren(h("span", {}, h("strong", {}, what), text.replace(/\s+/g, " ").slice(0, 120)), close);
    this.about.hidden = false;
    this.focus();
  }

  #cancel() {
    if (this.#editing) {
      this.input.value = localStorage.getItem(this.#draft()) ?? "";
      this.#size();
    }
    [this.#replying, this.#editing] = [null, null];
    this.about.hidden = true;
  }

  async #send() {
    const text = this.input.value;
    if (!text.trim()) return;
    this.#close();
    const [replying, editing] = [this.#replying, this.#editing];
    if (editing) {
      try {
        await this.#room.edit(editing.id, text);
        this.#cancel();
      } catch (error) {
        notice(error.message, "bad");
      }
      return;
    }
    this.input.value = "";
    this.#save();
    this.#cancel();
    this.#size();
    this.#room.send(text, { replyTo: replying?.id });
  }

  #typed() {
    this.#size();
    if (!this.#editing) {
      this.#save();
      if (this.input.value) this.#room.isTyping();
    }
    this.#complete();
  }

  /** As high as the text, where the browser does not do that by itself. */
  #size() {
    if (!CSS.supports("field-sizing", "content")) this.input.rows = Math.min(8, this.input.value.split("\n").length);
    this.submit.disabled = !this.input.value.trim();
  }

  #draft() {
    return `coop.draft.${this.#coop.user?.id}.${this.#room.id}`;
  }

  #save() {
    if (this.input.value) localStorage.setItem(this.#draft(), this.input.value);
    else localStorage.removeItem(this.#draft());
  }

  #key(event) {
    if (event.isComposing) return;
    if (!this.options.hidden) {
      const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
      if (step) this.#choose((this.#chosen + step + this.#options.length) % this.#options.length);
      else if (event.key === "Enter" || event.key === "Tab") this.#take(this.#options[this.#chosen]);
      else if (event.key === "Escape") this.#close();
      else return;
      return event.preventDefault();
    }
    if (event.key === "Enter" && !event.shiftKey) {
      event.preventDefault();
      this.#send();
    } else if (event.key === "Escape") {
      this.#cancel();
    } else if (event.key === "ArrowUp" && !this.input.value) {
      const mine = this.#room.messages.findLast(({ author }) => author.user === this.#coop.user.id);
      if (mine) {
        event.preventDefault();
        this.edit(mine);
      }
    }
  }

  // Completion.

  /** The word that ends where one writes, if it asks for a name. */
  #word() {
    const before = this.input.value.slice(0, this.input.selectionStart);
    const command = /^\/([\p{L}\p{N}_.-]*)$/u.exec(before);
    if (command) return { mark: "/", begun: command[1].toLowerCase(), at: 0 };
    const mention = /(?:^|\s)@([\p{L}\p{N}_.-]*)$/u.exec(before);
    return mention && { mark: "@", begun: mention[1].toLowerCase(), at: before.length - mention[1].length - 1 };
  }

  #complete() {
    const word = this.#word();
    if (!word) return this.#close();
    const bots = this.#coop.bots.map(({ handle, name }) => ({ name: handle, about: name === handle ? "bot" : `${name}, bot`, isBot: true }));
    const people = [...this.#room.members.values()]
      .filter(({ user }) => user !== this.#coop.user.id)
      .map(({ name }) => ({ name, about: "", isBot: false }));
    const standard = bots.length ? [{ name: "bot", about: `${this.#coop.bots[0].name}, the default bot`, isBot: true }] : [];
    const all = word.mark === "/" ? [...standard, ...bots] : [...people, ...bots];
    this.#options = all.filter(({ name }) => name.toLowerCase().startsWith(word.begun)).slice(0, 8);
    if (!this.#options.length || (this.#options.length === 1 && this.#options[0].name === word.begun)) return this.#close();
    this.options.replaceChildren(
      ...this.#options.map((option, index) =>
        h(
          "li.option",
          { role: "option", id: `option-${index}`, onpointerdown: (event) => (event.preventDefault(), this.#take(option)) },
          avatar(option.name, option.isBot),
          h("span", {}, word.mark + option.name),
          option.about && h("small", {}, option.about),
        ),
      ),
    );
    this.options.hidden = false;
    this.#choose(0);
  }

  #choose(index) {
    this.#chosen = index;
    [...this.options.children].forEach((option, at) => {
      option.setAttribute("aria-selected", String(at === index));
      if (at === index) option.scrollIntoView({ block: "nearest" });
    });
    this.input.setAttribute("aria-activedescendant", `option-${index}`);
  }

  #take(option) {
    const word = this.#word();
    if (word && option) {
      const end = this.input.selectionStart;
      const text = `${word.mark}${option.name} `;
      this.input.setRangeText(text, word.at, end, "end");
    }
    this.#close();
    this.#typed();
  }

  #close() {
    this.options.hidden = true;
    this.input.removeAttribute("aria-activedescendant");
  }
}
