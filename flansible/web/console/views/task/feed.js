// Loads the text of an output, of a very long one the last part, and follows it to its end.

import { fetchReply, pause, untilVisible, abortWhenHidden } from "../../api.js";
import { OutputText } from "./text.js";

const MOST_BYTES = 16 * 1024 * 1024;
const LAST_BYTES = 8192;
const RETRY_SECONDS = 1;

/** Fetches only the last lines of an output. */
export async function lastLines(id, count, signal) {
  const address = `api/ansibletaskoutput/${id}`;
  const whole = await fetchReply(address, { format: "txt" }, signal);
  const size = Number(whole.headers.get("Flansible-Next-Offset"));
  await whole.body.cancel();
  const reply = await fetchReply(address, { format: "txt", offset: Math.max(0, size - LAST_BYTES) }, signal);
  return (await reply.text()).trimEnd().split("\n").slice(-count);
}

/** Fetches the lines between two bytes with their colours, as HTML. Only for `fragmentLines`, which makes it safe. */
export async function fragment(id, from, to, signal) {
  const reply = await fetchReply(`api/ansibletaskoutput/${id}`, { format: "fragment", offset: from, end: to }, signal);
  return reply.text();
}

export class OutputFeed {
  /** onMore(isFirst): more text has arrived. */
  constructor(run, onMore) {
    Object.assign(this, { run, signal: run.signal, onMore, isFinal: false });
    this.address = `api/ansibletaskoutput/${run.id}`;
    this.text = new OutputText();
  }

  /** Loads all text, or the last part of a very long one. */
  async load() {
    let reply = await this.#request({ format: "txt" });
    const size = Number(reply.headers.get("Flansible-Next-Offset"));
    this.isFinal = reply.headers.get("Flansible-Final") === "true";
    if (size <= MOST_BYTES) return this.#readAll(reply);
    await reply.body.cancel();
    reply = await this.#request({ format: "txt", offset: size - MOST_BYTES, end: size });
    const bytes = new Uint8Array(await reply.arrayBuffer());
    const cut = bytes.indexOf(10) + 1;
    Object.assign(this.text, new OutputText(size - MOST_BYTES + cut));
    this.#append(bytes.subarray(cut));
  }

  /** Loads the text before the loaded part, from this byte on, rounded to the start of a line. */
  async loadBefore(offset = this.text.base - MOST_BYTES) {
    const from = Math.max(0, offset);
    const reply = await this.#request({ format: "txt", offset: from, end: this.text.base });
    const bytes = new Uint8Array(await reply.arrayBuffer());
    this.text.prepend(from ? bytes.subarray(bytes.indexOf(10) + 1) : bytes);
  }

  /** Follows the output until the task is final. */
  async follow() {
    while (!this.isFinal && !this.signal.aborted) {
      let seconds = RETRY_SECONDS;
      try {
        await untilVisible(this.signal);
        seconds = await this.#readMore();
        await this.run.refresh();
        this.isFinal = this.run.isFinal && (await this.#isAll());
      } catch (error) {
        if (error.status >= 400 && error.status < 500 && error.status !== 429) throw error;
        seconds = Math.max(RETRY_SECONDS, error.retrySeconds ?? 0);
      }
      if (!this.isFinal && !document.hidden) await pause(seconds, this.signal);
    }
    if (!this.signal.aborted) this.onMore();
  }

  // Where the service takes no more followers, what there is is read without. Returns the seconds until the next time.
  async #readMore() {
    const rest = { format: "txt", offset: this.text.end };
    try {
      await this.#readAll(await this.#request({ ...rest, follow: true }, abortWhenHidden(this.signal)));
      return RETRY_SECONDS;
    } catch (error) {
      if (error.status !== 429 && error.status !== 503) throw error;
      await this.#readAll(await this.#request(rest));
      return Math.max(RETRY_SECONDS, error.retrySeconds);
    }
  }

  // A proxy may have cut the stream just before its end: the rest is requested once more.
  async #isAll() {
    const reply = await this.#request({ format: "txt", offset: this.text.end });
    await this.#readAll(reply);
    return reply.headers.get("Flansible-Final") === "true";
  }

  #request(params, signal = this.signal) {
    return fetchReply(this.address, params, signal);
  }

  async #readAll(reply) {
    const reader = reply.body.getReader();
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      this.#append(value);
    }
  }

  #append(bytes) {
    const isFirst = !this.text.lines;
    if (bytes.length) this.text.append(bytes);
    if (bytes.length) this.onMore(isFirst);
  }
}
