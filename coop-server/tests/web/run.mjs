// The web client in a browser, as two people and a phone. Run by `cargo test`: `node run.mjs URL [NAME]`, against a server with the mock
// bot twice (`mock`, `other`). Everything is looked at as people see it.

import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { createServer } from "node:http";
import { createRequire } from "node:module";
import { account, api, complaints, composer, group, launch, line, page, PASSWORD, PHONE, row, rows, say, signedIn, until } from "./browser.mjs";
import { HOSTILE, MARKDOWN } from "./markdown.mjs";

const [url, only] = process.argv.slice(2);
const axe = createRequire(import.meta.url).resolve("axe-core/axe.min.js");
const browser = await launch();
const tests = [];
const test = (name, run) => tests.push({ name, run });

/** Two people in a room, each at a page of their own. */
async function two(name = "lab", options = {}) {
  const [anne, bob] = [await account(url, "anne"), await account(url, "bob")];
  const room = await group(url, name, [anne, bob]);
  const at = async (person, more) => {
    const made = await signedIn(browser, options.url ?? url, person, more);
    await made.goto(`${options.url ?? url}/chat/${room}`);
    await composer(made).waitFor();
    await until("the room is loaded", () => made.locator(".loading").isHidden());
    return made;
  };
  return { anne, bob, room, a: await at(anne), b: await at(bob, options.phone ? PHONE : {}) };
}

test("a stranger registers, signs out and in again", async () => {
  const here = await page(browser, url);
  await here.goto(url);
  assert.equal(new URL(here.url()).pathname, "/login");
  const name = `stranger${Date.now() % 1e6}`;
  await here.getByRole("button", { name: "Create an account" }).click();
  await here.getByLabel("Name", { exact: true }).fill(name);
  await here.getByLabel("E-mail").fill(`${name}@example.org`);
  await here.getByLabel("Password").fill("short");
  await here.getByRole("button", { name: "Create account" }).click();
  await until("it says what is wrong", async () => /password/i.test(await here.getByRole("alert").innerText()));
  await here.getByLabel("Password").fill(PASSWORD);
  await here.getByRole("button", { name: "Create account" }).click();
  await here.getByText(`Welcome, ${name}`).waitFor();
  await here.getByRole("button", { name: "Your menu" }).click();
  await here.getByRole("menuitem", { name: "Sign out" }).click();
  await here.getByRole("heading", { name: "Sign in" }).waitFor();
  await here.getByLabel("Name", { exact: true }).fill(name);
  await here.getByLabel("Password").fill("wrong password");
  await here.getByRole("button", { name: "Sign in" }).click();
  await until("it is refused", async () => (await here.getByRole("alert").innerText()).length > 5);
  await here.getByLabel("Password").fill(PASSWORD);
  await here.getByRole("button", { name: "Sign in" }).click();
  await here.getByText(`Welcome, ${name}`).waitFor();
  await here.goto(`${url}/chat/123456`);
  await here.getByText("This room is not yours").waitFor();
});

test("an account: another password, signed out everywhere, and gone", async () => {
  const { anne, bob, room, a, b } = await two("hers");
  const other = await signedIn(browser, url, anne);
  await say(a, "I was here");
  await row(b, "I was here");
  const open = async (at, name) => {
    await at.getByRole("button", { name: "Your menu" }).click();
    await at.getByRole("menuitem", { name: "Your account" }).click();
    await at.getByRole("button", { name, exact: true }).click();
  };
  await open(a, "Change your password");
  await a.getByLabel("Password now").fill("a wrong guess");
  await a.getByLabel("New password").fill("battery staple");
  await a.getByRole("button", { name: "Change password" }).click();
  await a.getByText("Incorrect password").waitFor();
  await a.getByLabel("Password now").fill(PASSWORD);
  await a.getByRole("button", { name: "Change password" }).click();
  await a.getByText("Your password is changed").waitFor();
  await other.getByRole("button", { name: "Sign in" }).waitFor();
  // Here it goes on, and nothing was missed.
  await say(b, "still there?");
  await row(a, "still there?");
  await say(a, "yes");
  await row(b, "yes");

  await open(a, "Sign out everywhere");
  await a.getByRole("button", { name: "Sign out everywhere" }).click();
  await a.getByLabel("Name", { exact: true }).fill(anne.name);
  await a.getByLabel("Password").fill("battery staple");
  await a.getByRole("button", { name: "Sign in" }).click();
  await a.goto(`${url}/chat/${room}`);
  await composer(a).waitFor();

  await open(a, "Delete your account");
  await a.getByLabel("Delete everything I have said").check();
  await a.getByLabel("Password").fill("battery staple");
  await a.getByRole("button", { name: "Delete account" }).click();
  await a.getByRole("button", { name: "Sign in" }).waitFor();
  await until("what she said is gone", async () => !(await rows(b)).some(({ text }) => text.includes("I was here")));
  await row(b, "still there?");
  const rooms = await api(url, bob, "GET", "/api/chats");
  assert.equal(rooms[0].owner_id, (await api(url, bob, "GET", "/api/auth/me")).id);
});

