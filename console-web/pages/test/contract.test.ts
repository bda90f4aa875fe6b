import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { expect, test } from "vitest";

test("the types are those of the server's document", () => {
  const generated = execFileSync("node", ["src/api/generate.mjs", "--print"], { encoding: "utf8" });
  expect(readFileSync("src/api/contract.ts", "utf8"), "run: node src/api/generate.mjs").toBe(generated);
});

test("the lock file names no other host than the public registry", () => {
  const hosts = [...readFileSync("package-lock.json", "utf8").matchAll(/"resolved": "https?:\/\/([^/"]+)/g)].map((it) => it[1]);
  expect(hosts.filter((it) => it !== "registry.npmjs.org")).toEqual([]);
});
