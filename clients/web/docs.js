/** The page of the HTTP routes: reads /openapi.json, shows it, and lets one try each route. */

import { openServer, storedKey } from "./access.js";
import { byId, make, table, write } from "./dom.js";
import { shapeOf } from "./schema.js";
import { counted } from "./words.js";

const MOST_SHOWN = 20_000;
const METHODS = ["get", "post", "put", "patch", "delete"];

let description;

/** Text with `code` and **strong** as elements, nothing else of Markdown. */
function words(text) {
  return text.split(/(`[^`]+`|\*\*[^*]+\*\*)/).map((part) => {
    if (part.startsWith("`")) return make("code", { textContent: part.slice(1, -1) });
    if (part.startsWith("**")) return make("strong", { textContent: part.slice(2, -2) });
    return part.replaceAll(/([^\n])\n(?!\n)/g, "$1 ");
  });
}

const cell = (text) => make("span", {}, ...words(text ?? ""));
const firstSentence = (text) => text.split(/(?<=[.])\s|\n/)[0];

/** One route, folded up until somebody opens it. */
function routeOf(path, method, operation) {
  const about = operation.description ?? operation.summary ?? "";
  const folded = make(
    "summary", {},
    make("span", { className: "method", textContent: method.toUpperCase() }),
    make("code", { textContent: path }),
    make("span", { className: "words" }, ...words(firstSentence(about))),
  );
  folded.firstChild.dataset.method = method;
  const node = make("details", { className: "route", id: `${method}${path.replaceAll(/[^a-z0-9]+/gi, "-")}` }, folded);
  node.dataset.text = `${method} ${path} ${about}`.toLowerCase();
  node.addEventListener("toggle", () => {
    if (node.open && node.children.length === 1) node.append(bodyOf(path, method, operation, about));
  });
  return node;
}

function bodyOf(path, method, operation, about) {
  const parts = [make("p", {}, ...words(about))];
  const parameters = operation.parameters ?? [];
  if (parameters.length) parts.push(parameterTable(parameters));
  for (const [type, { schema }] of Object.entries(operation.requestBody?.content ?? {})) {
    parts.push(make("p", { className: "words" }, "Body, ", make("code", { textContent: type })));
    if (!isFile(type)) parts.push(shape(schema));
  }
  parts.push(answerTable(operation.responses));
  for (const [status, answer] of Object.entries(operation.responses)) {
    const schema = answer.content?.["application/json"]?.schema;
    if (!schema || !shapeOf(schema, description).includes("{")) continue;
    parts.push(make("p", { className: "words", textContent: `Answer ${status}` }), shape(schema));
  }
  parts.push(tryForm(path, method, operation));
  return make("div", {}, ...parts);
}

// Long shapes scroll, so the keyboard must reach them.
const shape = (schema) => make("pre", { textContent: shapeOf(schema, description), tabIndex: 0 });
const isFile = (type) => !type.includes("json");

function parameterTable(parameters) {
  return table(
    "Parameters", ["name", "in", "type", "default", "what it is"],
    parameters.map(({ name, in: place, schema, required, description: about }) => [
      make("code", { textContent: name + (required ? " *" : "") }), place, shapeOf(schema, description),
      schema.default === undefined || schema.default === null ? "" : String(schema.default), cell(about),
    ]),
  );
}

function answerTable(responses) {
  return table(
    "Answers", ["status", "what it is", "content"],
    Object.entries(responses).map(([status, { description: about, content }]) => [
      status, cell(about === "Successful Response" ? "" : about), Object.keys(content ?? {}).join(", "),
    ]),
  );
}

/** Fields for everything that a request may carry, and what came of it. */
function tryForm(path, method, operation) {
  const fields = (operation.parameters ?? []).filter((each) => each.in !== "header").map((parameter) => {
    const input = make("input", { type: "text", name: parameter.name, required: Boolean(parameter.required) });
    return { ...parameter, input, label: make("label", {}, parameter.name, input) };
  });
  const type = Object.keys(operation.requestBody?.content ?? {})[0];
  const body = type && (isFile(type) ? make("input", { type: "file" }) : make("textarea", { value: "{}" }));
  const line = make("pre", { tabIndex: 0 });
  const answer = make("div", { className: "answer", role: "status" });
  const form = make(
    "form", { className: "try" },
    ...fields.map((field) => field.label), ...(body ? [make("label", {}, "Body", body)] : []),
    line, make("button", { textContent: "Send" }), answer,
  );
  const url = () => addressOf(path, fields);
  const show = () => { line.textContent = curl(method, url(), type); };
  form.addEventListener("input", show);
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    answer.replaceChildren("…");
    try {
      const payload = body && (body.type === "file" ? body.files[0] : body.value);
      answer.replaceChildren(...await shown(await send(method, url(), type, payload)));
    } catch (error) {
      answer.replaceChildren(`No answer: ${error.message}`);
    }
  });
  show();
  return form;
}