test("a room is made with somebody, who sees it at once, unread and in the title", async () => {
  const [anne, bob] = [await account(url, "anne"), await account(url, "bob")];
  const [a, b] = [await signedIn(browser, url, anne), await signedIn(browser, url, bob, PHONE)];
  await a.getByRole("button", { name: "New room" }).first().click();
  await a.getByLabel("Name", { exact: true }).fill("Weekend trip");
  await a.getByLabel("Search people").fill(bob.name.slice(0, -1));
  await a.getByRole("button", { name: bob.name }).click();
  await a.getByRole("button", { name: "Create room" }).click();
  await composer(a).waitFor();
  await b.getByRole("link", { name: /Weekend trip/ }).waitFor();
  await say(a, "Who is **coming**?");
  await say(a, "And when?");
  const badge = b.locator(".badge");
  await until("two are unread", async () => (await badge.innerText()) === "2");
  await until("the title counts", async () => (await b.title()).startsWith("(2) "));
  assert.match(await b.locator(".row-last").innerText(), /And when\?/);
  await b.getByRole("link", { name: /Weekend trip/ }).click();
  await row(b, "And when?");
  await until("nothing is unread", () => badge.isHidden());
  const seen = await rows(b);
  assert.deepEqual(seen.map(({ text, grouped }) => [text, grouped]), [["Who is coming?", false], ["And when?", true]]);
  assert.equal(seen[0].day, "Today");
  await until("it is told who has seen it", async () => (await rows(a)).at(-1).seen === `Seen by ${bob.name}`);
  await b.getByRole("link", { name: "Back to the rooms" }).click();
  await b.getByRole("heading", { name: "Rooms" }).waitFor();
});

test("an answer grows for both, is stopped by one, and asked for again", async () => {
  const { anne, a, b } = await two();
  await say(a, "/bot essay");
  await until("it grows there", async () => (await rows(b)).at(-1).text.includes("Section 2"));
  const before = (await rows(b)).at(-1).text.length;
  await until("and goes on", async () => (await rows(b)).at(-1).text.length > before + 500);
  await a.getByRole("button", { name: "Stop" }).click();
  const stopped = await until("it is stopped", async () => (await rows(b)).find(({ state }) => state === "stopped"));
  assert.match(stopped.words, new RegExp(`Stopped by ${anne.name}`));
  await until("on both sides", async () => (await rows(a)).at(-1).words.includes("Stopped by you"));
  assert.equal((await rows(a)).at(-1).text, (await rows(b)).at(-1).text);
  await b.reload();
  await until("it is known after a reload", async () => (await rows(b)).at(-1).words.includes(`Stopped by ${anne.name}`));
  await b.getByRole("button", { name: "Try again" }).last().click();
  await until("another begins", async () => (await rows(a)).filter(({ who }) => who === "mock").length === 2);
  await a.getByRole("button", { name: "Stop" }).click();
  await until("and is stopped", async () => (await rows(a)).at(-1).state === "stopped");
});

