// Both nodes in one word, for the simplified view. Pure.
import type { State } from "../api/contract";
import type { Tone } from "./sentences";

export interface Known {
  state: State | null;
  tone: Tone;
  reached: boolean;
  alarms: number;
}

export type Verdict = "good" | "alone" | "down" | "changing" | "look";

/** The worst that is true: nobody serves, one alone, something to look at, something under way. */
export function verdict(nodes: readonly Known[]): Verdict {
  // What a node that does not answer was is not what it is.
  const heard = nodes.filter((it) => it.reached);
  const serving = heard.find((it) => it.state === "PRIM" || it.state === "ALONE");
  if (!serving) return heard.some((it) => it.tone === "magenta") ? "changing" : "down";
  if (serving.state === "ALONE") return "alone";
  if (nodes.some((it) => it.alarms > 0 || it.tone === "red" || !it.reached)) return "look";
  return nodes.some((it) => it.tone === "magenta") ? "changing" : "good";
}
