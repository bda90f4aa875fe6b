// What an operator has done from the menu, and what comes of it in the cluster: asked of the nodes, of the
// service and of a client, not of the page that was used.
import { readFileSync } from "node:fs";
import type { Browser, Page } from "playwright-core";
import { afterAll, beforeAll, expect, test } from "vitest";
import type { Switches } from "../../src/api/contract";
import { to } from "../site";
import {
  act, cluster, commits, duolog, force, is, logIn, open, other, outcome, secrets, servers, serves, shows, standing, states, until, visit, watch, whole, type Node,
} from "./pair";
import { unzip } from "./zip";

let browser: Browser;
beforeAll(async () => { browser = await open(); });
afterAll(async () => browser.close());

const at = (node: Node) => `node${node}` as const;

test("stop and start of the second node, by the console of the first", async () => {
  const primary = await whole();
  const second = other(primary);
  await visit(browser, primary, async ({ page }) => {
    await logIn(page, "otto");
    const stopped = await outcome(page, () => act(page, at(second), "stop"));
    expect([stopped.stage, stopped.who]).toEqual(["done", "otto"]);
    await shows(page, second, "STOP");
    await shows(page, primary, "ALONE");
    expect((await standing(second))!.state).toBe("STOP");
    expect(await commits()).toBe(true);
    expect((await outcome(page, () => act(page, at(second), "start", false))).stage).toBe("done");
    await shows(page, second, "SECOND");
    await shows(page, primary, "PRIM");
  });
  expect(await whole()).toBe(primary);
  expect(await duolog(second, "logs", "--commands", "--grep", "otto")).toMatch(/stop[\s\S]*start/);
});

test("restart of the second node, and of the primary, whose service is another process then", async () => {
  const primary = await whole();
  const second = other(primary);
  const before = await servers(primary);
  await visit(browser, second, async ({ page }) => {
    await logIn(page, "otto");
    expect((await outcome(page, () => act(page, at(second), "restart"))).stage).toBe("done");
    await shows(page, second, "SECOND");
    expect(await servers(primary), "of the other node nothing is restarted").toEqual(expect.arrayContaining(before.slice(0, 1)));
    const record = await outcome(page, () => act(page, at(primary), "restart"));
    expect(record.stage).toBe("done");
    const serving = await whole();
    await shows(page, serving, "PRIM");
    const meanwhile = (await states(primary, record.begun_ms)).map((it) => it.state);
    expect(meanwhile.filter((it) => it !== "PRIM" && it !== "ALONE"), "it served no more meanwhile").not.toEqual([]);
    const after = await servers(serving);
    expect(before.filter((pid) => after.includes(pid)), "processes that were there before").toEqual([]);
    for (const node of [second, primary]) expect(await duolog(node, "logs", "--commands", "--grep", "restart")).toContain("otto");
  });
});

test("a swap moves service and address; the page follows, and never shows two of the same", async () => {
  const primary = await whole();
  const second = other(primary);
  await visit(browser, primary, async ({ page }) => {
    await logIn(page, "otto");
    await shows(page, primary, "PRIM");
    const seen = await watch(page);
    expect((await outcome(page, () => act(page, "both", "swap"))).stage).toBe("done");
    expect((await standing(second))!.state, "it is done when it is said to be").toBe("PRIM");
    await shows(page, second, "PRIM");
    await shows(page, primary, "SECOND");
    await page.waitForSelector(`[data-vip='${second}']`);
    const all = await seen();
    console.log(`swap, as the page showed it: ${all.map((it) => `${it.at - all[0]!.at} ms ${it.states}`).join("; ")}`);
    expect(all.filter((it) => /^(SECOND SECOND|PRIM PRIM)$/.test(it.states))).toEqual([]);
  });
  expect(await whole()).toBe(second);
  expect([await serves(primary), await serves(second)]).toEqual([false, true]);
});

test("a swap of a pair that is not whole is refused with words, and changes nothing", async () => {
  const primary = await whole();
  const second = other(primary);
  await visit(browser, primary, async ({ page }) => {
    await logIn(page, "otto");
    await outcome(page, () => act(page, at(second), "stop"));
    await is(primary, "ALONE");
    const refused = await outcome(page, () => act(page, "both", "swap"));
    expect([refused.stage, refused.why]).toEqual(["refused", expect.stringContaining(`node${primary} refuses`)]);
    expect((await standing(primary))!.state).toBe("ALONE");
    await outcome(page, () => act(page, at(second), "start", false));
  });
  expect(await whole()).toBe(primary);
});

