import { expect, test } from "vitest";
import { Client, Failure, query } from "../src/api/client";

function answering(status: number, body: unknown) {
  const asked: { url: string; init: RequestInit }[] = [];
  const client = new Client((async (url: string, init: RequestInit) => {
    asked.push({ url, init });
    return new Response(status === 204 ? null : JSON.stringify(body), { status });
  }) as typeof fetch);
  return { client, asked };
}

test("what changes something carries the session's token, what reads does not", async () => {
  const { client, asked } = answering(200, {});
  client.csrf = "token";
  await client.get("/cluster");
  await client.post("/actions", { on: "both" });
  await client.remove("/nodes/1/branches/b");
  const tokens = asked.map((it) => (it.init.headers as Record<string, string>)["duolog-csrf"]);
  expect(tokens).toEqual([undefined, "token", "token"]);
});

test("what a page asks by itself says so, and nothing else does", async () => {
  const { client, asked } = answering(200, {});
  await client.get("/nodes/1/resources");
  await client.get("/nodes/1/resources", undefined, true);
  await client.post("/actions", { on: "both" });
  expect(asked.map((it) => (it.init.headers as Record<string, string>)["duolog-watches"])).toEqual([undefined, "true", undefined]);
});

test("a session that has ended is told, a wrong password is not that", async () => {
  let ended = 0;
  const out = answering(401, { why: "not_logged_in", text: "log in" });
  out.client.ended = () => (ended += 1);
  await expect(out.client.get("/cluster")).rejects.toMatchObject({ why: "not_logged_in" });
  expect(ended).toBe(1);
  const wrong = answering(401, { why: "wrong_credentials", text: "wrong" });
  wrong.client.ended = () => (ended += 1);
  await expect(wrong.client.post("/login", {})).rejects.toBeInstanceOf(Failure);
  expect(ended).toBe(1);
});

test("a node that does not answer, and an answer that is no JSON, are failures with a word", async () => {
  const gone = new Client((async () => { throw new TypeError("refused"); }) as typeof fetch);
  await expect(gone.get("/x")).rejects.toMatchObject({ why: "network" });
  const html = new Client((async () => new Response("<html>", { status: 502 })) as typeof fetch);
  await expect(html.get("/x")).rejects.toMatchObject({ why: "unavailable" });
});

test("a query has what is said, and nothing else", () => {
  expect(query("/a", { grep: "a b&c", short: false, since_ms: undefined, lines: 5 })).toBe("/a?grep=a+b%26c&lines=5");
  expect(query("/a", { short: false })).toBe("/a");
});
