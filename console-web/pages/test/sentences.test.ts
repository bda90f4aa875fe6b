import { readFileSync } from "node:fs";
import { expect, test } from "vitest";
import { SENTENCES, said } from "../src/lib/sentences";

interface Row { state: string; colour: string; sentence: string }

function rows(): Row[] {
  const text = readFileSync("../../docs/states.md", "utf8");
  return [...text.matchAll(/^\| (STOP|WAIT|PRIM|SECOND|ALONE) \| ([^|]+) \| ([^|]+) \| `/gm)].map((it) => ({ state: it[1]!, colour: it[2]!.trim(), sentence: it[3]!.trim() }));
}

test("every sentence of docs/states.md is known, with its colour, and no other", () => {
  const documented = rows().map((it) => `${it.state} ${it.colour === "green, warning" ? "amber" : it.colour} ${it.sentence}`);
  expect(documented.length).toBeGreaterThan(30);
  expect(SENTENCES.map((it) => `${it.state} ${it.tone} ${it.en}`).sort()).toEqual(documented.sort());
});

test("what a node fills in stands in the sentence of each language", () => {
  for (const known of SENTENCES) {
    const names = [...known.en.matchAll(/\{(\w+)\}/g)].map((it) => it[1]).sort();
    for (const language of ["fr", "ja"] as const) {
      expect([...known[language].matchAll(/\{(\w+)\}/g)].map((it) => it[1]).sort(), known[language]).toEqual(names);
    }
  }
});

test("a sentence is translated with what it names, and one that nobody knows is shown as it is", () => {
  const lost = said("WAIT", "not uptodate: waits for a connection to node1 (timed out)", "fr");
  expect(lost).toEqual({ tone: "red", text: "pas à jour : attend une connexion avec node1 (timed out)" });
  expect(said("WAIT", "not uptodate: waits for a connection to node1", "ja").text).toBe("最新ではありません：node1 との接続を待っています");
  expect(said("STOP", "services failed: postgresql was ended by signal 9 (twice); mend it and start this node", "fr").text).toContain("postgresql was ended by signal 9 (twice)");
  expect(said("WAIT", "something new", "ja")).toEqual({ tone: "magenta", text: "something new" });
});

test("the same words of another state are not taken for it", () => {
  expect(said("PRIM", "stopped by an operator; start this node", "fr").text).toBe("stopped by an operator; start this node");
});
