// What is seen of a pair that loses a node, and what an operator forces then.
import type { Browser } from "playwright-core";
import { afterAll, afterEach, beforeAll, expect, test } from "vitest";
import { to } from "../site";
import {
  ask, cluster, commits, committed, duolog, force, is, leftBehind, logIn, open, other, outcome, serves, shows, standing, states, until, visit, virtualIp, watch, whole, type Node,
} from "./pair";

let browser: Browser;
beforeAll(async () => { browser = await open(); });
afterAll(async () => browser.close());
// A part that failed half-way does not make those after it fail, where they are run all the same (`--bail 0`).
afterEach(async () => { await ask({ do: "mend" }); });

const at = (node: Node) => `node${node}` as const;
/** The bound, from the change of state until it is seen. */
const SEEN_MS = 2000;

test("the primary dies: the page of the surviving node shows it live, within 2 s of the change", async () => {
  const primary = await whole();
  const survivor = other(primary);
  await visit(browser, survivor, async ({ page }) => {
    await logIn(page, "vera");
    await shows(page, survivor, "SECOND");
    await page.evaluate(() => ((window as never as { mark: number }).mark = 1));
    const seen = await watch(page);
    const killed_ms = Date.now();
    await ask({ do: "kill", who: at(primary) });
    await shows(page, survivor, "ALONE");
    const shown = (await seen()).find((it) => it.states.split(" ")[survivor - 1] === "ALONE")!;
    const changed_ms = (await states(survivor, killed_ms)).find((it) => it.state === "ALONE")!.at;
    console.log(`killed, ALONE after ${changed_ms - killed_ms} ms, on the page ${shown.at - changed_ms} ms later`);
    expect(shown.at - changed_ms).toBeLessThan(SEEN_MS);
    await page.waitForSelector(`[data-node='${primary}'] [data-unreached]`);
    expect(await page.locator(`[data-node='${primary}'] [data-state]`).first().getAttribute("data-tone"), "what it was is not shown as what it is").toBe("grey");
    await page.waitForSelector(`[data-vip='${survivor}']`);
    await page.waitForSelector(`[data-node='${survivor}'] [data-service='postgresql'][data-service-state='runs']`);
    expect(await page.evaluate(() => (window as never as { mark?: number }).mark), "not loaded anew").toBe(1);
    await until("a commit at the virtual IP", commits);
    await to(page, `control/receipts/${survivor}`);
    await page.locator("[data-receipt=promoted]").first().waitFor();
    await to(page, `control/information/${primary}`);
    await page.waitForSelector("[data-problem]");
    await to(page, `control/information/${survivor}`);
    await page.getByText(virtualIp, { exact: true }).first().waitFor();
    await to(page, "monitoring");
    await page.waitForSelector("[data-verdict=alone]");

    await to(page, "control/resources");
    await ask({ do: "boot", who: at(primary) });
    expect(await whole()).toBe(survivor);
    await shows(page, primary, "SECOND");
    await shows(page, survivor, "PRIM");
    expect(await page.locator("[data-unreached]").count()).toBe(0);
  });
});

test("a log of a node that is not reached is not saved, and the page says why", async () => {
  const primary = await whole();
  const second = other(primary);
  await visit(browser, primary, async ({ page }) => {
    await logIn(page, "vera");
    await ask({ do: "kill", who: at(second) });
    await shows(page, primary, "ALONE");
    await to(page, `control/module/${second}`);
    await page.waitForSelector("[role=log][aria-busy=false]");
    const saved = page.waitForEvent("download", { timeout: 5000 }).then((it) => it.failure(), () => "none was begun");
    await page.click("[data-save=text]");
    expect(await saved).toBe("none was begun");
    await page.locator("[data-unsaved]", { hasText: "the other node is not reached" }).waitFor();
    await ask({ do: "boot", who: at(second) });
  });
  expect(await whole()).toBe(primary);
});

test("the page of the node that died says so, mends by itself and asks for a log-in", async () => {
  const primary = await whole();
  const second = other(primary);
  await visit(browser, second, async ({ page }) => {
    await logIn(page, "vera");
    await page.waitForSelector("[data-live]");
    await ask({ do: "kill", who: at(second) });
    await page.waitForSelector("[data-lost]");
    expect(await page.locator("[data-live]").count(), "not called live").toBe(0);
    await ask({ do: "boot", who: at(second) });
    await page.waitForSelector("[data-ended=expired]");
    await logIn(page, "vera");
    await page.waitForSelector("[data-live]");
  });
  expect(await whole()).toBe(primary);
});

/** Looks at what was left behind on a node, and drops it. */
async function dropBranch(serving: Node, behind: Node): Promise<void> {
  await visit(browser, serving, async ({ page }) => {
    await logIn(page, "ann");
    await to(page, `control/branches/${behind}`);
    const branch = page.locator("[data-branch]").first();
    await branch.waitFor();
    const name = (await branch.getAttribute("data-branch"))!;
    await branch.locator("button").click();
    expect(await page.locator("dialog button[type=submit]").isDisabled()).toBe(true);
    await page.fill("dialog input", name);
    await page.click("dialog button[type=submit]");
    await page.getByText("Dropped:").waitFor();
    expect(await duolog(behind, "branches")).not.toContain(name);
    expect(await duolog(behind, "logs", "--commands", "--grep", "branches drop")).toMatch(/ann/);
  });
}

test("a forced start of a node that lacks commits is done with its reason, and what it lacks is a branch", async () => {
  const left = await whole();
  const forced = other(left);
  const before = committed();
  await ask({ do: "kill", who: at(forced) });
  await is(left, "ALONE");
  await until("a commit", commits);
  await ask({ do: "kill", who: at(left) });
  await ask({ do: "boot", who: at(forced) });
  const reason = "the other computer burnt down";
  await until("it asks for a forced start", async () => (await standing(forced))?.sentence.includes("forced start"));
  leftBehind(before);
  await visit(browser, forced, async ({ page }) => {
    await logIn(page, "ann");
    await shows(page, forced, "WAIT");
    expect((await outcome(page, () => force(page, at(forced), "force_start", reason))).stage).toBe("done");
    await shows(page, forced, "ALONE");
    await to(page, `control/receipts/${forced}`);
    await page.locator("[data-receipt=forced]", { hasText: reason }).filter({ hasText: "ann" }).first().waitFor();
  });
  await until("a commit", commits);
  expect(await serves(forced)).toBe(true);
  await ask({ do: "boot", who: at(left) });
  expect(await whole()).toBe(forced);
  await dropBranch(forced, left);
});

test("a swap without data sync gives the service to a node that lacks commits, with its reason", async () => {
  const primary = await whole();
  const second = other(primary);
  const before = committed();
  await ask({ do: "cut_log" });
  // Where nobody writes anything, every commit still is on both.
  await until("a commit", commits);
  await is(primary, "ALONE");
  await visit(browser, primary, async ({ page }) => {
    await logIn(page, "ann");
    await until("the other one lacks it", async () => (await cluster(page)).nodes[second - 1]!.state === "WAIT");
    const reason = "its power supply smokes";
    leftBehind(before);
    const came = outcome(page, () => force(page, at(primary), "swap_without_sync", reason));
    await is(second, "ALONE");
    await ask({ do: "heal" });
    expect((await came).stage).toBe("done");
    expect(await whole()).toBe(second);
    await to(page, `control/receipts/${second}`);
    await page.locator("[data-receipt=forced]", { hasText: reason }).first().waitFor();
  });
  await dropBranch(second, primary);
});
