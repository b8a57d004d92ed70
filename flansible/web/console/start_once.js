// Starts something by a request that may be sent again: a lost reply does not say whether it has started.

import { post } from "./api.js";

/** Returns a function that posts a body (undefined: none) to a path. Called again after an error, the same request with
 * the same key starts nothing twice. */
export function startOnce() {
  let sent = {};
  return async (path, body) => {
    const text = JSON.stringify([path, body]);
    if (sent.text !== text) sent = { text, key: newKey() };
    const reply = await post(path, body, { "Idempotency-Key": sent.key });
    sent = {};
    return reply;
  };
}

/** Creates an Idempotency-Key. Without TLS browsers have no randomUUID. */
function newKey() {
  return [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}
