// The operators' actions: which there are, who may have them done, and what they ask before.
import type { Action, ActionRecord, ActionRequest, NodeStanding, On, Role } from "../api/contract";
import type { Words } from "../words";

export type Group = "everyday" | "expert" | "admin";
export type Key = Exclude<keyof Words["actions"] & string,
  "open" | "of" | "both" | "bothNodes" | "expert" | "admin" | "support" | "needs" | "title" | "nothing" | "begun" | "stage"
  | "took" | "since" | "sending" | "collecting" | "dismiss" | "all" | "estimate" | "snapshot">;
/** What is asked before: nothing, a yes, a reason that is typed, or for how long. */
export type Asks = "nothing" | "yes" | "reason" | "duration";

export interface Entry {
  key: Key;
  group: Group;
  needs: Role;
  asks: Asks;
  /** What it takes away, in the words of the question. */
  warning?: keyof Words["confirm"]["text"];
  danger?: boolean;
  build(typed: { reason: string; for_s: number }): Action;
}

const one = (key: Key, group: Group, needs: Role, asks: Asks, build: Entry["build"], more: Partial<Entry> = {}): Entry =>
  ({ key, group, needs, asks, build, ...more });

/** What can be done at a node, as it stands. */
export function entries(on: On, node: NodeStanding | undefined): Entry[] {
  const both = on === "both";
  const serves = node?.serves ?? true;
  const all: Entry[] = [
    one("start", "everyday", "operator", "nothing", () => ({ kind: "start" })),
    one("stop", "everyday", "operator", "yes", () => ({ kind: "stop" }), {
      warning: both ? "stopBoth" : serves ? "stopServing" : "stop", danger: both || serves,
    }),
    one("restart", "everyday", "operator", "yes", () => ({ kind: "restart" }), {
      warning: both ? "restartBoth" : serves ? "restartServing" : "restart", danger: both || serves,
    }),
    one("swap", "everyday", "operator", "yes", () => ({ kind: "swap" }), { warning: "swap" }),
  ];
  if (!both) {
    all.push(
      one("swap_without_sync", "expert", "administrator", "reason", ({ reason }) => ({ kind: "swap_without_sync", reason }), { warning: "swap_without_sync", danger: true }),
      one("force_start", "expert", "administrator", "reason", ({ reason }) => ({ kind: "force_start", reason }), { warning: "force_start", danger: true }),
      one("keep_writes", "expert", "administrator", "reason", ({ reason }) => ({ kind: "keep_writes", reason }), { warning: "keep_writes", danger: true }),
    );
  }
  const switches = node?.switches;
  const admin = (key: Key, asks: Asks, build: Entry["build"], warning?: Entry["warning"]) =>
    all.push(one(key, "admin", "administrator", asks, build, warning ? { warning } : {}));
  // Where it is known how a switch stands, only the way out of it is offered.
  const offer = (is: boolean | undefined, on: () => void, off: () => void) => {
    if (is !== true) on();
    if (is !== false) off();
  };
  offer(switches?.failover,
    () => admin("failover_on", "nothing", () => ({ kind: "failover", on: true })),
    () => admin("failover_off", "yes", () => ({ kind: "failover", on: false }), "failover_off"));
  const maintained = switches ? switches.maintenance_until_ms != null : undefined;
  offer(maintained,
    () => admin("maintenance_on", "duration", ({ for_s }) => ({ kind: "maintenance", for_s }), "maintenance"),
    () => admin("maintenance_off", "nothing", () => ({ kind: "maintenance", for_s: null })));
  offer(switches?.error_detection,
    () => admin("error_detection_on", "nothing", () => ({ kind: "error_detection", on: true })),
    () => admin("error_detection_off", "yes", () => ({ kind: "error_detection", on: false }), "error_detection_off"));
  offer(switches?.checkers,
    () => admin("checkers_on", "nothing", () => ({ kind: "checkers", on: true })),
    () => admin("checkers_off", "yes", () => ({ kind: "checkers", on: false }), "checkers_off"));
  offer(switches?.start_at_boot,
    () => admin("start_at_boot_on", "nothing", () => ({ kind: "start_at_boot", on: true })),
    () => admin("start_at_boot_off", "yes", () => ({ kind: "start_at_boot", on: false }), "start_at_boot_off"));
  offer(switches?.auto_rejoin,
    () => admin("auto_rejoin_on", "yes", () => ({ kind: "auto_rejoin", on: true }), "auto_rejoin_on"),
    () => admin("auto_rejoin_off", "nothing", () => ({ kind: "auto_rejoin", on: false })));
  return all;
}

/** The word of an action that somebody asked for. */
export function keyOf(action: Action): Key {
  switch (action.kind) {
    case "failover":
    case "start_at_boot":
    case "auto_rejoin":
    case "error_detection":
    case "checkers":
      return `${action.kind}_${action.on ? "on" : "off"}` as Key;
    case "maintenance":
      return action.for_s == null ? "maintenance_off" : "maintenance_on";
    default:
      return action.kind;
  }
}

export const REASON_MAX_BYTES = 300;

/** Whether a reason is one that the node takes: one line of 1 to 300 bytes. */
export function isReason(text: string): boolean {
  const bytes = new TextEncoder().encode(text.trim()).length;
  return bytes > 0 && bytes <= REASON_MAX_BYTES && !/[\r\n]/.test(text.trim());
}

export function request(on: On, action: Action): ActionRequest {
  return { on, action, wait_s: 300 };
}

/**
 * The later one of two records of the same action. The answer that an action was begun may come after the
 * event that it ended: a switch takes less time than the way there and back.
 */
export function later(known: ActionRecord | undefined, come: ActionRecord): ActionRecord {
  if (!known) return come;
  if (known.ended_ms != null && come.ended_ms == null) return known;
  return known.steps.length > come.steps.length && come.ended_ms == null ? known : come;
}