test("both nodes stop, nothing is served any more, and both start again", async () => {
  const primary = await whole();
  await visit(browser, primary, async ({ page }) => {
    await logIn(page, "otto");
    expect((await outcome(page, () => act(page, "both", "stop"))).stage).toBe("done");
    await shows(page, 1, "STOP");
    await shows(page, 2, "STOP");
    expect([await serves(1), await serves(2), await commits()]).toEqual([false, false, false]);
    expect((await outcome(page, () => act(page, "both", "start", false))).stage).toBe("done");
    await page.waitForSelector("[data-state='PRIM']");
  });
  await whole();
});

/** How switches of a node stand, as the other node's console knows. */
const switches = async (page: Page, node: Node) => (await cluster(page)).nodes.find((it) => it.node === node)!.switches!;

test("each switch is switched and switched back, and the other node's console knows", async () => {
  await whole();
  await visit(browser, 2, async ({ page: beside }) => {
    await logIn(beside, "vera");
    await visit(browser, 1, async ({ page }) => {
      await logIn(page, "ann");
      const first = await until("switches", async () => (await cluster(page)).nodes[0]!.switches);
      const way = async (key: string, yes: boolean, is: (it: Switches) => boolean) => {
        expect((await outcome(page, () => act(page, "node1", key, yes))).stage, key).toBe("done");
        await until(`${key} at the other node`, async () => is(await switches(beside, 1)));
      };
      await way("failover_off", true, (it) => !it.failover);
      await way("failover_on", false, (it) => it.failover);
      await way("maintenance_on", true, (it) => it.maintenance_until_ms! > Date.now());
      await way("maintenance_off", false, (it) => it.maintenance_until_ms == null);
      await way("error_detection_off", true, (it) => !it.error_detection && it.checkers);
      await page.locator("[data-node='1']").getByText("error detection suspended", { exact: true }).waitFor();
      await until("an alarm", async () => (await standing(1))!.alarms?.some((it) => it.includes("error detection of services is suspended")));
      await way("error_detection_on", false, (it) => it.error_detection);
      await way("checkers_off", true, (it) => !it.checkers && it.error_detection);
      await page.locator("[data-node='1']").getByText("all checkers stopped", { exact: true }).waitFor();
      await until("an alarm", async () => (await standing(1))!.alarms?.some((it) => it.includes("all checkers of services are stopped")));
      await way("checkers_on", false, (it) => it.checkers);
      await until("no alarm", async () => !(await standing(1))!.alarms?.some((it) => it.includes("of services")));
      for (const on of [!first.start_at_boot, first.start_at_boot]) {
        await way(`start_at_boot_${on ? "on" : "off"}`, !on, (it) => it.start_at_boot === on);
      }
      for (const on of [!first.auto_rejoin, first.auto_rejoin]) {
        await way(`auto_rejoin_${on ? "on" : "off"}`, on, (it) => it.auto_rejoin === on);
      }
      expect(await switches(beside, 1)).toEqual(first);
    });
  });
});

test("estimate, and what only a split brain has an answer for", async () => {
  const primary = await whole();
  await visit(browser, primary, async ({ page }) => {
    await logIn(page, "ann");
    await act(page, at(primary), "estimate", false);
    await page.locator("dialog[open] dl, dialog[open] .note").first().waitFor();
    expect(await page.locator("dialog[open] dl").innerText()).toMatch(/\d+\s*(B|[KMG]iB)/);
    await page.keyboard.press("Escape");
    const refused = await outcome(page, () => force(page, at(primary), "keep_writes", "there is none"));
    expect(refused.stage).toBe("refused");
    expect(refused.why).toMatch(/split brain/);
  });
  expect(await whole()).toBe(primary);
});

test("what was done stands in the commands log of the node that did it, with the user's name", async () => {
  const primary = await whole();
  for (const node of [1, 2] as const) {
    await visit(browser, primary, async ({ page }) => {
      await logIn(page, "vera");
      await to(page, `control/commands/${node}`);
      await page.fill("[data-grep]", "otto");
      await page.locator("[role=log] .line", { hasText: "otto" }).first().waitFor();
      const lines = await page.locator("[role=log] .line").allInnerTexts();
      expect(lines.some((line) => /\b(start|stop|swap|restart)\b/.test(line)), lines.join("\n")).toBe(true);
      // Its own log: what was asked for at the other node, and nothing that would be the other one's.
      expect(lines.some((line) => line.includes(`of node${other(node)}`)), lines.join("\n")).toBe(true);
      expect(lines.filter((line) => line.includes(`of node${node})`))).toEqual([]);
    });
  }
});

