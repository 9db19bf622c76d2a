// The concentrators that are online right now, live, and those that are known to be offline and why.

import { byId, el, oncePerFrame } from "./dom.js";
import { inNaturalOrder, moment } from "./format.js";
import { inEveryLanguage, linkReason, t } from "./i18n.js";
import { PickList } from "./picklist.js";

export class Links {
  #links = null;
  #selected = "";
  #logged = "";
  #on;
  #list;

  /** @param {{pick: (concentrator: string) => void, frames: (concentrator: string) => void}} on */
  constructor(client, on) {
    this.#on = on;
    this.#list = new PickList(byId("links"), byId("links-filter"), {
      key: (link) => link.concentrator,
      text: (link) => `${link.concentrator} ${link.gateway}`,
      make: (link) => this.#make(link.concentrator),
      update: (row, link) => this.#update(row, link),
    });
    inEveryLanguage(() => this.#draw());
    const draw = oncePerFrame(() => this.#draw());
    client.watchLinks((links) => {
      this.#links = links;
      draw();
    });
  }

  /** The link of a concentrator, or undefined if nothing is known of it. */
  of(concentrator) {
    return this.#links?.get(concentrator);
  }

  select(concentrator) {
    this.#selected = concentrator;
    this.#draw();
  }

  /** Marks the concentrator whose frames are shown, "" for none. */
  markLogged(concentrator) {
    this.#logged = concentrator;
    this.#draw();
  }

  #draw() {
    const links = [...(this.#links?.values() ?? [])];
    links.sort((a, b) => (a.state === b.state ? inNaturalOrder(a.concentrator, b.concentrator) : a.state === "up" ? -1 : 1));
    const up = links.filter((link) => link.state === "up").length;
    const down = links.length - up;
    byId("links-tally").textContent = this.#links ? (down ? t("onlineOffline", { up, down }) : t("online", { n: up })) : "";
    this.#list.show(links, t(this.#links ? "noConcentrators" : "linksUnknown"));
  }

  #make(concentrator) {
    const button = el(
      "button",
      { type: "button", class: "pick", onclick: () => this.#on.pick(concentrator) },
      el("span", { class: "pick-dot", "aria-hidden": "true" }),
      el("span", { class: "pick-name" }, concentrator),
      el("span", { class: "pick-aside" }),
      el("span", { class: "pick-more" }),
    );
    const frames = el("button", {
      type: "button",
      class: "frames-button",
      "data-testid": `frames-button-${concentrator}`,
      onclick: () => this.#on.frames(concentrator),
    });
    return el("li", { class: "link", "data-testid": `concentrator-${concentrator}` }, button, frames);
  }

  #update(row, link) {
    const up = link.state === "up";
    row.dataset.state = link.state;
    row.querySelector(".pick-aside").textContent = link.gateway;
    const since = t(up ? "since" : "offlineSince", { since: moment(link.since) });
    row.querySelector(".pick-more").textContent = up || !link.reason ? since : `${since} · ${linkReason(link.reason)}`;
    const button = row.firstElementChild;
    button.title = [link.driver, link.remote, link.reason && linkReason(link.reason)].filter(Boolean).join(" · ");
    button.setAttribute("aria-pressed", String(link.concentrator === this.#selected));
    const frames = row.querySelector(".frames-button");
    frames.textContent = t("frameLog");
    frames.setAttribute("aria-label", t("frameLogOf", { concentrator: link.concentrator }));
    frames.setAttribute("aria-pressed", String(link.concentrator === this.#logged));
  }
}
