/** Pairs a four-chamber with a two-chamber clip and shows what the server makes of both. */

import { byId, make } from "./dom.js";
import { efInWords, sentence } from "./words.js";

/**
 * @param {import("./gdkvm.js").GdkvmServer} server
 * @returns {{show: (clips: {id: string, view: string|null}[], nameOf: (id: string) => string) => void}}
 */
export function wireBiplane(server) {
  byId("biplane").hidden = false;
  byId("biplane-go").addEventListener("click", () => compute(server));
  return { show };
}

function show(clips, nameOf) {
  byId("biplane").hidden = clips.length < 2;
  for (const view of ["A4C", "A2C"]) {
    const select = byId(`biplane-${view.toLowerCase()}`);
    const chosen = select.value;
    // Those that say they are of this view stand first; the server refuses what does not fit.
    const sorted = [...clips].reverse().sort((a, b) => (b.view === view) - (a.view === view));
    select.replaceChildren(...sorted.map(({ id, view: said }) => make("option", { value: id, textContent: `${nameOf(id)}${said ? ` (${said})` : ""}` })));
    if (sorted.some(({ id }) => id === chosen)) select.value = chosen;
  }
}

async function compute(server) {
  const place = byId("biplane-answer");
  place.replaceChildren(make("p", { className: "words", textContent: "Computing …" }));
  try {
    const json = { a4c: byId("biplane-a4c").value, a2c: byId("biplane-a2c").value };
    const answer = await server.ask("/v1/biplane", { method: "POST", json });
    const { headline, interval, words } = efInWords(answer.ef);
    place.replaceChildren(
      make("p", { className: "headline", textContent: `EF ${headline} ` }, make("span", { className: "interval", textContent: interval })),
      make("p", { className: "words", textContent: words }),
      make("p", { className: "words", textContent: sentence(answer.warnings, "Mind: ") }),
    );
  } catch (error) {
    place.replaceChildren(make("p", { className: "error", textContent: error.message }));
  }
}
