// The public API, as the console asks it: the same addresses that curl uses, with the session's cookie.

// Says that this is the console: a 401 then has no Basic challenge, at which browsers open a window of their own.
const CONSOLE = { "X-Requested-With": "flansible" };
const RETRY_SECONDS = [1, 2, 5, 10];

/** Who is logged in: `{user, role, is_admin, sees_all, may_act, csrf_token, flower_url}`, or null. */
export let session = null;

/** A reply that says what was wrong. status 0: none came at all. retrySeconds: when to ask again, 0 when it did not say. */
export class ApiError extends Error {
  constructor(status, body, retrySeconds = 0) {
    super(body.message);
    this.status = status;
    this.retrySeconds = retrySeconds;
    this.code = body.code ?? "";
    this.errors = body.errors ?? [];
  }
}

export async function whoami() {
  try {
    session = await get("api/session");
  } catch (error) {
    if (error.status !== 401) throw error;
    session = null;
  }
  return session;
}

export async function login(user, password) {
  session = await ask("POST", "api/session", { body: { user, password } });
  return session;
}

export async function logout() {
  await remove("api/session");
  session = null;
}

/** JSON of an address. params: an object or URLSearchParams; what is null, undefined or "" is left out. */
export function get(path, params = {}, signal = undefined) {
  return ask("GET", address(path, params), { signal });
}

export function post(path, body = undefined, headers = {}) {
  return ask("POST", path, { body, headers });
}

export function remove(path) {
  return ask("DELETE", path);
}

/** The reply itself, for what is no JSON. Raises ApiError as the others do. */
export async function fetchReply(path, params = {}, signal = undefined, headers = {}) {
  return checked(await send("GET", address(path, params), { signal, headers }));
}

/** Server-Sent Events, until the server ends them or `signal` aborts; goes on after a break where it was cut.
 * onEvent({id, event, data}): data is JSON already read; onState(isConnected) tells of breaks. */
export async function stream(path, params, { signal, after = null, onEvent, onState = () => {} }) {
  let last = after;
  for (let failures = 0; !signal.aborted; ) {
    try {
      const headers = { Accept: "text/event-stream", ...(last === null ? {} : { "Last-Event-ID": String(last) }) };
      const reply = await fetchReply(path, params, whileSeen(signal), headers);
      if (reply.status === 204) return;
      failures = 0;
      onState(true);
      let isOver = false;
      for await (const message of messages(reply.body)) {
        if (message.id !== null) last = message.id;
        onEvent(message);
        isOver = message.event === "final";
      }
      if (isOver) return;
    } catch (error) {
      if (signal.aborted) return;
      if (error.status >= 400 && error.status < 500 && error.status !== 429) throw error;
    }
    if (document.hidden) {
      await untilSeen(signal);
      continue;
    }
    onState(false);
    await pause(RETRY_SECONDS[Math.min(failures++, RETRY_SECONDS.length - 1)], signal);
  }
}

/** Aborts as `signal` does, or once the page is out of sight. A stream holds one of the six connections that a browser has
 * to a server for all its tabs: those nobody looks at would keep the next one from loading. */
export function whileSeen(signal) {
  const hidden = new AbortController();
  const either = AbortSignal.any([signal, hidden.signal]);
  const look = () => document.hidden && hidden.abort();
  document.addEventListener("visibilitychange", look, { signal: either });
  look();
  return either;
}

/** Until the page is in sight, or the signal aborts. */
export function untilSeen(signal) {
  const seen = new AbortController();
  return new Promise((resolve) => {
    const look = () => {
      if (document.hidden && !signal.aborted) return;
      seen.abort();
      resolve();
    };
    document.addEventListener("visibilitychange", look, { signal: seen.signal });
    signal.addEventListener("abort", look, { signal: seen.signal });
    look();
  });
}

/** Seconds, or until the signal aborts. */
export function pause(seconds, signal) {
  return new Promise((resolve) => {
    const over = () => {
      clearTimeout(timer);
      signal?.removeEventListener("abort", over);
      resolve();
    };
    const timer = setTimeout(over, seconds * 1000);
    signal?.addEventListener("abort", over);
  });
}

async function* messages(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      text += value;
      const blocks = text.split("\n\n");
      text = blocks.pop();
      for (const block of blocks) {
        const message = parsed(block);
        if (message) yield message;
      }
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

function parsed(block) {
  const message = { id: null, event: "message", data: "" };
  for (const line of block.split("\n")) {
    const [, name, value] = /^([^:]*):? ?(.*)$/.exec(line);
    if (name === "id") message.id = value;
    else if (name === "event") message.event = value;
    else if (name === "data") message.data += value;
  }
  return message.data ? { ...message, data: JSON.parse(message.data) } : null;
}

function address(path, params) {
  const given = params instanceof URLSearchParams ? [...params] : Object.entries(params);
  const kept = given.filter(([, value]) => value !== null && value !== undefined && value !== "");
  return kept.length ? `${path}?${new URLSearchParams(kept)}` : path;
}

async function ask(method, path, options = {}) {
  const reply = await checked(await send(method, path, options));
  return reply.status === 204 ? null : reply.json();
}

async function send(method, path, { body, headers = {}, signal } = {}) {
  const all = { ...CONSOLE, ...headers };
  if (body !== undefined) all["Content-Type"] = "application/json";
  if (method !== "GET" && session) all["X-CSRF-Token"] = session.csrf_token;
  const sent = { method, headers: all, signal, cache: "no-store", credentials: "same-origin" };
  try {
    return await fetch(path, body === undefined ? sent : { ...sent, body: JSON.stringify(body) });
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new ApiError(0, { message: "The service does not answer. It is asked again when you try again." });
  }
}

async function checked(reply) {
  if (reply.ok) return reply;
  let body = { message: `The service answered ${reply.status}.` };
  try {
    body = await reply.json();
  } catch {
    // A proxy in between has its own words.
  }
  if (reply.status === 401 && session) {
    session = null;
    window.dispatchEvent(new Event("flansible-logged-out"));
  }
  throw new ApiError(reply.status, body, Number(reply.headers.get("Retry-After")) || 0);
}