test("a failure has words, and what waits can be called off", async () => {
  const { a, b } = await two();
  await say(a, "/bot fail");
  const failed = await until("it fails", async () => (await rows(b)).find(({ state }) => state === "failed"));
  assert.match(failed.words, /mock/i);
  await say(a, "/bot slow essay");
  await say(b, "/bot essay");
  await b.getByText(/mock will answer you/).waitFor();
  await a.getByRole("button", { name: /Cancel what mock would/ }).click();
  await until("it does not wait any more", () => b.getByText(/mock will answer you/).isHidden());
  await a.getByRole("button", { name: "Stop" }).click();
});

test("several answers at once, and talk in the middle of one, tear nothing", async () => {
  const { a, b } = await two();
  const isBot = (who) => /^(mock|other)/.test(who);
  await say(a, "/mock essay");
  await say(a, "/other essay");
  await until("both grow", async () => (await rows(b)).filter(({ state, text }) => state === "streaming" && text.length > 300).length === 2);
  const growing = await b.locator(".message-row[data-state=streaming]").first().elementHandle();
  await say(b, "In the middle of it.");
  await row(a, "In the middle of it.");
  const order = (await rows(a)).map(({ who, text }) => (text === "In the middle of it." ? "talk" : who.split(" ")[0]));
  assert.deepEqual(order.filter((who) => !who.startsWith("anne")), ["mock", "other", "talk"]);
  const length = await growing.evaluate((element) => element.innerText.length);
  await until("the same element goes on growing", () => growing.evaluate((element, length) => element.isConnected && element.innerText.length > length + 300, length));
  await until("both end", async () => (await rows(b)).filter(({ state, who }) => state === "done" && isBot(who)).length === 2, 30_000);
  const texts = async (page) => (await rows(page)).filter(({ who }) => isBot(who)).map(({ text }) => text);
  assert.deepEqual(await texts(a), await texts(b));
  assert.ok((await texts(a)).every((text) => text.includes("Section 20") || text.length > 10_000));
});

test("an answer survives a reload in its middle", async () => {
  const { a, b } = await two();
  await say(a, "/bot essay");
  await until("it has begun", async () => (await rows(a)).at(-1).text.length > 1_000);
  await a.reload();
  await until("it is there at once", async () => (await rows(a)).at(-1)?.text.length > 1_000);
  await until("it ends", async () => (await rows(a)).at(-1).state === "done", 30_000);
  await until("there too", async () => (await rows(b)).at(-1).state === "done");
  assert.equal((await rows(a)).at(-1).text, (await rows(b)).at(-1).text);
});

test("a line that is cut and mended: nothing lost, nothing twice, and the banner takes room", async () => {
  const path = await line(url);
  const { a, b, anne, room } = await two("tunnel", { url: path.url });
  await say(a, "/bot essay");
  await until("it has begun", async () => (await rows(a)).at(-1).text.length > 1_000);
  const height = () => a.locator(".scroller").evaluate((element) => element.clientHeight);
  const before = await height();
  path.cut();
  await a.getByText(/No connection/).waitFor();
  assert.ok((await height()) < before, "the banner lies over the room");
  assert.ok(await composer(a).isEnabled());
  await say(a, "Written in the tunnel.");
  await say(a, "And this.");
  assert.match((await row(a, "Written in the tunnel.")).words, /Waiting/);
  await api(url, anne, "POST", `/api/rooms/${room}/messages`, { text: "From another device." });
  assert.match(await a.evaluate(() => JSON.stringify(localStorage)), /Written in the tunnel/, "it would not survive a reload");
  path.mend();
  await a.goto(`${path.url}/chat/${room}`);
  await until("the line is back", () => a.getByText(/No connection/).isHidden());
  for (const page of [a, b]) {
    for (const text of ["Written in the tunnel.", "And this.", "From another device."]) await row(page, text);
    await until("the answer ends", async () => (await rows(page)).some(({ who, state }) => who === "mock" && state === "done"), 40_000);
  }
  const texts = async (page) => (await rows(page)).map(({ text }) => text);
  assert.deepEqual(await texts(a), await texts(b));
  // Once more without a reload: only the line goes.
  await say(b, "/bot essay");
  await until("another has begun", async () => (await rows(a)).at(-1).text.length > 1_000);
  const element = await a.locator(".message-row").last().elementHandle();
  path.cut();
  await a.getByText(/No connection/).waitFor();
  await say(a, "Once more.");
  path.mend();
  // One that is back by itself has no such button any more.
  const now = (at) => at.getByRole("button", { name: "Try now" }).click({ timeout: 3_000 }).catch(() => {});
  await Promise.all([now(a), now(b)]);
  await row(b, "Once more.");
  assert.ok(await element.evaluate((element) => element.isConnected), "its row is another");
  await until("it ends", async () => (await rows(a)).filter(({ who, state }) => who === "mock" && state === "done").length === 2, 40_000);
  await until("there too", async () => (await rows(b)).filter(({ who, state }) => who === "mock" && state === "done").length === 2);
  assert.deepEqual(await texts(a), await texts(b));
  assert.ok((await rows(a)).every(({ words }) => !words), "something still waits");
  path.close();
});

