// Client of the public API: the same URLs that curl uses, with the session's cookie.

// Identifies the console: a 401 then has no Basic challenge, for which browsers would open their own login window.
const CONSOLE = { "X-Requested-With": "flansible" };
const RETRY_SECONDS = [1, 2, 5, 10];

const SESSION = "api/session";
// Reaches the other tabs: all share one cookie, so who logs in or out in one of them has done so in all.
const tabs = new BroadcastChannel("flansible-session");

/** The session: `{user, role, groups, is_admin, sees_all, sees, has_team, cancels, may_act, may_become, may_use_git, launches_only, rights, csrf_token, flower_url}`, or null when not logged in. */
export let session = null;
let reviewing = null;

/** An error reply of the API. status 0: there was no reply. retrySeconds: its Retry-After, 0 without one. */
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
    session = await readJson(await exchange("GET", SESSION));
  } catch (error) {
    if (error.status !== 401) throw error;
    session = null;
  }
  return session;
}

export async function login(user, password) {
  session = await readJson(await exchange("POST", SESSION, { body: { user, password } }));
  tabs.postMessage("login");
  return session;
}

export async function logout() {
  await remove(SESSION);
  session = null;
  tabs.postMessage("logout");
}

/** Asks whose session the browser has by now; concurrent calls ask once. When it is another user's, or none, the page is
 * shown anew: "flansible-session" is dispatched. Throws ApiError without an answer. */
export function reviewSession() {
  reviewing ??= review().finally(() => (reviewing = null));
  return reviewing;
}

async function review() {
  const before = session?.user;
  await whoami();
  if (session?.user !== before) window.dispatchEvent(new Event("flansible-session"));
}

tabs.addEventListener("message", () => reviewSession().catch(() => {})); // the next request says what is wrong

/** Requests JSON. params: an object or URLSearchParams; values that are null, undefined or "" are left out. */
export function get(path, params = {}, signal = undefined) {
  return requestJson("GET", withQuery(path, params), { signal });
}

export function post(path, body = undefined, headers = {}) {
  return requestJson("POST", path, { body, headers });
}

export function put(path, body, headers = {}) {
  return requestJson("PUT", path, { body, headers });
}

export function remove(path, headers = {}) {
  return requestJson("DELETE", path, { headers });
}

/** Requests a reply that is not JSON. Throws ApiError like the others. */
export async function fetchReply(path, params = {}, signal = undefined, headers = {}) {
  return send("GET", withQuery(path, params), { signal, headers });
}

/** Follows Server-Sent Events until the server ends them or `signal` aborts; after an interruption it resumes with
 * Last-Event-ID. onEvent({id, event, data}): data is parsed JSON. onState(isConnected): the connection changed. */
export async function stream(path, params, { signal, after = null, onEvent, onState = () => {} }) {
  let last = after;
  for (let failures = 0; !signal.aborted; ) {
    try {
      const headers = { Accept: "text/event-stream", ...(last === null ? {} : { "Last-Event-ID": String(last) }) };
      const reply = await fetchReply(path, params, abortWhenHidden(signal), headers);
      if (reply.status === 204) return;
      failures = 0;
      onState(true);
      let isOver = false;
      for await (const message of readMessages(reply.body)) {
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
      await untilVisible(signal);
      continue;
    }
    onState(false);
    await pause(RETRY_SECONDS[Math.min(failures++, RETRY_SECONDS.length - 1)], signal);
  }
}

/** Returns a signal that also aborts when the page is hidden. A browser has six connections to a server for all tabs and a
 * stream holds one of them: streams of hidden tabs would keep the next tab from loading. */
export function abortWhenHidden(signal) {
  const hidden = new AbortController();
  const either = AbortSignal.any([signal, hidden.signal]);
  const update = () => document.hidden && hidden.abort();
  document.addEventListener("visibilitychange", update, { signal: either });
  update();
  return either;
}

/** Waits until the page is visible, or the signal aborts. */
export function untilVisible(signal) {
  const seen = new AbortController();
  return new Promise((resolve) => {
    const update = () => {
      if (document.hidden && !signal.aborted) return;
      seen.abort();
      resolve();
    };
    document.addEventListener("visibilitychange", update, { signal: seen.signal });
    signal.addEventListener("abort", update, { signal: seen.signal });
    update();
  });
}

/** Waits so many seconds, or until the signal aborts. */
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

async function* readMessages(body) {
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
        const message = parseMessage(block);
        if (message) yield message;
      }
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

function parseMessage(block) {
  const message = { id: null, event: "message", data: "" };
  for (const line of block.split("\n")) {
    const [, name, value] = /^([^:]*):? ?(.*)$/.exec(line);
    if (name === "id") message.id = value;
    else if (name === "event") message.event = value;
    else if (name === "data") message.data += value;
  }
  return message.data ? { ...message, data: JSON.parse(message.data) } : null;
}

function withQuery(path, params) {
  const given = params instanceof URLSearchParams ? [...params] : Object.entries(params);
  const kept = given.filter(([, value]) => value !== null && value !== undefined && value !== "");
  return kept.length ? `${path}?${new URLSearchParams(kept)}` : path;
}

async function requestJson(method, path, options) {
  return readJson(await send(method, path, options));
}

async function readJson(reply) {
  return reply.status === 204 ? null : reply.json();
}

/** Sends a request, and once more if its session was replaced meanwhile by another one of the same user: by a login in
 * another tab, say. A refused request has changed nothing. */
async function send(method, path, options) {
  const sentIn = session;
  try {
    return await exchange(method, path, options);
  } catch (error) {
    if (!sentIn || (error.status !== 401 && error.code !== "csrf")) throw error;
    if (session === sentIn) await reviewSession();
    if (session?.user !== sentIn.user) throw error;
    return exchange(method, path, options);
  }
}

/** Sends a request and returns its reply. Throws ApiError for one that is no success, and without one. */
async function exchange(method, path, { body, headers = {}, signal } = {}) {
  const all = { ...CONSOLE, ...headers };
  if (body !== undefined) all["Content-Type"] = "application/json";
  if (method !== "GET" && session) all["X-CSRF-Token"] = session.csrf_token;
  const sent = { method, headers: all, signal, cache: "no-store", credentials: "same-origin" };
  let reply;
  try {
    reply = await fetch(path, body === undefined ? sent : { ...sent, body: JSON.stringify(body) });
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new ApiError(0, { message: "The service does not answer. Try again." });
  }
  if (reply.ok) return reply;
  let text = { message: `The service answered ${reply.status}.` };
  try {
    text = await reply.json();
  } catch {
    // The error body of a proxy in between need not be JSON.
  }
  throw new ApiError(reply.status, text, Number(reply.headers.get("Retry-After")) || 0);
}
