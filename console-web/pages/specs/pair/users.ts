// Before everything else.
import { beforeAll } from "vitest";
import { makeUsers } from "./pair";

beforeAll(makeUsers, 120_000);
