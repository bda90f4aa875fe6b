// A pair that is none: the least that looks like one, for tests of the pages and for pictures. It knows
// the contract and nothing of Duolog; what a node does is shown by the tests against a real pair.
import type {
  Action, ActionRecord, ActionRequest, Branch, Cluster, Information, Licence, LogLine, NodeSample, NodeStanding, Receipt,
  Resource, Role, Sample, SeatStanding, State, Status, Switches, Stamp, UserEntry,
} from "../src/api/contract";

export type Scene = "pair" | "alone" | "resync" | "stopped" | "silent";
export interface User { password: string; role: Role }

const GIB = 2 ** 30;
const CLUSTER = "4f1c9d02ab7e43d58c60f2a7be914d33";
export const USERS: Record<string, User> = {
  ann: { password: "correct horse", role: "administrator" },
  otto: { password: "battery staple", role: "operator" },
  vera: { password: "only looking", role: "viewer" },
};
const SENTENCE: Record<string, string> = {
  PRIM: "every commit is on both nodes; {peer} confirms each",
  SECOND: "has every commit, receives the log from {peer}",
  ALONE: "serves without a second copy: {peer} is not connected (timed out)",
  STOP: "stopped by an operator; start this node",
  STARTS: "starts: looks for {peer}",
  STOPS: "stops services",
  TAKES: "not uptodate: takes the log and what changed from {peer}",
  FOLLOWED: "serves without a second copy: {peer} catches up",
};

interface Node {
  state: State;
  sentence: string;
  serves: boolean;
  switches: Switches;
  reached: boolean;
  alarms: string[];
}

export class Pair {
  nodes: [Node, Node];
  records: ActionRecord[] = [];
  receipts: Receipt[] = [];
  branches: Branch[];
  users: UserEntry[] = Object.entries(USERS).map(([name, { role }]) => ({ name, role, password: true, certificates: name === "ann" ? 1 : 0, enabled: true }));
  settings = { version: 7, who: "ann", text: "[pair]\nfailover_ms = 5000\nfence_ms = 3000\n" };
  lines: Record<string, LogLine[]> = { module: [], application: [], commands: [] };
  /** Told each change: a name and a document. */
  readonly tell = new Set<(event: string, data: unknown) => void>();
  private lost = 0;
  private progress: number | null = null;
  /** How far the second copy is behind on average, in milliseconds. */
  behind_ms = 2;
  private number = 1;
  private readonly timers = new Set<ReturnType<typeof setTimeout>>();

  constructor(
    readonly asked: 1 | 2 = 1,
    /** How long a step takes, in milliseconds. */
    private readonly pace = 300,
    private readonly now: () => number = () => Date.now(),
  ) {
    this.nodes = [this.made("PRIM", true), this.made("SECOND", false)];
    this.branches = [{
      name: "fork-0000000000000006", fork: 3 * GIB + 4711, end: 3 * GIB + 1_913_004, bytes: 1_908_293,
      from_us: (this.now() - 86_400_000) * 1000, to_us: (this.now() - 86_395_000) * 1000,
      segments: ["/var/lib/duolog/branches/fork-0000000000000006/0000000000000c00.log"],
    }];
    this.seed();
    this.every(1000, () => this.sample());
    this.every(1500, () => this.talk());
  }

  close(): void {
    for (const timer of this.timers) clearInterval(timer);
    this.tell.clear();
  }

  stamp(): Stamp {
    return { version: this.settings.version, node: 2, at_ms: this.now(), who: this.settings.who, hash: "ab".repeat(32) };
  }

  private every(ms: number, run: () => void): void {
    const timer = setInterval(run, ms);
    timer.unref();
    this.timers.add(timer);
  }

  private later(ms: number, run: () => void): void {
    const timer = setTimeout(() => { this.timers.delete(timer); run(); }, ms);
    this.timers.add(timer);
  }

