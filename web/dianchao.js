/**
 * dianchao.js reads meters from a web page. One file, no dependencies; the wire contract is docs/browser.md.
 *
 *     import { Dianchao } from "http://edge.example:7759/dianchao.js";
 *     const client = new Dianchao();
 *     try {
 *       const answer = await client.read({ concentrator: "101", meter: "101001" });
 *       console.log(answer.reading.volume_m3);          // "123.45", m³, a string so that no decimal is lost
 *     } catch (error) {
 *       console.log(error.code, error.message, error.retry);
 *     }
 *
 * A connection that breaks is made anew, and what was outstanding is asked again with the same id: a read that
 * still runs is joined, none is put on the wire twice. Every read ends exactly once, by its timeout plus two seconds.
 *
 * @typedef {object} Answer  as docs/nats.md explains it
 * @property {string} id
 * @property {string} concentrator
 * @property {string} meter
 * @property {"accepted"|"queued"|"sent"|"done"|"failed"} stage
 * @property {number} [position]  in the queue, 1 is next
 * @property {number} [wait_ms]  an estimate until the meter is asked, while it is queued
 * @property {"wire"|"shared"|"recent"} [source]
 * @property {string} [at]
 * @property {object} [reading]
 * @property {{code: string, message: string, retry: boolean}} [error]
 * @property {{sent?: string, received?: string}} [frames]  hexadecimal
 * @property {{queue: number, wire: number, total: number}} [timing_ms]
 * @property {string} [gateway]
 *
 * @typedef {object} Link  whether a concentrator is online
 * @property {string} concentrator
 * @property {"up"|"down"} state
 * @property {string} since
 * @property {string} gateway
 * @property {string} driver
 * @property {string} [remote]
 * @property {string} [reason]
 *
 * @typedef {object} Frame  what went over a link; docs/nats.md says what each kind is
 * @property {string} at  of the last one, if it stands for several
 * @property {"down"|"up"} direction  to the concentrator, or from it
 * @property {"request"|"reply"|"answer"|"late"|"foreign"|"noise"|"registration"|"heartbeat"} kind
 * @property {string} bytes  hexadecimal
 * @property {string} [meaning]
 * @property {number} [count]  how many equal ones in a row it stands for, if more than one: it then takes the place of
 *   the frame before it, if that is equal
 */

const PROTOCOL = "dianchao.v1";
const DEFAULT_TIMEOUT_MS = 15_000;
const GRACE_MS = 2_000; // the edge answers by the timeout plus one second; the other second is the network's
const SILENCE_MS = 10_000; // a hello or pong that takes longer means a dead connection
const STEADY_MS = 10_000; // a session that lasted this long lets the next backoff start small again
const BACKOFF_MS = { first: 500, most: 30_000 };

/**
 * Why a read failed. `code` is one of the contract's, or one of the two that only a client can know:
 * "no_answer" (nothing came in time) and "closed" (the client was closed, or the server said not to come back).
 */
export class DianchaoError extends Error {
  /** @param {Answer} answer the failed one, whoever made it */
  constructor(answer) {
    super(answer.error.message);
    this.name = "DianchaoError";
    this.code = answer.error.code;
    /** Whether asking again can help. */
    this.retry = answer.error.retry;
    this.answer = answer;
  }
}

/**
 * A client of one edge, or of many behind one address. It connects at once and dispatches
 *
 * - "open", detail = the server's hello;
 * - "close", detail = {code, reason, reconnect};
 * - "reconnecting", detail = {delayMs, attempt}: the next attempt starts after delayMs;
 * - "draining", detail = {reconnectMs}: the server leaves, the client moves to another by itself;
 * - "error", detail = {code, message, retry}: the server could not use a message that was no read.
 */
export class Dianchao extends EventTarget {
  #url;
  #current = null; // the session that new reads go to
  #leaving = new Set(); // drained sessions that still owe answers
  #pending = new Map();
  #links = null; // concentrator → Link, null until the server told
  #watchers = new Set();
  #frameWatchers = new Map(); // concentrator → Set of watchers
  #attempt = 0;
  #timer = null;
  #timerAt = 0;
  #final = "";
  #stopListening = new AbortController();

