// Who may come in and how, what each may see and do, and how one is out again: of a real node.
import type { Browser, Page } from "playwright-core";
import { afterAll, beforeAll, expect, test } from "vitest";
import { said } from "../../src/lib/sentences";
import { LOCALES } from "../site";
import { act, cluster, duolog, logIn, open, other, shows, standing, visit, whole, type User } from "./pair";

let browser: Browser;
beforeAll(async () => { browser = await open(); });
afterAll(async () => browser.close());

async function withCertificate(user: User, run: (browser: Browser) => Promise<void>): Promise<void> {
  const own = await open(user);
  try {
    await run(own);
  } finally {
    await own.close();
  }
}

/** Asks for an action past the pages, as somebody would who writes the request by hand. */
const byHand = (page: Page, body: unknown) => page.evaluate(async (body) => {
  const { session } = (await (await fetch("/api/v1/session")).json()) as { session: { csrf: string } };
  const answer = await fetch("/api/v1/actions", {
    method: "POST", headers: { "content-type": "application/json", "duolog-csrf": session.csrf }, body: JSON.stringify(body),
  });
  return { status: answer.status, why: ((await answer.json()) as { why: string }).why };
}, body);

test("by password, at either node: both nodes are seen, the service and who has the address", async () => {
  const primary = await whole();
  for (const node of [1, 2] as const) {
    await visit(browser, node, async ({ page }) => {
      expect(await page.content(), "before log-in nothing is said of the pair").not.toMatch(/PRIM|SECOND|postgresql/);
      await logIn(page, "otto");
      await shows(page, primary, "PRIM");
      await shows(page, other(primary), "SECOND");
      await page.waitForSelector(`[data-vip='${primary}']`);
      await page.waitForSelector(`[data-node='${primary}'] [data-service='postgresql'][data-service-state='runs']`);
      await page.waitForSelector(`[data-node='${other(primary)}'] [data-service='postgresql'][data-service-state='stopped']`);
      // Who has copied the cookie is in as long as the session lasts, and out with it.
      const cookie = (await page.context().cookies()).map((it) => `${it.name}=${it.value}`).join("; ");
      const withIt = async () => (await page.context().request.get(new URL("/api/v1/cluster", page.url()).href, { headers: { cookie }, ignoreHTTPSErrors: true })).status();
      expect(await withIt()).toBe(200);
      await page.click("[data-logout]");
      await page.waitForSelector("[data-ended=loggedOut]");
      expect(await withIt()).toBe(401);
    });
  }
});

test("by the certificate that the browser has", async () => {
  await withCertificate("ann", async (own) => {
    await visit(own, 1, async ({ page }) => {
      await page.click("[data-by=certificate]");
      await page.waitForSelector("[data-user]");
      expect(await page.locator("[data-user]").innerText()).toContain("ann (administrator)");
      expect((await cluster(page)).nodes.map((it) => it.reached)).toEqual([true, true]);
    });
  });
});

test.each(Object.entries(LOCALES))("in %s, what the node says of itself too", async (language, locale) => {
  const primary = await whole();
  const expected = { en: "Log in", fr: "Connexion", ja: "ログイン" }[language]!;
  await visit(browser, 1, async ({ page }) => {
    expect(await page.locator("main h2").innerText()).toBe(expected);
    await logIn(page, "vera");
    await shows(page, primary, "PRIM");
    const { state, sentence } = (await standing(primary))!;
    const wanted = said(state, sentence, language as "en").text;
    expect(language === "en" || wanted !== sentence, `${sentence} is not translated`).toBe(true);
    expect(await page.locator(`[data-node='${primary}'] [data-sentence]`).innerText()).toBe(wanted);
  }, { locale });
});

/** Writes a line into the table `[pair]` of the settings, past the pages. */
const putSettings = (page: Page, line: string) => page.evaluate(async (line) => {
  const { session } = (await (await fetch("/api/v1/session")).json()) as { session: { csrf: string } };
  const known = (await (await fetch("/api/v1/settings")).json()) as { text: string; stamp: { version: number; node: number; hash: string } };
  const { version, node, hash } = known.stamp;
  const text = known.text.includes("[pair]") ? known.text.replace("[pair]", `[pair]\n${line}`) : `[pair]\n${line}\n${known.text}`;
  const answer = await fetch("/api/v1/settings", {
    method: "PUT", headers: { "content-type": "application/json", "duolog-csrf": session.csrf },
    body: JSON.stringify({ base: { version, node, hash }, text }),
  });
  return { status: answer.status, text: ((await answer.json()) as { text?: string }).text ?? "" };
}, line);