test("what is refused is kept, and can be sent again or dropped", async () => {
  const { a } = await two();
  await a.route("**/ws", () => {});
  await composer(a).fill("x".repeat(70_000));
  await composer(a).press("Enter");
  const refused = await until("it is refused", async () => (await rows(a)).find(({ state }) => state === "failed"));
  assert.match(refused.words, /Send again/);
  await a.getByRole("button", { name: "Send again" }).click();
  await until("again", async () => (await rows(a)).find(({ state }) => state === "failed"));
  await a.getByRole("button", { name: "Drop this message" }).click();
  await until("it is gone", async () => (await rows(a)).length === 0);
});

test("the end is followed only where one is at the end, and older messages come as one goes up", async () => {
  const { anne, bob, room, a } = await two();
  const post = (person, text) => api(url, person, "POST", `/api/rooms/${room}/messages`, { text });
  for (let at = 1; at <= 130; at += 1) await post(at % 7 ? bob : anne, `message number ${at}`);
  await row(a, "message number 130");
  const atEnd = () => a.locator(".scroller").evaluate((s) => s.scrollHeight - s.scrollTop - s.clientHeight < 5);
  await until("it followed", atEnd);
  await a.reload();
  await row(a, "message number 130");
  await until("it begins at the end", atEnd);
  assert.ok((await rows(a)).length <= 101, "only the newest are there at first");
  await a.locator(".scroller").hover();
  await a.mouse.wheel(0, -1_500);
  await until("it does not follow", () => a.getByRole("button", { name: "Newest" }).isVisible());
  await post(bob, "said meanwhile");
  await a.getByRole("button", { name: "1 new" }).waitFor();
  assert.ok(!(await atEnd()));
  for (let turn = 0; turn < 60 && (await rows(a)).length < 131; turn += 1) {
    await a.mouse.wheel(0, -1_500);
    await a.waitForTimeout(60);
  }
  const texts = (await rows(a)).map(({ text }) => text);
  assert.deepEqual(texts.slice(0, -1), Array.from({ length: 130 }, (_, at) => `message number ${at + 1}`));
  await a.getByRole("button", { name: "1 new" }).click();
  await until("it is at the end", atEnd);
  await post(bob, "and after");
  await until("it follows again", async () => (await atEnd()) && (await rows(a)).at(-1).text === "and after");
});

test("typing is shown, and ends with what was typed", async () => {
  const { bob, a, b } = await two();
  await composer(b).pressSequentially("hel");
  await a.getByText(`${bob.name} is typing`).waitFor();
  await say(b, "hello");
  await until("it ends", () => a.getByText(`${bob.name} is typing`).isHidden());
});

