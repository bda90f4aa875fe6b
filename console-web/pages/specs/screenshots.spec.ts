// Pictures of every page in both widths, both themes and three languages, for who wants to look:
// `tests/console --screenshots DIR`. Without DUOLOG_SCREENSHOTS nothing is done.
import { mkdirSync } from "node:fs";
import { test } from "vitest";
import type { Scene } from "../mock/pair";
import { LOCALES, THEMES, WIDTHS, logIn, look, to, withBrowser } from "./site";
import { ROUTES } from "./routes";

const directory = process.env.DUOLOG_SCREENSHOTS;
if (directory) withBrowser();

for (const [language, locale] of Object.entries(LOCALES)) {
  for (const colorScheme of THEMES) {
    for (const width of WIDTHS) {
      test.skipIf(!directory)(`${language} ${colorScheme} ${width}`, async () => {
        mkdirSync(directory!, { recursive: true });
        await look({ locale, colorScheme, viewport: { width, height: 900 } }, async ({ page, mock }) => {
          const picture = (name: string, fullPage = true) => page.screenshot({ path: `${directory}/${name}-${language}-${colorScheme}-${width}.png`, fullPage });
          await picture("login");
          await logIn(page);
          for (const route of ROUTES) {
            await to(page, route);
            await page.waitForTimeout(600);
            await picture(route.replace("/", "-"));
          }
          for (const scene of ["alone", "resync", "stopped"] satisfies Scene[]) {
            mock.pair.scene(scene);
            await page.waitForTimeout(300);
            await picture(`monitoring-${scene}`, false);
          }
          mock.pair.scene("pair");
          await to(page, "control/resources");
          await page.click("[data-menu=node1]");
          await picture("menu", false);
          await page.click("[data-action=force_start]");
          await page.waitForTimeout(200);
          await picture("question", false);
        });
      }, 300_000);
    }
  }
}
