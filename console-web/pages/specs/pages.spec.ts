// What every page is, in both widths, both themes and three languages: nothing that axe calls serious,
// nothing wider than the window, nothing that the security policy forbids, nothing from elsewhere.
import { readFileSync, readdirSync } from "node:fs";
import { gzipSync } from "node:zlib";
import { describe, expect, test } from "vitest";
import { LOCALES, THEMES, WIDTHS, logIn, look, to, withBrowser } from "./site";
import { ROUTES } from "./routes";

withBrowser();
const AXE = readFileSync("node_modules/axe-core/axe.min.js", "utf8");

interface Violation { id: string; impact: string | null; nodes: { html: string; failureSummary?: string }[] }

async function violations(page: import("playwright-core").Page): Promise<string[]> {
  // Through the debugger, since the policy of the page lets no script in.
  await page.evaluate(AXE);
  const found = await page.evaluate(async () => (await (window as never as { axe: { run(): Promise<{ violations: Violation[] }> } }).axe.run()).violations);
  return found.filter((it) => it.impact === "serious" || it.impact === "critical").map((it) => `${it.id}: ${it.nodes.map((node) => node.html.slice(0, 160)).join(" | ")}`);
}

/** What stands below its box and not beside it. */
const below = (page: import("playwright-core").Page) => page.evaluate(() => {
  const boxes = [...document.querySelectorAll("label > input:is([type=checkbox], [type=radio])")];
  return boxes.flatMap((box) => {
    const words = document.createRange();
    words.selectNodeContents(box.parentElement!);
    words.setStartAfter(box);
    return words.getBoundingClientRect().left < box.getBoundingClientRect().right ? [words.toString()] : [];
  });
});

describe.each(THEMES)("%s", (colorScheme) => {
  describe.each(WIDTHS)("%i wide", (width) => {
    test("every page", async () => {
      await look({ colorScheme, viewport: { width, height: 900 } }, async ({ page }) => {
        expect(await violations(page), "log in").toEqual([]);
        await logIn(page);
        for (const route of ROUTES) {
          await to(page, route);
          await page.waitForTimeout(350);
          expect(await violations(page), route).toEqual([]);
          expect(await page.evaluate(() => document.documentElement.scrollWidth - innerWidth), `${route} is wider than the window`).toBeLessThanOrEqual(0);
        }
        await to(page, "control/resources");
        await page.click("[data-menu=both]");
        expect(await violations(page), "menu").toEqual([]);
        const box = await page.locator("[role=menu]").boundingBox();
        expect(box!.x, "the menu begins in the window").toBeGreaterThanOrEqual(0);
        await page.click("[data-action=swap]");
        await page.waitForSelector("dialog[open]");
        expect(await violations(page), "question").toEqual([]);
      });
    }, 180_000);
  });
});

test.each(Object.entries(LOCALES))("in %s, by the browser's language", async (language, locale) => {
  const expected = { en: ["Log in", "Resources"], fr: ["Connexion", "Ressources"], ja: ["ログイン", "リソース"] }[language]!;
  await look({ locale, viewport: { width: 390, height: 900 } }, async ({ page }) => {
    expect(await page.locator("main h2").innerText()).toBe(expected[0]);
    await logIn(page);
    expect(await page.locator("html").getAttribute("lang")).toBe(language);
    expect(await page.locator("[data-tab=resources]").innerText()).toBe(expected[1]);
    for (const route of ROUTES) {
      await to(page, route);
      await page.waitForTimeout(200);
      expect(await page.evaluate(() => document.documentElement.scrollWidth - innerWidth), route).toBeLessThanOrEqual(0);
      expect(await below(page), route).toEqual([]);
    }
  });
});

test("the language can be picked, and is remembered", async () => {
  await look({ locale: "fr-FR" }, async ({ page }) => {
    await page.selectOption("[data-language]", "ja");
    expect(await page.locator("main h2").innerText()).toBe("ログイン");
    await page.reload();
    expect(await page.locator("main h2").innerText()).toBe("ログイン");
  });
});

test("all files together are below 150 kB gzip", () => {
  const files = readdirSync("dist/assets").map((it) => `dist/assets/${it}`).concat("dist/index.html", "dist/icon.svg");
  const bytes = files.reduce((sum, it) => sum + gzipSync(readFileSync(it)).length, 0);
  console.log(`page weight: ${bytes} bytes gzip`);
  expect(bytes).toBeLessThan(150_000);
});

test("something is painted within a second", async () => {
  await look({}, async ({ page }) => {
    const paint = await page.evaluate(() => new Promise<number>((done) => {
      new PerformanceObserver((list) => {
        const found = list.getEntriesByName("first-contentful-paint")[0];
        if (found) done(found.startTime);
      }).observe({ type: "paint", buffered: true });
    }));
    console.log(`first paint: ${Math.round(paint)} ms`);
    expect(paint).toBeLessThan(1000);
  });
});
