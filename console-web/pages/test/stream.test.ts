import { expect, test } from "vitest";
import { Stream, type Source, type World } from "../src/api/stream";

class Fake implements Source {
  onopen = null;
  onerror: ((event: never) => void) | null = null;
  closed = false;
  private readonly by = new Map<string, (event: { data: string }) => void>();
  constructor(readonly url: string) {}
  addEventListener(name: string, listener: (event: { data: string }) => void): void { this.by.set(name, listener); }
  close(): void { this.closed = true; }
  say(name: string, data: unknown): void { this.by.get(name)?.({ data: JSON.stringify(data) }); }
  fail(): void { this.onerror?.(undefined as never); }
}

function made() {
  const sources: Fake[] = [];
  const told: boolean[] = [];
  const heard: unknown[] = [];
  let now = 0;
  let look = () => {};
  const world: World = {
    open: (url) => { const it = new Fake(url); sources.push(it); return it; },
    now: () => now,
    every: (_, run) => { look = run; return () => (look = () => {}); },
  };
  const pass = (ms: number) => { for (let at = 0; at < ms; at += 250) { now += 250; look(); } };
  const stream = new Stream(() => "/events", { connected: (is) => told.push(is), events: { cluster: (it) => heard.push(it) } }, 4000, world);
  return { sources, told, heard, pass, stream };
}

test("a stream that breaks is opened again, with a growing pause, until it speaks", () => {
  const it = made();
  it.sources[0]!.say("cluster", 1);
  it.sources[0]!.fail();
  expect(it.told).toEqual([true, false]);
  it.pass(250);
  expect(it.sources.length).toBe(2);
  it.sources[1]!.fail();
  it.pass(250);
  expect(it.sources.length, "the second pause is longer").toBe(2);
  it.pass(250);
  expect(it.sources.length).toBe(3);
  it.sources[2]!.say("cluster", 2);
  expect(it.told).toEqual([true, false, true]);
  expect(it.heard).toEqual([1, 2]);
});

test("a node that falls silent without an error counts as lost after 4 s", () => {
  const it = made();
  it.sources[0]!.say("cluster", 1);
  it.pass(4000);
  expect(it.told).toEqual([true]);
  it.pass(250);
  expect(it.told).toEqual([true, false]);
  expect(it.sources[0]!.closed).toBe(true);
});

test("what an old stream still says is not taken", () => {
  const it = made();
  it.sources[0]!.fail();
  it.pass(500);
  it.sources[0]!.say("cluster", "old");
  expect(it.heard).toEqual([]);
});

test("a stream that was closed stays closed", () => {
  const it = made();
  it.stream.close();
  it.sources[0]!.fail();
  it.pass(10_000);
  expect(it.sources.length).toBe(1);
});
