// How long to wait and whether a recent reading will do; both remembered.

import { byId, el } from "./dom.js";
import { t } from "./i18n.js";
import { recall, remember } from "./store.js";

const timeouts = [5, 15, 30, 60, 120]; // s
const ages = [0, 1, 10, 60]; // min

/** Fills both choices in the current language. */
export function fillChoices() {
  fill("timeout", timeouts, 15, (n) => t("seconds", { n }));
  fill("max-age", ages, 0, (n) => (n === 0 ? t("alwaysRead") : n < 60 ? t("withinMinutes", { n }) : t("withinHours", { n: n / 60 })));
}

/** The choices as {timeoutMs, maxAgeMs}. */
export const chosen = () => ({ timeoutMs: byId("timeout").value * 1000, maxAgeMs: byId("max-age").value * 60_000 });

function fill(id, values, otherwise, words) {
  const remembered = recall(id, otherwise);
  const current = values.includes(remembered) ? remembered : otherwise;
  byId(id).replaceChildren(...values.map((n) => el("option", { value: String(n), selected: n === current }, words(n))));
  byId(id).onchange = () => remember(id, Number(byId(id).value));
}