test("bots and people are completed by keyboard", async () => {
  const { bob, a } = await two();
  await composer(a).pressSequentially("/m");
  await a.getByRole("option", { name: /\/mock/ }).waitFor();
  await composer(a).press("Enter");
  assert.equal(await composer(a).inputValue(), "/mock ");
  await composer(a).fill("");
  await composer(a).pressSequentially("/");
  assert.equal(await a.getByRole("option").count(), 3);
  await composer(a).press("Escape");
  await composer(a).fill("");
  await composer(a).pressSequentially("hello @b");
  await a.getByRole("option", { name: new RegExp(`@${bob.name}`) }).waitFor();
  await composer(a).press("Tab");
  assert.equal(await composer(a).inputValue(), `hello @${bob.name} `);
});

test("words are found, however far back, and led to", async () => {
  const { anne, room, a } = await two();
  await api(url, anne, "POST", `/api/rooms/${room}/messages`, { text: "the secret needle is here" });
  for (let at = 0; at < 120; at += 1) await api(url, anne, "POST", `/api/rooms/${room}/messages`, { text: `hay ${at}` });
  await a.reload();
  await a.getByRole("button", { name: "Search in this room" }).click();
  await a.getByLabel("Words to search for").fill("NEED secret");
  await a.getByRole("button", { name: /needle/ }).click();
  await until("it is led to", () => a.locator(".found-row", { hasText: "needle" }).isVisible());
  await a.getByLabel("Words to search for").fill("nowhere");
  await a.getByText("Nothing found.").waitFor();
});

test("one's own words are changed, taken back and answered", async () => {
  const { anne, bob, a, b } = await two();
  await say(a, "Frist");
  await say(b, "Second");
  await row(a, "Second");
  await a.locator(".message-row", { hasText: "Frist" }).hover();
  await a.locator(".message-row", { hasText: "Frist" }).getByRole("button", { name: "Edit" }).click();
  await say(a, "First");
  await row(b, "First");
  assert.match(await b.locator(".message-row", { hasText: "First" }).locator(".when").innerText(), /edited/);
  await a.locator(".message-row", { hasText: "Second" }).hover();
  assert.equal(await a.locator(".message-row", { hasText: "Second" }).getByRole("button", { name: "Edit" }).count(), 0);
  await a.locator(".message-row", { hasText: "Second" }).getByRole("button", { name: "Reply" }).click();
  await say(a, "Third");
  await until("it is an answer", async () => (await b.locator(".message-row", { hasText: "Third" }).locator(".quoted").innerText()).includes(`${bob.name}: Second`));
  await composer(a).press("ArrowUp");
  assert.equal(await composer(a).inputValue(), "Third");
  await composer(a).press("Escape");
  await b.locator(".message-row", { hasText: "Second" }).first().hover();
  await b.locator(".message-row").filter({ has: b.locator(".body", { hasText: "Second" }) }).getByRole("button", { name: "Delete" }).click();
  await b.getByRole("dialog").getByRole("button", { name: "Delete" }).click();
  await until("it is gone for both", async () => !(await rows(a)).some(({ text }) => text === "Second"));
  assert.ok(anne);
});

test("rooms are renamed, left, handed over and deleted, and who is sent away is told at once", async () => {
  const { bob, room, a, b } = await two("old name");
  const carol = await account(url, "carol");
  const c = await signedIn(browser, url, carol);
  await a.getByRole("button", { name: "More about this room" }).click();
  await a.getByRole("menuitem", { name: "Rename" }).click();
  await a.getByRole("dialog").getByLabel("Name").fill("new name");
  await a.getByRole("button", { name: "Rename" }).click();
  await b.getByRole("heading", { name: "new name" }).waitFor();
  await a.getByRole("button", { name: "People", exact: true }).click();
  await a.getByLabel("Search people").fill(carol.name);
  await a.getByRole("button", { name: carol.name, exact: true }).click();
  await c.getByRole("link", { name: /new name/ }).click();
  await a.getByRole("button", { name: `Remove ${carol.name}` }).click();
  await c.getByText("You were removed from “new name”.").waitFor();
  await until("its row is gone", async () => (await c.getByRole("link", { name: /new name/ }).count()) === 0);
  assert.equal(new URL(c.url()).pathname, "/chat");
  await a.getByRole("button", { name: `Make owner: ${bob.name}` }).click();
  await a.getByRole("dialog").getByText("owner", { exact: true }).waitFor();
  await a.keyboard.press("Escape");
  await a.getByRole("button", { name: "More about this room" }).click();
  await a.getByRole("menuitem", { name: "Leave room" }).click();
  await a.getByRole("dialog").getByRole("button", { name: "Leave" }).click();
  await a.getByText("You left “new name”.").waitFor();
  const again = await api(url, bob, "POST", `/api/chats/${room}/invite`, { username: carol.name });
  assert.ok(again);
  await c.getByRole("link", { name: /new name/ }).click();
  await b.getByRole("button", { name: "More about this room" }).click();
  await b.getByRole("menuitem", { name: "Delete room" }).click();
  await b.getByRole("dialog").getByRole("button", { name: "Delete room" }).click();
  await c.getByText("“new name” was deleted by its owner.").waitFor();
  await b.getByText("You deleted “new name”.").waitFor();
});

