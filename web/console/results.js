// The reads of this visit, newest first, each with its card; and how each goes on.
//
// A result is {id, withdraw, concentrator, meter, name, askedAt, startedAt, timeoutMs, maxAgeMs, steps, answer,
// endedMs, cancelling, disconnected, expanded}: withdraw is its AbortController, askedAt a Date, startedAt a
// performance.now(), answer null while it runs.

import { uuid } from "../dianchao.js";
import { Card } from "./card.js";
import { csv, offer } from "./csv.js";
import { byId, el } from "./dom.js";
import { codeInWords, inEveryLanguage, t } from "./i18n.js";
import { localISO } from "./format.js";
import { advance } from "./stages.js";

const CARDS = 100; // shown
const KEPT = 5_000; // for the export
const TICK_MS = 100;

export class Results {
  #client;
  #on;
  #results = [];
  #cards = new Map();
  #ticking = null;

  /** @param {{linkOf: (concentrator: string) => object, again: (result) => void, done: (result) => void}} on */
  constructor(client, on) {
    this.#client = client;
    this.#on = on;
    byId("export").addEventListener("click", () => this.#export());
    inEveryLanguage(() => this.#draw());
  }

  /** Starts a read of {concentrator, meter, name, timeoutMs, maxAgeMs} and returns its card. It opens, the others close. */
  start(command) {
    for (const [result, card] of this.#cards) if (result.expanded) this.#toggle(result, card);
    const result = {
      ...command,
      id: uuid(),
      withdraw: new AbortController(),
      askedAt: new Date(),
      startedAt: performance.now(),
      steps: [{ stage: "asked", ms: 0 }],
      answer: null,
      endedMs: 0,
      cancelling: false,
      disconnected: this.#client.state !== "open",
      expanded: true,
    };
    this.#results = [result, ...this.#results].slice(0, KEPT);
    const card = new Card(result, {
      cancel: (r) => this.#cancel(r),
      again: (r) => this.#on.again(r),
      toggle: (r) => this.#toggle(r, card),
      linkOf: this.#on.linkOf,
    });
    this.#cards.set(result, card);
    if (this.#results.length === 1) byId("cards").replaceChildren();
    byId("cards").prepend(card.element);
    this.#dropOldCards();
    this.#drawHead();
    this.#ticking ??= setInterval(() => this.#tick(), TICK_MS);
    this.#follow(result);
    return card.element;
  }

  /** Tells what still runs whether there is a connection. */
  connectionIs(state) {
    for (const [result, card] of this.#cards) {
      if (result.answer) continue;
      result.disconnected = state !== "open" && !(state === "draining" && result.steps.length > 1);
      card.draw();
    }
  }

  async #follow(result) {
    const { id, concentrator, meter, timeoutMs, maxAgeMs } = result;
    const passed = () => Math.round(performance.now() - result.startedAt);
    const onStage = ({ stage, position, wait_ms: waitMs }) => {
      advance(result.steps, stage, passed(), { position, waitMs });
      this.#cards.get(result)?.draw();
    };
    try {
      result.answer = await this.#client.read({ id, concentrator, meter, timeoutMs, maxAgeMs, onStage, signal: result.withdraw.signal });
    } catch (error) {
      result.answer = error.answer;
    }
    result.endedMs = passed();
    advance(result.steps, result.answer.stage, result.endedMs);
    this.#cards.get(result)?.draw();
    this.#drawHead();
    byId("announcer").textContent = announcement(result);
    if (result.answer.stage === "done") this.#on.done(result);
  }

  #cancel(result) {
    result.cancelling = true;
    this.#cards.get(result)?.draw();
    result.withdraw.abort();
  }

  #toggle(result, card) {
    result.expanded = !result.expanded;
    card.draw();
  }

  #tick() {
    let running = false;
    for (const [result, card] of this.#cards) {
      if (result.answer) continue;
      running = true;
      card.tick();
    }
    if (running) return;
    clearInterval(this.#ticking);
    this.#ticking = null;
  }

  // Only what has ended goes: a read that runs keeps its card and its cancel button.
  #dropOldCards() {
    for (const [result, card] of this.#cards) {
      if (this.#cards.size <= CARDS) return;
      if (!result.answer) continue;
      card.element.remove();
      this.#cards.delete(result);
    }
  }

  #draw() {
    this.#drawHead();
    for (const card of this.#cards.values()) card.draw();
    if (this.#results.length > 0) return;
    byId("cards").replaceChildren(el("div", { class: "nothing" }, el("p", { class: "nothing-title" }, t("emptyTitle")), el("p", {}, t("emptyHint"))));
  }

  #drawHead() {
    const n = this.#results.length;
    byId("results-tally").textContent = n ? t("resultsCount", { n }) : "";
    byId("export").hidden = !this.#results.some((result) => result.answer);
  }

  #export() {
    const name = `dianchao-${localISO(new Date()).slice(0, 19).replaceAll(":", "")}.csv`;
    offer(name, csv(this.#results.filter((result) => result.answer)));
  }
}

function announcement({ meter, answer }) {
  if (answer.stage === "failed") return t("announceFailed", { meter, reason: codeInWords(answer.error.code).reason });
  return t("announceDone", { meter, volume: answer.reading.volume_m3 ?? "—" });
}
