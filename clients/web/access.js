/** The server that the page came from; asks for a key where the server has keys. */

import { GdkvmServer } from "./gdkvm.js";
import { make } from "./dom.js";

const SLOT = "gdkvm-key";

/** The key that was entered in this tab, null where there is none. */
export function storedKey() {
  return window.sessionStorage.getItem(SLOT);
}

/**
 * The page's server, ready to be asked.
 *
 * @returns {Promise<GdkvmServer>}
 * @throws {GdkvmError} the server does not answer.
 */
export async function openServer() {
  for (;;) {
    const server = new GdkvmServer({ key: storedKey() });
    try {
      await server.ask("/v1/models");
      return server;
    } catch (error) {
      if (error.code !== "unauthorized") throw error;
    }
    const remark = storedKey() === null ? "" : "The server does not know this key.";
    window.sessionStorage.setItem(SLOT, await askForKey(remark));
  }
}

/** Ask until something was entered; it stays in this tab and ends with it. */
function askForKey(remark) {
  const input = make("input", {
    id: "key", type: "password", autocomplete: "off", required: true, spellcheck: false,
  });
  const form = make(
    "form", { method: "dialog" },
    make("h2", { textContent: "This server asks for a key", id: "key-title" }),
    make("p", { className: "words", textContent: "Its operator gives it out. It stays in this tab." }),
    make("label", { htmlFor: "key", textContent: "Key" }),
    input,
    make("p", { className: "error", role: "alert", textContent: remark }),
    make("button", { textContent: "Use this key" }),
  );
  const dialog = make("dialog", { className: "sheet" }, form);
  dialog.setAttribute("aria-labelledby", "key-title");
  document.body.append(dialog);
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("cancel", (event) => event.preventDefault());
    dialog.addEventListener("close", () => {
      dialog.remove();
      resolve(input.value.trim());
    });
  });
}

/**
 * What the server offers, from its own description.
 *
 * @returns {Promise<(method: string, path: string) => boolean>} path with `{}` for every parameter, such as
 *   "/v1/clips/{}/seg.dcm".
 */
export async function readOffers(server) {
  const { paths } = await server.ask("/openapi.json");
  const offers = new Set();
  for (const [path, methods] of Object.entries(paths)) {
    for (const method of Object.keys(methods)) offers.add(`${method} ${path.replaceAll(/\{[^}]*\}/g, "{}")}`);
  }
  return (method, path) => offers.has(`${method} ${path}`);
}
