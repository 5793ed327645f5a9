/**
 * What is asked in a window of its own: new rooms, members, names, and whether one is sure. And menus.
 *
 * @module dialogs
 */

import { notice, signOut } from "./app.js";
import { avatar, h, setText } from "./dom.js";
import { icon } from "./icons.js";

let count = 0;

/** Opens a window; what it is about comes in `body`, a function that is given what closes it. */
function open(title, body) {
  const id = `dialog-${(count += 1)}`;
  const dialog = h("dialog.dialog", { "aria-labelledby": id });
  const close = () => dialog.close();
  dialog.append(
    h("header", {}, h("h2", { id }, title), h("button.plain", { type: "button", ariaLabel: "Close", onclick: close }, icon("close"))),
    body(close),
  );
  dialog.addEventListener("close", () => dialog.remove());
  dialog.addEventListener("click", (event) => {
    if (event.target === dialog) close();
  });
  document.body.append(dialog);
  dialog.showModal();
  dialog.querySelector("[autofocus], input, button.primary")?.focus();
  return dialog;
}

/** A form that does something, and says why it could not. */
function form(name, act, close, ...fields) {
  const wrong = h("p.wrong", { role: "alert", hidden: true });
  const submit = h("button.primary", { type: "submit" }, name);
  return h(
    "form",
    {
      onsubmit: async (event) => {
        event.preventDefault();
        submit.disabled = true;
        wrong.hidden = true;
        try {
          // Closing gives the focus back to where it was; what comes after may want it elsewhere.
          const after = await act();
          close();
          if (typeof after === "function") after();
        } catch (error) {
          setText(wrong, error.message);
          wrong.hidden = false;
        } finally {
          submit.disabled = false;
        }
      },
    },
    ...fields,
    wrong,
    h("div.actions.end", {}, h("button", { type: "button", onclick: close }, "Cancel"), submit),
  );
}

/** Whether somebody is sure. */
export function confirm(title, words, name, act) {
  open(title, (close) => {
    const made = form(name, act, close, h("p", {}, words));
    made.querySelector(".primary").classList.add("danger");
    return made;
  });
}

/** Finds people; whom one chooses is given to `choose`. */
function finder(coop, choose, isTaken) {
  const found = h("ul.found", { ariaLabel: "People found" });
  let asked = 0;
  const input = h("input", {
    type: "search",
    placeholder: "Search by name",
    autocomplete: "off",
    autocapitalize: "none",
    spellcheck: false,
    ariaLabel: "Search people",
    oninput: () => {
      const mine = (asked += 1);
      const text = input.value.trim();
      if (!text) return found.replaceChildren();
      setTimeout(async () => {
        if (mine !== asked) return;
        try {
          const people = await coop.people(text);
          if (mine === asked) draw(people.filter(({ id }) => !isTaken(id)));
        } catch (error) {
          if (mine === asked) found.replaceChildren(h("li.none", {}, error.message));
        }
      }, 200);
    },
    onkeydown: (event) => {
      if (event.key === "ArrowDown") found.querySelector("button")?.focus();
      else if (event.key === "Enter" && input.value.trim()) found.querySelector("button")?.click();
      else return;
      event.preventDefault();
    },
  });
  const draw = (people) => {
    found.replaceChildren(
      ...people.map((person) =>
        h(
          "li",
          {},
          h(
            "button.person",
            {
              type: "button",
              onclick: async () => {
                await choose(person);
                input.value = "";
                found.replaceChildren();
                input.focus();
              },
            },
            avatar(person.name),
            person.name,
          ),
        ),
      ),
    );
    if (!people.length) found.append(h("li.none", {}, "Nobody found."));
  };
  return { input, found, element: h("div.finder", {}, input, found) };
}

export function newRoom(coop, made) {
  const chosen = new Map();
  const chips = h("div.chips");
  const draw = () =>
    chips.replaceChildren(
      ...[...chosen.values()].map((person) =>
        h(
          "button.chip",
          {
            type: "button",
            ariaLabel: `Do not invite ${person.name}`,
            onclick: () => {
              chosen.delete(person.id);
              draw();
            },
          },
          person.name,
          icon("close"),
        ),
      ),
    );
  const name = h("input", { required: true, maxLength: 100, autofocus: true, placeholder: "For example: Weekend trip" });
  const choose = (person) => {
    chosen.set(person.id, person);
    draw();
  };
  const people = finder(coop, choose, (id) => chosen.has(id));
  open("New room", (close) =>
    form(
      "Create room",
      async () => {
        const room = await coop.createRoom({ name: name.value.trim(), members: [...chosen.values()].map((person) => person.name) });
        return () => made(room);
      },
      close,
      h("label.field", {}, h("span", {}, "Name"), name),
      h("div.field", {}, h("span", {}, "People"), chips, people.element),
      h("p.hint", {}, "Bots are in every room: write /bot and your question, and everybody sees the answer."),
    ),
  );
}

export function newAiChat(coop, made) {
  const name = h("input", { required: true, maxLength: 100, value: "AI chat", autofocus: true });
  open("New AI chat", (close) =>
    form(
      "Start chat",
      async () => {
        const room = await coop.createRoom({ name: name.value.trim(), isAiChat: true });
        return () => made(room);
      },
      close,
      h("label.field", {}, h("span", {}, "Name"), name),
      h("p.hint", {}, "While you are alone in it, every message is a question to the bot."),
    ),
  );
  name.select();
}

