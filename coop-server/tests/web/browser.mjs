// What the browser tests share: a browser, people in it, and a line that can be cut. Everything that a page complains of is kept:
// at the end there must be nothing.

import assert from "node:assert/strict";
import net from "node:net";
import { chromium } from "playwright-core";

const FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"];

export const PASSWORD = "correct horse";
export const PHONE = { viewport: { width: 390, height: 780 }, hasTouch: true, isMobile: true };

/** What pages said that they should not have. */
export const complaints = [];

export async function launch() {
  return chromium.launch({ executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium", args: FLAGS });
}

/** A page in a window of its own, as nobody. */
export async function page(browser, url, options = {}) {
  const context = await browser.newContext({ viewport: { width: 1200, height: 780 }, ...options });
  context.setDefaultTimeout(10_000);
  await context.addInitScript(() => {
    addEventListener("securitypolicyviolation", (event) => console.error(`policy: ${event.violatedDirective} ${event.blockedURI}`));
  });
  const made = await context.newPage();
  const host = new URL(url).host;
  made.on("console", (message) => {
    // What the browser itself says of a line that was cut is what a test wanted.
    const wanted = /WebSocket connection|ERR_(CONNECTION|EMPTY|INTERNET|SOCKET)|status of (400|401|403|404|409|422|429|503)/;
    if (["error", "warning"].includes(message.type()) && !wanted.test(message.text())) complaints.push(message.text());
  });
  made.on("pageerror", (error) => complaints.push(error.stack));
  made.on("request", (request) => {
    if (new URL(request.url()).host !== host) complaints.push(`asked ${request.url()}`);
  });
  return made;
}

let number = 0;

/** Makes an account without a page. */
export async function account(url, name) {
  const person = { name: `${name}${process.pid % 1000}x${(number += 1)}` };
  await api(url, null, "POST", "/api/auth/register", { username: person.name, email: `${person.name}@example.org`, password: PASSWORD });
  const { access_token } = await api(url, null, "POST", "/api/auth/login", { username: person.name, password: PASSWORD });
  person.token = access_token;
  return person;
}

export async function api(url, person, method, path, body) {
  const headers = { "content-type": "application/json" };
  if (person) headers.authorization = `Bearer ${person.token}`;
  const response = await fetch(url + path, { method, headers, body: body && JSON.stringify(body) });
  const text = await response.text();
  assert.ok(response.ok, `${method} ${path}: ${response.status} ${text}`);
  return JSON.parse(text);
}

/** A page of somebody who is signed in. */
export async function signedIn(browser, url, person, options) {
  const made = await page(browser, url, options);
  await made.goto(`${url}/login`);
  await made.evaluate((token) => localStorage.setItem("coop.token", token), person.token);
  await made.goto(`${url}/chat`);
  await made.locator(".me-name", { hasText: person.name }).waitFor();
  return made;
}

/** A room of these people, the first its owner. */
export async function group(url, name, [owner, ...others]) {
  const draft = { name, is_group: true, participant_usernames: others.map((person) => person.name) };
  return (await api(url, owner, "POST", "/api/chats", draft)).id;
}

export const composer = (page) => page.getByRole("textbox", { name: "Message", exact: true });

export async function say(page, text) {
  await composer(page).fill(text);
  await composer(page).press("Enter");
}

/** The rows of a page, as one sees them. */
export const rows = (page) =>
  page.locator(".message-row").evaluateAll((all) =>
    all.map((row) => ({
      who: row.querySelector(".who").textContent,
      text: row.querySelector(".body").innerText.trim(),
      state: row.dataset.state,
      words: row.querySelector(".state").hidden ? "" : row.querySelector(".state").innerText.trim(),
      seen: row.querySelector(".seen").hidden ? "" : row.querySelector(".seen").innerText,
      day: row.querySelector(".day").hidden ? "" : row.querySelector(".day").innerText,
      grouped: row.classList.contains("grouped"),
    })),
  );

/** Waits until something is so, and gives it. */
export async function until(what, look, patience = 10_000) {
  const end = Date.now() + patience;
  let last;
  while (Date.now() < end) {
    try {
      last = await look();
      if (last) return last;
    } catch (error) {
      last = error;
    }
    await new Promise((resolve) => setTimeout(resolve, 40));
  }
  throw new Error(`${what}: not in time; last ${last instanceof Error ? last.message : JSON.stringify(last)}`);
}

/** The one row whose text contains this. */
export const row = (page, text) =>
  until(`a row with ${text}`, async () => {
    const found = (await rows(page)).filter((row) => row.text.includes(text));
    assert.ok(found.length <= 1, `${found.length} rows with ${text}`);
    return found[0];
  });

/** A line to the server that can be cut. */
export async function line(url) {
  const { hostname, port } = new URL(url);
  const open = new Set();
  let isCut = false;
  const server = net.createServer((near) => {
    if (isCut) return near.destroy();
    const far = net.connect(Number(port), hostname);
    for (const [a, b] of [[near, far], [far, near]]) {
      open.add(a);
      a.on("error", () => b.destroy());
      a.on("close", () => (open.delete(a), b.destroy()));
      a.pipe(b);
    }
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  return {
    url: `http://127.0.0.1:${server.address().port}`,
    cut() {
      isCut = true;
      for (const socket of open) socket.destroy();
    },
    mend() {
      isCut = false;
    },
    close() {
      this.cut();
      server.close();
    },
  };
}
