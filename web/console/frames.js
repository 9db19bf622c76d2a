// The bytes of an exchange as they stood on the wire.

import { el } from "./dom.js";
import { spaced } from "./format.js";
import { t } from "./i18n.js";

/** The frames sent and received, or null if there are none. */
export function framesOf(frames) {
  if (!frames?.sent && !frames?.received) return null;
  return el(
    "section",
    { class: "frames", "data-testid": "frames", "aria-label": t("frames") },
    frame("framesSent", "sent", frames.sent),
    frame("framesReceived", "received", frames.received),
  );
}

function frame(words, direction, hex) {
  if (!hex) return null;
  const bytes = el("code", { class: "hex" }, spaced(hex));
  return el(
    "div",
    { class: "frame", "data-direction": direction },
    el("span", { class: "frame-label" }, t(words), el("small", {}, t("bytes", { n: hex.length / 2 }))),
    bytes,
    copyButton(hex, bytes),
  );
}

/** A button that copies a frame; `bytes` is the element that shows it. */
export function copyButton(hex, bytes) {
  const copy = el("button", { type: "button", class: "copy" }, t("copy"));
  copy.addEventListener("click", async () => {
    copy.textContent = t((await copied(hex, bytes)) ? "copied" : "copyFailed");
  });
  return copy;
}

// The clipboard API exists in secure contexts only, and http on a LAN address is none: there the selection is copied.
async function copied(text, element) {
  try {
    if (navigator.clipboard) {
      await navigator.clipboard.writeText(text);
      return true;
    }
  } catch {
    // Not permitted; the selection below may still be.
  }
  getSelection().selectAllChildren(element);
  return document.execCommand("copy");
}