  private made(state: State, serves: boolean): Node {
    return {
      state, sentence: SENTENCE[state] ?? "", serves, reached: true, alarms: [],
      switches: { failover: true, maintenance_until_ms: null, start_at_boot: true, auto_rejoin: false, error_detection: true, checkers: true },
    };
  }

  private peer(node: number): string {
    return node === 1 ? "node2" : "node1";
  }

  private said(node: number): string {
    return this.nodes[node - 1]!.sentence.replaceAll("{peer}", this.peer(node));
  }

  private put(node: 1 | 2, state: State, sentence: string, serves = false): void {
    const it = this.nodes[node - 1]!;
    it.state = state;
    it.sentence = SENTENCE[sentence] ?? sentence;
    it.serves = serves;
    this.say("module", { node, state, level: "info", short: true, from: "duolog::state", text: `${state}: ${this.said(node)}` });
    this.changed();
  }

  changed(): void {
    for (const tell of this.tell) tell("cluster", this.cluster());
  }

  /** Puts the pair where a picture or a test wants it. */
  scene(scene: Scene): void {
    const other = this.nodes[this.asked === 1 ? 1 : 0];
    const here = this.nodes[this.asked - 1]!;
    this.progress = null;
    for (const it of this.nodes) { it.reached = true; it.alarms = []; }
    switch (scene) {
      case "pair":
        this.put(1, "PRIM", "PRIM", true);
        this.put(2, "SECOND", "SECOND");
        break;
      case "alone":
      case "silent":
        this.lost = this.now();
        this.put(this.asked, "ALONE", "ALONE", true);
        other.reached = false;
        here.alarms = [`node${this.asked === 1 ? 2 : 1} is lost: there is no second copy; start it, or mend its computer`];
        break;
      case "resync":
        this.put(1, "ALONE", "FOLLOWED", true);
        this.progress = 0.37;
        this.put(2, "WAIT", "TAKES");
        break;
      case "stopped":
        this.put(1, "STOP", "STOP");
        this.put(2, "STOP", "STOP");
        break;
    }
    this.changed();
  }

  /** The primary dies: the other one is silent, then takes over. */
  kill(): void {
    this.nodes[this.asked === 1 ? 1 : 0].reached = false;
    this.lost = this.now();
    this.put(this.asked, "WAIT", "finishes applying the log, mounts and starts services");
    this.later(this.pace, () => { this.promoted(this.asked, "the primary was lost"); this.put(this.asked, "ALONE", "ALONE", true); });
  }

  private promoted(node: 1 | 2, why: string): void {
    this.receipts.push({
      number: this.receipts.length + 1, at_ms: this.now(), node, incarnation: 3, event: "promoted", why, decided_by: "the witness",
      view: 8 + this.receipts.length, base_view: 7 + this.receipts.length, acknowledged_lsn: 3 * GIB + 77, acknowledged_chain: null,
      log_end_lsn: 3 * GIB + 4711, log_end_chain: "9b1f", outcome: "serves",
      phases_ms: { silence: 5003, asking: 12, view: 31, apply: 220, mount: 18, address: 204, services: 1310, serving: 1783 },
    });
  }

  private services(node: number): Status["services"] {
    const { state, serves, sentence, switches } = this.nodes[node - 1]!;
    const starting = state === "WAIT" && sentence.startsWith("finishes");
    return ["postgresql", "management", "events", "logserver"].map((name, at) => ({
      name, running: serves, ended: null, state: serves ? "runs" : starting ? "starting" : "stopped", pid: serves ? 4711 + at : null,
      restarts: at === 1 && serves ? 1 : 0,
      checkers: [{ kind: at === 0 ? "sql" : "tcp", what: `127.0.0.1:${5432 + at}`, found: serves && switches.checkers ? { result: "ok", since_ms: this.now() - 3_600_000, cause: null } : null }],
    }));
  }

