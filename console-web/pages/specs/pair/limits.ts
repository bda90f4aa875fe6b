// What is done against guessing. The last part of all: afterwards nobody is looked at from there for a minute.
import { expect, test } from "vitest";
import { USERS, duolog, open, visit } from "./pair";

test("wrong passwords are limited, and the right one is not looked at either then", async () => {
  const browser = await open();
  await visit(browser, 2, async ({ page }) => {
    const attempt = async (password: string) => {
      await page.fill("[name=username]", "ann");
      await page.fill("[name=password]", password);
      await page.click("[data-by=password]");
      await page.waitForSelector("[data-trouble]");
      await page.waitForSelector("[data-by=password]:not([disabled])");
    };
    for (let at = 0; at < 10; at += 1) {
      await attempt(`wrong ${at}`);
      expect(await page.locator("[data-trouble]").innerText()).toContain("Name or password is wrong");
    }
    await attempt(USERS.ann.password);
    await page.getByText("Too many wrong attempts").waitFor();
  });
  await browser.close();
  expect(await duolog(2, "logs", "--commands", "--grep", "ann.*log in.*refused")).toContain("name or password is wrong");
});
