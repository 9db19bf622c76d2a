// Times, hexadecimal and file cells as people read them.

import { currentLanguage } from "./i18n.js";

const locale = () => (currentLanguage() === "zh" ? "zh-CN" : "en-GB");

/** 14:05:09, with the date in front unless it was today. */
export const moment = (when) => timeOf(when, {});

/** 14:05:09.082, with the date in front unless it was today. */
export const momentInMs = (when) => timeOf(when, { hour: "2-digit", minute: "2-digit", second: "2-digit", fractionalSecondDigits: 3 });

function timeOf(when, parts) {
  const date = new Date(when);
  if (Number.isNaN(date.getTime())) return String(when);
  const time = date.toLocaleTimeString(locale(), { ...parts, hour12: false });
  if (date.toDateString() === new Date().toDateString()) return time;
  return `${date.toLocaleDateString(locale(), { month: "2-digit", day: "2-digit" })} ${time}`;
}

/** A local time with its zone's offset, 2026-11-22T16:00:01+08:00. */
export function localISO(date) {
  const offset = -date.getTimezoneOffset();
  const two = (n) => String(Math.trunc(Math.abs(n))).padStart(2, "0");
  const local = new Date(date.getTime() + offset * 60_000).toISOString().slice(0, 19);
  return `${local}${offset < 0 ? "-" : "+"}${two(offset / 60)}:${two(offset % 60)}`;
}

/** "FEFE68" as "FE FE 68". */
export const spaced = (hex) => hex.replace(/..(?!$)/g, "$& ");

/** Orders "9" before "10", and "A2" before "A10". */
export const inNaturalOrder = new Intl.Collator("en", { numeric: true }).compare;
