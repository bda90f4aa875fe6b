// Keeps a stream of events open. A stream that says nothing for `silent_ms` counts as lost although no
// error came: a computer that lost its power says nothing. It is opened again with a growing pause, at
// most 5 s. Clock and EventSource come in, so tests need neither.

export interface Source {
  addEventListener(name: string, listener: (event: { data: string }) => void): void;
  onopen: ((event: never) => void) | null;
  onerror: ((event: never) => void) | null;
  close(): void;
}

export interface World {
  open(url: string): Source;
  now(): number;
  every(ms: number, run: () => void): () => void;
}

export const browser: World = {
  open: (url) => new EventSource(url) as unknown as Source,
  now: () => Date.now(),
  every: (ms, run) => {
    const timer = setInterval(run, ms);
    return () => clearInterval(timer);
  },
};

export interface Listener {
  events: Record<string, (data: never) => void>;
  /** Whether the stream is there; told at each change. */
  connected(is: boolean): void;
}

const PAUSES_MS = [250, 500, 1000, 2000, 5000];

export class Stream {
  private source: Source | null = null;
  private heard: number;
  private opened = 0;
  private fails = 0;
  private again: number | null = null;
  private isConnected: boolean | null = null;
  private readonly stopLooking: () => void;

  constructor(
    private readonly url: () => string,
    private readonly listener: Listener,
    private readonly silent_ms: number,
    private readonly world: World = browser,
  ) {
    this.heard = world.now();
    this.open();
    this.stopLooking = world.every(250, () => this.look());
  }

  close(): void {
    this.stopLooking();
    this.source?.close();
    this.source = null;
  }

  /** Begins anew, now. */
  reopen(): void {
    this.source?.close();
    this.fails = 0;
    this.open();
  }

  private open(): void {
    this.again = null;
    this.opened = this.world.now();
    const source = this.world.open(this.url());
    this.source = source;
    const alive = () => {
      if (this.source !== source) return;
      this.heard = this.world.now();
      this.fails = 0;
      this.tell(true);
    };
    for (const [name, take] of Object.entries(this.listener.events)) {
      source.addEventListener(name, (event) => {
        if (this.source !== source) return;
        alive();
        take(JSON.parse(event.data) as never);
      });
    }
    source.onerror = () => {
      if (this.source === source) this.lost();
    };
  }

  private look(): void {
    const now = this.world.now();
    if (this.again !== null) {
      if (now >= this.again) this.open();
    } else if (now - Math.max(this.heard, this.opened) > this.silent_ms) {
      this.lost();
    }
  }

  private lost(): void {
    this.source?.close();
    this.source = null;
    const pause = PAUSES_MS[Math.min(this.fails, PAUSES_MS.length - 1)] ?? 5000;
    this.fails += 1;
    this.again = this.world.now() + pause;
    this.tell(false);
  }

  private tell(is: boolean): void {
    if (this.isConnected === is) return;
    this.isConnected = is;
    this.listener.connected(is);
  }
}
