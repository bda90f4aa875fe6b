// The specs drive a browser, one after the other: against the mock or, with DUOLOG_PAIR, a real pair, which
// tests/src/bin/console-pair.rs sets up.
import { defineConfig } from "vitest/config";

const pair = process.env.DUOLOG_PAIR !== undefined;
export default defineConfig({
  test: {
    include: pair ? ["specs/pair/*.spec.ts"] : ["specs/*.spec.ts"],
    environment: "node",
    fileParallelism: false,
    sequence: { concurrent: false },
    testTimeout: pair ? 300_000 : 60_000,
    hookTimeout: pair ? 300_000 : 60_000,
    bail: pair ? 1 : 0,
  },
});
