// One read from its click to its end, as a card that opens and closes.

import { el } from "./dom.js";
import { framesOf } from "./frames.js";
import { moment } from "./format.js";
import { codeInWords, linkReason, t } from "./i18n.js";
import { complaintsOf, factsOf, volumeOf } from "./reading.js";
import { currentStage, stagesOf } from "./stages.js";

export class Card {
  #result;
  #on;
  #parts;

  /**
   * @param {object} result  see results.js
   * @param {{cancel: (result) => void, again: (result) => void, toggle: (result) => void, linkOf: (concentrator: string) => object}} on
   */
  constructor(result, on) {
    this.#result = result;
    this.#on = on;
    const { id, concentrator, meter, name, askedAt } = result;
    const title = el(
      "button",
      { type: "button", class: "card-title", onclick: () => on.toggle(result) },
      el("span", { class: "card-chevron", "aria-hidden": "true" }),
      el("span", { class: "card-where" }, `${concentrator} / `, el("strong", {}, meter)),
      name ? el("span", { class: "card-name" }, name) : null,
    );
    const part = (tag, name) => el(tag, { class: name });
    this.#parts = {
      title,
      summary: part("span", "card-summary"),
      source: part("span", "card-source"),
      time: el("time", { class: "card-time", dateTime: askedAt.toISOString() }),
      actions: part("div", "card-actions"),
      body: part("div", "card-body"),
    };
    const { summary, source, time, actions, body } = this.#parts;
    const head = el("header", { class: "card-head" }, title, summary, source, time, actions);
    this.element = el("article", { class: "card", "data-testid": "result", "data-id": id, "data-meter": meter, "data-concentrator": concentrator }, head, body);
    this.draw();
  }

  draw() {
    const { answer, steps, expanded } = this.#result;
    const { title, summary, source, time, body } = this.#parts;
    this.element.dataset.stage = answer?.stage ?? steps.at(-1).stage;
    title.setAttribute("aria-expanded", String(expanded));
    title.title = t(expanded ? "hide" : "show");
    time.textContent = moment(this.#result.askedAt);
    summary.replaceChildren(...(expanded ? [] : this.#summary()));
    source.hidden = answer?.stage !== "done";
    source.textContent = source.hidden ? "" : t(`source_${answer.source}`);
    source.title = source.hidden ? "" : this.#explanation();
    this.#drawActions();
    body.hidden = !expanded;
    body.replaceChildren(...this.#body());
    this.tick();
  }

  /** Moves on what shows the time that has passed. */
  tick() {
    const { answer, startedAt, timeoutMs } = this.#result;
    if (answer) return;
    this.element.querySelector(".note").textContent = this.#waitsFor();
    const passed = Math.min(performance.now() - startedAt, timeoutMs);
    this.element.querySelector("progress").value = passed / timeoutMs;
    this.element.querySelector(".elapsed").textContent = t("elapsed", { elapsed: (passed / 1000).toFixed(1), timeout: timeoutMs / 1000 });
  }

  #summary() {
    const { answer, cancelling, steps } = this.#result;
    if (!answer) return [cancelling ? t("cancelling") : currentStage(steps)];
    if (answer.stage === "failed") return [el("span", { class: "summary-failed" }, codeInWords(answer.error.code).reason)];
    const complaints = complaintsOf(answer.reading).map((words) => el("span", { class: "summary-complaint" }, words));
    return [el("span", { class: "summary-volume" }, answer.reading.volume_m3 ? `${answer.reading.volume_m3} m³` : "—"), ...complaints];
  }

  #drawActions() {
    const { answer, cancelling } = this.#result;
    const { actions } = this.#parts;
    const hadFocus = actions.contains(document.activeElement);
    const action = (words, testid, onclick, disabled = false) =>
      el("button", { type: "button", class: "quiet", "data-testid": testid, onclick, disabled }, t(words));
    const buttons = [];
    if (!answer) buttons.push(action("cancel", "cancel-button", () => this.#on.cancel(this.#result), cancelling));
    else if (answer.stage === "done" || answer.error.code === "cancelled") buttons.push(action("again", "again-button", () => this.#on.again(this.#result)));
    else if (answer.error.retry) buttons.push(action("retry", "retry-button", () => this.#on.again(this.#result)));
    actions.replaceChildren(...buttons);
    if (hadFocus) (buttons[0] ?? this.#parts.title).focus({ preventScroll: true });
  }

  #body() {
    const { answer, steps } = this.#result;
    if (!answer) return [this.#running(), stagesOf(steps, null)];
    const main = answer.stage === "done" ? this.#reading() : this.#failure();
    return [main, stagesOf(steps, answer.stage), this.#footnote(), framesOf(answer.frames)].filter(Boolean);
  }

  #running() {
    const { steps, cancelling } = this.#result;
    return el(
      "div",
      { class: "card-main running" },
      el("p", { class: "hero-words" }, cancelling ? t("cancelling") : currentStage(steps)),
      el("div", { class: "waiting" }, el("progress", { max: 1, "aria-hidden": "true" }), el("span", { class: "elapsed" }), el("p", { class: "note" })),
    );
  }

  #waitsFor() {
    const { concentrator, steps, disconnected } = this.#result;
    if (disconnected) return t(steps.length > 1 ? "willAskAgain" : "waitingForConnection");
    const link = this.#on.linkOf(concentrator);
    return link?.state === "down" && link.moving ? t("waitingForConcentrator") : "";
  }

  #reading() {
    const { reading } = this.#result.answer;
    return el("div", { class: "card-main" }, volumeOf(reading), factsOf(reading));
  }

  #failure() {
    const { answer, concentrator } = this.#result;
    const { reason, advice } = codeInWords(answer.error.code);
    return el(
      "div",
      { class: "card-main failed" },
      el("p", { class: "hero-words", "data-testid": "error-reason", "data-code": answer.error.code }, reason),
      el(
        "div",
        { class: "failure" },
        el("p", { class: "advice", "data-testid": "error-advice" }, advice),
        this.#lastSeen(answer.error.code, concentrator),
        el("p", { class: "detail" }, el("span", { class: "detail-label" }, t("detail")), ` ${answer.error.code}: ${answer.error.message}`),
      ),
    );
  }

  #lastSeen(code, concentrator) {
    const link = code === "concentrator_offline" ? this.#on.linkOf(concentrator) : null;
    if (link?.state !== "down") return null;
    const words = [t("offlineSince", { since: moment(link.since) }), link.reason && linkReason(link.reason)].filter(Boolean).join(" · ");
    return el("p", { class: "last-seen" }, words);
  }

  #explanation() {
    const { answer } = this.#result;
    return t(`explain_${answer.source}`, { at: answer.at ? moment(answer.at) : "—" });
  }

  #footnote() {
    const { answer, endedMs } = this.#result;
    const parts = [];
    if (answer.stage === "done") parts.push(this.#explanation());
    if (answer.gateway) parts.push(t("through", { gateway: answer.gateway }));
    parts.push(answer.timing_ms ? t("timing", { ...answer.timing_ms, client: endedMs }) : t("timingClient", { client: endedMs }));
    const words = parts.map((part) => el("span", {}, part));
    return el("p", { class: "footnote", "data-testid": "timing" }, words, el("span", { class: "command-id" }, this.#result.id));
  }
}
