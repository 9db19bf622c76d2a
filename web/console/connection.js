// Whether this page can read meters right now.

import { byId } from "./dom.js";
import { inEveryLanguage, t } from "./i18n.js";

export class Connection {
  #client;
  #nextTryAt = 0;
  #ticking = null;
  #edge = "";

  /** @param {(state: string) => void} onChange */
  constructor(client, onChange) {
    this.#client = client;
    byId("connection").addEventListener("click", () => client.reconnect());
    const changed = () => {
      this.#draw();
      onChange(client.state);
    };
    client.addEventListener("open", (event) => {
      this.#edge = event.detail.edge;
      changed();
    });
    client.addEventListener("draining", changed);
    client.addEventListener("close", (event) => {
      this.#nextTryAt = 0;
      if (!event.detail.reconnect) queueMicrotask(changed);
      else changed();
    });
    client.addEventListener("reconnecting", (event) => {
      this.#nextTryAt = performance.now() + event.detail.delayMs;
      changed();
    });
    inEveryLanguage(() => this.#draw());
  }

  #draw() {
    const { state } = this.#client;
    const left = Math.ceil((this.#nextTryAt - performance.now()) / 1000);
    const waits = state === "reconnecting" && left > 0;
    const element = byId("connection");
    document.body.dataset.connection = state;
    element.dataset.state = state;
    element.textContent = waits ? t("reconnectingIn", { n: left }) : t(state, { edge: this.#edge });
    element.title = waits ? t("reconnectNow") : "";
    element.disabled = !waits;
    clearTimeout(this.#ticking);
    if (waits) this.#ticking = setTimeout(() => this.#draw(), 250);
  }
}