test("an AI chat answers without being named, and drafts stay with their room", async () => {
  const anne = await account(url, "anne");
  const a = await signedIn(browser, url, anne);
  await a.getByRole("button", { name: "New AI chat" }).click();
  await a.getByRole("button", { name: "Start chat" }).click();
  await composer(a).waitFor();
  await say(a, "What is a room?");
  await until("it answers", async () => (await rows(a)).some(({ who, text }) => who === "mock" && text.includes("What is a room?")));
  await until("it ends", async () => (await rows(a)).at(-1).state === "done");
  await composer(a).fill("half a thought");
  await a.reload();
  await until("the draft is there", async () => (await composer(a).inputValue()) === "half a thought");
});

test("everything is done by keyboard", async () => {
  const anne = await account(url, "anne");
  const a = await page(browser, url);
  await a.goto(url);
  await until("the name has the focus", () => a.evaluate(() => document.activeElement.id === "name"));
  await a.keyboard.type(anne.name);
  await a.keyboard.press("Tab");
  await a.keyboard.type(PASSWORD);
  await a.keyboard.press("Enter");
  await a.getByText(`Welcome, ${anne.name}`).waitFor();
  const tabTo = async (name) => {
    for (let step = 0; step < 40; step += 1) {
      await a.keyboard.press("Tab");
      const at = await a.evaluate(() => document.activeElement.ariaLabel || document.activeElement.innerText);
      if (at === name) return;
    }
    assert.fail(`no way to ${name} by Tab`);
  };
  await tabTo("New room");
  await a.keyboard.press("Enter");
  await a.keyboard.type("By keyboard");
  await a.keyboard.press("Enter");
  await composer(a).waitFor();
  await until("one can write", () => a.evaluate(() => document.activeElement.tagName === "TEXTAREA"));
  await a.keyboard.type("typed");
  await a.keyboard.press("Enter");
  await row(a, "typed");
  await tabTo("More about this room");
  await a.keyboard.press("Enter");
  await a.keyboard.press("ArrowDown");
  await until("the menu is walked", () => a.evaluate(() => document.activeElement.innerText === "Rename"));
  await a.keyboard.press("Escape");
  await tabTo("Reply");
  await a.keyboard.press("Enter");
  await a.keyboard.type("and answered");
  await a.keyboard.press("Enter");
  await row(a, "and answered");
});

test("who listens hears each message once, and an answer once, when it is complete", async () => {
  const { anne, a, b } = await two();
  await b.evaluate(() => {
    window.heard = [];
    new MutationObserver(() => {
      const text = document.getElementById("live").textContent;
      if (text) window.heard.push(text);
    }).observe(document.getElementById("live"), { childList: true, characterData: true, subtree: true });
  });
  await say(a, "Listen.");
  await row(b, "Listen.");
  await say(a, "/bot tell");
  await until("it ends", async () => (await rows(b)).at(-1).state === "done");
  await until("it is told", () => b.evaluate(() => window.heard.some((text) => text.startsWith("mock: "))));
  const heard = await b.evaluate(() => window.heard);
  assert.equal(heard.filter((text) => text === `${anne.name}: Listen.`).length, 1, JSON.stringify(heard));
  assert.equal(heard.filter((text) => text.startsWith("mock: ")).length, 1, JSON.stringify(heard));
});

