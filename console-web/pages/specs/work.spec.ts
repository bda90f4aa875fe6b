// What an operator does, and sees come of it.
import { readFileSync } from "node:fs";
import { expect, test } from "vitest";
import { Pair } from "../mock/pair";
import { choose, logIn, look, shows, state, to, withBrowser } from "./site";

withBrowser();

test("a wrong password is said, and after five nothing is tried any more", async () => {
  await look({}, async ({ page }) => {
    for (let at = 0; at < 6; at += 1) {
      await page.fill("[name=username]", "ann");
      await page.fill("[name=password]", `wrong ${at}`);
      await page.click("[data-by=password]");
      await page.waitForSelector("[data-by=password]:not([disabled])");
    }
    await page.getByText("Too many wrong attempts").waitFor();
  });
});

test("by certificate, and one that was revoked is refused with words", async () => {
  await look({}, async ({ page, mock }) => {
    mock.certificate = "otto";
    await page.reload();
    await page.click("[data-by=certificate]");
    await page.waitForSelector("[data-user]");
    expect(await page.locator("[data-user]").innerText()).toContain("otto (operator)");
  });
  await look({}, async ({ page, mock }) => {
    mock.certificate = "vera";
    await page.reload();
    await page.waitForSelector("[data-by=certificate]");
    mock.certificate = null;
    await page.click("[data-by=certificate]");
    await page.getByText("it was revoked").first().waitFor();
  });
  await look({}, async ({ page, mock }) => {
    mock.certificate = "mallory";
    await page.reload();
    await page.waitForSelector("[data-certificate-refused]");
    expect(await page.locator("[data-by=certificate]").count(), "nobody to go on as").toBe(0);
  });
});

test("an expired session leads to the log-in page, which says why", async () => {
  await look({}, async ({ page, mock }) => {
    await logIn(page);
    mock.expire();
    await page.waitForSelector("[data-ended=expired]");
    await logIn(page);
    await shows(page, 1, "PRIM");
  });
});

test("stop is asked about, and shows its progress and its outcome", async () => {
  await look({}, async ({ page }) => {
    await logIn(page);
    await choose(page, "node2", "stop");
    await page.getByText("This node stops.").waitFor();
    await page.click("dialog button[type=submit]");
    await page.waitForSelector("[data-record=stop][data-stage=under_way]");
    await page.waitForSelector("[data-record=stop][data-stage=done]");
    await shows(page, 2, "STOP");
    await shows(page, 1, "ALONE");
    await choose(page, "node2", "start");
    await page.waitForSelector("[data-record=start][data-stage=done]");
    await shows(page, 2, "SECOND");
  }, new Pair(1, 700));
});

test("a question that is not answered changes nothing", async () => {
  await look({}, async ({ page, mock }) => {
    await logIn(page);
    await choose(page, "both", "stop");
    await page.keyboard.press("Escape");
    await page.waitForSelector("dialog", { state: "detached" });
    expect(mock.pair.records).toEqual([]);
  });
});

test("a swap moves service and address, and what is refused says why", async () => {
  await look({}, async ({ page, mock }) => {
    await logIn(page);
    await choose(page, "both", "swap");
    await page.click("dialog button[type=submit]");
    await page.waitForSelector("[data-record=swap][data-stage=done]");
    await shows(page, 2, "PRIM");
    await page.waitForSelector("[data-vip='2']");
    mock.pair.scene("resync");
    await shows(page, 2, "WAIT");
    await choose(page, "both", "swap");
    await page.click("dialog button[type=submit]");
    await page.getByText("the other node is not up to date").first().waitFor();
  });
});

test("a forced start needs a reason and the word", async () => {
  await look({}, async ({ page, mock }) => {
    await logIn(page);
    await choose(page, "node2", "force_start");
    const go = page.locator("dialog button[type=submit]");
    expect(await go.isDisabled()).toBe(true);
    const [reason, word] = [page.locator("dialog input").nth(0), page.locator("dialog input").nth(1)];
    await reason.fill("site A has no power");
    expect(await go.isDisabled()).toBe(true);
    await word.fill("FORCE");
    await go.click();
    await page.waitForSelector("[data-record=force_start][data-stage=done]");
    expect(mock.pair.records[0]?.action).toEqual({ kind: "force_start", reason: "site A has no power" });
  });
});

