/** The clips page: uploads files, lists what the server keeps, and shows one result. */

import { openServer, readOffers } from "./access.js";
import { wireBiplane } from "./biplane.js";
import { byId, make, wireHelp, write } from "./dom.js";
import { ResultView } from "./result.js";
import { spoken } from "./words.js";

const NAMES = "gdkvm-names";
const STATES = {
  sending: "sending", received: "received", queued: "waiting", running: "reading", done: "done", failed: "refused",
};

const reached = openServer();
let server = null;
let result = null;
let biplane = null;
const clips = new Map();
/** Of the list, by clip; they stay, so that a link that is pressed or has the focus is not taken away. */
const items = new Map();
const followed = new Set();
const waiting = [];
let isSending = false;
let sendings = 0;

/** Names of the files sent from this tab; the server keeps none, since they often name a patient. */
const names = new Map(JSON.parse(window.sessionStorage.getItem(NAMES) ?? "[]"));

function nameOf(id) {
  return names.get(id) ?? `Clip ${id.slice(2, 8)}`;
}

function take(clip) {
  clips.set(clip.id, { ...clips.get(clip.id), ...clip });
  showList();
}

function showList() {
  const shown = window.location.hash.slice(1);
  const nodes = [...clips.values()].reverse().map((clip) => itemOf(clip, clip.id === shown));
  const list = byId("list");
  for (const node of [...list.children]) if (!nodes.includes(node)) node.remove();
  nodes.forEach((node, index) => {
    if (list.children[index] !== node) list.insertBefore(node, list.children[index] ?? null);
  });
  for (const id of items.keys()) if (!clips.has(id)) items.delete(id);
  write("list-words", clips.size === 0 ? "None yet." : "");
  biplane?.show([...clips.values()].filter((clip) => clip.state === "done"), nameOf);
}

/** A clip's item, with what is known of the clip by now. */
function itemOf(clip, isShown) {
  if (!items.has(clip.id)) items.set(clip.id, makeItem());
  const { node, link, words, bar, error } = items.get(clip.id);
  const name = clip.name ?? nameOf(clip.id);
  node.dataset.state = clip.state;
  link.textContent = name;
  if (clip.state !== "sending") link.href = `#${clip.id}`;
  if (isShown) link.setAttribute("aria-current", "true");
  else link.removeAttribute("aria-current");
  const view = clip.view ? ` · ${clip.view}` : "";
  words.textContent = `${STATES[clip.state] ?? clip.state}${view}`;
  bar.hidden = clip.state !== "sending" && clip.state !== "running";
  bar.setAttribute("aria-label", name);
  if (typeof clip.progress === "number") bar.value = clip.progress;
  else bar.removeAttribute("value");
  error.textContent = clip.error ? spoken(clip.error.message) : "";
  return node;
}

function makeItem() {
  const [link, words] = [make("a"), make("span", { className: "words" })];
  const [bar, error] = [make("progress", { max: 1 }), make("p", { className: "error" })];
  return { node: make("li", {}, link, words, bar, error), link, words, bar, error };
}

async function refresh() {
  const kept = await server.clips();
  const ids = new Set(kept.map((clip) => clip.id));
  const isGone = ({ id, state, isRefused }) => !ids.has(id) && !followed.has(id) && state !== "sending" && !isRefused;
  for (const clip of [...clips.values()].filter(isGone)) clips.delete(clip.id);
  for (const clip of kept) {
    clips.set(clip.id, { ...clips.get(clip.id), ...clip });
    if (clip.state !== "done" && clip.state !== "failed") follow(clip.id);
  }
  showList();
}

async function follow(id) {
  if (followed.has(id)) return;
  followed.add(id);
  try {
    for await (const state of server.follow(id)) {
      take(state);
      if (state.state === "done" && window.location.hash.slice(1) === id) showChosen();
      if (state.state === "failed" && window.location.hash.slice(1) === id) showChosen();
    }
  } catch (error) {
    if (error.code === "not_found") clips.delete(id); // deleted meanwhile
    showList();
  }
  followed.delete(id);
}

/** Send files one after the other, so that each is there as soon as it can be; the first one is shown. */
async function send(files) {
  waiting.push(...[...files].map((file, index) => ({ file, isFirst: index === 0 })));
  if (isSending) return;
  isSending = true;
  while (waiting.length) await sendOne(waiting.shift());
  isSending = false;
}

async function sendOne({ file, isFirst }) {
  const ticket = `sending-${(sendings += 1)}`;
  take({ id: ticket, name: file.name, state: "sending", progress: 0, view: byId("view").value || null });
  try {
    const onProgress = (progress) => take({ id: ticket, progress });
    server = await reached;
    const clip = await server.upload(file, { view: byId("view").value, onProgress });
    names.set(clip.id, file.name);
    window.sessionStorage.setItem(NAMES, JSON.stringify([...names].slice(-200)));
    clips.delete(ticket);
    take(clip);
    if (isFirst) window.location.hash = clip.id;
    follow(clip.id);
  } catch (error) {
    take({ id: ticket, state: "failed", error, isRefused: true });
  }
}

/** Show the clip that the address names. */
async function showChosen() {
  const id = window.location.hash.slice(1);
  showList();
  if (!result) return undefined; // the page has only begun, and will ask again
  const clip = clips.get(id);
  if (!clip) return result.clear(id ? "This server keeps no such clip." : "");
  if (clip.state === "failed") return result.refuse(nameOf(id), clip.error);
  if (clip.state !== "done") return result.await(nameOf(id));
  return result.show(id, nameOf(id));
}

function wire() {
  byId("files").addEventListener("change", ({ target }) => {
    send(target.files);
    target.value = "";
  });
  const drop = byId("drop");
  document.addEventListener("dragover", (event) => {
    event.preventDefault();
    drop.classList.add("over");
  });
  document.addEventListener("dragleave", () => drop.classList.remove("over"));
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    drop.classList.remove("over");
    send(event.dataTransfer.files);
  });
  window.addEventListener("hashchange", () => {
    showChosen();
    // On a phone the result lies below the list.
    if (window.matchMedia("(max-width: 52rem)").matches) byId("result").scrollIntoView();
  });
  // One that could not be shown is asked for again.
  byId("list").addEventListener("click", ({ target }) => {
    if (target.closest("a")?.hash === window.location.hash && byId("player").hidden) showChosen();
  });
  wireHelp();
}

async function begin() {
  wire();
  server = await reached;
  const offers = await readOffers(server);
  result = new ResultView(server, offers, refresh);
  if (offers("post", "/v1/biplane")) biplane = wireBiplane(server);
  await refresh();
  await showChosen();
  // Clips also come from other tabs and from scanners.
  document.addEventListener("visibilitychange", () => {
    if (!document.hidden) refresh().catch(() => {});
  });
}

begin().catch((error) => write("list-words", error.message));
