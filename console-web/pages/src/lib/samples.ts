// Samples put together, and as the columns that charts are drawn of. Pure.
import type { Sample } from "../api/contract";

/** How far back: by the second, or by the minute. */
export type Span = "minutes" | "hours";

export const SPAN_MS: Record<Span, number> = { minutes: 15 * 60_000, hours: 24 * 3_600_000 };

/** Both, in order, each moment once, nothing that is older than `keep_ms` before the newest. */
export function joined(known: readonly Sample[], more: readonly Sample[], keep_ms: number): Sample[] {
  const by = new Map<number, Sample>();
  for (const sample of known) by.set(sample.at_ms, sample);
  for (const sample of more) by.set(sample.at_ms, sample);
  const all = [...by.values()].sort((a, b) => a.at_ms - b.at_ms);
  const from = (all.at(-1)?.at_ms ?? 0) - keep_ms;
  return all.filter((it) => it.at_ms > from);
}

export type Value = (sample: Sample) => number | null | undefined;

/**
 * Columns for a chart: seconds since 1970, then a column for each value. A time without samples, in
 * which the node did not run, is a gap and not a line across it.
 */
export function columns(samples: readonly Sample[], step_s: number, values: readonly Value[]): (number | null)[][] {
  const out: (number | null)[][] = [[], ...values.map(() => [])];
  let before: number | null = null;
  for (const sample of samples) {
    if (before !== null && sample.at_ms - before > step_s * 3500) {
      out[0]?.push((before + step_s * 1000) / 1000);
      for (let at = 1; at < out.length; at += 1) out[at]?.push(null);
    }
    out[0]?.push(sample.at_ms / 1000);
    values.forEach((value, at) => out[at + 1]?.push(value(sample) ?? null));
    before = sample.at_ms;
  }
  return out;
}

/** The newest sample in which something was committed. */
export function newest_with_commits(samples: readonly Sample[]): Sample | undefined {
  return samples.findLast((it) => it.stages.commit != null);
}