test("switches, maintenance and the estimate", async () => {
  await look({}, async ({ page, mock }) => {
    await logIn(page);
    await choose(page, "node1", "failover_off");
    await page.click("dialog button[type=submit]");
    const flag = page.getByText("failover off", { exact: true });
    await flag.waitFor();
    await choose(page, "node1", "failover_on");
    await flag.waitFor({ state: "detached" });
    for (const [key, text, takes, checker] of [
      ["error_detection", "error detection suspended", "neither restarted nor failed over", "sql: well"],
      ["checkers", "all checkers stopped", "only the end of a process", "sql: stopped"],
    ] as const) {
      await choose(page, "node1", `${key}_off`);
      await page.locator("dialog", { hasText: takes }).waitFor();
      await page.click("dialog button[type=submit]");
      await page.getByText(text, { exact: true }).waitFor();
      expect(mock.pair.records.at(-1)?.action).toEqual({ kind: key, on: false });
      await page.locator("[data-node='1']").getByText(checker, { exact: true }).waitFor();
      await choose(page, "node1", `${key}_on`);
      await page.getByText(text, { exact: true }).waitFor({ state: "detached" });
    }
    await choose(page, "node1", "maintenance_on");
    await page.selectOption("dialog select", "900");
    await page.click("dialog button[type=submit]");
    await page.getByText("maintenance until").waitFor();
    await choose(page, "node1", "estimate");
    await page.getByText("700 MiB").waitFor();
  });
});

test("an action that is done before its answer comes is shown as done", async () => {
  await look({}, async ({ page, mock }) => {
    await logIn(page);
    mock.answers_after_ms = 400;
    await choose(page, "node1", "failover_off");
    await page.click("dialog button[type=submit]");
    await page.waitForSelector("[data-record=failover][data-stage=done]");
    await page.waitForTimeout(800);
    await page.waitForSelector("[data-record=failover][data-stage=done]");
  }, new Pair(1, 1));
});

test("a viewer may look and not act", async () => {
  await look({}, async ({ page, mock }) => {
    await logIn(page, "vera");
    await page.click("[data-menu=node1]");
    const stop = page.locator("[data-action=stop]");
    expect(await stop.getAttribute("aria-disabled")).toBe("true");
    expect(await stop.innerText()).toContain("needs the role operator");
    await stop.click({ force: true });
    expect(await page.locator("dialog").count()).toBe(0);
    expect(mock.pair.records).toEqual([]);
  });
});

test("the primary dies: the surviving node's page shows ALONE by itself within 2 s", async () => {
  const pair = new Pair(2, 300);
  await look({}, async ({ page }) => {
    await logIn(page);
    await page.evaluate(() => ((window as never as { mark: number }).mark = 1));
    pair.kill();
    const took = await shows(page, 2, "ALONE", 2000);
    expect(took).toBeLessThan(2000);
    await page.waitForSelector("[data-node='1'] [data-unreached]");
    expect(await state(page, 1).getAttribute("data-tone"), "what it was is not shown as what it is").toBe("grey");
    await page.waitForSelector("[data-vip='2']");
    expect(await page.evaluate(() => (window as never as { mark?: number }).mark), "not loaded anew").toBe(1);
  }, pair);
});

test("a lost connection is said with the age of what is shown, and mends by itself", async () => {
  await look({}, async ({ page, mock }) => {
    await logIn(page);
    await mock.down();
    await page.waitForSelector("[data-lost]");
    expect(await page.locator("[data-lost]").innerText()).toMatch(/No connection to node1\.[\s\S]*is from \d\d:\d\d:\d\d, \d+\ss old/);
    expect(await page.locator("[data-live]").count(), "not called live").toBe(0);
    await mock.up();
    await page.waitForSelector("[data-lost]", { state: "detached" });
    await page.waitForSelector("[data-live]");
  });
});