  private sync(node: number): Status["data_sync"] {
    const other = this.nodes[node === 1 ? 1 : 0];
    if (!other.reached || other.state === "STOP" || this.nodes[node - 1]!.state === "STOP") return "connection error";
    return this.progress !== null || this.nodes.some((it) => it.state === "WAIT") ? "not uptodate" : "uptodate";
  }

  private status(node: 1 | 2): Status {
    const it = this.nodes[node - 1]!;
    const end = 3 * GIB + 4711;
    const connected = this.sync(node) !== "connection error";
    return {
      version: "0.2.0", cluster: CLUSTER, node, view: 7, incarnation: 3, state: it.state, sentence: this.said(node), data_sync: this.sync(node),
      log: { first: end - GIB, end, durable: end, acknowledged: end, committed: end, applied: end, checkpoint: end - 9000 }, lag_bytes: 0,
      peer: {
        address: `10.0.0.${node === 1 ? 2 : 1}:7433`, connected, reconnects: 0, shipped_bytes: 117 * 2 ** 20, wire_bytes: 12 * 2 ** 20, compression_ratio: 9.7,
        round_trip_us: 173, last_error: connected ? null : "timed out", protocol: 2, version: "0.2.0",
      },
      directories: [{ path: "/var/lib/postgresql/15/main", preset: "postgresql", mounted: it.serves }],
      resync: this.progress === null ? null : {
        part: it.serves ? "gives" : "takes", done_bytes: Math.floor(84 * GIB * this.progress), total_bytes: 84 * GIB,
        sent_bytes: Math.floor(2 * GIB * this.progress), seconds_left: Math.floor(900 * (1 - this.progress)),
      },
      paths: [{ local: "10.0.0.1:7533", remote: "10.0.0.2:7533", witness: false, up: connected, round_trip_ms: 1, trouble: null }],
      services: this.services(node), alarms: it.alarms,
      virtual_ips: [{ address: "10.0.0.9/24", here: it.serves, device: it.serves ? "eth0" : null, trouble: null }],
    };
  }

  cluster(): Cluster {
    const nodes = ([1, 2] as const).map((node): NodeStanding => {
      const it = this.nodes[node - 1]!;
      const age = it.reached ? (node === this.asked ? 0 : 412) : this.now() - this.lost;
      return {
        node, here: node === this.asked, host: node === 1 ? "alpha" : "beta", state: it.state, sentence: this.said(node), data_sync: this.sync(node),
        serves: it.serves, reached: it.reached, age_ms: age, trouble: it.reached ? null : "no heartbeat is answered on any path; check the computer and its cables",
        switches: it.switches, status: this.status(node), status_age_ms: age,
      };
    });
    const owner = this.nodes.findIndex((it) => it.serves && it.reached) + 1;
    return {
      cluster: CLUSTER, asked: this.asked, at_ms: this.now(), nodes,
      virtual_ips: [{ address: "10.0.0.9/24", owner: owner === 0 ? null : owner, device: owner === 0 ? null : "eth0", trouble: null }],
    };
  }

  private standing(node: number): SeatStanding {
    const it = this.nodes[node - 1]!;
    return { state: it.state, sentence: this.said(node), data_sync: this.sync(node), serves: it.serves };
  }

