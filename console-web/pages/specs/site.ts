// A browser, and the mock of a pair that it looks at. Specs of what a page does are told from those
// that need a node (tests/console says which ran).
import { existsSync } from "node:fs";
import { chromium, type Browser, type BrowserContextOptions, type Page } from "playwright-core";
import { afterAll, beforeAll, expect } from "vitest";
import { serve, type Mock } from "../mock/server";
import { Pair, USERS } from "../mock/pair";

export const WIDTHS = [1280, 390] as const;
export const THEMES = ["light", "dark"] as const;
export const LOCALES = { en: "en-GB", fr: "fr-FR", ja: "ja-JP" } as const;

export let browser: Browser;

export function withBrowser(): void {
  beforeAll(async () => {
    const path = process.env.CHROMIUM ?? "/usr/bin/chromium";
    if (!existsSync(path)) throw new Error(`no browser at ${path}: tests/console installs it, or name one in CHROMIUM`);
    // As root, which is how tests run here, Chromium has no sandbox; it opens nothing but the mock.
    browser = await chromium.launch({ executablePath: path, args: ["--no-sandbox", "--disable-gpu"] });
  });
  afterAll(async () => browser.close());
}

export interface Seen {
  mock: Mock;
  page: Page;
  /** What the browser complained about: scripts, styles, security policy, requests. */
  complaints: string[];
}

/** Opens the console in a browser of its own and closes all of it afterwards. */
export async function look(options: BrowserContextOptions, run: (seen: Seen) => Promise<void>, pair?: Pair): Promise<void> {
  const mock = await serve(0, pair);
  const context = await browser.newContext({ viewport: { width: 1280, height: 900 }, locale: "en-GB", timezoneId: "UTC", ...options });
  context.setDefaultTimeout(15_000);
  const page = await context.newPage();
  const complaints: string[] = [];
  page.on("console", (it) => { if (it.type() === "error" && !/Failed to load resource|ERR_CONNECTION/.test(it.text())) complaints.push(it.text()); });
  page.on("pageerror", (it) => complaints.push(String(it)));
  page.on("request", (it) => { if (!it.url().startsWith(mock.url) && !/^(data|blob):/.test(it.url())) complaints.push(`asked elsewhere: ${it.url()}`); });
  try {
    await page.goto(mock.url);
    await run({ mock, page, complaints });
    expect(complaints).toEqual([]);
  } finally {
    await context.close();
    await mock.close();
  }
}

export async function logIn(page: Page, name: keyof typeof USERS = "ann"): Promise<void> {
  await page.fill("[name=username]", name);
  await page.fill("[name=password]", USERS[name]!.password);
  await page.click("[data-by=password]");
  await page.waitForSelector("[data-node='1'] [data-state]");
}

export async function to(page: Page, route: string): Promise<void> {
  await page.evaluate((it) => { location.hash = `#/${it}`; }, route);
}

export const state = (page: Page, node: number) => page.locator(`[data-node='${node}'] [data-state]`).first();

/** Waits until a node shows that state, and says how long it took, in milliseconds. */
export async function shows(page: Page, node: number, wanted: string, within_ms = 10_000): Promise<number> {
  const begun = Date.now();
  await page.locator(`[data-node='${node}'] [data-state='${wanted}']`).first().waitFor({ timeout: within_ms });
  return Date.now() - begun;
}

export async function choose(page: Page, on: "node1" | "node2" | "both", action: string): Promise<void> {
  await page.click(`[data-menu=${on}]`);
  await page.click(`[data-action=${action}]`);
}