test("a connection in clear is warned of, all the time", async () => {
  await look({}, async ({ page, mock }) => {
    mock.encrypted = false;
    await page.reload();
    await page.waitForSelector("[data-clear]");
    await logIn(page);
    await to(page, "monitoring");
    expect(await page.locator("[data-clear]").isVisible()).toBe(true);
  });
});

test("a log is short or verbose, searched, followed and saved", async () => {
  await look({}, async ({ page, mock }) => {
    await logIn(page);
    await to(page, "control/module/1");
    const log = page.locator("[role=log]");
    await log.getByText("the heartbeat on 192.168.7.1 is not answered").waitFor();
    expect(await log.getByText("acknowledged up to").count(), "short").toBe(0);
    await page.check("[data-form=verbose]");
    await log.getByText("acknowledged up to").first().waitFor();
    await page.fill("[data-grep]", "heartbeat");
    await log.locator("mark").first().waitFor();
    await page.waitForSelector("[data-lines='1']");
    mock.pair.say("module", { node: 1, level: "warn", text: "another heartbeat is late" });
    mock.pair.say("module", { node: 1, level: "warn", text: "not searched for" });
    await page.waitForSelector("[data-lines='2']");
    const [saved] = await Promise.all([page.waitForEvent("download"), page.click("[data-save=text]")]);
    expect(saved.suggestedFilename()).toBe("node1-module.log");
    const text = readFileSync(await saved.path(), "utf8");
    expect(text).toContain("another heartbeat is late");
    expect(text).not.toContain("not searched for");
    await page.fill("[data-grep]", "(");
    await page.waitForSelector("[data-bad]");
    await to(page, "control/commands/1");
    await page.locator("[role=log]").getByText("root from the control socket").waitFor();
  });
});

test("a snapshot is saved as a ZIP", async () => {
  await look({}, async ({ page }) => {
    await logIn(page, "otto");
    await page.click("[data-menu=both]");
    const [saved] = await Promise.all([page.waitForEvent("download"), page.click("[data-action=snapshot]")]);
    expect(saved.suggestedFilename()).toMatch(/\.zip$/);
    expect(readFileSync(await saved.path()).subarray(0, 2).toString()).toBe("PK");
  });
});

test("progress of a resynchronisation with its estimate", async () => {
  await look({}, async ({ page, mock }) => {
    await logIn(page);
    mock.pair.scene("resync");
    await page.waitForSelector("[data-node='2'] [data-resync] progress");
    expect(await page.locator("[data-node='2'] [data-resync]").innerText()).toMatch(/of 84\sGiB · 3\d % · about 9\smin/);
  });
});

test("receipts, charts, branches, information; a branch is dropped by typing its name", async () => {
  await look({}, async ({ page, mock }) => {
    await logIn(page);
    await to(page, "control/receipts/1");
    await page.locator("[data-receipt=promoted]").first().waitFor();
    await to(page, "control/charts/1");
    await page.locator("[data-chart] canvas").first().waitFor();
    expect(await page.locator("[data-chart]").count()).toBe(7);
    const stages = page.locator("[data-chart]").first().locator(".legend li");
    expect((await stages.allInnerTexts()).map((it) => it.replace(/ ?[\d.,–]+\s?\S*$/, "").trim())).toEqual(
      ["whole commit", "queue", "local disk", "other node", "other node: wire", "other node: disk", "wake-up"]);
    expect(await stages.filter({ hasText: "–" }).count(), "each stage has a value").toBe(0);
    const anatomy = page.locator("[data-anatomy] tbody tr");
    expect(await anatomy.count()).toBe(14);
    expect(await anatomy.filter({ hasText: "–" }).count(), "each stage has a value").toBe(0);
    expect(await anatomy.filter({ hasText: "its sync" }).locator("td").first().innerText()).toMatch(/^[67]\d\d\sµs$/);
    await page.check("[data-span=hours]");
    await page.locator("[data-chart] canvas").first().waitFor();
    await to(page, "control/information/2");
    await page.getByText("10.0.0.9", { exact: true }).waitFor();
    await page.getByText("21 days left").waitFor();
    await page.click("[data-licences]");
    await page.waitForSelector("[data-licence=quinn]");
    await to(page, "control/branches/1");
    const name = mock.pair.branches[0]!.name;
    await page.click(`[data-branch='${name}'] button`);
    expect(await page.locator("dialog button[type=submit]").isDisabled()).toBe(true);
    await page.fill("dialog input", name);
    await page.click("dialog button[type=submit]");
    await page.getByText("Dropped: 1.8 MiB.").waitFor();
    expect(mock.pair.branches).toEqual([]);
  });
});

