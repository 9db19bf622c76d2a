// The language of the console: the browser's at first, then what was chosen.

import { zh } from "./words.zh.js";
import { en } from "./words.en.js";
import { recall, remember } from "./store.js";

const languages = { zh, en };
const listeners = new Set();
let language = recall("language", null);
if (!(language in languages)) language = navigator.language.toLowerCase().startsWith("zh") ? "zh" : "en";

/** "zh" or "en". */
export const currentLanguage = () => language;

/** A word or sentence by its key, with {names} filled in. */
export function t(key, values = {}) {
  return languages[language][key].replace(/\{(\w+)\}/g, (_, name) => values[name]);
}

/** What a failure's code means in words: {reason, advice}. A code that is not known says so with its name. */
export function codeInWords(code) {
  const { codes } = languages[language];
  return Object.hasOwn(codes, code) ? codes[code] : { reason: `${t("unknownCode")} ${code}`, advice: codes.internal.advice };
}

/** Why a link is down, in words. A reason of a newer gateway comes as it is. */
export function linkReason(reason) {
  const known = languages[language].linkReasons.find(([pattern]) => pattern.test(reason));
  return known ? reason.replace(...known) : reason;
}

/** Calls `draw` now and whenever the language changes. */
export function inEveryLanguage(draw) {
  listeners.add(draw);
  draw();
}

export function switchLanguage() {
  language = language === "zh" ? "en" : "zh";
  remember("language", language);
  for (const draw of listeners) draw();
}

/** Fills in every element that names its words in data-words. */
export function drawPage() {
  document.documentElement.lang = language === "zh" ? "zh-CN" : "en";
  document.title = `${t("title")} · ${t("subtitle")}`;
  for (const element of document.querySelectorAll("[data-words]")) element.textContent = t(element.dataset.words);
}
