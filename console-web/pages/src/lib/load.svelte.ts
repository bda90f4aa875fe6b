// What a page asks for: once, and again every so often while it is shown. What is there stays when a
// later answer fails, with the reason beside it.
import { untrack } from "svelte";
import { Failure } from "../api/client";
import { app } from "../app.svelte";

export class Loaded<T> {
  value = $state.raw<T | null>(null);
  trouble = $state<string | null>(null);
  busy = $state(true);
  at = $state(0);
  private ending = new AbortController();

  /** Asks for `path` now, and every `every_ms` unless that is 0. To be made while a component is. */
  constructor(path: () => string, every_ms = 0) {
    $effect(() => {
      const now = path();
      this.ending = new AbortController();
      untrack(() => void this.ask(now));
      const timer = every_ms > 0 ? setInterval(() => void this.ask(now, true), every_ms) : undefined;
      return () => {
        clearInterval(timer);
        this.ending.abort();
      };
    });
  }

  async ask(path: string, watches = false): Promise<void> {
    const { signal } = this.ending;
    try {
      const value = await app.client.get<T>(path, signal, watches);
      if (signal.aborted) return;
      this.value = value;
      this.trouble = null;
      this.at = Date.now();
    } catch (error) {
      if (signal.aborted) return;
      this.trouble = error instanceof Failure && error.why !== "network" ? error.message : app.words.problem.network;
    } finally {
      this.busy = false;
    }
  }
}