test("an administrator changes nothing of what the computers run, past the pages neither", async () => {
  await whole();
  await visit(browser, 1, async ({ page }) => {
    await logIn(page, "ann");
    const before = await duolog(2, "config", "show");
    for (const key of ["notify", "drop_address"]) {
      const refused = await putSettings(page, `${key} = ["/bin/touch", "/root/here"]`);
      // By this node itself, which names the key; the other one would refuse it too.
      expect([refused.status, refused.text]).toEqual([409, expect.stringMatching(`^pair\\.${key} would .* duolog config edit`)]);
    }
    expect(await duolog(2, "config", "show")).toBe(before);
    const changed = await putSettings(page, "verify_every_s = 86401");
    expect(changed.status, changed.text).toBe(200);
    expect(await duolog(2, "config", "show")).toContain("verify_every_s = 86401");
  });
});

test("a viewer may look and not act, past the pages neither", async () => {
  const primary = await whole();
  await visit(browser, primary, async ({ page }) => {
    await logIn(page, "vera");
    await page.click(`[data-menu=node${primary}]`);
    const stop = page.locator("[data-action=stop]");
    expect(await stop.getAttribute("aria-disabled")).toBe("true");
    await stop.click({ force: true });
    expect(await page.locator("dialog").count()).toBe(0);
    for (const on of ["node1", "node2", "both"]) {
      expect(await byHand(page, { on, action: { kind: "stop" } })).toEqual({ status: 403, why: "forbidden" });
    }
    const status = (path: string) => page.evaluate(async (path) => (await fetch(path)).status, path);
    expect(await status("/api/v1/snapshot"), "snapshot").toBe(403);
    expect(await status("/api/v1/settings"), "settings").toBe(403);
  });
  await visit(browser, primary, async ({ page }) => {
    await logIn(page, "otto");
    expect(await byHand(page, { on: "both", action: { kind: "force_start", reason: "x" } })).toEqual({ status: 403, why: "forbidden" });
  });
  expect((await standing(primary))!.state).toBe("PRIM");
  expect((await standing(other(primary)))!.state).toBe("SECOND");
});

test("who is viewer at once may not act any more, on the open page", async () => {
  await whole();
  await visit(browser, 1, async ({ page }) => {
    await logIn(page, "otto");
    await duolog(2, "users", "role", "otto", "viewer");
    try {
      await act(page, "node2", "stop");
      await page.getByText("may not do that").waitFor();
    } finally {
      await duolog(1, "users", "role", "otto", "operator");
    }
  });
  expect(await whole()).toBeTruthy();
});

test("a session that has expired ends on the open page, which says why", async () => {
  await visit(browser, 2, async ({ page }) => {
    await logIn(page, "vera");
    await page.waitForSelector("[data-live]");
    // A user has 16 sessions; one more ends the one that is idle longest, as an hour would.
    for (let at = 0; at < 16; at += 1) {
      await visit(browser, 2, async ({ page: another }) => logIn(another, "vera"));
    }
    await page.waitForSelector("[data-ended=expired]");
    await logIn(page, "vera");
    await page.waitForSelector("[data-live]");
  });
});

test("a certificate that is revoked is out at once, and is refused with words afterwards", async () => {
  await withCertificate("rita", async (own) => {
    await visit(own, 2, async ({ page }) => {
      await page.click("[data-by=certificate]");
      await page.waitForSelector("[data-user]");
      await duolog(1, "certs", "revoke", "rita");
      await page.waitForSelector("[data-ended=refused]");
      await page.waitForSelector("[data-certificate-refused]");
      expect(await page.locator("[data-by=certificate]").count()).toBe(0);
      const answer = await page.evaluate(async () => (await fetch("/api/v1/login/certificate", { method: "POST" })).status);
      expect(answer).toBe(401);
      expect(await page.evaluate(async () => (await fetch("/api/v1/cluster")).status)).toBe(401);
      // The user is still one, by password.
      await logIn(page, "rita");
    });
  });
});