  /** Begins an action, as the node would: steps and an outcome follow. */
  act(request: ActionRequest, who: string): ActionRecord {
    const record: ActionRecord = {
      id: this.now() + this.records.length, who, from: "127.0.0.1", on: request.on, action: request.action, begun_ms: this.now(), ended_ms: null,
      stage: "under_way", steps: [], outcomes: [], why: null,
    };
    this.records.push(record);
    const number = this.number++;
    const command = { number, by: { user: who, way: "console 127.0.0.1" }, command: request.action.kind, arguments: [request.on] };
    const reason = "reason" in request.action ? { reason: request.action.reason } : {};
    this.say("commands", { node: this.asked, text: `${who} from the console: ${request.action.kind} ${request.on}`, command: { ...command, step: "begun", ...reason } });
    const told = () => { for (const tell of this.tell) tell("action", { ...record, steps: [...record.steps] }); };
    const end = (stage: ActionRecord["stage"], why: string | null, nodes: (1 | 2)[]) => {
      record.stage = stage;
      record.why = why;
      record.ended_ms = this.now();
      record.outcomes = why ? [] : nodes.map((node) => ({ node, done: stage === "done", standing: this.standing(node) }));
      this.say("commands", { node: this.asked, text: `${request.action.kind}: ${why ?? "done"}`, command: { ...command, step: "ended", outcome: why ?? "done", ms: record.ended_ms - record.begun_ms } });
      told();
    };
    const step = (node: 1 | 2) => { record.steps.push({ at_ms: this.now(), node, standing: this.standing(node) }); told(); };
    told();
    const nodes: (1 | 2)[] = request.on === "both" || request.action.kind === "swap" ? [1, 2] : [request.on === "node1" ? 1 : 2];
    this.later(this.pace, () => this.carry(request.action, nodes, step, end));
    return record;
  }

  private carry(action: Action, nodes: (1 | 2)[], step: (node: 1 | 2) => void, end: (stage: ActionRecord["stage"], why: string | null, nodes: (1 | 2)[]) => void): void {
    const first = nodes[0]!;
    const [node, other] = [first, first === 1 ? 2 : 1] as [1 | 2, 1 | 2];
    switch (action.kind) {
      case "stop":
        for (const it of nodes) { this.put(it, "WAIT", "STOPS"); step(it); }
        this.later(this.pace, () => {
          for (const it of nodes) this.put(it, "STOP", "STOP");
          if (nodes.length === 1 && this.nodes[other - 1]!.state !== "STOP") this.put(other, "ALONE", "ALONE", true);
          end("done", null, nodes);
        });
        return;
      case "start":
      case "restart":
        for (const it of nodes) { this.put(it, "WAIT", "STARTS"); step(it); }
        this.later(this.pace, () => {
          const primary = this.nodes.findIndex((it) => it.serves) + 1 || 1;
          this.put(primary as 1 | 2, "PRIM", "PRIM", true);
          this.put(primary === 1 ? 2 : 1, "SECOND", "SECOND");
          end("done", null, nodes);
        });
        return;
      case "swap": {
        if (this.sync(1) !== "uptodate") return end("refused", "node1 refuses: the other node is not up to date; wait for it, or swap without data sync", nodes);
        const from = (this.nodes.findIndex((it) => it.serves) + 1) as 1 | 2;
        const to = from === 1 ? 2 : 1;
        this.put(from, "WAIT", "swaps: services stopped, {peer} takes the rest of the log");
        step(from);
        this.later(this.pace, () => {
          this.promoted(to, "an operator swapped");
          this.put(to, "PRIM", "PRIM", true);
          this.put(from, "SECOND", "SECOND");
          end("done", null, nodes);
        });
        return;
      }
      case "force_start":
        this.receipts.push({ number: this.receipts.length + 1, at_ms: this.now(), node, incarnation: 3, event: "forced", who: "ann", reason: action.reason });
        this.put(node, "ALONE", "ALONE", true);
        return end("done", null, nodes);
      case "failover":
      case "start_at_boot":
      case "auto_rejoin":
      case "error_detection":
      case "checkers":
        for (const it of nodes) this.nodes[it - 1]!.switches[action.kind] = action.on;
        break;
      case "maintenance":
        for (const it of nodes) this.nodes[it - 1]!.switches.maintenance_until_ms = action.for_s == null ? null : this.now() + action.for_s * 1000;
        break;
      default:
        return end("refused", `node${node} refuses: it does not serve; nothing was changed`, nodes);
    }
    this.changed();
    end("done", null, nodes);
  }

