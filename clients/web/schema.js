/** JSON Schema as text that a person reads: the shape of a document with its types. */

const DEEPEST = 8;

/**
 * The shape of what a schema allows.
 *
 * @param {object} schema of OpenAPI 3.1, so JSON Schema 2020-12.
 * @param {object} document where its `$ref` point into.
 * @returns {string} such as `{ "id": string, "progress": number | null }`, over several lines.
 */
export function shapeOf(schema, document) {
  return write(schema, document, "", []);
}

function write(schema, document, indent, path) {
  if (schema === true || schema === undefined || path.length > DEEPEST) return "anything";
  if (schema.$ref !== undefined) {
    if (path.includes(schema.$ref)) return schema.$ref.split("/").at(-1);
    return write(follow(schema.$ref, document), document, indent, [...path, schema.$ref]);
  }
  const choices = schema.anyOf ?? schema.oneOf;
  if (choices) return choices.map((each) => write(each, document, indent, path)).join(" | ");
  if (schema.const !== undefined) return JSON.stringify(schema.const);
  if (schema.enum) return schema.enum.map((each) => JSON.stringify(each)).join(" | ");
  const types = [schema.type ?? (schema.properties ? "object" : "anything")].flat();
  return types.map((type) => writeType(type, schema, document, indent, path)).join(" | ");
}

function writeType(type, schema, document, indent, path) {
  if (type === "object") return writeObject(schema, document, indent, path);
  if (type === "array") {
    const items = schema.prefixItems ?? [schema.items];
    const inner = items.map((each) => write(each, document, indent, path)).join(", ");
    return schema.prefixItems ? `[${inner}]` : `[${inner}, …]`;
  }
  return schema.format ?? schema.contentMediaType ? `${type} (${schema.format ?? schema.contentMediaType})` : type;
}

function writeObject(schema, document, indent, path) {
  const deeper = `${indent}  `;
  const lines = Object.entries(schema.properties ?? {}).map(([name, each]) => {
    const mark = (schema.required ?? []).includes(name) ? "" : "?";
    return `${deeper}"${name}"${mark}: ${write(each, document, deeper, [...path, name])}`;
  });
  if (typeof schema.additionalProperties === "object") {
    lines.push(`${deeper}…: ${write(schema.additionalProperties, document, deeper, [...path, "…"])}`);
  }
  return lines.length ? `{\n${lines.join(",\n")}\n${indent}}` : "object";
}

function follow(pointer, document) {
  return pointer.slice(2).split("/").reduce((node, part) => node?.[part], document);
}
