/** Pairs a four-chamber with a two-chamber clip and shows what the server makes of both. */

import { byId, make, table } from "./dom.js";
import { efInWords, figure, spoken } from "./words.js";

const VIEWS = ["A4C", "A2C"];

/**
 * @param {import("./gdkvm.js").GdkvmServer} server
 * @returns {{show: (clips: {id: string, view: string|null}[], nameOf: (id: string) => string) => void}}
 */
export function wireBiplane(server) {
  byId("biplane").hidden = false;
  byId("biplane-go").addEventListener("click", () => compute(server));
  for (const view of VIEWS) {
    choiceOf(view).addEventListener("change", ({ target }) => {
      target.dataset.chosen = target.value;
    });
  }
  return { show };
}

const choiceOf = (view) => byId(`biplane-${view.toLowerCase()}`);

function show(clips, nameOf) {
  byId("biplane").hidden = clips.length < 2;
  for (const view of VIEWS) {
    const select = choiceOf(view);
    // Those that say they are of this view stand first, then those that say nothing; the server refuses what does not fit.
    const rank = (clip) => (clip.view === view ? 0 : clip.view ? 2 : 1);
    const sorted = [...clips].reverse().sort((a, b) => rank(a) - rank(b));
    const options = sorted.map(({ id, view: said }) => make("option", { value: id, textContent: `${said ? `${said}: ` : ""}${nameOf(id)}` }));
    // One that is open stays as it is, unless there is something new to choose.
    if (select.options.length === options.length && options.every((option, index) => option.isEqualNode(select.options[index]))) continue;
    select.replaceChildren(...options);
    if (sorted.some(({ id }) => id === select.dataset.chosen)) select.value = select.dataset.chosen;
  }
}

async function compute(server) {
  const place = byId("biplane-answer");
  place.replaceChildren(make("p", { className: "words", textContent: "Computing …" }));
  try {
    const json = { a4c: choiceOf("A4C").value, a2c: choiceOf("A2C").value };
    const answer = await server.ask("/v1/biplane", { method: "POST", json });
    const { headline, interval, words } = efInWords(answer.ef);
    place.replaceChildren(
      make("p", { className: "headline", textContent: `EF ${headline} ` }, make("span", { className: "interval", textContent: interval })),
      make("p", { className: "words", textContent: words }),
      table("Biplane", ["Figure", "Value"], rowsOf(answer)),
    );
  } catch (error) {
    place.replaceChildren(make("p", { className: "error", textContent: spoken(error.message) }));
  }
}

/** What there is of volumes and of the views' agreement; what is unknown is left out. */
function rowsOf({ ef, differences, views, stroke_volume_ml: strokeMl, cardiac_output_l_min: outputLMin }) {
  const rows = [
    ["EF, four-chamber alone", views.a4c.ef.percent, 0, "%"],
    ["EF, two-chamber alone", views.a2c.ef.percent, 0, "%"],
    ["End-diastolic volume", ef.edv_ml, 0, "ml"],
    ["End-systolic volume", ef.esv_ml, 0, "ml"],
    ["Stroke volume", strokeMl, 0, "ml"],
    ["Cardiac output", outputLMin, 1, "l/min"],
    ["Long axes differ at end diastole", differences.ed_length_percent, 0, "%"],
    ["Long axes differ at end systole", differences.es_length_percent, 0, "%"],
    ["EF differs between the views", differences.ef_points, 0, "points"],
  ];
  return rows.filter(([, value]) => value !== null).map(([name, ...rest]) => [name, figure(...rest)]);
}
