// The frames of one link (报文) as they go over it, newest on top.

import { byId, el, oncePerFrame } from "./dom.js";
import { FrameRow } from "./framerow.js";
import { codeInWords, inEveryLanguage, t } from "./i18n.js";
import { recall, remember } from "./store.js";

const KEPT = 200;

export class FrameLog {
  #client;
  #onShow;
  #concentrator = "";
  #stop = null;
  #frames = []; // oldest first, each with a number of its own
  #held = null; // what is shown instead while paused
  #arrived = 0; // while paused
  #clearedAt = 0; // frames up to then do not come back when all is told anew
  #numbered = 0;
  #told = false; // whether the server has said anything since the last connection
  #error = null;
  #gateway = "";
  #connected = true;
  #heartbeats = recall("heartbeats", true);
  #rows = new Map(); // number → FrameRow
  #drawSoon = oncePerFrame(() => this.#draw());

  /** @param {(concentrator: string) => void} onShow  is told whose frames are shown, "" for nobody's */
  constructor(client, onShow) {
    this.#client = client;
    this.#onShow = onShow;
    byId("frame-log-heartbeats").addEventListener("click", () => this.#switchHeartbeats());
    byId("frame-log-pause").addEventListener("click", () => this.#pauseOrResume());
    byId("frame-log-clear").addEventListener("click", () => this.#clear());
    byId("frame-log-close").addEventListener("click", () => this.#close());
    inEveryLanguage(() => {
      this.#rows.clear();
      this.#draw();
    });
  }

  /** Shows the frames of a concentrator, or closes the log if it does so already. Returns whether it is open. */
  toggle(concentrator) {
    if (concentrator === this.#concentrator) {
      this.#close();
      return false;
    }
    this.#stop?.();
    this.#show(concentrator);
    this.#stop = this.#client.watchFrames(concentrator, (told) => this.#hear(told));
    return true;
  }

  connectionIs(state) {
    const connected = state === "open" || state === "draining";
    if (connected === this.#connected) return;
    this.#connected = connected;
    this.#told = false;
    this.#draw();
  }

  #show(concentrator) {
    this.#concentrator = concentrator;
    this.#frames = [];
    this.#held = this.#error = null;
    this.#clearedAt = 0;
    this.#told = false;
    byId("frame-log").hidden = !concentrator;
    byId("frame-rows").scrollTop = 0;
    this.#onShow(concentrator);
    this.#draw();
  }

  #close() {
    this.#stop();
    this.#stop = null;
    this.#show("");
  }

  #hear({ full, frames, gateway, error }) {
    this.#told = true;
    this.#error = error ?? null;
    this.#gateway = gateway ?? "";
    // What was told stays readable while the concentrator is away.
    if (full && !error) this.#frames = [];
    for (const frame of frames) if (!full || Date.parse(frame.at) > this.#clearedAt) this.#add(frame);
    if (!full) this.#arrived += frames.length;
    this.#drawSoon();
  }

  #add(frame) {
    const last = this.#frames.at(-1);
    if (frame.count > 1 && last && isRepeated(last, frame)) this.#frames[this.#frames.length - 1] = { ...frame, number: last.number };
    else this.#frames.push({ ...frame, number: ++this.#numbered });
    if (this.#frames.length > KEPT) this.#frames.shift();
  }

  #pauseOrResume() {
    this.#held = this.#held ? null : [...this.#frames];
    this.#arrived = 0;
    this.#draw();
  }

  #clear() {
    this.#clearedAt = Math.max(this.#clearedAt, ...this.#frames.map((frame) => Date.parse(frame.at)));
    this.#frames = [];
    if (this.#held) this.#held = [];
    this.#draw();
  }

  #switchHeartbeats() {
    this.#heartbeats = !this.#heartbeats;
    remember("heartbeats", this.#heartbeats);
    this.#draw();
  }

  #draw() {
    byId("frame-log-title").textContent = t("frameLogOf", { concentrator: this.#concentrator });
    byId("frame-log-heartbeats").textContent = t(this.#heartbeats ? "hideHeartbeats" : "showHeartbeats");
    byId("frame-log-pause").textContent = t(this.#held ? "resume" : "pause");
    this.#drawState();
    const frames = this.#held ?? this.#frames;
    const shown = this.#heartbeats ? frames : frames.filter((frame) => frame.kind !== "heartbeat");
    const rows = new Map();
    for (const frame of [...shown].reverse()) {
      const row = this.#rows.get(frame.number) ?? new FrameRow(frame);
      row.update(frame);
      rows.set(frame.number, row);
    }
    this.#rows = rows;
    const elements = [...rows.values()].map((row) => row.element);
    lay(byId("frame-rows"), elements.length ? elements : [el("li", { class: "remark" }, this.#whyEmpty(frames))]);
  }

  #drawState() {
    const state = byId("frame-log-state");
    const [name, words] = this.#state();
    state.dataset.state = name;
    state.textContent = words;
    state.title = this.#error?.message ?? "";
  }

  #state() {
    if (!this.#connected) return ["waiting", t("frameLogCutOff")];
    if (this.#error) return ["error", codeInWords(this.#error.code).reason];
    if (this.#held) return ["paused", t("frameLogPaused", { n: this.#arrived })];
    if (!this.#told) return ["waiting", t("frameLogAsking")];
    return ["live", [t("frameLogLive"), this.#gateway].filter(Boolean).join(" · ")];
  }

  #whyEmpty(frames) {
    if (frames.length > 0) return t("frameLogFiltered");
    if (this.#error) return this.#error.message;
    if (!this.#told) return t("frameLogAsking");
    return t(this.#clearedAt ? "frameLogCleared" : "frameLogEmpty");
  }
}

function isRepeated(last, frame) {
  return last.direction === frame.direction && last.kind === frame.kind && last.bytes === frame.bytes;
}

// What stays is not touched, so that a selection in it and the scroll position stay, too.
function lay(list, elements) {
  let at = list.firstChild;
  for (const element of elements) {
    if (element === at) at = at.nextSibling;
    else list.insertBefore(element, at);
  }
  while (at) {
    const next = at.nextSibling;
    at.remove();
    at = next;
  }
}
