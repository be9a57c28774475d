// An inbox in a web page: list, badge, marks, and what changes while it is looked at. No library, no build.
//
// `login` is the app's own: it answers where the API is and a token (JWT) that names the user.

const PAGE = 20;
const element = (id) => document.getElementById(id);

let session = null; // { api, token }
const items = new Map(); // by messageId, as the API gave them
let older = null; // where older items begin, while there are any
let place = null; // the cursor up to which this page knows the inbox
let shown = null; // the cursor of the newest item that is on the screen

// --- the API ----------------------------------------------------------------------------------------

async function login() {
  const response = await fetch("login", { method: "POST" });
  if (!response.ok) throw new Error("the login does not answer");
  session = await response.json();
}

/// Calls the API in the user's name; once more with a new token where the old one has expired.
async function call(path, options = {}) {
  for (let tries = 0; ; tries++) {
    if (!session) await login();
    const headers = { ...options.headers, authorization: `Bearer ${session.token}` };
    const response = await fetch(session.api + path, { ...options, headers });
    if (response.ok) return response;
    if (response.status === 401 && tries === 0) {
      session = null;
      continue;
    }
    const problem = await response.json().catch(() => ({ detail: response.statusText }));
    throw new Error(problem.detail);
  }
}

/// A verb answers with the counts as they are after it; null where they do not show yet.
async function mark(path, body) {
  const options = { method: "POST", body: body && JSON.stringify(body) };
  const answer = await (await call(`/v1/inbox/${path}`, options)).json();
  if (answer.counts) showCounts(answer.counts);
  return answer;
}

// --- the list ---------------------------------------------------------------------------------------

async function list() {
  const page = await (await call(`/v1/inbox?limit=${PAGE}`)).json();
  items.clear();
  take(page);
  place = page.cursor; // the stream goes on from here: nothing is missed in between
}

async function more() {
  take(await (await call(`/v1/inbox?limit=${PAGE}&before=${older}`)).json());
}

function take(page) {
  for (const item of page.items) items.set(item.messageId, item);
  older = page.next ?? null;
  showCounts(page.counts);
  show();
}

// --- what changes -----------------------------------------------------------------------------------

/// Follows the inbox for ever. `fetch` rather than EventSource, which cannot send the token in a header.
async function follow() {
  let pause = 1000;
  for (;;) {
    try {
      if (!place) await list();
      const response = await call("/v1/inbox/stream", { headers: { "last-event-id": place } });
      element("live").textContent = "live";
      element("trouble").textContent = "";
      for await (const event of eventsOf(response.body)) {
        if (event.retry) pause = Number(event.retry);
        if (event.data) hear(event.event, JSON.parse(event.data));
      }
    } catch (error) {
      if (!place) element("trouble").textContent = error.message;
    }
    element("live").textContent = "";
    await new Promise((resume) => setTimeout(resume, pause)); // and go on from `place`
  }
}

/// Server-sent events: blocks of `name: value` lines with an empty line behind each.
async function* eventsOf(body) {
  let text = "";
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      text += value;
      const blocks = text.split("\n\n");
      text = blocks.pop();
      for (const block of blocks) {
        const lines = block.split("\n").map((line) => line.match(/^(\w+): ?(.*)$/)).filter(Boolean);
        yield Object.fromEntries(lines.map(([, name, value]) => [name, value]));
      }
    }
  } finally {
    reader.cancel().catch(() => {}); // whoever stops listening closes the stream
  }
}

function hear(event, { cursor, item, messageId, counts }) {
  if (event === "resync") {
    place = null; // too much happened: list anew
    throw new Error("too much was missed");
  }
  place = cursor;
  showCounts(counts);
  if (event === "removed" || item?.archivedAt) items.delete(messageId ?? item.messageId);
  else if (item) items.set(item.messageId, item);
  show();
}

// --- the screen -------------------------------------------------------------------------------------

function showCounts(counts) {
  element("badge").textContent = counts.unread || "";
}

/// The place in a cursor: a recipient's are all of one shard, and grow.
const number = (cursor) => Number(cursor.split("-")[1]);

function show() {
  const newestFirst = [...items.values()].sort((one, other) => number(other.cursor) - number(one.cursor));
  element("items").replaceChildren(...newestFirst.map(row));
  element("more").hidden = !older;
  shown = newestFirst[0]?.cursor ?? null;
  const unseen = newestFirst.filter((item) => !item.seenAt).map((item) => item.messageId);
  if (unseen.length > 0 && document.visibilityState === "visible") {
    const named = unseen.slice(0, 500);
    for (const id of named) items.get(id).seenAt = "now";
    attempt(() => mark("seen", { messageIds: named }), () => {
      for (const id of named) if (items.get(id)?.seenAt === "now") delete items.get(id).seenAt;
    });
  }
}

/// Texts come from elsewhere: they are shown as text and never as HTML.
function row(item) {
  const row = document.createElement("li");
  row.dataset.id = item.messageId;
  row.className = item.readAt ? "" : "unread";
  const add = (name, text, properties = {}) => {
    const child = Object.assign(document.createElement(name), { textContent: text }, properties);
    row.append(child, " ");
    return child;
  };
  add("span", item.title, { className: "title" }).onclick = () => change(item, "read");
  if (item.body) add("p", item.body);
  if (item.link?.startsWith("https://")) {
    const link = add("a", "Open", { href: item.link, rel: "noopener noreferrer", target: "_blank" });
    link.onclick = () => change(item, "clicked");
  }
  add("time", new Date(item.appearedAt ?? item.receivedAt).toLocaleString());
  add("button", "Archive", { className: "archive" }).onclick = () => change(item, "archive");
  add("button", "Delete", { className: "delete" }).onclick = () => change(item, "delete");
  return row;
}

function change(item, verb) {
  attempt(async () => {
    await mark(`${encodeURIComponent(item.messageId)}/${verb}`);
    // By now the stream may have told more of it.
    const known = items.get(item.messageId);
    if (verb === "archive" || verb === "delete") items.delete(item.messageId);
    else if (known) known.readAt ??= "now";
    show();
  });
}

/// Up to the newest item on the screen: what arrives meanwhile stays unread.
function readAll() {
  attempt(async () => {
    const upTo = shown;
    if (!upTo) return;
    await mark("read", { upTo });
    for (const item of items.values()) if (number(item.cursor) <= number(upTo)) item.readAt ??= "now";
    show();
  });
}

async function attempt(action, undo = () => {}) {
  try {
    await action();
    element("trouble").textContent = "";
  } catch (error) {
    undo();
    element("trouble").textContent = error.message;
  }
}

element("read-all").onclick = readAll;
element("more").onclick = () => attempt(more);
document.addEventListener("visibilitychange", show);
follow();