test("nothing is inaccessible, in light and in dark", async () => {
  const { a, b } = await two("a room for all", { phone: true });
  await say(a, "/bot tell");
  await say(b, "Words, `code` and [a link](https://example.org)");
  await until("it ends", async () => (await rows(a)).some(({ who, state }) => who === "mock" && state === "done"));
  const out = await page(browser, url);
  await out.goto(url);
  const check = async (page, what) => {
    for (const colorScheme of ["light", "dark"]) {
      await page.emulateMedia({ colorScheme, reducedMotion: "reduce" });
      await page.waitForTimeout(250);
      const source = await readFile(axe, "utf8");
      await page.evaluate(`${source}; undefined`);
      const { violations } = await page.evaluate(() => window.axe.run());
      const told = violations.map(({ id, nodes }) => `${id}: ${nodes.map(({ html }) => html.slice(0, 160)).join(" | ")}`);
      assert.deepEqual(told, [], `${what}, ${colorScheme}`);
    }
  };
  await check(out, "login");
  await check(a, "room");
  await check(b, "phone");
  await a.getByRole("button", { name: "People", exact: true }).click();
  await check(a, "people");
  await a.keyboard.press("Escape");
  await a.getByRole("button", { name: "New room" }).click();
  await check(a, "new room");
  await a.keyboard.press("Escape");
  await a.goto(`${url}/chat`);
  await check(a, "list");
});

test("another page uses coop.js, from another origin", async () => {
  const [anne, bob] = [await account(url, "anne"), await account(url, "bob")];
  const room = await group(url, "elsewhere", [anne, bob]);
  const here = await page(browser, url);
  const example = await readFile(new URL("../../../examples/web/index.html", import.meta.url));
  // A server of its own: a browser lets no page reach a loopback address that does not come from one.
  const origin = process.env.COOP_ELSEWHERE ?? "http://localhost:3000";
  const elsewhere = createServer((_, response) => response.setHeader("content-type", "text/html").end(example));
  await new Promise((listening) => elsewhere.listen(Number(new URL(origin).port), "127.0.0.1", listening));
  const before = complaints.length;
  await here.goto(`${origin}/?room=${room}&server=${url}`);
  // That it asks for a page of its own is no complaint here.
  complaints.splice(before);
  await here.getByPlaceholder("Name").fill(anne.name);
  await here.getByPlaceholder("Password").fill(PASSWORD);
  await here.getByRole("button", { name: "Sign in" }).click();
  await here.getByText("online").waitFor();
  await api(url, bob, "POST", `/api/rooms/${room}/messages`, { text: "hello from the server" });
  await here.getByText(`${bob.name}: hello from the server`).waitFor();
  await here.getByPlaceholder("Message").fill("/bot and hello back");
  await here.getByPlaceholder("Message").press("Enter");
  await here.getByText(`${anne.name}: /bot and hello back`).waitFor();
  await until("the answer grows", async () => /mock: .*…/s.test(await here.locator("#said li").last().innerText()));
  await until("and ends", async () => !/…$/.test((await here.locator("#said li").last().innerText()).trim()));
  complaints.splice(before);
  elsewhere.close();
});

test("markdown becomes these elements, also piece by piece", async () => {
  const here = await page(browser, url);
  await here.goto(`${url}/login`);
  const wrong = await here.evaluate(async (table) => {
    const { Markdown, render } = await import("/md.js");
    const html = (nodes) => {
      const box = document.createElement("div");
      box.append(nodes);
      return box.innerHTML;
    };
    const wrong = [];
    for (const [text, expected] of table) {
      const made = html(render(text));
      if (made !== expected) wrong.push(`${JSON.stringify(text)}\n    is ${made}\n not ${expected}`);
      const element = document.createElement("div");
      const growing = new Markdown(element);
      for (let end = 1; end <= text.length; end += 1) {
        growing.show(text.slice(0, end));
        const whole = html(render(text.slice(0, end)));
        if (element.innerHTML !== whole) {
          wrong.push(`${JSON.stringify(text.slice(0, end))} grown\n    is ${element.innerHTML}\n not ${whole}`);
          break;
        }
      }
    }
    return wrong;
  }, MARKDOWN);
  assert.deepEqual(wrong, [], `\n${wrong.join("\n")}`);
});

