import { expect, test } from "vitest";
import { Format } from "../src/lib/format";
import { languageFor } from "../src/words";

const plain = (text: string) => text.replace(/[\u00a0\u202f]/g, " ");
const en = new Format("en", "UTC");
const fr = new Format("fr", "UTC");
const ja = new Format("ja", "UTC");

test("sizes have three digits, their unit, and are never rounded up", () => {
  const shown = [0, 999, 1023, 1024, 123_456_789, 1_908_293, 2 ** 40].map((it) => plain(en.bytes(it)));
  expect(shown).toEqual(["0 B", "999 B", "0.9 KiB", "1 KiB", "117 MiB", "1.8 MiB", "1 TiB"]);
  expect(plain(fr.bytes(1_908_293))).toBe("1,8 Mio");
});

test("durations have the two greatest units of the language", () => {
  expect([5, 1780, 41_000, 90_000, 3_600_000, 93_600_000].map((it) => plain(en.duration(it)))).toEqual(["5 ms", "1.7 s", "41 s", "1 min 30 s", "1 h", "1 d 2 h"]);
  expect(plain(fr.duration(1780))).toBe("1,7 s");
  expect(ja.duration(90_000)).toBe("1分30秒");
});

test("an age ticks by the second", () => {
  expect([300, 1999, 61_500].map((it) => plain(en.age(it)))).toEqual(["1 s", "1 s", "1 min 1 s"]);
});

test("steps of a commit are in microseconds until they are longer", () => {
  expect([20, 860, 2290, 5_012_000].map((it) => plain(en.micro(it)))).toEqual(["20 µs", "860 µs", "2.29 ms", "5.01 s"]);
});

test("a position is written as by the command line", () => {
  expect(en.lsn(0x1_0000_0010)).toBe("1/00000010");
});

test("times are of 24 hours in every language", () => {
  expect([en, fr, ja].map((it) => it.time(Date.UTC(2026, 10, 29, 15, 4, 5)))).toEqual(["15:04:05", "15:04:05", "15:04:05"]);
});

test("the language is the one that was picked, else the browser's first that there is", () => {
  expect(languageFor(null, ["de-CH", "fr-CH", "en"])).toBe("fr");
  expect(languageFor("ja", ["fr"])).toBe("ja");
  expect(languageFor("xx", ["ja-JP"])).toBe("ja");
  expect(languageFor(null, ["de"])).toBe("en");
});
