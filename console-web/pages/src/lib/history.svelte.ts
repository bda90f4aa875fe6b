// Samples of a node for charts: asked once, then fed by the stream (minutes) or asked again (hours).
import { untrack } from "svelte";
import type { History, NodeSample, Sample } from "../api/contract";
import { Failure, query } from "../api/client";
import { app } from "../app.svelte";
import { joined, SPAN_MS, type Span } from "./samples";

export class Samples {
  list = $state.raw<Sample[]>([]);
  step_s = $state(1);
  trouble = $state<string | null>(null);
  loaded = $state(false);

  constructor(node: () => number, span: () => Span) {
    $effect(() => {
      const [of, back] = [node(), span()];
      const ending = new AbortController();
      this.loaded = false;
      this.list = [];
      const ask = async (watches = false) => {
        const after = this.list.at(-1)?.at_ms;
        try {
          const found = await app.client.get<History>(query(`/nodes/${of}/history`, { span: back, after_ms: after }), ending.signal, watches);
          if (ending.signal.aborted) return;
          this.step_s = found.step_s;
          this.list = joined(this.list, found.samples, SPAN_MS[back]);
          this.trouble = null;
        } catch (error) {
          if (ending.signal.aborted) return;
          this.trouble = error instanceof Failure && error.why !== "network" ? error.message : app.words.problem.network;
        }
        this.loaded = true;
      };
      // What it reads is what it writes: it must not begin the effect anew.
      untrack(() => void ask());
      const take = ({ node: from, sample }: NodeSample) => {
        if (from === of) this.list = joined(this.list, [sample], SPAN_MS[back]);
      };
      if (back === "minutes") app.onSample.add(take);
      // By the minute; and what the stream missed while it was away.
      const timer = setInterval(() => void ask(true), back === "hours" ? 60_000 : 30_000);
      return () => {
        ending.abort();
        clearInterval(timer);
        app.onSample.delete(take);
      };
    });
  }
}
