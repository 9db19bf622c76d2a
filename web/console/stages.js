// The stages of a read as a line of steps, each with its milliseconds since the click on this computer's clock.

import { el } from "./dom.js";
import { t } from "./i18n.js";

const words = { asked: "stageAsked", accepted: "stageAccepted", queued: "stageQueued", sent: "stageSent", done: "stageDone", failed: "stageFailed" };
const course = ["asked", "accepted", "queued", "sent", "done"];

/**
 * Adds a stage to `steps`, an array of {stage, ms, position?, waitMs?}. A stage that comes again, as a queue's position
 * does, keeps its first time; one that comes late, after a lost connection, does not turn the line back.
 */
export function advance(steps, stage, ms, { position, waitMs } = {}) {
  const step = steps.find((s) => s.stage === stage);
  if (step) Object.assign(step, { position, waitMs });
  else if (course.indexOf(stage) > course.indexOf(steps.at(-1).stage) || stage === "failed") steps.push({ stage, ms, position, waitMs });
}

/** The latest stage in words. */
export const currentStage = (steps) => inWords(steps.at(-1));

/** The line. `end` is "done", "failed" or null while the read runs; then the steps to come are shown faint. */
export function stagesOf(steps, end) {
  const last = steps.at(-1);
  const toCome = end ? [] : course.slice(course.indexOf(last.stage) + 1).map((stage) => ({ stage }));
  const items = [...steps, ...toCome].map((step) => {
    const state = step === last && !end ? "now" : step.ms === undefined ? "later" : step.stage === "failed" ? "failed" : "reached";
    return el(
      "li",
      { class: `stage ${state}`, "data-stage": step.stage },
      el("span", { class: "stage-word" }, inWords(step)),
      el("span", { class: "stage-ms" }, step.ms === undefined ? "" : `${step.ms} ms`),
    );
  });
  return el("ol", { class: "stages", "data-testid": "stages" }, items);
}

function inWords({ stage, position, waitMs }) {
  if (stage !== "queued" || !position) return t(words[stage]);
  return waitMs ? t("stageQueuedFor", { n: position, wait: Math.max(1, Math.round(waitMs / 1000)) }) : t("stageQueuedAt", { n: position });
}
