// Writes contract.ts from the server's OpenAPI document: `node src/api/generate.mjs`. A test compares
// the two, so pages and server cannot drift apart. With `--print` it prints.
import { readFileSync, writeFileSync } from "node:fs";

const here = new URL(".", import.meta.url);
const document = JSON.parse(readFileSync(new URL("../../../openapi.json", here), "utf8"));

function name(ref) {
  return ref.split("/").at(-1);
}

function type(schema, indent = "") {
  if (schema.$ref) return name(schema.$ref);
  if (schema.enum) return schema.enum.map((it) => JSON.stringify(it)).join(" | ");
  if (schema.const !== undefined) return JSON.stringify(schema.const);
  const either = schema.oneOf ?? schema.anyOf;
  if (either) return either.map((it) => type(it, indent)).join(" | ");
  if (schema.allOf) return schema.allOf.map((it) => `(${type(it, indent)})`).join(" & ");
  if (Array.isArray(schema.type)) {
    return schema.type.map((it) => type({ ...schema, type: it }, indent)).join(" | ");
  }
  switch (schema.type) {
    case "null":
    case "boolean":
    case "string":
      return schema.type;
    case "integer":
    case "number":
      return "number";
    case "array": {
      const items = type(schema.items ?? {}, indent);
      return /[|&]/.test(items) ? `(${items})[]` : `${items}[]`;
    }
    case "object": {
      if (schema.properties === undefined) {
        const rest = schema.additionalProperties;
        return `Record<string, ${rest && rest !== true ? type(rest, indent) : "unknown"}>`;
      }
      const required = new Set(schema.required ?? []);
      const lines = Object.entries(schema.properties).map(
        ([key, value]) => `${indent}  ${key}${required.has(key) ? "" : "?"}: ${type(value, `${indent}  `)};`,
      );
      return `{\n${lines.join("\n")}\n${indent}}`;
    }
    default:
      return "unknown";
  }
}

const parts = Object.entries(document.components.schemas).map(
  ([key, schema]) => `export type ${key} = ${type(schema)};`,
);
const text = `// Written by generate.mjs from console-web/openapi.json; not by hand.\n\n${parts.join("\n\n")}\n`;
if (process.argv.includes("--print")) process.stdout.write(text);
else writeFileSync(new URL("contract.ts", here), text);
