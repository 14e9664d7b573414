// What the pages do by themselves: change while somebody looks, filter while somebody types, dark and light.
// Everything works without it, but for being live. The HTML that it puts into the page comes from our server, which
// escapes what messages and queues have in them.

const RETRY_MS = 3000;
const TYPING_MS = 200;

const byId = (id) => document.getElementById(id);

// -- the parts of a page ----------------------------------------------------------------------------------------------

function parsed(html) {
  const template = document.createElement("template");
  template.innerHTML = html.trim();
  return template.content;
}

// Makes `old` like `next`, leaving alone what is the same, so that focus and selection stay where they are.
function morph(old, next) {
  if (old.isEqualNode(next)) return;
  if (old.nodeType !== next.nodeType || old.nodeName !== next.nodeName) {
    old.replaceWith(next);
    return;
  }
  if (old.nodeType !== Node.ELEMENT_NODE) {
    old.nodeValue = next.nodeValue;
    return;
  }
  for (const { name } of [...old.attributes]) if (!next.hasAttribute(name)) old.removeAttribute(name);
  for (const { name, value } of next.attributes) if (old.getAttribute(name) !== value) old.setAttribute(name, value);
  morphChildren(old, next);
}

function morphChildren(old, next) {
  const before = [...old.childNodes];
  const after = [...next.childNodes];
  after.forEach((child, at) => (at < before.length ? morph(before[at], child) : old.append(child)));
  before.slice(after.length).forEach((child) => child.remove());
}

function showRows(order, changed) {
  const body = byId("rows");
  if (!body) return;
  const focused = document.activeElement;
  const wanted = new Set(order);
  for (const row of [...body.children]) if (!wanted.has(row.id)) row.remove();
  let place = body.firstElementChild;
  for (const id of order) {
    let row = byId(id);
    if (changed[id]) {
      const next = parsed(changed[id]).firstElementChild;
      if (row) morph(row, next);
      else row = next;
    }
    if (!row) continue;
    if (row === place) place = place.nextElementSibling;
    else body.insertBefore(row, place);
  }
  if (focused && focused !== document.activeElement && body.contains(focused)) focused.focus();
  const empty = byId("empty");
  if (empty) empty.hidden = order.length > 0;
}

// -- live -------------------------------------------------------------------------------------------------------------

const pause = byId("pause");
let source = null;
let retry = 0;
let paused = false;

function live() {
  return document.body.dataset.live;
}

function connect() {
  disconnect();
  if (!live() || paused || document.hidden) return;
  source = new EventSource(live());
  source.onmessage = ({ data }) => {
    const { parts = {}, rows, order } = JSON.parse(data);
    for (const [id, html] of Object.entries(parts)) {
      const part = byId(id);
      if (part) morphChildren(part, parsed(html));
    }
    if (order) showRows(order, rows);
  };
  source.addEventListener("end", () => location.reload());
  source.onerror = () => {
    const status = byId("status");
    if (status) status.replaceChildren(dot("bad"), word("console not reached"));
    if (source && source.readyState === EventSource.CLOSED) {
      disconnect();
      retry = setTimeout(comeBack, RETRY_MS);
    }
  };
}

// The console answered, but not with a stream: it was started anew and knows no session, or has no room.
async function comeBack() {
  try {
    const answer = await fetch("/status", { redirect: "manual" });
    if (answer.status === 401) {
      location.reload();
      return;
    }
  } catch {
    // still away
  }
  connect();
}

function disconnect() {
  clearTimeout(retry);
  if (source) source.close();
  source = null;
}

function dot(kind) {
  const made = document.createElement("span");
  made.className = `dot ${kind}`;
  return made;
}

function word(text) {
  const made = document.createElement("span");
  made.className = "word";
  made.textContent = text;
  return made;
}

if (pause) {
  pause.hidden = false;
  pause.addEventListener("click", () => {
    paused = !paused;
    pause.setAttribute("aria-pressed", String(paused));
    pause.textContent = paused ? "Paused" : "Pause";
    if (paused) byId("status").replaceChildren(dot(""), word("paused"));
    connect();
  });
}

document.addEventListener("visibilitychange", connect);
addEventListener("pagehide", disconnect);
addEventListener("pageshow", ({ persisted }) => persisted && connect());
connect();

// -- filter -----------------------------------------------------------------------------------------------------------

const filter = byId("filter");
if (filter) {
  let timer = 0;
  filter.addEventListener("input", () => {
    clearTimeout(timer);
    timer = setTimeout(() => {
      const here = new URL(location.href);
      const text = byId("filter-text").value;
      if (text) here.searchParams.set("filter", text);
      else here.searchParams.delete("filter");
      history.replaceState(null, "", here);
      const stream = new URL(live(), location.href);
      stream.searchParams.set("filter", text);
      document.body.dataset.live = stream.pathname + stream.search;
      if (paused) pause.click();
      else connect();
    }, TYPING_MS);
  });
}

// -- all or none of a page --------------------------------------------------------------------------------------------

const all = byId("select-all");
if (all) {
  all.hidden = false;
  all.addEventListener("change", () => {
    for (const box of document.querySelectorAll('input[name="id"]')) box.checked = all.checked;
  });
}

// -- dark and light ---------------------------------------------------------------------------------------------------

const theme = byId("theme");
if (theme) {
  const root = document.documentElement;
  const system = matchMedia("(prefers-color-scheme: dark)");
  const current = () => root.dataset.theme || (system.matches ? "dark" : "light");
  const label = () => (theme.textContent = current() === "dark" ? "Light" : "Dark");
  theme.hidden = false;
  label();
  system.addEventListener("change", label);
  theme.addEventListener("click", () => {
    root.dataset.theme = current() === "dark" ? "light" : "dark";
    document.cookie = `theme=${root.dataset.theme}; path=/; max-age=31536000; samesite=strict`;
    label();
  });
}

// -- a server that is away --------------------------------------------------------------------------------------------

if (document.querySelector("[data-retry]")) {
  setInterval(async () => {
    try {
      const answer = await fetch(location.href, { redirect: "manual" });
      if (answer.status !== 503) location.reload();
    } catch {
      // still away
    }
  }, RETRY_MS);
}