  /** @param {string|URL} [url] of the edge, ws(s) or http(s); without it, where this file came from */
  constructor(url = new URL("/", import.meta.url)) {
    super();
    this.#url = new URL(url, location.href);
    this.#url.protocol = this.#url.protocol.replace(/^http/, "ws");
    const { signal } = this.#stopListening;
    addEventListener("online", () => this.reconnect(), { signal });
    addEventListener("offline", () => this.#current?.probe(), { signal });
    document.addEventListener("visibilitychange", () => document.hidden || this.reconnect(), { signal });
    this.#connect();
  }

  /** @returns {"connecting"|"open"|"draining"|"reconnecting"|"closed"} */
  get state() {
    if (this.#final) return "closed";
    if (!this.#current) return "reconnecting";
    if (this.#current.draining) return "draining";
    return this.#current.hello ? "open" : "connecting";
  }

  /** The server's hello of the current session, or null. */
  get hello() {
    return this.#current?.hello ?? null;
  }

  /**
   * Reads one meter. Without a connection the read waits for one, inside its timeout.
   *
   * @param {object} command
   * @param {string} command.concentrator
   * @param {string} command.meter
   * @param {number} [command.timeoutMs]  from now on, across lost connections; the server's default if missing
   * @param {number} [command.maxAgeMs]  a reading at most this old will do; 0 reads the meter
   * @param {string} [command.id]  1 to 64 letters, digits, "-", "_"; a UUID if missing
   * @param {(answer: Answer) => void} [command.onStage]  gets every stage before the last
   * @param {AbortSignal} [command.signal]  aborting cancels the read
   * @returns {Promise<Answer>} the `done` answer; rejects with a {@link DianchaoError}
   */
  read({ concentrator, meter, timeoutMs, maxAgeMs = 0, id = uuid(), onStage, signal }) {
    const timeout = timeoutMs ?? this.hello?.default_timeout_ms ?? DEFAULT_TIMEOUT_MS;
    const read = { id, concentrator, meter, maxAgeMs, onStage, deadline: performance.now() + timeout, session: null, cancelled: false };
    return new Promise((resolve, reject) => {
      read.resolve = resolve;
      read.reject = reject;
      if (this.#final) return reject(refusal(read, "closed", this.#final, false));
      if (signal?.aborted) return reject(refusal(read, "cancelled", "cancelled before it was asked", false));
      if (!/^[A-Za-z0-9_-]{1,64}$/.test(id)) return reject(refusal(read, "bad_command", `"${id}" is no legal command id`, false));
      if (this.#pending.has(id)) return reject(refusal(read, "bad_command", `the id ${id} is outstanding already`, false));
      this.#pending.set(id, read);
      this.#expire(read, timeout + GRACE_MS);
      const abort = () => this.cancel(id);
      signal?.addEventListener("abort", abort);
      read.release = () => signal?.removeEventListener("abort", abort);
      if (this.state === "open") this.#ask(read);
    });
  }

  /**
   * Withdraws a read. It still ends once: with code "cancelled", or with its answer if that was faster.
   * @returns {boolean} false if no such read is outstanding
   */
  cancel(id) {
    const read = this.#pending.get(id);
    if (!read || read.cancelled) return false;
    read.cancelled = true;
    if (!read.session) {
      this.#fail(read, "cancelled", "cancelled before it was asked", false);
      return true;
    }
    read.session.send({ type: "cancel", id });
    this.#expire(read, GRACE_MS);
    return true;
  }

  /**
   * Calls back with all links that are up or known to be down, now and after every change. The map is the
   * client's own and stays up to date; don't write to it. While the connection is down it says what was known last.
   *
   * @param {(links: Map<string, Link>) => void} callback
   * @returns {() => void} ends the watch
   */
  watchLinks(callback) {
    const watcher = { callback };
    this.#watchers.add(watcher);
    if (this.#watchers.size === 1) this.#subscribe(true);
    else if (this.#links) callback(this.#links);
    return () => {
      if (!this.#watchers.delete(watcher) || this.#watchers.size > 0) return;
      this.#links = null;
      this.#subscribe(false);
    };
  }

  /**
   * Calls back with the last frames of a concentrator's link, `full`, then with every new one. `full` comes again, and
   * replaces what was told before, whenever frames may have been missed: after a lost connection, or when the
   * concentrator logged in elsewhere. With an `error` the watch goes on: frames come once the concentrator is back.
   * A server tells the frames of four concentrators at a time; one more is refused with an "error" event.
   *
   * @param {string} concentrator
   * @param {(told: {full: boolean, frames: Frame[], gateway?: string, error?: {code: string, message: string, retry: boolean}}) => void} callback
   * @returns {() => void} ends the watch
   */
  watchFrames(concentrator, callback) {
    const watcher = { callback };
    const watchers = this.#frameWatchers.get(concentrator) ?? new Set();
    this.#frameWatchers.set(concentrator, watchers.add(watcher));
    this.#subscribeFrames(concentrator, true); // for a second watcher, too: it brings all frames anew
    return () => {
      if (!watchers.delete(watcher) || watchers.size > 0) return;
      this.#frameWatchers.delete(concentrator);
      this.#subscribeFrames(concentrator, false);
    };
  }

  /** Tries to connect now if a retry is waiting; otherwise finds out whether the connection still works. */
  reconnect() {
    if (this.#current) return this.#current.probe();
    if (this.#final) return;
    this.#attempt = 0;
    this.#connect();
  }

  /** Ends the connection for good; outstanding reads reject with code "closed". */
  close() {
    this.#end("the client was closed");
  }

  #connect() {
    clearTimeout(this.#timer);
    this.#timer = null;
    const session = new Session(this.#url, {
      message: (message) => this.#receive(session, message),
      over: (code, reason) => this.#over(session, code, reason),
    });
    this.#current = session;
  }

  #receive(session, message) {
    switch (message.type) {
      case "hello":
        return this.#opened(session, message);
      case "answer":
        return this.#answered(session, message);
      case "presence":
        return session === this.#current && this.#heardOf(message);
      case "frames":
        return session === this.#current && this.#heardFrames(message);
      case "draining":
        return session === this.#current && this.#drain(message.reconnect_ms);
      case "error":
        return this.#refused(message);
    }
  }

  #opened(session, hello) {
    session.hello = hello;
    if (this.#watchers.size > 0) this.#subscribe(true);
    for (const concentrator of this.#frameWatchers.keys()) this.#subscribeFrames(concentrator, true);
    this.#tell("open", hello);
    this.#askWaiting();
    for (const old of this.#leaving) this.#leaveIfIdle(old);
  }

  #askWaiting() {
    if (this.state !== "open") return;
    for (const read of [...this.#pending.values()]) if (!read.session) this.#ask(read);
  }

  #ask(read) {
    read.session = this.#current;
    // One millisecond is asked for even past the deadline: it reads nothing, and fetches an answer that was missed.
    const left = Math.max(1, Math.round(read.deadline - performance.now()));
    const { id, concentrator, meter, maxAgeMs } = read;
    read.session.send({ type: "read", id, concentrator, meter, timeout_ms: left, max_age_ms: maxAgeMs, stages: Boolean(read.onStage) });
  }

  #answered(session, answer) {
    const read = this.#pending.get(answer.id);
    if (!read) return;
    if (answer.stage === "done") this.#settle(read, () => read.resolve(answer));
    else if (answer.stage === "failed" && answer.error.code === "draining" && !read.cancelled) read.session = null; // for the next session
    else if (answer.stage === "failed") this.#settle(read, () => read.reject(new DianchaoError(answer)));
    else guarded(read.onStage, answer);
    if (session !== this.#current) this.#askWaiting();
    if (this.#leaving.has(session)) this.#leaveIfIdle(session);
  }

  // A refused message is no answer, but the read it names was not accepted: nothing else will come for it.
  #refused({ id, error }) {
    const read = this.#pending.get(id);
    if (!read) return this.#tell("error", error);
    if (read.cancelled) return this.#fail(read, "cancelled", "cancelled", false);
    this.#fail(read, error.code, error.message, error.retry);
  }

  #expire(read, ms) {
    clearTimeout(read.timer);
    read.timer = setTimeout(() => {
      if (read.cancelled) return this.#fail(read, "cancelled", "cancelled", false);
      const why = read.session ? "the server did not answer in time" : "there was no connection to the server before the timeout";
      this.#fail(read, "no_answer", why, true);
    }, ms);
  }

  #fail(read, code, message, retry) {
    this.#settle(read, () => read.reject(refusal(read, code, message, retry)));
  }

  #settle(read, how) {
    this.#pending.delete(read.id);
    clearTimeout(read.timer);
    read.release();
    how();
  }

  #subscribe(subscribe) {
    if (this.#current?.hello) this.#current.send({ type: "presence", subscribe });
  }

  #heardOf({ full, links }) {
    if (this.#watchers.size === 0) return;
    if (full || !this.#links) this.#links = new Map();
    for (const link of links ?? []) this.#links.set(link.concentrator, link);
    for (const { callback } of [...this.#watchers]) guarded(callback, this.#links);
  }

  #subscribeFrames(concentrator, subscribe) {
    if (this.#current?.hello) this.#current.send({ type: "frames", concentrator, subscribe });
  }

  #heardFrames({ concentrator, full = false, frames, gateway, error }) {
    for (const { callback } of [...(this.#frameWatchers.get(concentrator) ?? [])]) guarded(callback, { full, frames, gateway, error });
  }

  // The next connection is made before this one is given up, so that nothing outstanding is asked twice without need.
  #drain(reconnectMs) {
    const session = this.#current;
    session.draining = true;
    this.#tell("draining", { reconnectMs });
    this.#connectAfter(reconnectMs, () => {
      if (this.#current === session) {
        this.#leaving.add(session);
        this.#leaveIfIdle(session);
      }
      this.#connect();
    });
  }

  #leaveIfIdle(session) {
    for (const read of this.#pending.values()) if (read.session === session) return;
    this.#leaving.delete(session);
    session.leave();
  }

  #over(session, code, reason) {
    for (const read of [...this.#pending.values()]) {
      if (read.session !== session) continue;
      read.session = null;
      if (read.cancelled) this.#fail(read, "cancelled", "cancelled", false);
    }
    if (this.#leaving.delete(session) || session !== this.#current) return this.#askWaiting();
    this.#current = null;
    const reconnect = !(code >= 4500 && code <= 4999);
    this.#tell("close", { code, reason, reconnect });
    if (!reconnect) return this.#end(`the server closed the connection for good: ${code} ${reason}`);
    if (this.#final || this.#current) return; // a listener closed the client or reconnected it
    if (this.#timer !== null) return this.#tell("reconnecting", { delayMs: Math.max(0, this.#timerAt - performance.now()), attempt: 0 });
    if (session.lastedMs > STEADY_MS) this.#attempt = 0;
    if (code === 1001) this.#attempt = Math.max(this.#attempt, 2); // everybody was sent away at once
    const most = Math.min(BACKOFF_MS.most, BACKOFF_MS.first * 2 ** this.#attempt++);
    const delayMs = Math.round(most * (0.5 + Math.random() / 2));
    this.#connectAfter(delayMs, () => this.#connect());
    this.#tell("reconnecting", { delayMs, attempt: this.#attempt });
  }

  #connectAfter(ms, connect) {
    clearTimeout(this.#timer);
    this.#timerAt = performance.now() + ms;
    this.#timer = setTimeout(connect, ms);
  }

  #end(why) {
    if (this.#final) return;
    this.#final = why;
    clearTimeout(this.#timer);
    this.#stopListening.abort();
    for (const session of [this.#current, ...this.#leaving]) session?.leave();
    this.#current = null;
    this.#leaving.clear();
    for (const read of [...this.#pending.values()]) this.#fail(read, "closed", why, false);
  }

  #tell(type, detail) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }
}

/** One WebSocket from its opening to its end, which `over` hears of once. */
class Session {
  hello = null;
  draining = false;
  #socket;
  #on;
  #beat;
  #silence;
  #started = performance.now();

  constructor(url, on) {
    this.#on = on;
    this.#socket = new WebSocket(url, PROTOCOL);
    this.#socket.onmessage = (event) => this.#receive(event.data);
    this.#socket.onclose = (event) => this.#end(event.code, event.reason);
    this.#expect();
  }

  get lastedMs() {
    return performance.now() - this.#started;
  }

  send(message) {
    this.#socket.send(JSON.stringify(message));
  }

  probe() {
    if (!this.hello) return;
    this.send({ type: "ping" });
    if (this.#silence === null) this.#expect();
  }

  leave() {
    this.#detach();
    this.#socket.close(1000);
  }

  #receive(text) {
    clearTimeout(this.#silence);
    this.#silence = null;
    const message = JSON.parse(text);
    if (message.type === "hello") this.#beat = setInterval(() => this.probe(), message.ping_ms);
    this.#on.message(message);
  }

  // A browser waits long for the closing handshake of a dead connection: the session ends here and now.
  #expect() {
    this.#silence = setTimeout(() => {
      this.#socket.close();
      this.#end(1006, "the server was silent");
    }, SILENCE_MS);
  }

  #end(code, reason) {
    this.#detach();
    this.#on.over(code, reason);
  }

  #detach() {
    clearInterval(this.#beat);
    clearTimeout(this.#silence);
    this.#socket.onmessage = this.#socket.onclose = null;
  }
}

function refusal({ id, concentrator, meter }, code, message, retry) {
  return new DianchaoError({ id, concentrator, meter, stage: "failed", at: new Date().toISOString(), error: { code, message, retry } });
}

// A page's own mistake must not keep the answers from the others.
function guarded(callback, argument) {
  try {
    callback?.(argument);
  } catch (error) {
    reportError(error);
  }
}

/** A random UUID. crypto.randomUUID exists in secure contexts only, and http on a LAN address is none. */
export function uuid() {
  if (crypto.randomUUID) return crypto.randomUUID();
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  bytes[6] = (bytes[6] & 0x0f) | 0x40;
  bytes[8] = (bytes[8] & 0x3f) | 0x80;
  const hex = Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
  return hex.replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, "$1-$2-$3-$4-$5");
}
