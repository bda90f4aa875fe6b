// What all pages share: who is logged in, how the pair stands and how old that is, the language, the
// theme, where one is. One stream feeds it; pages read it and keep nothing of their own that it has.
import { Client, Failure, ROOT } from "./api/client";
import type {
  ActionRecord, ActionRequest, Cluster, NodeSample, NodeStanding, Role, Session, SessionInfo, SessionOver,
} from "./api/contract";
import { Stream } from "./api/stream";
import { later } from "./lib/actions";
import { Format } from "./lib/format";
import { save } from "./lib/save";
import { said, usualTone, type Said } from "./lib/sentences";
import { LANGUAGES, isLanguage, languageFor, type Language, type Words } from "./words";

export type Theme = "auto" | "light" | "dark";
export type Ended = "expired" | "loggedOut" | "refused";
/** Nothing came for so long: the node counts as lost. Samples come every second. */
const SILENT_MS = 4000;
const RANK: Record<Role, number> = { metrics: 0, viewer: 1, operator: 2, administrator: 3 };

function stored(key: string): string | null {
  try {
    return localStorage.getItem(key);
  } catch {
    return null; // Storage may be forbidden; then nothing is remembered.
  }
}

function store(key: string, value: string): void {
  try {
    localStorage.setItem(key, value);
  } catch {
    // See above.
  }
}

class App {
  readonly client = new Client();
  /** Who asks; nothing before the node has answered once. */
  info = $state.raw<SessionInfo | null>(null);
  session = $state.raw<Session | null>(null);
  ended = $state<Ended | null>(null);
  unreachable = $state(false);
  cluster = $state.raw<Cluster | null>(null);
  /** By this browser's clock. */
  heardAt = $state(0);
  connected = $state(true);
  now = $state(Date.now());
  records = $state.raw<ActionRecord[]>([]);
  sending = $state(0);
  /** Snapshots that are being made. */
  collecting = $state(0);
  refused = $state<string | null>(null);
  route = $state<string[]>([]);
  language = $state<Language>(languageFor(stored("duolog.language"), navigator.languages));
  theme = $state<Theme>((stored("duolog.theme") as Theme | null) ?? "auto");
  words = $derived<Words>(LANGUAGES[this.language]);
  format = $derived(new Format(this.language));
  /** Told each sample as it comes. */
  readonly onSample = new Set<(sample: NodeSample) => void>();
  private stream: Stream | null = null;

