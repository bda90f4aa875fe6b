// Serves the built pages and the contract, over plain HTTP on loopback, with the headers of the real
// server, content security policy included. For tests alone: it proves nothing about a node.
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import { readFileSync, existsSync } from "node:fs";
import type { ActionRequest, LogLine, NewUser, Role, SessionInfo, SettingsDraft, UserChange, Why } from "../src/api/contract";
import { Pair, USERS } from "./pair";

const DIST = new URL("../dist/", import.meta.url);
const POLICY =
  "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; connect-src 'self'; manifest-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'";
const KINDS: Record<string, string> = { html: "text/html; charset=utf-8", js: "text/javascript; charset=utf-8", css: "text/css; charset=utf-8", svg: "image/svg+xml" };
const RANK: Record<Role, number> = { metrics: 0, viewer: 1, operator: 2, administrator: 3 };
const ADMIN_ONLY = new Set(["swap_without_sync", "force_start", "keep_writes", "failover", "maintenance", "start_at_boot", "auto_rejoin", "error_detection", "checkers"]);

export interface Mock {
  url: string;
  pair: Pair;
  /** Ends all sessions, as time does. */
  expire(): void;
  /** Drops all connections and takes no more until `up`. */
  down(): Promise<void>;
  up(): Promise<void>;
  encrypted: boolean;
  /** How long the answer that an action was begun takes. */
  answers_after_ms: number;
  certificate: string | null;
  close(): Promise<void>;
}

interface Known { name: string; role: Role; csrf: string; by: "password" | "certificate"; streams: Set<ServerResponse> }

