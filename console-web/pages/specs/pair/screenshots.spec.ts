// Pictures of every page of a real pair, whole and while it is ALONE, in both widths, both themes and three
// languages, for who wants to look: `tests/console --pair --screenshots DIR`. Without DUOLOG_SCREENSHOTS
// nothing is done.
import { test } from "vitest";
import { ROUTES } from "../routes";
import { LOCALES, THEMES, WIDTHS, to } from "../site";
import { act, ask, is, logIn, makeUsers, open, outcome, shows, until, commits, visit, whole, other } from "./pair";

const directory = process.env.DUOLOG_SCREENSHOTS;

test.skipIf(!directory)("pictures", async () => {
  await makeUsers();
  const browser = await open();
  try {
    const primary = await whole();
    await visit(browser, primary, async ({ page }) => {
      await logIn(page, "ann");
      await outcome(page, () => act(page, "both", "swap"));
    });
    await until("commits", commits);
    const everywhere = async (scene: string, node: 1 | 2, routes: readonly string[]) => {
      for (const [language, locale] of Object.entries(LOCALES)) {
        for (const colorScheme of THEMES) {
          for (const width of WIDTHS) {
            await visit(browser, node, async ({ page }) => {
              const picture = (name: string) => page.screenshot({ path: `${directory}/${scene}-${name}-${language}-${colorScheme}-${width}.png`, fullPage: true });
              await picture("login");
              await logIn(page, "ann");
              for (const route of routes) {
                await to(page, route);
                await page.waitForTimeout(800);
                await picture(route.replaceAll("/", "-"));
              }
            }, { locale, colorScheme, viewport: { width, height: 900 } });
          }
        }
      }
    };
    await everywhere("pair", primary, ROUTES);
    const serving = other(primary);
    await ask({ do: "kill", who: `node${primary}` });
    await is(serving, "ALONE");
    await visit(browser, serving, async ({ page }) => {
      await logIn(page, "ann");
      await shows(page, serving, "ALONE");
    });
    await everywhere("alone", serving, ["control/resources", "control/receipts", `control/information/${primary}`, "monitoring"]);
  } finally {
    await browser.close();
  }
}, 1_800_000);
