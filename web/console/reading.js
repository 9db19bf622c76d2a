// What a meter said, as elements: the number large, the rest as a table of facts.

import { el } from "./dom.js";
import { t } from "./i18n.js";

/** The cumulative volume, large, its decimals set apart as on a meter's dial. */
export function volumeOf(reading) {
  if (!reading.volume_m3) return el("p", { class: "hero-words", "data-testid": "volume" }, t("noVolume"));
  const [whole, decimals] = reading.volume_m3.split(".");
  return el(
    "p",
    { class: "hero" },
    el("span", { class: "hero-label" }, t("volume")),
    el(
      "span",
      { class: "hero-line" },
      el("span", { class: "hero-number", "data-testid": "volume" }, whole, decimals ? el("span", { class: "hero-decimals" }, `.${decimals}`) : null),
      el("span", { class: "hero-unit" }, "m³"),
    ),
  );
}

/** Everything else. What the meter did not send shows as a dash, heat only if the meter has it. */
export function factsOf(reading) {
  const { status, heat } = reading;
  const facts = [
    fact("settlement", cubicMetres(reading.settlement_m3)),
    fact("clock", reading.clock?.replace("T", " ")),
    fact("valve", inWords("valve", status?.valve), status?.valve === "abnormal"),
    fact("battery", inWords("battery", status?.battery), status?.battery === "low"),
    fact("rawStatus", reading.raw_status || null),
  ];
  if (heat) {
    facts.push(
      fact("energy", quantity(heat.energy)),
      fact("heatSettlement", quantity(heat.settlement)),
      fact("power", quantity(heat.power)),
      fact("flow", quantity(heat.flow)),
      fact("supply", heat.supply_c && `${heat.supply_c} °C`),
      fact("return", heat.return_c && `${heat.return_c} °C`),
      fact("hours", heat.hours === null || heat.hours === undefined ? null : `${heat.hours} ${t("hoursUnit")}`),
    );
  }
  return el("dl", { class: "facts" }, facts);
}

/** Whether the meter itself complains: [words]. */
export function complaintsOf(reading) {
  const complaints = [];
  if (reading.status?.valve === "abnormal") complaints.push(`${t("valve")} ${t("valve_abnormal")}`);
  if (reading.status?.battery === "low") complaints.push(`${t("battery")} ${t("battery_low")}`);
  return complaints;
}

function fact(key, value, alarming = false) {
  const missing = value === null || value === undefined;
  return el(
    "div",
    { class: alarming ? "fact alarming" : "fact", "data-fact": key },
    el("dt", {}, t(key)),
    el("dd", missing ? { class: "missing", title: t("notSent") } : {}, missing ? "—" : value),
  );
}

const known = new Set(["valve_open", "valve_closed", "valve_moving", "valve_abnormal", "battery_ok", "battery_low"]);
const inWords = (kind, state) => (known.has(`${kind}_${state}`) ? t(`${kind}_${state}`) : state);
const cubicMetres = (volume) => volume && `${volume} m³`;
const quantity = (q) => q && `${q.value} ${q.unit.replace("m3", "m³")}`;
