// The console: pick a meter, read it, see how it goes.

import { Dianchao } from "../dianchao.js";
import { byId } from "./dom.js";
import { Connection } from "./connection.js";
import { FrameLog } from "./framelog.js";
import { drawPage, inEveryLanguage, switchLanguage, t } from "./i18n.js";
import { Links } from "./links.js";
import { Meters } from "./meters.js";
import { fillChoices, chosen } from "./options.js";
import { Results } from "./results.js";

const phone = matchMedia("(max-width: 820px)");
const fields = { concentrator: byId("concentrator"), meter: byId("meter") };

inEveryLanguage(drawPage);
inEveryLanguage(fillChoices);
inEveryLanguage(() => {
  byId("language").textContent = t("otherLanguage");
  byId("language").setAttribute("aria-label", t("otherLanguageLabel"));
});
byId("language").addEventListener("click", switchLanguage);

const client = new Dianchao();
const links = new Links(client, { pick: pickConcentrator, frames: showFrames });
const frameLog = new FrameLog(client, (concentrator) => links.markLogged(concentrator));
const meters = new Meters(pickMeter);
const results = new Results(client, {
  linkOf: (concentrator) => links.of(concentrator),
  again: ({ concentrator, meter }) => read(concentrator, meter),
  done: (result) => meters.wasRead(result),
});
new Connection(client, (state) => {
  results.connectionIs(state);
  frameLog.connectionIs(state);
});

byId("ask").addEventListener("submit", (event) => {
  event.preventDefault();
  submit();
});
fields.concentrator.addEventListener("input", () => {
  splitPasted();
  showConcentrator();
});
for (const field of Object.values(fields)) field.addEventListener("input", () => refuse("", null));
document.addEventListener("keydown", (event) => {
  if (event.key !== "/" || event.ctrlKey || event.metaKey || event.altKey || event.target.matches("input, select, textarea")) return;
  event.preventDefault();
  const field = fields.concentrator.value ? fields.meter : fields.concentrator;
  field.focus();
  field.select();
});
addEventListener("hashchange", prefill);
phone.addEventListener("change", layPanels);
layPanels();
prefill();
if (!phone.matches) (fields.concentrator.value ? fields.meter : fields.concentrator).focus({ preventScroll: true });

// A Chinese input method may leave full-width digits.
function valueOf(field) {
  return field.value.normalize("NFKC").trim();
}

function submit() {
  const concentrator = valueOf(fields.concentrator);
  const meter = valueOf(fields.meter);
  if (!concentrator) return refuse(t("needConcentrator"), fields.concentrator);
  if (!meter) return refuse(t("needMeter"), fields.meter);
  for (const [value, field] of [[concentrator, fields.concentrator], [meter, fields.meter]]) {
    if (!/^[A-Za-z0-9_-]{1,32}$/.test(value)) return refuse(t("illegal", { value }), field);
  }
  read(concentrator, meter);
}

function refuse(words, field) {
  byId("refusal").textContent = words;
  for (const each of Object.values(fields)) each.setAttribute("aria-invalid", String(each === field));
  field?.focus();
}

function read(concentrator, meter) {
  fields.concentrator.value = concentrator;
  fields.meter.value = meter;
  refuse("", null);
  showConcentrator();
  history.replaceState(null, "", `#${concentrator}/${meter}`);
  const card = results.start({ concentrator, meter, name: meters.nameOf(concentrator, meter), ...chosen() });
  makeRoomOnAPhone(card);
}

function showFrames(concentrator) {
  if (frameLog.toggle(concentrator)) makeRoomOnAPhone(byId("frame-log"));
}

function makeRoomOnAPhone(element) {
  if (!phone.matches) return;
  for (const panel of ["links-panel", "meters-panel"]) byId(panel).open = false;
  element.scrollIntoView({ block: "nearest" });
}

function pickConcentrator(concentrator) {
  fields.concentrator.value = concentrator;
  fields.meter.value = "";
  refuse("", null);
  showConcentrator();
  history.replaceState(null, "", `#${concentrator}`);
  if (phone.matches) {
    byId("links-panel").open = false;
    byId("meters-panel").open = true;
  } else {
    fields.meter.focus();
  }
}

function pickMeter(concentrator, meter) {
  read(concentrator, meter);
}

function showConcentrator() {
  const concentrator = valueOf(fields.concentrator);
  links.select(concentrator);
  meters.select(concentrator);
}

// "101/101001", as a work order or a link has it, fills both fields.
function splitPasted() {
  const both = valueOf(fields.concentrator).match(/^([\w-]+)[\s/,，、]+([\w-]+)$/);
  if (both) [, fields.concentrator.value, fields.meter.value] = both;
}

// A link to /#101/101001 fills the fields; reading is left to the person.
function prefill() {
  const [concentrator = "", meter = ""] = decodeURIComponent(location.hash.slice(1)).split("/");
  if (!concentrator) return;
  fields.concentrator.value = concentrator;
  fields.meter.value = meter;
  showConcentrator();
}

// Beside each other on a wide screen the lists stay open; below each other on a phone one is open at a time.
function layPanels() {
  byId("links-panel").open = true;
  byId("meters-panel").open = !phone.matches;
  for (const summary of document.querySelectorAll(".panel > summary")) summary.tabIndex = phone.matches ? 0 : -1;
}