function addressOf(path, fields) {
  const query = new URLSearchParams();
  let filled = path;
  for (const { name, in: place, input } of fields) {
    if (place === "path" && input.value) filled = filled.replace(`{${name}}`, encodeURIComponent(input.value));
    if (place === "query" && input.value) query.set(name, input.value);
  }
  return filled + (query.size ? `?${query}` : "");
}

function curl(method, url, type) {
  const parts = ["curl"];
  if (method !== "get") parts.push("-X", method.toUpperCase());
  if (storedKey() !== null) parts.push("-H 'Authorization: Bearer KEY'");
  if (type) parts.push(`-H 'Content-Type: ${type}'`, isFile(type) ? "--data-binary @FILE" : "-d '{}'");
  return [...parts, `'${window.location.origin}${url}'`].join(" ");
}

/** Ask; where a key is wanted, ask for the key first. */
async function send(method, url, type, payload) {
  const ask = () => fetch(url, {
    method: method.toUpperCase(),
    headers: {
      ...(storedKey() === null ? {} : { Authorization: `Bearer ${storedKey()}` }),
      ...(type ? { "Content-Type": type } : {}),
    },
    body: payload,
  });
  const answer = await ask();
  if (answer.status !== 401) return answer;
  await openServer();
  return ask();
}

/** Status, kind and contents of an answer; what is no text can be saved. */
async function shown(answer) {
  const type = answer.headers.get("Content-Type") ?? "";
  const blob = await answer.blob();
  const head = make("p", { className: answer.ok ? "" : "error" }, `${answer.status} ${answer.statusText} ${type}`);
  if (blob.size === 0) return [head];
  if (!/json|text/.test(type)) {
    const link = make("a", { href: URL.createObjectURL(blob), download: answer.url.split("/").at(-1).split("?")[0] });
    link.textContent = `Save ${blob.size.toLocaleString("en")} bytes`;
    return [head, link];
  }
  const text = await blob.text();
  const tidy = type.includes("json") ? JSON.stringify(JSON.parse(text), null, 2) : text;
  const cut = tidy.length > MOST_SHOWN ? `${tidy.slice(0, MOST_SHOWN)}\n… ${tidy.length - MOST_SHOWN} more` : tidy;
  return [head, make("pre", { textContent: cut, tabIndex: 0 })];
}

/** Show the routes that hold every word that is looked for. */
function find() {
  const wanted = byId("find").value.toLowerCase().split(/\s+/);
  let count = 0;
  for (const group of byId("routes").children) {
    let inGroup = 0;
    for (const route of group.querySelectorAll(".route")) {
      route.hidden = !wanted.every((word) => route.dataset.text.includes(word));
      inGroup += !route.hidden;
    }
    group.hidden = inGroup === 0;
    count += inGroup;
  }
  write("words", counted(count, "route"));
}

async function start() {
  const answer = await fetch("/openapi.json");
  description = await answer.json();
  byId("about").replaceChildren(...words(description.info.description));
  const groups = new Map();
  for (const [path, methods] of Object.entries(description.paths)) {
    for (const method of METHODS.filter((each) => methods[each])) {
      const tag = methods[method].tags?.[0] ?? "other";
      groups.set(tag, [...(groups.get(tag) ?? []), routeOf(path, method, methods[method])]);
    }
  }
  byId("routes").replaceChildren(...[...groups].map(([tag, routes]) => {
    const title = make("h2", { textContent: tag, id: `tag-${tag}` });
    const group = make("section", {}, title, ...routes);
    group.setAttribute("aria-labelledby", title.id);
    return group;
  }));
  byId("find").addEventListener("input", find);
  find();
  const named = byId(window.location.hash.slice(1));
  if (named?.matches("details")) named.open = true;
}

start().catch((error) => write("words", `The server does not describe itself: ${error.message}`));
