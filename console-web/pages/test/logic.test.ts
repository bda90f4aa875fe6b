import { expect, test } from "vitest";
import type { ActionRecord, NodeStanding, Sample } from "../src/api/contract";
import { entries, isReason, keyOf, later } from "../src/lib/actions";
import { columns, joined } from "../src/lib/samples";
import { verdict, type Known } from "../src/lib/verdict";

const sample = (at_ms: number, lag_bytes = 0) => ({ at_ms, lag_bytes }) as Sample;

test("samples are put together in order, each once, and bounded", () => {
  const all = joined([sample(1000), sample(2000, 1)], [sample(2000, 2), sample(4000), sample(3000)], 3000);
  expect(all.map((it) => [it.at_ms, it.lag_bytes])).toEqual([[2000, 2], [3000, 0], [4000, 0]]);
});

test("a time in which a node did not run is a gap in a chart", () => {
  const [x, y] = columns([sample(1000, 5), sample(2000, 6), sample(60_000, 7)], 1, [(it) => it.lag_bytes]);
  expect(x).toEqual([1, 2, 3, 60]);
  expect(y).toEqual([5, 6, null, 7]);
});

const known = (state: Known["state"], tone: Known["tone"], reached = true, alarms = 0): Known => ({ state, tone, reached, alarms });

test("the simplified view says the worst that is true", () => {
  expect(verdict([known("PRIM", "green"), known("SECOND", "green")])).toBe("good");
  expect(verdict([known("ALONE", "amber"), known("STOP", "red")])).toBe("alone");
  expect(verdict([known("PRIM", "green"), known("SECOND", "green", true, 1)])).toBe("look");
  expect(verdict([known("PRIM", "magenta"), known("SECOND", "green")])).toBe("changing");
  expect(verdict([known("STOP", "red"), known("STOP", "red")])).toBe("down");
});

test("what a node was that does not answer is not what it is", () => {
  expect(verdict([known("PRIM", "green", false), known("WAIT", "red")])).toBe("down");
  expect(verdict([known("PRIM", "green", false), known("WAIT", "magenta")])).toBe("changing");
  expect(verdict([known("PRIM", "green"), known("SECOND", "green", false)])).toBe("look");
});

const node = (serves: boolean, failover: boolean) =>
  ({ serves, switches: { failover, maintenance_until_ms: null, start_at_boot: true, auto_rejoin: false, error_detection: true, checkers: true } }) as NodeStanding;

test("what interrupts service is asked about, what forces needs a reason, and both need a role", () => {
  const by = new Map(entries("node1", node(true, true)).map((it) => [it.key, it]));
  for (const key of ["stop", "restart", "swap"] as const) expect(by.get(key)?.asks, key).toBe("yes");
  for (const key of ["force_start", "swap_without_sync", "keep_writes"] as const) {
    expect(by.get(key), key).toMatchObject({ asks: "reason", needs: "administrator", danger: true });
  }
  expect(by.get("stop")?.warning).toBe("stopServing");
  expect(entries("node2", node(false, true)).find((it) => it.key === "stop")?.warning).toBe("stop");
  expect(entries("both", undefined).find((it) => it.key === "stop")?.warning).toBe("stopBoth");
});

test("of a switch only the way out is offered where it is known how it stands", () => {
  const keys = entries("node1", node(true, false)).map((it) => it.key);
  expect(keys).toContain("failover_on");
  expect(keys).not.toContain("failover_off");
  expect(entries("node1", undefined).map((it) => it.key)).toEqual(expect.arrayContaining(["failover_on", "failover_off"]));
});

test("every action that can be asked for has its word", () => {
  for (const on of ["node1", "both"] as const) {
    for (const entry of entries(on, undefined)) expect(keyOf(entry.build({ reason: "r", for_s: 60 }))).toBe(entry.key);
  }
});

test("a reason is one line of 1 to 300 bytes", () => {
  expect(["", "  ", "a\nb", "é".repeat(151)].map(isReason)).toEqual([false, false, false, false]);
  expect([" the site burnt ", "é".repeat(150)].map(isReason)).toEqual([true, true]);
});

test("an answer that comes after the event of the end does not undo it", () => {
  const record = (ended_ms: number | null, steps: number) => ({ id: 1, ended_ms, steps: Array.from({ length: steps }) }) as ActionRecord;
  const [begun, step, ended] = [record(null, 0), record(null, 1), record(5, 1)];
  expect(later(undefined, begun)).toBe(begun);
  expect(later(begun, step)).toBe(step);
  expect(later(step, begun)).toBe(step);
  expect(later(step, ended)).toBe(ended);
  expect(later(ended, begun)).toBe(ended);
  expect(later(ended, step)).toBe(ended);
});
