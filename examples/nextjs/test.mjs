// Builds this front end, runs it beside a server with the mock bot, and uses it in Chromium as two people do. `make test-nextjs`.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import net from "node:net";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { chromium } from "playwright-core";

const here = import.meta.dirname;
const server = resolve(here, "../../target/debug/coop-server");
const folder = await mkdtemp(join(tmpdir(), "coop-nextjs-"));
const children = [];

function run(command, args, env = {}) {
  const child = spawn(command, args, { cwd: here, env: { ...process.env, NEXT_TELEMETRY_DISABLED: "1", ...env }, stdio: ["ignore", "inherit", "inherit"], detached: true });
  children.push(child);
  return child;
}

const ended = (child) => new Promise((done) => child.on("exit", done));

async function until(what, look, patience = 20_000) {
  const end = Date.now() + patience;
  while (Date.now() < end) {
    const found = await Promise.resolve().then(look).catch(() => undefined);
    if (found) return found;
    await new Promise((again) => setTimeout(again, 50));
  }
  throw new Error(`${what}: not in time`);
}

const freePort = () =>
  new Promise((done) => {
    const probe = net.createServer().listen(0, "127.0.0.1", () => {
      const { port } = probe.address();
      probe.close(() => done(port));
    });
  });

async function person(browser, url, name) {
  const page = await (await browser.newContext()).newPage();
  page.setDefaultTimeout(10_000);
  page.on("pageerror", (error) => assert.fail(error.stack));
  await page.goto(url);
  await page.getByRole("button", { name: "Create an account" }).click();
  await page.getByLabel("Name").fill(name);
  await page.getByLabel("E-mail").fill(`${name}@example.org`);
  await page.getByLabel("Password").fill("correct horse");
  await page.getByRole("button", { name: "Create account" }).click();
  await page.getByText("Choose a room.").waitFor();
  return page;
}

const say = async (page, text) => {
  await page.getByLabel("Message").fill(text);
  await page.getByLabel("Message").press("Enter");
};

try {
  const [pagePort, portFile] = [await freePort(), join(folder, "port")];
  const url = `http://127.0.0.1:${pagePort}`;
  run(server, ["--listen", "127.0.0.1:0", "--port-file", portFile, "--database", "sqlite::memory:", "--bot", "mock=mock", "--limits", "off", "--no-web", "--cors-origin", url]);
  const port = await until("the server is ready", async () => (await readFile(portFile, "utf8")).trim());
  const api = { NEXT_PUBLIC_COOP_URL: `http://127.0.0.1:${port}` };
  assert.equal(await ended(run("npx", ["next", "build"], api)), 0, "it does not build");
  run("npx", ["next", "start", "-p", String(pagePort), "-H", "127.0.0.1"], api);
  await until("the page is there", async () => (await fetch(url)).ok);

  const flags = ["--headless", "--no-sandbox", "--disable-gpu"];
  const browser = await chromium.launch({ executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium", args: flags });
  const [anne, bob] = [await person(browser, url, "anne"), await person(browser, url, "bob")];
  anne.on("dialog", (dialog) => dialog.accept("lab"));
  await anne.getByRole("button", { name: "New room" }).click();
  await anne.getByRole("heading", { name: "lab" }).waitFor();
  await anne.evaluate(async (url) => {
    const headers = { authorization: `Bearer ${localStorage.getItem("coop.token")}`, "content-type": "application/json" };
    await fetch(`${url}/api/chats/1/invite`, { method: "POST", headers, body: JSON.stringify({ username: "bob" }) });
  }, api.NEXT_PUBLIC_COOP_URL);
  await bob.getByRole("button", { name: /lab/ }).click();
  await say(anne, "Good **morning**.");
  await bob.getByText("Good morning.").waitFor();
  await say(bob, "/bot essay");
  const answer = (page) => page.locator("[data-status]").last();
  await until("the answer grows for her", async () => (await answer(anne).innerText()).includes("Section 1"));
  await anne.reload();
  await anne.getByRole("button", { name: /lab/ }).click();
  await until("and after a reload", async () => (await answer(anne).innerText()).includes("Section 1"));
  await anne.getByRole("button", { name: "Stop" }).click();
  await until("it is stopped for him", async () => (await answer(bob).getAttribute("data-status")) === "stopped");
  const text = (page) => answer(page).locator(".text").innerText();
  assert.equal(await text(anne), await text(bob));
  await bob.getByRole("button", { name: "Try again" }).click();
  await until("another begins", async () => (await anne.locator("[data-status=streaming]").count()) === 1);
  await browser.close();
  console.log("all well");
} finally {
  // With what they have started: `npx` hands a signal on to nobody.
  for (const { pid, exitCode } of children) if (exitCode === null) process.kill(-pid);
  await rm(folder, { recursive: true });
}
process.exit();
