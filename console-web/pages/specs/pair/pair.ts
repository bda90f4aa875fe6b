// The real pair that tests/src/bin/console-pair.rs has set up, what is asked of it, and browsers with and
// without a certificate that look at it.
import { execFileSync } from "node:child_process";
import { copyFileSync, existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { connect } from "node:net";
import { chromium, type Browser, type BrowserContextOptions, type Page } from "playwright-core";
import { expect } from "vitest";
import type { ActionRecord, Cluster, Role, State } from "../../src/api/contract";

interface About { socket: string; outside: string; nodes: { url: string; etc: string }[]; virtual_ip: string; admin: { name: string; password: string } }
const about = JSON.parse(readFileSync(process.env.DUOLOG_PAIR!, "utf8")) as About;
export const virtualIp = about.virtual_ip;
export type Node = 1 | 2;
export const other = (node: Node): Node => (node === 1 ? 2 : 1);

type Question =
  | { do: "duolog"; node: Node; arguments: string[] }
  | { do: "kill" | "boot"; who: "node1" | "node2" | "witness" }
  | { do: "cut" | "cut_log" | "heal" | "mend" }
  | { do: "commit"; text: string }
  | { do: "serves"; node: Node };
interface Answer { good: boolean; said?: string; rows?: string[]; serves?: number[] }

/** Asks the harness, which does one thing after the other. */
export function ask(question: Question): Promise<Answer> {
  return new Promise((done, failed) => {
    const socket = connect(about.socket, () => socket.write(`${JSON.stringify(question)}\n`));
    let text = "";
    socket.on("data", (piece) => (text += piece.toString()));
    socket.on("error", failed);
    socket.on("close", () => (text ? done(JSON.parse(text) as Answer) : failed(new Error(`no answer to ${JSON.stringify(question)}`))));
  });
}

/** What a command of duolog says on that computer; it has to succeed. */
export async function duolog(node: Node, ...words: string[]): Promise<string> {
  const { good, said } = await ask({ do: "duolog", node, arguments: words });
  if (!good) throw new Error(`duolog ${words.join(" ")}: ${said}`);
  return said!;
}

export interface Standing { state: State; sentence: string; data_sync: string; alarms?: string[] }
/** How a node says that it stands, by its command; nothing where it does not answer. */
export async function standing(node: Node): Promise<Standing | null> {
  const { good, said } = await ask({ do: "duolog", node, arguments: ["status", "--json"] });
  return good ? (JSON.parse(said!.split("\n").find((line) => line.startsWith("{"))!) as Standing) : null;
}

/** The states that a node wrote down since then, in its own log, with the time in milliseconds since 1970. */
export async function states(node: Node, since_ms: number): Promise<{ state: State; at: number }[]> {
  const said = await duolog(node, "logs", "--json", "--lines", "0");
  const lines = said.split("\n").filter((line) => line.startsWith("{")).map((line) => JSON.parse(line) as { time: string; state?: State });
  const all = lines.flatMap((line) => (line.state ? [{ state: line.state, at: Date.parse(line.time) }] : []));
  return all.filter((it) => it.at >= since_ms);
}

/** Asks again until there is an answer. */
export async function until<T>(what: string, question: () => Promise<T | null | undefined | false>, limit_ms = 120_000): Promise<T> {
  const end = Date.now() + limit_ms;
  for (;;) {
    const answer = await question();
    if (answer) return answer;
    if (Date.now() > end) throw new Error(`${what}: not within ${limit_ms / 1000} s`);
    await new Promise((done) => setTimeout(done, 200));
  }
}

/** Waits until a node is that. */
export const is = (node: Node, state: State) =>
  until(`node${node} is ${state}`, async () => (await standing(node))?.state === state);

/** Waits until one node is PRIM and the other one SECOND, and the SQL server takes a commit. A node that says that
 *  it has to be started is started. Returns which one serves. */
export async function whole(): Promise<Node> {
  return until("a whole pair", async () => {
    const both = await Promise.all([standing(1), standing(2)]);
    for (const node of [1, 2] as const) {
      if (both[node - 1]?.state === "STOP") await ask({ do: "duolog", node, arguments: ["start"] });
    }
    const primary = both.findIndex((it) => it?.state === "PRIM" && it.data_sync === "uptodate") + 1;
    const second = both.findIndex((it) => it?.state === "SECOND" && it.data_sync === "uptodate") + 1;
    return primary && second && (await commits()) ? (primary as Node) : null;
  });
}

let commit = 0;
/** Whether a client of the virtual IP commits a row and sees all that were committed before. */
export async function commits(): Promise<boolean> {
  const text = `row ${String(commit).padStart(6, "0")}`;
  const { good, rows } = await ask({ do: "commit", text });
  if (good) {
    commit += 1;
    kept.push(text);
    expect(rows).toEqual(expect.arrayContaining(kept));
  }
  return good;
}
const kept: string[] = [];
/** What was committed since then is left behind by something that was forced. */
export const leftBehind = (since: string[]) => { kept.splice(0, kept.length, ...since); };
export const committed = () => [...kept];

/** The processes of the SQL server on a computer. */
export const servers = async (node: Node) => (await ask({ do: "serves", node })).serves!;
/** Whether there is any. */
export const serves = async (node: Node) => (await servers(node)).length > 0;

export const USERS = {
  ann: { role: "administrator", password: about.admin.password },
  otto: { role: "operator", password: "otto-9c0d-Eisenbahn" },
  vera: { role: "viewer", password: "vera-77aa-Aussicht" },
  rita: { role: "operator", password: "rita-12be-Widerruf" },
} as const satisfies Record<string, { role: Role; password: string }>;
export type User = keyof typeof USERS;
/** Of the files with their certificates. */
export const P12_PASSWORD = "p12-5d5d-Schluessel";

const etc = (node: Node, name: string) => `${about.nodes[node - 1]!.etc}/${name}`;
/** A file on the first computer that root alone reads. */
function secret(name: string, text: string): string {
  writeFileSync(etc(1, name), text, { mode: 0o600 });
  return `/etc/duolog/${name}`;
}

/** Makes the users beside the first administrator, as docs/operate/certificates.md says. */
export async function makeUsers(): Promise<void> {
  const file = secret("p12.password", P12_PASSWORD);
  for (const [name, { role, password }] of Object.entries(USERS)) {
    if (name !== about.admin.name) await duolog(1, "users", "add", name, "--role", role, "--password-file", secret(`${name}.password`, password));
    await duolog(1, "certs", "user", name, "--password-file", file, "--out", "/etc/duolog");
  }
}

/** Keys and passwords of the pair: what nobody may find in what is sent to others. */
export function secrets(): Map<string, string> {
  const found = new Map<string, string>([["the password of the p12 files", P12_PASSWORD]]);
  for (const [name, { password }] of Object.entries(USERS)) found.set(`the password of ${name}`, password);
  for (const node of [1, 2] as const) {
    for (const name of ["pair.key", "ca.key", `shop-node${node}.key`, `node${node}.key`, "witness.key"]) {
      if (!existsSync(etc(node, name))) continue;
      const lines = readFileSync(etc(node, name), "utf8").split("\n").filter((line) => line.length > 20 && !line.startsWith("-----"));
      for (const line of lines) found.set(`${name} of node${node}`, line);
    }
  }
  return found;
}

/** A browser as its user has set it up: the pair's authority imported, and a certificate where there is one. */
export async function open(user?: User): Promise<Browser> {
  const home = `${about.outside}/browser-${user ?? "plain"}`;
  const database = `${home}/.pki/nssdb`;
  if (!existsSync(database)) {
    mkdirSync(database, { recursive: true });
    const run = (program: string, ...words: string[]) => execFileSync(program, [...words, "-d", `sql:${database}`], { stdio: "pipe" });
    run("certutil", "-N", "--empty-password");
    copyFileSync(etc(1, "duolog-ca.crt"), `${home}/ca.crt`);
    run("certutil", "-A", "-n", "duolog", "-t", "C,,", "-i", `${home}/ca.crt`);
    if (user) run("pk12util", "-i", etc(1, `${user}.p12`), "-W", P12_PASSWORD);
  }
  const path = process.env.CHROMIUM ?? "/usr/bin/chromium";
  return chromium.launch({ executablePath: path, args: ["--no-sandbox", "--disable-gpu"], env: { ...process.env, HOME: home } as Record<string, string> });
}

export interface Seen { page: Page; node: Node }

/** Opens the console of a node in a window of its own. */
export async function visit(browser: Browser, node: Node, run: (seen: Seen) => Promise<void>, options: BrowserContextOptions = {}): Promise<void> {
  const context = await browser.newContext({ viewport: { width: 1280, height: 900 }, locale: "en-GB", timezoneId: "UTC", ...options });
  context.setDefaultTimeout(60_000);
  const page = await context.newPage();
  const { url } = about.nodes[node - 1]!;
  const complaints: string[] = [];
  page.on("console", (it) => { if (it.type() === "error" && !/Failed to load resource|ERR_/.test(it.text())) complaints.push(it.text()); });
  page.on("pageerror", (it) => complaints.push(String(it)));
  page.on("request", (it) => { if (!it.url().startsWith(url) && !/^(data|blob):/.test(it.url())) complaints.push(`asked elsewhere: ${it.url()}`); });
  try {
    await page.goto(url);
    await run({ page, node });
    expect(complaints).toEqual([]);
  } catch (error) {
    await page.screenshot({ path: `${process.env.DUOLOG_SCREENSHOTS ?? "/tmp"}/console-failed.png`, fullPage: true }).catch(() => {});
    throw error;
  } finally {
    await context.close();
  }
}

export async function logIn(page: Page, user: User): Promise<void> {
  await page.fill("[name=username]", user);
  await page.fill("[name=password]", USERS[user].password);
  await page.click("[data-by=password]");
  await page.waitForSelector("[data-node='2'] [data-state]");
}

/** What the console of that page says of the pair now. */
export const cluster = (page: Page) => page.evaluate(async () => (await (await fetch("/api/v1/cluster")).json()) as Cluster);

/** Waits until the page shows a node in that state. */
export const shows = (page: Page, node: Node, state: State, timeout = 120_000) =>
  page.locator(`[data-node='${node}'] [data-state='${state}']`).first().waitFor({ timeout });

/** Picks an action from the menu, and says yes where it is asked. */
export async function act(page: Page, on: "node1" | "node2" | "both", action: string, yes = true): Promise<void> {
  await page.click(`[data-menu=${on}]`);
  await page.click(`[data-action=${action}]`);
  if (yes) await page.click("dialog button[type=submit]");
}

/** The same, of what wants a reason and the word. */
export async function force(page: Page, on: "node1" | "node2", action: string, reason: string): Promise<void> {
  await act(page, on, action, false);
  await page.locator("dialog input").nth(0).fill(reason);
  await page.locator("dialog input").nth(1).fill("FORCE");
  await page.click("dialog button[type=submit]");
}

/** Has an action done, and waits until the page shows what came of it. */
export async function outcome(page: Page, run: () => Promise<void>): Promise<ActionRecord> {
  const records = () => page.evaluate(async () => (await (await fetch("/api/v1/actions")).json()) as ActionRecord[]);
  const before = Math.max(0, ...(await records()).map((it) => it.id));
  await run();
  const record = await until("the outcome of an action", async () => (await records()).find((it) => it.id > before && it.ended_ms != null), 200_000);
  await page.locator(`[data-record='${record.action.kind}'][data-stage='${record.stage}']`).first().waitFor();
  return record;
}

/** Notes each pair of states that the page shows from now on, with the time. A node that is not reached has a "?". */
export async function watch(page: Page): Promise<() => Promise<{ states: string; at: number }[]>> {
  await page.evaluate(() => {
    const seen: { states: string; at: number }[] = [];
    (window as never as { seen: typeof seen }).seen = seen;
    const look = () => {
      const states = [1, 2].map((node) => {
        const card = document.querySelector(`[data-node='${node}']`);
        return `${card?.querySelector("[data-state]")?.getAttribute("data-state") ?? ""}${card?.querySelector("[data-unreached]") ? "?" : ""}`;
      }).join(" ");
      if (seen.at(-1)?.states !== states) seen.push({ states, at: Date.now() });
    };
    new MutationObserver(look).observe(document.body, { subtree: true, childList: true, attributes: true });
    look();
  });
  return () => page.evaluate(() => (window as never as { seen: { states: string; at: number }[] }).seen);
}
