// The session's results as a file that Excel opens right: a byte order mark for the Chinese, CRLF, and no cell
// that it would take for a formula or round to a number.

import { codeInWords, t } from "./i18n.js";
import { localISO } from "./format.js";

const columns = {
  csv_at: (r) => localISO(r.askedAt),
  csv_concentrator: (r) => r.concentrator,
  csv_meter: (r) => r.meter,
  csv_name: (r) => r.name,
  csv_result: (r) => t(r.answer.stage === "done" ? "stageDone" : "stageFailed"),
  csv_volume: (r) => r.answer.reading?.volume_m3,
  csv_settlement: (r) => r.answer.reading?.settlement_m3,
  csv_clock: (r) => r.answer.reading?.clock,
  csv_valve: (r) => r.answer.reading?.status?.valve,
  csv_battery: (r) => r.answer.reading?.status?.battery,
  csv_rawStatus: (r) => r.answer.reading?.raw_status,
  csv_heat: (r) => r.answer.reading?.heat && JSON.stringify(r.answer.reading.heat),
  csv_source: (r) => r.answer.source,
  csv_code: (r) => r.answer.error?.code,
  csv_reason: (r) => r.answer.error && codeInWords(r.answer.error.code).reason,
  csv_detail: (r) => r.answer.error?.message,
  csv_gateway: (r) => r.answer.gateway,
  csv_client: (r) => String(r.endedMs),
  csv_sent: (r) => r.answer.frames?.sent,
  csv_received: (r) => r.answer.frames?.received,
  csv_id: (r) => r.id,
};
const names = new Set(["csv_concentrator", "csv_meter", "csv_rawStatus", "csv_sent", "csv_received", "csv_id"]);

/** The text of the file. `results` are results that have ended, in any order. */
export function csv(results) {
  const rows = [Object.keys(columns).map((key) => quoted(t(key)))];
  for (const result of results) rows.push(Object.entries(columns).map(([key, cell]) => quoted(guarded(cell(result) ?? "", names.has(key)))));
  return "\ufeff" + rows.map((row) => row.join(",") + "\r\n").join("");
}

const quoted = (text) => (/[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);

// An address such as 00101 or 20230500001234 is a name: as a number it would lose zeros or digits, and a status such as 1E05 would become 100000.
function guarded(text, isName) {
  if (isName && /^\d+(E\d+)?$/i.test(text) && (/^0./.test(text) || text.length > 11 || /E/i.test(text))) return `="${text}"`;
  if (/^[=+\-@\t\r]/.test(text) && !/^-?\d+(\.\d+)?$/.test(text)) return `'${text}`;
  return text;
}

/** Offers `text` to the person as a file to keep. */
export function offer(filename, text) {
  const url = URL.createObjectURL(new Blob([text], { type: "text/csv;charset=utf-8" }));
  const link = document.createElement("a");
  link.href = url;
  link.download = filename;
  link.click();
  setTimeout(() => URL.revokeObjectURL(url), 60_000); // some browsers start the download late
}
