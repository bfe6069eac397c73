/** Small things that every page of the viewer needs. */

/** The element of this id. */
export const byId = (id) => document.getElementById(id);

/** Write text only where it changes, so that screen readers are not told the same twice. */
export function write(id, text) {
  const node = byId(id);
  if (node.textContent !== text) node.textContent = text;
}

/**
 * Make an element.
 *
 * @param {string} tag
 * @param {object} properties of the element, such as className and textContent.
 * @param {...(Node|string)} children
 */
export function make(tag, properties = {}, ...children) {
  const node = Object.assign(document.createElement(tag), properties);
  node.append(...children);
  return node;
}

/**
 * A table from its titles and rows of cells, each a text or a node.
 *
 * @param {string} caption
 * @param {string[]} titles
 * @param {(string|Node)[][]} rows
 * @param {string[]} notes what stands under each row, over all of its columns; nothing where empty.
 */
export function table(caption, titles, rows, notes = []) {
  const head = make("tr", {}, ...titles.map((title) => make("th", { scope: "col", textContent: title })));
  const body = rows.flatMap((cells, index) => [
    make("tr", {}, ...cells.map((cell) => make("td", {}, cell))),
    ...(notes[index] ? [make("tr", {}, make("td", { className: "note", colSpan: titles.length }, notes[index]))] : []),
  ]);
  return make(
    "table", {},
    make("caption", { textContent: caption }), make("thead", {}, head), make("tbody", {}, ...body),
  );
}

const SLIDER_KEYS = new Set(["ArrowLeft", "ArrowRight", "ArrowUp", "ArrowDown", "Home", "End", "PageUp", "PageDown"]);

/** Whether what has the focus does something of its own with this key. */
function isTaken(key, target) {
  if (target.closest("input[type=range]")) return SLIDER_KEYS.has(key);
  if (target.closest("input, select, textarea, video, summary")) return true;
  return [" ", "Enter"].includes(key) && target.closest("button, a, label") !== null;
}

/**
 * Act on keys, unless the key belongs to a field or a control that has the focus.
 *
 * @param {Object<string, (event: KeyboardEvent) => void>} actions by `event.key`, letters in lower case.
 */
export function takeKeys(actions) {
  document.addEventListener("keydown", (event) => {
    const isHeld = event.ctrlKey || event.metaKey || event.altKey;
    const isOpen = document.querySelector("dialog[open]");
    if (isHeld || isOpen || isTaken(event.key, event.target)) return;
    const action = actions[event.key.length === 1 ? event.key.toLowerCase() : event.key];
    if (!action) return;
    event.preventDefault();
    action(event);
  });
}

/** Open a dialog by a button and by the key "?". */
export function wireHelp() {
  const help = byId("help");
  byId("help-open").addEventListener("click", () => help.showModal());
  byId("help-close").addEventListener("click", () => help.close());
}