export function rename(room) {
  const name = h("input", { required: true, maxLength: 100, value: room.name, autofocus: true });
  open("Rename room", (close) => form("Rename", () => room.rename(name.value.trim()), close, h("label.field", {}, h("span", {}, "Name"), name)));
  name.select();
}

/** Who is in a room, and who else should be. */
export function members(coop, room) {
  const rows = h("ul.members");
  const trying = async (act) => {
    try {
      await act();
    } catch (error) {
      notice(error.message, "bad");
    }
  };
  const draw = () => {
    const all = [...room.members.values()].sort((a, b) => (a.name < b.name ? -1 : 1));
    rows.replaceChildren(
      ...all.map((member) => {
        const isMe = member.user === coop.user.id;
        const here = room.present.has(member.user) || isMe;
        const tools = room.isOwner && !isMe && [
          h("button.small", { type: "button", ariaLabel: `Make owner: ${member.name}`, onclick: () => trying(() => room.handOver(member.user)) }, "Make owner"),
          h("button.small.danger", { type: "button", ariaLabel: `Remove ${member.name}`, onclick: () => trying(() => room.remove(member.user)) }, "Remove"),
        ];
        return h(
          "li",
          {},
          avatar(member.name),
          h("span.member-name", {}, member.name + (isMe ? " (you)" : ""), here && h("span.here", { title: "here now" }, h("span.unseen", {}, "here now"))),
          member.role === "owner" && h("span.tag", {}, "owner"),
          ...(tools || []),
        );
      }),
    );
  };
  const end = room.on("members", draw);
  const people = finder(coop, (person) => trying(() => room.invite(person.name)), (id) => room.members.has(id));
  draw();
  const dialog = open("People", () => h("div", {}, h("div.field", {}, h("span", {}, "Invite"), people.element), rows));
  dialog.addEventListener("close", end);
  const gone = room.on("gone", () => dialog.close());
  dialog.addEventListener("close", gone);
}

/** One's own account: another password, the end of all that is signed in, the end of it all. */
export function account(coop) {
  const secret = (name, autocomplete) => {
    const input = h("input", { type: "password", required: true, autocomplete });
    return { input, field: h("label.field", {}, h("span", {}, name), input) };
  };
  const choice = (words) => {
    const input = h("input", { type: "checkbox" });
    return { input, field: h("label.choice", {}, input, words) };
  };
  const password = () =>
    open("Change your password", (close) => {
      const [current, next] = [secret("Password now", "current-password"), secret("New password", "new-password")];
      const act = async () => {
        await coop.changePassword(current.input.value, next.input.value);
        notice("Your password is changed. Everywhere else you are signed out.");
      };
      const hint = h("p.hint", {}, "At least eight characters.");
      return form("Change password", act, close, current.field, next.field, hint);
    });
  const everywhere = () =>
    confirm("Sign out everywhere?", "Every window and every device is signed out, this one too.", "Sign out everywhere", async () => {
      await coop.signOutEverywhere();
      return signOut;
    });
  const end = () =>
    open("Delete your account?", (close) => {
      const current = secret("Password", "current-password");
      const rooms = choice("Delete my rooms. Otherwise each is handed to the member who has been there longest.");
      const messages = choice("Delete everything I have said.");
      const act = async () => {
        await coop.deleteAccount(current.input.value, { deleteRooms: rooms.input.checked, deleteMessages: messages.input.checked });
        return signOut;
      };
      const words = h("p", {}, "Your address and your password are erased and you leave all rooms. This cannot be undone.");
      const made = form("Delete account", act, close, words, rooms.field, messages.field, current.field);
      made.querySelector(".primary").classList.add("danger");
      return made;
    });
  open(coop.user?.name ?? "Your account", (close) => {
    const entry = (name, act, kind = "") => {
      const then = () => {
        close();
        act();
      };
      return h(`button${kind}`, { type: "button", onclick: then }, name);
    };
    return h(
      "div.choices",
      {},
      entry("Change your password", password),
      entry("Sign out everywhere", everywhere),
      entry("Delete your account", end, ".danger"),
    );
  });
}

/** A menu at a button, by mouse and by keyboard. */
export function menu(button, entries) {
  const items = entries.map((entry) =>
    h(
      `button.menu-item${entry.isDanger ? ".danger" : ""}`,
      {
        type: "button",
        role: "menuitem",
        onclick: () => {
          close();
          entry.act();
        },
      },
      icon(entry.icon),
      entry.name,
    ),
  );
  const box = h("div.menu", { role: "menu", popover: "auto" }, ...items);
  const close = () => box.hidePopover();
  box.addEventListener("toggle", (event) => {
    if (event.newState !== "closed") return;
    box.remove();
    if (document.activeElement === document.body) button.focus();
  });
  box.addEventListener("keydown", (event) => {
    const at = items.indexOf(document.activeElement);
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (step) items[(at + step + items.length) % items.length].focus();
    else if (event.key === "Escape") close();
    else return;
    event.preventDefault();
  });
  document.body.append(box);
  box.showPopover();
  // Where it is belongs to the moment; the rules of the page allow what a script sets, not what a text says.
  const at = button.getBoundingClientRect();
  const size = box.getBoundingClientRect();
  const top = at.bottom + size.height + 8 < innerHeight ? at.bottom + 4 : at.top - size.height - 4;
  box.style.top = `${Math.max(8, top)}px`;
  box.style.left = `${Math.max(8, Math.min(at.right - size.width, innerWidth - size.width - 8))}px`;
  items[0]?.focus();
}