test("of a node that does not answer a page says so, with what would help", async () => {
  await look({}, async ({ page, mock }) => {
    await logIn(page);
    mock.pair.scene("alone");
    await to(page, "control/resources/2");
    await page.waitForSelector("[data-problem]");
    expect(await page.locator("[data-problem]").innerText()).toContain("look at its own console");
    await page.waitForSelector("[data-alarms='1']");
    await to(page, "monitoring");
    await page.waitForSelector("[data-verdict=alone]");
  });
});

test("by keyboard alone: log in, the menu, a question, and back to where one was", async () => {
  await look({}, async ({ page }) => {
    await page.focus("[name=username]");
    await page.keyboard.type("ann");
    await page.keyboard.press("Tab");
    await page.keyboard.type("correct horse");
    await page.keyboard.press("Enter");
    await state(page, 1).waitFor();
    await page.focus("[data-menu=node2]");
    await page.keyboard.press("Enter");
    const focused = () => page.evaluate(() => (document.activeElement as HTMLElement).dataset.action ?? (document.activeElement as HTMLElement).dataset.menu);
    await page.waitForFunction(() => (document.activeElement as HTMLElement).dataset.action === "start");
    await page.keyboard.press("ArrowDown");
    expect(await focused()).toBe("stop");
    await page.keyboard.press("Escape");
    expect(await focused()).toBe("node2");
    await page.keyboard.press("Enter");
    await page.waitForFunction(() => (document.activeElement as HTMLElement).dataset.action === "start");
    await page.keyboard.press("ArrowDown");
    await page.keyboard.press("Enter");
    await page.waitForSelector("dialog[open]");
    expect(await page.evaluate(() => document.activeElement?.closest("dialog") !== null), "the focus is in the question").toBe(true);
  });
});

test("users are added, changed, shut out and removed; what the node refuses is said", async () => {
  await look({}, async ({ page, mock }) => {
    await logIn(page);
    await to(page, "control/settings");
    await page.waitForSelector("[data-user=vera]");
    const add = async () => {
      await page.click("[data-add]");
      await page.fill("dialog [name=user]", "ben");
      await page.selectOption("dialog [name=role]", "operator");
      await page.fill("dialog [name=secret]", "secret word");
      await page.click("dialog button[type=submit]");
    };
    await add();
    await page.waitForSelector("[data-user=ben]");
    expect(await page.locator("[data-user=ben]").innerText()).toContain("operator");
    await page.getByText("Version 8 counts on both nodes.").waitFor();
    await add();
    await page.waitForSelector("[data-came=false]");
    await page.click("[data-user=ben] [data-do=role]");
    await page.selectOption("dialog [name=role]", "viewer");
    await page.click("dialog button[type=submit]");
    await page.locator("[data-user=ben]", { hasText: "viewer" }).waitFor();
    await page.click("[data-user=ben] [data-do=disable]");
    await page.click("dialog button[type=submit]");
    await page.locator("[data-user=ben]", { hasText: "disabled" }).waitFor();
    await page.click("[data-user=ben] [data-do=enable]");
    await page.waitForSelector("[data-user=ben] [data-do=disable]");
    await page.click("[data-user=ben] [data-do=remove]");
    await page.click("dialog button[type=submit]");
    await page.waitForSelector("[data-user=ben]", { state: "detached" });
    expect(mock.pair.users.map((it) => it.name)).not.toContain("ben");
  });
});