  constructor() {
    this.client.ended = () => this.end("expired");
    const dark = matchMedia("(prefers-color-scheme: dark)");
    const paint = () => {
      const isDark = this.theme === "dark" || (this.theme === "auto" && dark.matches);
      document.documentElement.dataset.theme = isDark ? "dark" : "light";
    };
    dark.addEventListener("change", paint);
    const follow = () => {
      this.route = location.hash.replace(/^#\/?/, "").split("/").filter(Boolean);
    };
    addEventListener("hashchange", follow);
    follow();
    setInterval(() => (this.now = Date.now()), 500);
    $effect.root(() => {
      $effect(paint);
      $effect(() => {
        document.documentElement.lang = this.language;
      });
    });
  }

  pickLanguage(language: string): void {
    if (!isLanguage(language)) return;
    this.language = language;
    store("duolog.language", language);
  }

  pickTheme(theme: Theme): void {
    this.theme = theme;
    store("duolog.theme", theme);
  }

  /** Asks who is logged in, and goes to work if somebody is. */
  async begin(): Promise<void> {
    try {
      this.info = await this.client.get<SessionInfo>("/session");
      this.unreachable = false;
      if (this.info.session) this.enter(this.info.session);
    } catch {
      this.unreachable = true;
      setTimeout(() => void this.begin(), 1500);
    }
  }

  async logIn(name: string, password: string): Promise<void> {
    this.enter(await this.client.post<Session>("/login", { name, password }));
  }

  async logInByCertificate(): Promise<void> {
    this.enter(await this.client.post<Session>("/login/certificate"));
  }

  async logOut(): Promise<void> {
    try {
      await this.client.post("/logout");
    } catch {
      // It is over either way.
    }
    this.end("loggedOut");
  }

  may(role: Role): boolean {
    return this.session !== null && RANK[this.session.role] >= RANK[role];
  }

  node(number: number): NodeStanding | undefined {
    return this.cluster?.nodes.find((it) => it.node === number);
  }

  /** Age of what is known of a node, in milliseconds: what the node said, and what passed since. */
  age(age_ms: number | null | undefined): number {
    return (age_ms ?? 0) + Math.max(0, this.now - this.heardAt);
  }

  /** The sentence of a node in the language, with its colour. */
  said(node: NodeStanding): Said {
    if (!node.state) return { text: this.words.unheard, tone: "grey" };
    return node.sentence
      ? said(node.state, node.sentence, this.language)
      : { text: this.words.states[node.state], tone: usualTone(node.state) };
  }

  /** Has something done. What came of it arrives as events. */
  async act(request: ActionRequest): Promise<void> {
    this.refused = null;
    this.sending += 1;
    try {
      this.take(await this.client.post<ActionRecord>("/actions", request));
    } catch (error) {
      this.refused = error instanceof Failure && error.why !== "network" ? error.message : this.words.problem.network;
    } finally {
      this.sending -= 1;
    }
  }

  /** Has a snapshot of both nodes made and saved; that takes its time. */
  async snapshot(): Promise<void> {
    this.refused = null;
    this.collecting += 1;
    try {
      save(await this.client.file("/snapshot"));
    } catch (error) {
      this.refused = error instanceof Failure && error.why !== "network" ? error.message : this.words.problem.network;
    } finally {
      this.collecting -= 1;
    }
  }

  private enter(session: Session): void {
    this.session = session;
    this.client.csrf = session.csrf;
    this.ended = null;
    this.heardAt = Date.now();
    this.stream?.close();
    this.stream = new Stream(
      () => `${ROOT}/events?samples=true`,
      {
        connected: (is) => this.changed(is),
        events: {
          cluster: (cluster: Cluster) => {
            this.cluster = cluster;
            this.heardAt = Date.now();
          },
          action: (record: ActionRecord) => this.take(record),
          sample: (sample: NodeSample) => {
            this.heardAt = Date.now();
            for (const take of this.onSample) take(sample);
          },
          over: (over: SessionOver) =>
            this.end(over.why === "logged_out" ? "loggedOut" : over.why === "refused" ? "refused" : "expired"),
        },
      },
      SILENT_MS,
    );
    void this.recall();
  }

  private async recall(): Promise<void> {
    try {
      for (const record of await this.client.get<ActionRecord[]>("/actions", undefined, true)) this.take(record);
    } catch {
      // The events bring what goes on; what was before is a convenience.
    }
  }

  private changed(is: boolean): void {
    this.connected = is;
    // A browser does not say why a stream failed: ask whether somebody is still logged in.
    if (!is) void this.check();
    else void this.recall();
  }

  private async check(): Promise<void> {
    try {
      const info = await this.client.get<SessionInfo>("/session", undefined, true);
      this.info = info;
      if (this.session && !info.session) this.end("expired");
    } catch {
      // Lost; the stream tries again.
    }
  }

  private take(record: ActionRecord): void {
    const known = this.records.find((it) => it.id === record.id);
    this.records = [...this.records.filter((it) => it !== known), later(known, record)].sort((a, b) => a.id - b.id);
  }

  private end(how: Ended): void {
    if (!this.session) return;
    this.stream?.close();
    this.stream = null;
    this.session = null;
    this.client.csrf = "";
    this.cluster = null;
    this.records = [];
    this.connected = true;
    this.ended = how;
    void this.begin();
  }
}

export const app = new App();