export async function serve(port = 0, pair = new Pair()): Promise<Mock> {
  const sessions = new Map<string, Known>();
  let wrong = 0;
  let server: Server;
  const mock = { encrypted: true, certificate: null as string | null, answers_after_ms: 0 };

  const json = (to: ServerResponse, status: number, body: unknown, more: Record<string, string> = {}) => {
    to.writeHead(status, { "content-type": "application/json", "cache-control": "no-store", ...more });
    to.end(body === undefined ? undefined : JSON.stringify(body));
  };
  const problem = (to: ServerResponse, status: number, why: Why, text: string) => json(to, status, { why, text });
  const session = (known: Known) => ({ name: known.name, role: known.role, by: known.by, csrf: known.csrf, idle_s: 3600, left_s: 43_200 });
  const begin = (to: ServerResponse, name: string, by: Known["by"]) => {
    const token = crypto.randomUUID();
    const known: Known = { name, role: USERS[name]!.role, csrf: crypto.randomUUID(), by, streams: new Set() };
    sessions.set(token, known);
    json(to, 200, session(known), { "set-cookie": `session=${token}; HttpOnly; SameSite=Strict; Path=/` });
  };
  const body = async (from: IncomingMessage) => {
    const parts: Buffer[] = [];
    for await (const part of from) parts.push(part as Buffer);
    return JSON.parse(Buffer.concat(parts).toString() || "null") as never;
  };
  const stream = (to: ServerResponse, known: Known, take: (event: string, data: unknown) => [string, unknown] | null) => {
    to.writeHead(200, { "content-type": "text/event-stream", "cache-control": "no-store" });
    const tell = (event: string, data: unknown) => {
      const said = take(event, data);
      if (said) to.write(`event: ${said[0]}\ndata: ${JSON.stringify(said[1])}\n\n`);
    };
    pair.tell.add(tell);
    known.streams.add(to);
    to.on("close", () => { pair.tell.delete(tell); known.streams.delete(to); });
  };

  function page(path: string, to: ServerResponse): void {
    const named = path.split("/").at(-1)?.includes(".");
    const file = new URL(named ? `.${path}` : "./index.html", DIST);
    if (!file.href.startsWith(DIST.href) || !existsSync(file)) return problem(to, 404, "not_found", "there is no such page here");
    to.writeHead(200, { "content-type": KINDS[file.pathname.split(".").at(-1) ?? ""] ?? "application/octet-stream" });
    to.end(readFileSync(file));
  }

  async function answer(from: IncomingMessage, to: ServerResponse): Promise<void> {
    to.setHeader("content-security-policy", POLICY);
    to.setHeader("x-content-type-options", "nosniff");
    const url = new URL(from.url ?? "/", "http://mock");
    if (!url.pathname.startsWith("/api/v1")) return page(url.pathname, to);
    const path = url.pathname.slice("/api/v1".length);
    const token = /session=([^;]+)/.exec(from.headers.cookie ?? "")?.[1] ?? "";
    const known = sessions.get(token);
    if (path === "/session") {
      const info: SessionInfo = {
        session: known ? session(known) : null, encrypted: mock.encrypted, users: true, node: pair.asked, certificate_refused: mock.certificate === "mallory",
        certificate: mock.certificate && mock.certificate !== "mallory" ? { name: mock.certificate, role: USERS[mock.certificate]!.role } : null,
      };
      return json(to, 200, info);
    }
    if (path === "/login") {
      const { name, password } = await body(from) as { name: string; password: string };
      if (wrong >= 5) return problem(to, 429, "too_many", "too many wrong passwords; wait a minute");
      if (USERS[name]?.password !== password) { wrong += 1; return problem(to, 401, "wrong_credentials", "name or password is wrong"); }
      wrong = 0;
      return begin(to, name, "password");
    }
    if (path === "/login/certificate") {
      if (!mock.certificate || mock.certificate === "mallory") return problem(to, 401, "wrong_credentials", "this certificate was revoked");
      return begin(to, mock.certificate, "certificate");
    }
    if (!known) return problem(to, 401, "not_logged_in", "nobody is logged in; log in");
    if (from.method !== "GET" && from.headers["duolog-csrf"] !== known.csrf) return problem(to, 403, "csrf", "the header Duolog-Csrf is missing or wrong");
    const needs = (role: Role) => {
      if (RANK[known.role] >= RANK[role]) return false;
      problem(to, 403, "forbidden", `${known.name} has the role ${known.role}; this needs ${role}`);
      return true;
    };
    if (path === "/logout") {
      sessions.delete(token);
      for (const it of known.streams) it.end('event: over\ndata: {"why":"logged_out"}\n\n');
      to.writeHead(204);
      to.end();
      return;
    }
    if (path === "/cluster") return json(to, 200, pair.cluster());
    if (path === "/events") {
      stream(to, known, (event, data) => (event.startsWith("log ") ? null : [event, data]));
      to.write(`event: cluster\ndata: ${JSON.stringify(pair.cluster())}\n\n`);
      return;
    }
    if (path === "/actions" && from.method === "GET") return json(to, 200, pair.records);
    if (path === "/actions") {
      const request = await body(from) as ActionRequest;
      if (needs(ADMIN_ONLY.has(request.action.kind) ? "administrator" : "operator")) return;
      const begun = structuredClone(pair.act(request, known.name));
      // As a node does: the answer may come when what was asked for is done already.
      setTimeout(() => json(to, 202, begun), mock.answers_after_ms);
      return;
    }
    if (path === "/estimate") return needs("operator") ? undefined : json(to, 200, { bytes: 734_003_200, changed_only: true, seconds: 42 });
    if (path.startsWith("/settings") || path.startsWith("/users")) {
      if (needs("administrator")) return;
      const made = (text: string) => {
        pair.settings = { version: pair.settings.version + 1, who: known.name, text };
        return { stamp: pair.stamp(), both: pair.nodes.every((it) => it.reached), at_once: ["user"], at_restart: [] };
      };
      if (path === "/settings" && from.method === "GET") return json(to, 200, { from: "document", stamp: pair.stamp(), text: pair.settings.text });
      if (path.startsWith("/settings")) {
        const draft = await body(from) as SettingsDraft;
        const line = draft.text.split("\n").findIndex((it) => it.startsWith("wrong"));
        const faults = line < 0 ? [] : [{ line: line + 1, text: `line ${line + 1}: wrong: is no key; leave it out` }];
        if (path === "/settings/check") return json(to, 200, { faults, at_once: faults.length > 0 ? [] : ["pair.verify_every_s"], at_restart: [] });
        if (draft.base?.version !== pair.settings.version) return problem(to, 409, "refused", `version ${pair.settings.version} of node2 counts since this change was begun; look at it and change that one`);
        return json(to, 200, { ...made(draft.text), at_once: ["pair.verify_every_s"] });
      }
      const user = decodeURIComponent(path.split("/")[2] ?? "");
      const both = pair.nodes.every((it) => it.reached);
      if (from.method !== "GET" && !both && url.searchParams.get("here") !== "true") return problem(to, 502, "unreachable", "node2 does not answer, so nothing was changed here");
      const found = pair.users.find((it) => it.name === user);
      if (path === "/users" && from.method === "GET") return json(to, 200, pair.users);
      if (path === "/users") {
        const { name, role, password } = await body(from) as NewUser;
        if (pair.users.some((it) => it.name === name)) return problem(to, 409, "refused", `there is a user called ${name} already; choose another name`);
        pair.users.push({ name, role, password: password != null, certificates: 0, enabled: true });
        return json(to, 201, made(pair.settings.text));
      }
      if (!found) return problem(to, 404, "not_found", `there is no user called ${user}`);
      if (from.method === "DELETE") pair.users = pair.users.filter((it) => it !== found);
      else {
        const change = await body(from) as UserChange;
        if ("role" in change) found.role = change.role;
        if ("enabled" in change) found.enabled = change.enabled;
        if ("password" in change) found.password = true;
      }
      return json(to, 200, made(pair.settings.text));
    }
    if (path === "/licences") return json(to, 200, pair.licences());
    if (path === "/snapshot") {
      if (needs("operator")) return;
      to.writeHead(200, { "content-type": "application/zip", "content-disposition": 'attachment; filename="duolog-snapshot.zip"' });
      to.end(Buffer.from("504b0506000000000000000000000000000000000000", "hex"));
      return;
    }
    const [, , number, what, log, form] = path.split("/");
    const node = number === "2" ? 2 : 1;
    if (!pair.nodes[node - 1]!.reached) return problem(to, 502, "unreachable", `node${node} does not answer; look at its own console`);
    if (what === "resources") return json(to, 200, { node, age_ms: 0, resources: pair.resources(node) });
    if (what === "information") return json(to, 200, pair.information(node));
    if (what === "receipts") return json(to, 200, pair.receipts);
    if (what === "branches" && from.method === "DELETE") {
      if (needs("administrator")) return;
      const name = decodeURIComponent(log ?? "");
      const bytes = pair.branches.find((it) => it.name === name)?.bytes ?? 0;
      pair.branches = pair.branches.filter((it) => it.name !== name);
      return json(to, 200, { bytes });
    }
    if (what === "branches") return json(to, 200, node === 1 ? pair.branches : []);
    if (what === "history") {
      const span = url.searchParams.get("span") ?? "minutes";
      return json(to, 200, { node, step_s: span === "hours" ? 60 : 1, samples: pair.samples(node, span, Number(url.searchParams.get("after_ms") ?? 0)) });
    }
    if (what === "logs") {
      let wanted: RegExp;
      try {
        wanted = new RegExp(url.searchParams.get("grep") ?? "");
      } catch {
        return problem(to, 400, "bad_request", "the regular expression is none: unclosed group");
      }
      const matches = (line: LogLine) => wanted.test(line.text) && (url.searchParams.get("short") !== "true" || line.short === true);
      const lines = (pair.lines[log ?? ""] ?? []).filter(matches);
      if (form === "follow") {
        stream(to, known, (event, data) => (event === `log ${log}` && matches(data as LogLine) ? ["lines", { lines: [data], left_out: false, next: "9" }] : null));
        to.write("event: lines\ndata: {\"lines\":[],\"left_out\":false,\"next\":\"9\"}\n\n");
        return;
      }
      if (form === "file") {
        const text = url.searchParams.get("form") === "json";
        to.writeHead(200, { "content-type": "text/plain", "content-disposition": `attachment; filename="node${node}-${log}.${text ? "jsonl" : "log"}"` });
        to.end(lines.map((line) => (text ? JSON.stringify(line) : `${line.time} ${line.text}`)).join("\n"));
        return;
      }
      return json(to, 200, { lines: lines.slice(-500), left_out: lines.length > 500, next: "9" });
    }
    problem(to, 404, "not_found", "there is no such thing here");
  }

  const up = (at: number) =>
    new Promise<number>((done, fail) => {
      server = createServer((from, to) => void answer(from, to).catch((error: unknown) => { console.error(error); to.destroy(); }));
      server.once("error", fail);
      server.listen(at, "127.0.0.1", () => done((server.address() as { port: number }).port));
    });
  const down = () =>
    new Promise<void>((done) => {
      server.close(() => done());
      server.closeAllConnections();
    });
  const bound = await up(port);
  return Object.assign(mock, {
    url: `http://127.0.0.1:${bound}/`, pair, down,
    up: async () => void (await up(bound)),
    expire: () => {
      for (const known of sessions.values()) for (const it of known.streams) it.end('event: over\ndata: {"why":"expired"}\n\n');
      sessions.clear();
    },
    close: async () => { pair.close(); await down(); },
  });
}