  private sample_of(node: number, at_ms: number): Sample {
    const it = this.nodes[node - 1]!;
    // Waves, so that a picture shows whether a chart moves.
    const t = at_ms / 1000;
    const busy = it.serves ? 1 + 0.4 * Math.sin(t / 47) + 0.15 * Math.sin(t / 5) : 0;
    const took = (us: number, tail: number) => (busy === 0 ? null : { count: Math.round(240 * busy), p50_us: Math.round(us * (0.8 + busy / 5)), p99_us: Math.round(us * tail * (0.7 + busy / 3)) });
    return {
      at_ms, state: it.state, commits_per_s: 240 * busy, log_bytes_per_s: 3_400_000 * busy, wire_bytes_per_s: 410_000 * busy,
      lag_bytes: it.state === "ALONE" ? Math.max(0, at_ms - this.lost) * 3000 : Math.round(9000 * busy), lag_ms: it.state === "ALONE" ? Math.max(0, at_ms - this.lost) : Math.round(this.behind_ms * busy),
      log_bytes: GIB + ((at_ms / 1000) % 3000) * 150_000, retention_bytes: 4 * GIB,
      stages: {
        commit: took(930, 3.1), local_write: took(14, 4), queue: took(60, 4), local_disk: took(510, 2.6), peer: took(870, 2.9), hand_over: took(1, 9), compress: took(4, 3),
        wire: took(190, 3.2), remote_disk: took(660, 2.7), remote_write: took(25, 4), remote_sync: took(630, 2.7), acknowledgement: took(9, 5), wake_up: took(22, 5), fuse: took(6, 4),
      },
    };
  }

  samples(node: number, span: string, after: number): Sample[] {
    const [step, count] = span === "hours" ? [60_000, 1440] : [1000, 900];
    const end = Math.floor(this.now() / step) * step;
    return Array.from({ length: count }, (_, at) => this.sample_of(node, end - (count - 1 - at) * step)).filter((it) => it.at_ms > after);
  }

  private sample(): void {
    for (const node of [1, 2] as const) {
      if (!this.nodes[node - 1]!.reached) continue;
      const it: NodeSample = { node, sample: this.sample_of(node, Math.floor(this.now() / 1000) * 1000) };
      for (const tell of this.tell) tell("sample", it);
    }
    if (this.progress !== null) { this.progress = Math.min(0.99, this.progress + 0.002); this.changed(); }
    else if (this.nodes.some((it) => !it.reached)) this.changed();
  }

  say(log: "module" | "application" | "commands", line: Partial<LogLine> & { text: string; node: number }): void {
    const whole: LogLine = { fields: {}, short: false, time: new Date(this.now()).toISOString(), ...line };
    this.lines[log]!.push(whole);
    for (const tell of this.tell) tell(`log ${log}`, whole);
  }

  private talk(): void {
    this.say("application", { node: 1, service: "postgresql", from: "start", text: "LOG:  checkpoint complete: wrote 914 buffers (5.6%); 0 WAL file(s) added" });
    this.say("module", { node: 1, state: this.nodes[0].state, level: "debug", from: "duolog::link", text: "acknowledged up to 0/C0001267", fields: { round_trip_us: "173" } });
  }

  private seed(): void {
    const said: [string, boolean, string][] = [
      ["info", true, "WAIT: starts: looks for node2"],
      ["info", false, "listens on 10.0.0.1:7433"],
      ["info", true, "WAIT: finishes applying the log, mounts and starts services"],
      ["warn", true, "the heartbeat on 192.168.7.1 is not answered; check that network's cable and switch"],
      ["info", true, "PRIM: every commit is on both nodes; node2 confirms each"],
      ["error", true, "checker tcp of management failed: connection refused; it is restarted here (1 of 1)"],
    ];
    said.forEach(([level, short, text], at) => this.say("module", { node: 1, level, short, state: at < 4 ? "WAIT" : "PRIM", from: "duolog::pair", text, fields: short ? {} : { part: "link" } }));
    for (let at = 0; at < 40; at += 1) this.talk();
    this.say("commands", { node: 1, text: "root from the control socket: start here", command: { number: 0, step: "begun", by: { user: "root", way: "control socket" }, command: "start", arguments: ["here"] } });
    this.promoted(1, "only member");
    this.receipts.push({ number: 2, at_ms: this.now() - 7200_000, node: 1, incarnation: 2, event: "stalled", acknowledged_lsn: 2 * GIB, waited_ms: 5012 });
    this.promoted(1, "the primary was lost");
  }