test("settings are checked before they are applied, and nobody's are written over", async () => {
  await look({}, async ({ page, mock }) => {
    await logIn(page);
    await to(page, "control/settings");
    await page.waitForSelector("[data-version='7']");
    const text = page.locator("[data-document] textarea");
    await text.fill("wrong = 1\n");
    expect(await page.locator("[data-apply]").isDisabled(), "not before it was checked").toBe(true);
    await page.click("[data-check]");
    await page.getByText("line 1: wrong: is no key").waitFor();
    expect(await page.locator("[data-apply]").isDisabled()).toBe(true);
    await text.fill("[pair]\nverify_every_s = 3600\n");
    await page.click("[data-check]");
    await page.getByText("pair.verify_every_s").waitFor();
    await page.click("[data-apply]");
    await page.waitForSelector("[data-version='8']");
    await page.locator("[data-document]", { hasText: "Version 8 counts on both nodes." }).waitFor();
    // Somebody else was faster.
    mock.pair.settings = { ...mock.pair.settings, version: 9 };
    await text.fill("[pair]\nverify_every_s = 7200\n");
    await page.click("[data-check]");
    await page.waitForSelector("[data-faults='0']");
    await page.click("[data-apply]");
    await page.locator("[data-came=false]", { hasText: "version 9 of node2 counts" }).waitFor();
    expect(await text.inputValue(), "what was typed stays").toContain("7200");
  });
});

test("who is no administrator is told so where users and settings are", async () => {
  await look({}, async ({ page }) => {
    await logIn(page, "otto");
    await to(page, "control/settings");
    await page.getByText("Only an administrator").waitFor();
    expect(await page.locator("[data-users], [data-document]").count()).toBe(0);
  });
});

test("while the other node is silent users are changed here alone if that is said, and the page says so", async () => {
  await look({}, async ({ page, mock }) => {
    await logIn(page);
    await to(page, "control/settings");
    await page.waitForSelector("[data-user=vera]");
    expect(await page.locator("[data-silent], [data-users] [data-here]").count()).toBe(0);
    mock.pair.scene("silent");
    await page.locator("[data-silent]", { hasText: "node2 does not answer" }).waitFor();
    const disable = async () => {
      await page.click("[data-user=vera] [data-do=disable]");
      await page.click("dialog button[type=submit]");
    };
    await disable();
    await page.locator("[data-users] [data-came=false]", { hasText: "nothing was changed" }).waitFor();
    await page.check("[data-users] [data-here]");
    await disable();
    await page.locator("[data-user=vera]", { hasText: "disabled" }).waitFor();
    await page.getByText("the other one takes it over when they meet.").waitFor();
  });
});

test("a node that is ALONE is green with a warning among its resources, as everywhere else", async () => {
  await look({}, async ({ page, mock }) => {
    await logIn(page);
    await to(page, "control/resources/1");
    await page.waitForSelector("[data-resource='node.state'][data-health=well]");
    mock.pair.scene("alone");
    const row = page.locator("[data-resource='node.state'][data-health=warned]");
    await row.waitFor();
    expect(await row.innerText()).toMatch(/ALONE[\s\S]*serves without a second copy/);
    const colour = (name: string) => page.evaluate((it) => {
      const probe = document.body.appendChild(document.createElement("i"));
      probe.style.color = `var(${it})`;
      const found = getComputedStyle(probe).color;
      probe.remove();
      return found;
    }, name);
    expect(await row.locator(".health").evaluate((it) => getComputedStyle(it).color)).toBe(await colour("--green"));
  });
});

test("no two marks beside a chart are called the same", async () => {
  const near = new Pair();
  near.behind_ms = 0.5;
  await look({}, async ({ page }) => {
    await logIn(page);
    await to(page, "control/charts/1");
    await page.waitForFunction(() => [...document.querySelectorAll<HTMLElement>("[data-marks]")].filter((it) => it.dataset.marks).length === 7);
    const all = await page.locator("[data-marks]").evaluateAll((them) => them.map((it) => (it as HTMLElement).dataset.marks!.split("|")));
    for (const marks of all) expect(new Set(marks).size, marks.join(", ")).toBe(marks.length);
  }, near);
});
