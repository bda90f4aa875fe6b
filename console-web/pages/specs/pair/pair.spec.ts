// The console of a real pair, in one sequence: each part begins with a whole pair and ends with one.
import { beforeAll } from "vitest";
import { makeUsers } from "./pair";

beforeAll(makeUsers, 120_000);

await import("./people");
await import("./work");
await import("./losses");
const { wrongPasswords } = await import("./people");
wrongPasswords();
