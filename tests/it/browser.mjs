// Clicks through the example inbox: browser.mjs CHROMIUM PAGE API HEADER_FILE
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { chromium } from "playwright-core";

const [executablePath, address, api, headerFile] = process.argv.slice(2);
const [name, value] = readFileSync(headerFile, "utf8").split(": ");

/// What a producer sends.
async function send(messageId, title, more = {}) {
  const body = { messageId, notificationType: "APP_NOTIFICATION", recipientId: "user-42", title, ...more };
  const response = await fetch(`${api}/v1/messages`, {
    method: "POST",
    headers: { [name]: value },
    body: JSON.stringify(body),
  });
  assert.equal(response.status, 201, await response.text());
}

const browser = await chromium.launch({ executablePath, args: ["--no-sandbox"] });
const page = await browser.newPage();
page.setDefaultTimeout(15_000);
const troubles = [];
page.on("pageerror", (error) => troubles.push(String(error)));
page.on("console", (message) => message.type() === "error" && troubles.push(message.text()));

const badge = async () => Number((await page.textContent("#badge")) || 0);
const badgeIs = (count) =>
  page.waitForFunction((count) => Number(document.getElementById("badge").textContent || 0) === count, count);
const item = (id) => page.locator(`li[data-id="${id}"]`);

await page.goto(address);
await page.waitForFunction(() => document.getElementById("live").textContent === "live");
const before = await badge();
assert.ok((await page.locator("li").count()) > 0, "the list is empty");

// What arrives shows without a reload, as the newest and as text, and is counted.
await send("browser-1", "<img src=x onerror=alert(1)>");
await item("browser-1").waitFor();
assert.equal(await page.locator("li").first().getAttribute("data-id"), "browser-1");
assert.equal(await item("browser-1").locator(".title").textContent(), "<img src=x onerror=alert(1)>");
await badgeIs(before + 1);

// Reading it is kept.
await item("browser-1").locator(".title").click();
await badgeIs(before);
await page.reload();
await item("browser-1").waitFor();
await badgeIs(before);
assert.equal(await item("browser-1").getAttribute("class"), "");

// "Mark all read" does not eat what arrives while it is on its way.
await send("browser-2", "Before");
await item("browser-2").waitFor();
await page.route("**/v1/inbox/read", async (route) => {
  await send("browser-3", "Meanwhile");
  await item("browser-3").waitFor();
  await route.continue();
});
await page.click("#read-all");
await page.waitForFunction(() => document.querySelectorAll("li.unread").length === 1);
await badgeIs(1);
assert.equal(await item("browser-3").getAttribute("class"), "unread");

// Put away and removed.
await item("browser-3").locator(".archive").click();
await item("browser-3").waitFor({ state: "detached" });
await badgeIs(0);
await item("browser-2").locator(".delete").click();
await item("browser-2").waitFor({ state: "detached" });
await page.reload();
await item("browser-1").waitFor();
assert.equal(await item("browser-2").count(), 0);

// What another device does shows here.
const other = { method: "POST", headers: { [name]: value } };
await fetch(`${api}/v1/recipients/user-42/inbox/browser-1/unread`, other);
await badgeIs(1);
await fetch(`${api}/v1/recipients/user-42/inbox/browser-1/delete`, other);
await item("browser-1").waitFor({ state: "detached" });

assert.deepEqual(troubles, []);
await browser.close();
console.log("done");
