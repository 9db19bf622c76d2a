// One frame of the log.

import { el } from "./dom.js";
import { momentInMs, spaced } from "./format.js";
import { copyButton } from "./frames.js";
import { t } from "./i18n.js";

export class FrameRow {
  #frame = null;
  #time = el("time", { class: "frame-time" });
  #count = el("span", { class: "frame-count" });

  constructor({ direction, kind, bytes, meaning = inText(bytes) }) {
    const way = el("span", { class: "frame-way", role: "img", "aria-label": t(`direction_${direction}`), title: t(`direction_${direction}`) });
    const hex = el("code", { class: "hex" }, spaced(bytes));
    this.element = el(
      "li",
      { class: "frame-row", "data-testid": "frame-row", "data-kind": kind, "data-direction": direction },
      this.#time,
      way,
      el("span", { class: "frame-kind" }, t(`kind_${kind}`), this.#count),
      el("div", { class: "frame-content" }, meaning ? el("span", { class: "frame-meaning" }, meaning) : null, hex),
      copyButton(bytes, hex),
    );
  }

  /** Shows when the frame came last and how often, which is all that can change. */
  update(frame) {
    if (frame === this.#frame) return;
    this.#frame = frame;
    this.#time.dateTime = frame.at;
    this.#time.textContent = momentInMs(frame.at);
    this.#count.textContent = frame.count > 1 ? `× ${frame.count}` : "";
  }
}

// A concentrator's login and heartbeats are mostly text.
function inText(hex) {
  return /^([2-6].|7[0-9A-E])+$/i.test(hex) ? `"${hex.replace(/../g, (byte) => String.fromCharCode(parseInt(byte, 16)))}"` : "";
}