test("no text takes long, or breaks the page", async () => {
  const here = await page(browser, url);
  await here.goto(`${url}/login`);
  // What as much of ordinary prose takes: on a slow machine everything takes longer.
  const prose = "Some **bold** words, a [link](https://example.org), and `code` in between.\n".repeat(1_000);
  const times = await here.evaluate(async (texts) => {
    const { render } = await import("/md.js");
    render("x");
    const time = ([name, text]) => {
      const runs = [1, 2, 3, 4, 5].map(() => {
        const begun = performance.now();
        render(text);
        return performance.now() - begun;
      });
      return [name, Math.min(...runs)];
    };
    return Object.entries(texts).map(time);
  }, { prose, ...HOSTILE });
  const usual = times[0][1];
  const slow = times.slice(1).filter(([, time]) => time > 50 && time > 2 * usual);
  console.log(`    ${times.map(([name, time]) => `${name} ${time.toFixed(1)}`).join(", ")} ms`);
  assert.deepEqual(slow, []);
});

test("a long answer within the budgets", async () => {
  const { a, b } = await two("budget");
  const session = await b.context().newCDPSession(b);
  await session.send("Performance.enable");
  await session.send("Network.enable");
  let received = 0;
  let measuring = false;
  session.on("Network.webSocketFrameReceived", ({ response }) => {
    if (measuring) received += Buffer.byteLength(response.payloadData);
  });
  await b.evaluate(() => {
    window.longest = 0;
    new PerformanceObserver((list) => {
      for (const { duration } of list.getEntries()) window.longest = Math.max(window.longest, duration);
    }).observe({ type: "longtask" });
  });
  const metrics = async () => Object.fromEntries((await session.send("Performance.getMetrics")).metrics.map(({ name, value }) => [name, value]));
  const before = await metrics();
  measuring = true;
  await say(a, "/bot essay");
  await until("it ends", async () => /Section 1\d/.test(await b.locator(".message-row").last().innerText()) && (await b.locator(".message-row").last().getAttribute("data-state")) === "done", 40_000);
  measuring = false;
  await session.send("HeapProfiler.collectGarbage");
  const after = await metrics();
  const script = after.ScriptDuration - before.ScriptDuration;
  const heap = after.JSHeapUsedSize / 1024 / 1024;
  const longest = await b.evaluate(() => window.longest);
  console.log(`    script ${(script * 1_000).toFixed(0)} ms, longest task ${longest.toFixed(0)} ms, heap ${heap.toFixed(1)} MiB, ${received} bytes over the socket`);
  assert.ok(script < 1.5, `script ${script} s`);
  assert.ok(longest < 200, `longest task ${longest} ms`);
  assert.ok(heap < 20, `heap ${heap} MiB`);
  assert.ok(received > 17_000 && received <= 51_000, `${received} bytes`);
});

let failed = 0;
for (const { name, run } of tests.filter(({ name }) => !only || name.includes(only))) {
  const begun = Date.now();
  const complained = complaints.length;
  try {
    await run();
    assert.deepEqual(complaints.slice(complained), [], "the page complained");
    console.log(`ok ${name} (${Date.now() - begun} ms)`);
  } catch (error) {
    failed += 1;
    console.log(`FAILED ${name} (${Date.now() - begun} ms)\n${error.stack}`);
    let at = 0;
    for (const context of browser.contexts()) {
      for (const page of context.pages()) {
        const path = `${process.env.COOP_WEB_SHOTS ?? "/tmp"}/failed-${failed}-${(at += 1)}.png`;
        await page.screenshot({ path }).catch(() => {});
      }
    }
  }
  await Promise.all(browser.contexts().map((context) => context.close()));
}
await browser.close();
console.log(failed ? `${failed} failed` : "all well");
process.exit(failed ? 1 : 0);