test("each log of either node is read, followed and saved", async () => {
  // So that the service has said something on both.
  await duolog(await whole(), "swap", "--yes");
  const primary = await whole();
  await visit(browser, primary, async ({ page }) => {
    await logIn(page, "vera");
    const save = async (form: "text" | "json") => {
      const [saved] = await Promise.all([page.waitForEvent("download"), page.click(`[data-save=${form}]`)]);
      expect(await saved.failure(), saved.url()).toBeNull();
      return { name: saved.suggestedFilename(), text: readFileSync(await saved.path(), "utf8") };
    };
    const log = page.locator("[role=log]");
    for (const node of [primary, other(primary)]) {
      await to(page, `control/module/${node}`);
      await page.waitForSelector("[role=log][aria-busy=false]");
      await log.getByText(/PRIM|SECOND/).first().waitFor();
      const short = await save("text");
      expect(short.name).toBe(`node${node}-module.txt`);
      await page.check("[data-form=verbose]");
      await page.waitForSelector("[role=log][aria-busy=false]");
      const verbose = await save("json");
      expect(verbose.name).toBe(`node${node}-module.ndjson`);
      const lines = verbose.text.trim().split("\n").map((line) => JSON.parse(line) as { node: number; short: boolean });
      expect(lines.every((line) => line.node === node)).toBe(true);
      expect(lines.length).toBeGreaterThan(short.text.trim().split("\n").length);
      await to(page, `control/application/${node}`);
      await log.getByText("database system").first().waitFor();
      expect((await save("text")).text).toContain("ready to accept connections");
      await to(page, `control/commands/${node}`);
      await page.waitForSelector("[role=log][aria-busy=false]");
      await page.fill("[data-grep]", "otto");
      await log.locator("mark").first().waitFor();
      const commands = (await save("text")).text.trim().split("\n");
      expect(commands.length).toBeGreaterThan(1);
      expect(commands.filter((line) => !line.includes("otto"))).toEqual([]);
    }
    // A line that comes while one looks.
    await to(page, `control/commands/${other(primary)}`);
    await page.waitForSelector("[role=log][aria-busy=false]");
    await visit(browser, other(primary), async ({ page: another }) => logIn(another, "ann"));
    await log.getByText(/ann.*log in/).first().waitFor();
  });
});

test("the snapshot holds both nodes, and no secret", async () => {
  const primary = await whole();
  await visit(browser, other(primary), async ({ page }) => {
    await logIn(page, "otto");
    await page.click("[data-menu=both]");
    const [saved] = await Promise.all([page.waitForEvent("download", { timeout: 120_000 }), page.click("[data-action=snapshot]")]);
    expect(await saved.failure()).toBeNull();
    const files = unzip(readFileSync(await saved.path()));
    const names = [...files.keys()];
    const snapshot = JSON.parse(files.get("snapshot.json")!.toString()) as { missing: string[] };
    expect(snapshot.missing).toEqual([]);
    for (const node of [1, 2] as const) {
      const dump = names.filter((name) => name.startsWith(`node${node}/dumps/`) && name.endsWith("/about.json")).sort().at(-1)!;
      expect(dump, names.join("\n")).toBeTruthy();
      const of = (name: string) => files.get(dump.replace("about.json", name))!.toString();
      expect((JSON.parse(of("status.json")) as { state: string }).state).toBe(node === primary ? "PRIM" : "SECOND");
      expect(of("configuration.toml")).toContain(`number = ${node}`);
      expect(of("logs/commands.log")).toContain("otto");
      expect(of("logs/module.log").length).toBeGreaterThan(1000);
      expect(of("processes.json")).toContain("duolog");
      expect(of("kernel.txt")).toContain("/proc/meminfo");
      expect(names.some((name) => name.startsWith(`node${node}/configurations/`)), names.join("\n")).toBe(true);
    }
    const hidden = secrets();
    expect(hidden.size).toBeGreaterThan(8);
    for (const [name, content] of files) {
      for (const [what, secret] of hidden) expect(content.includes(secret), `${name} has ${what}`).toBe(false);
      expect(/\$argon2|PRIVATE KEY/.exec(content.toString("latin1")), name).toBeNull();
    }
  });
});