  resources(node: 1 | 2): Resource[] {
    const it = this.nodes[node - 1]!;
    const one = (name: string, kind: Resource["kind"], value: string, health: Resource["health"], cause: string | null = null): Resource =>
      ({ name, kind, value, health, cause, since_ms: health === "off" ? null : this.now() - 5_400_000 });
    const tone = it.state === "STOP" ? "bad" : it.state === "WAIT" ? "changing" : it.state === "ALONE" ? "warned" : "well";
    return [
      one("node.state", "node", it.state, tone, this.said(node)), one("node.data_sync", "node", this.sync(node), this.sync(node) === "uptodate" ? "well" : "bad"),
      one("log.end", "log", "0/C0001267", "well"), one("log.retention", "log", "1.2 GiB of 4 GiB", "well"),
      one("link.peer", "link", this.sync(node) === "connection error" ? "not connected" : "connected", this.sync(node) === "connection error" ? "bad" : "well", this.sync(node) === "connection error" ? "timed out" : null),
      one("path.10.0.0.1:7533", "path", "up, 1 ms", "well"), one("path.192.168.7.1:7533", "path", "down", "bad", "no answer for 41 s; check that network's cable and switch"),
      one("directory./var/lib/postgresql/15/main", "directory", it.serves ? "mounted" : "not mounted", it.serves ? "well" : "off"),
      one("virtual_ip.10.0.0.9", "virtual_ip", it.serves ? "here, on eth0" : "not here", it.serves ? "well" : "off"),
      ...(this.services(node) ?? []).flatMap((service) => [
        one(`service.${service.name}`, "service", service.state ?? "", it.serves ? "well" : "off"),
        ...(service.checkers ?? []).map((checker) => one(`checker.${service.name}.${checker.kind}.${checker.what}`, "checker", it.serves ? "ok" : "not looked", it.serves ? "well" : "off")),
      ]),
      one("settings.version", "settings", "7 of node2", "well"),
    ];
  }

  information(node: 1 | 2): Information {
    const day = 86_400_000;
    return {
      node, host: node === 1 ? "alpha" : "beta", version: "0.2.0", cluster: CLUSTER, system: "Debian GNU/Linux 12 (bookworm)", kernel: "6.1.0-28-amd64",
      addresses_for_clients: ["10.0.0.9/24"], listens: [{ what: "https", address: "0.0.0.0:9453" }, { what: "link", address: `10.0.0.${node}:7433` }, { what: "heartbeats", address: `10.0.0.${node}:7533` }],
      configuration_file: "/etc/duolog/duolog.toml", configuration: `[node]\nnumber = ${node}\nstate_dir = "/var/lib/duolog"\n\n[[directory]]\npath = "/var/lib/postgresql/15/main"\npreset = "postgresql"\n`,
      certificates: [
        { what: "node", path: `/etc/duolog/node${node}.crt`, until_ms: this.now() + 21.5 * day, fingerprint: "5c".repeat(32), trouble: null },
        { what: "ca", path: "/etc/duolog/ca.crt", until_ms: this.now() + 3300 * day, fingerprint: "a7".repeat(32), trouble: null },
      ],
    };
  }

  licences(): Licence[] {
    return [
      { name: "duolog", version: "0.2.0", licence: "MIT OR Apache-2.0", text: "Permission is hereby granted, free of charge, to any person obtaining a copy…" },
      { name: "quinn", version: "0.11.12", licence: "MIT OR Apache-2.0", text: "MIT License…" },
      { name: "tokio", version: "1.54.1", licence: "MIT", text: null },
    ];
  }
}
