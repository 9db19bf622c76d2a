// A list to pick from: filtered by what is typed above it, bounded, and redrawn without losing focus.

import { el } from "./dom.js";
import { t } from "./i18n.js";

const SHOWN = 200; // rows; more are reached through the filter
const FILTER_FROM = 9; // fewer rows need no filter

export class PickList {
  #list;
  #filter;
  #row;
  #rows = new Map();
  #items = [];
  #empty = "";

  /**
   * @param {HTMLUListElement} list
   * @param {HTMLInputElement} filter
   * @param {{key: (item) => string, text: (item) => string, make: (item) => HTMLLIElement, update: (row, item) => void}} row
   */
  constructor(list, filter, row) {
    this.#list = list;
    this.#filter = filter;
    this.#row = row;
    filter.addEventListener("input", () => this.#draw());
  }

  /** Shows `items` in their order, or the sentence `empty` if there are none. */
  show(items, empty) {
    this.#items = items;
    this.#empty = empty;
    this.#draw();
  }

  #draw() {
    this.#filter.placeholder = t("filter");
    this.#filter.setAttribute("aria-label", t("filter"));
    this.#filter.hidden = this.#items.length < FILTER_FROM;
    const wanted = this.#filter.hidden ? "" : this.#filter.value.trim().toLowerCase();
    const matching = wanted ? this.#items.filter((item) => this.#row.text(item).toLowerCase().includes(wanted)) : this.#items;
    const rows = new Map();
    for (const item of matching.slice(0, SHOWN)) {
      const key = this.#row.key(item);
      const row = this.#rows.get(key) ?? this.#row.make(item);
      this.#row.update(row, item);
      rows.set(key, row);
    }
    this.#rows = rows;
    const focused = document.activeElement;
    this.#list.replaceChildren(...rows.values(), ...this.#remarks(matching.length));
    if (focused !== document.activeElement && focused.isConnected) focused.focus({ preventScroll: true });
  }

  #remarks(matching) {
    const remark = (text) => el("li", { class: "remark" }, text);
    if (this.#items.length === 0) return [remark(this.#empty)];
    if (matching === 0) return [remark(t("nothingMatches"))];
    return matching > SHOWN ? [remark(t("more", { n: matching - SHOWN }))] : [];
  }
}
