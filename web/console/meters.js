// The meters to pick from: those that the operator listed, and those that were read in this browser.

import { byId, el } from "./dom.js";
import { inNaturalOrder, moment } from "./format.js";
import { inEveryLanguage, t } from "./i18n.js";
import { PickList } from "./picklist.js";
import { recall, remember } from "./store.js";

const REMEMBERED = 60;

export class Meters {
  #concentrator = "";
  #listed = [];
  #problem = "";
  #recent = recall("recent", []);
  #onRead;
  #list;

  /** @param {(concentrator: string, meter: string) => void} onRead */
  constructor(onRead) {
    this.#onRead = onRead;
    this.#list = new PickList(byId("meters"), byId("meters-filter"), {
      key: (entry) => `${entry.concentrator}/${entry.meter}`,
      text: (entry) => `${entry.meter} ${entry.name ?? ""}`,
      make: (entry) => this.#make(entry),
      update: (row, entry) => this.#update(row, entry),
    });
    inEveryLanguage(() => this.#draw());
  }

  /** Shows the meters behind a concentrator; "" shows what was read recently anywhere. */
  async select(concentrator) {
    if (concentrator === this.#concentrator) return;
    this.#concentrator = concentrator;
    this.#listed = [];
    this.#problem = "";
    this.#draw();
    if (!concentrator) return;
    try {
      const response = await fetch(`/v1/meters?concentrator=${encodeURIComponent(concentrator)}`);
      if (!response.ok) throw new Error(`HTTP ${response.status}`);
      const { meters } = await response.json();
      if (concentrator !== this.#concentrator) return;
      this.#listed = meters ?? [];
    } catch (error) {
      if (concentrator !== this.#concentrator) return;
      this.#problem = error.message;
    }
    this.#draw();
  }

  /** The name that the operator gave a meter, or "". */
  nameOf(concentrator, meter) {
    const known = [...this.#listed, ...this.#recent].find((m) => m.concentrator === concentrator && m.meter === meter);
    return known?.name ?? "";
  }

  /** Remembers that a meter was read, with its volume. */
  wasRead({ concentrator, meter, name, askedAt, answer }) {
    const others = this.#recent.filter((m) => m.concentrator !== concentrator || m.meter !== meter);
    const entry = { concentrator, meter, name, at: answer.at ?? askedAt.toISOString(), volume: answer.reading?.volume_m3 ?? null };
    this.#recent = [entry, ...others].slice(0, REMEMBERED);
    remember("recent", this.#recent);
    this.#draw();
  }

  #entries() {
    if (!this.#concentrator) return this.#recent;
    const entries = new Map(this.#listed.map((m) => [m.meter, m]));
    for (const m of this.#recent) {
      if (m.concentrator === this.#concentrator) entries.set(m.meter, { ...m, name: entries.get(m.meter)?.name ?? m.name });
    }
    return [...entries.values()].sort((a, b) => inNaturalOrder(a.meter, b.meter));
  }

  #draw() {
    byId("meters-tally").textContent = this.#concentrator ? t("metersOf", { concentrator: this.#concentrator }) : t("metersRecent");
    const empty = this.#problem ? t("metersFailed", { why: this.#problem }) : t(this.#concentrator ? "noMeters" : "noRecent");
    this.#list.show(this.#entries(), empty);
  }

  #make({ concentrator, meter }) {
    const button = el(
      "button",
      { type: "button", class: "pick", onclick: () => this.#onRead(concentrator, meter) },
      el("span", { class: "pick-name" }, meter),
      el("span", { class: "pick-aside" }),
      el("span", { class: "pick-more" }),
    );
    return el("li", { "data-testid": `meter-${meter}` }, button);
  }

  #update(row, { concentrator, meter, name, volume, at }) {
    row.querySelector(".pick-aside").textContent = volume ? `${volume} m³` : "";
    const where = this.#concentrator ? "" : t("metersOf", { concentrator });
    row.querySelector(".pick-more").textContent = [name, where, at && moment(at)].filter(Boolean).join(" · ");
    row.firstElementChild.setAttribute("aria-label", [t("readMeter", { meter }), name, where].filter(Boolean).join(", "));
  }
}
