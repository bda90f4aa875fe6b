// Written by generate.mjs from console-web/openapi.json; not by hand.

export type Action = {
  kind: "start";
  without_witness?: boolean;
} | {
  kind: "stop";
} | {
  kind: "restart";
} | {
  kind: "swap";
} | {
  kind: "swap_without_sync";
  reason: string;
} | {
  kind: "force_start";
  reason: string;
} | {
  kind: "failover";
  on: boolean;
} | {
  for_s?: number | null;
  kind: "maintenance";
} | {
  kind: "start_at_boot";
  on: boolean;
} | {
  kind: "auto_rejoin";
  on: boolean;
} | {
  kind: "error_detection";
  on: boolean;
} | {
  kind: "checkers";
  on: boolean;
} | {
  kind: "keep_writes";
  reason: string;
};

export type ActionRecord = {
  action: Action;
  begun_ms: number;
  ended_ms?: number | null;
  from: string;
  id: number;
  on: On;
  outcomes: Outcome[];
  stage: Stage;
  steps: Step[];
  who: string;
  why?: string | null;
};

export type ActionRequest = {
  action: Action;
  on: On;
  wait_s?: number;
};

export type Address = {
  address: string;
  device?: string | null;
  here: boolean;
  trouble?: string | null;
};

export type Branch = {
  bytes: number;
  end: number;
  fork: number;
  from_us: number;
  name: string;
  segments: string[];
  to_us: number;
};

export type By = "password" | "certificate";

export type Certificate = {
  fingerprint?: string | null;
  path: string;
  trouble?: string | null;
  until_ms?: number | null;
  what: string;
};

export type CheckResult = "ok" | "failed" | "slow";

export type Checker = {
  found?: Finding | null;
  kind: string;
  stopped?: boolean;
  what: string;
};

export type Cluster = {
  asked: number;
  at_ms: number;
  cluster: string;
  nodes: NodeStanding[];
  virtual_ips: VirtualIp[];
};

export type Command = {
  arguments: string[];
  by: CommandBy;
  command: string;
  ms?: number | null;
  number: number;
  outcome?: string | null;
  reason?: string | null;
  step: string;
};

export type CommandBy = {
  said?: string | null;
  user: string;
  way: string;
};

export type DataSync = "uptodate" | "not uptodate" | "connection error" | "not configured";

export type Directory = {
  mounted: boolean;
  path: string;
  preset: string;
};

export type Dropped = {
  bytes: number;
};

export type Estimate = {
  bytes: number;
  changed_only: boolean;
  seconds: number;
};

export type Finding = {
  cause?: string | null;
  result: CheckResult;
  since_ms: number;
};

export type Happened = (Promoted) & ({
  event: "promoted";
}) | {
  acknowledged_lsn: number;
  event: "stalled";
  waited_ms: number;
} | {
  event: "split_brain";
  fork_lsn?: number | null;
  here_lsn: number;
  there_lsn: number;
  winner?: string | null;
} | {
  event: "forced";
  reason: string;
  who: string;
} | {
  event: "overruled";
  view: number;
} | {
  event: "witness";
  from: string;
  to: string;
};

export type Health = "well" | "warned" | "changing" | "bad" | "off";

export type History = {
  node: number;
  samples: Sample[];
  step_s: number;
};

export type Information = {
  addresses_for_clients: string[];
  certificates: Certificate[];
  cluster: string;
  configuration: string;
  configuration_file: string;
  host: string;
  kernel: string;
  listens: Listens[];
  node: number;
  system: string;
  version: string;
};

export type LastVerified = {
  at_ms: number;
  by: VerifiedBy;
  bytes: number;
  differences: number;
  evidence?: string | null;
  files: number;
  repaired: number;
  took_ms: number;
  unanswered: number;
};

export type Licence = {
  licence: string;
  name: string;
  text?: string | null;
  version: string;
};

export type Listens = {
  address: string;
  what: string;
};

export type Log = "module" | "application" | "commands";

export type LogLine = {
  command?: Command | null;
  fields?: Record<string, string>;
  from?: string | null;
  level?: string | null;
  node: number;
  service?: string | null;
  short?: boolean;
  state?: State | null;
  text: string;
  time?: string | null;
};

export type LogPage = {
  left_out: boolean;
  lines: LogLine[];
  next?: string | null;
};

export type Login = {
  name: string;
  password: string;
};

export type NewUser = {
  name: string;
  password?: string | null;
  role: Role;
};

export type NodeSample = {
  node: number;
  sample: Sample;
};

export type NodeStanding = {
  age_ms?: number | null;
  data_sync?: DataSync | null;
  here: boolean;
  host?: string | null;
  node: number;
  reached: boolean;
  sentence?: string | null;
  serves?: boolean | null;
  state?: State | null;
  status?: Status | null;
  status_age_ms?: number | null;
  switches?: Switches | null;
  trouble?: string | null;
};

export type Offered = {
  name: string;
  role: Role;
};

export type On = "node1" | "node2" | "both";

export type Outcome = {
  done: boolean;
  node: number;
  standing: SeatStanding;
};

export type Over = "expired" | "logged_out" | "refused";

export type Path = {
  local: string;
  remote: string;
  round_trip_ms?: number | null;
  trouble?: string | null;
  up: boolean;
  witness: boolean;
};

export type Peer = {
  address: string;
  compression_ratio?: number | null;
  connected: boolean;
  last_error?: string | null;
  protocol?: number | null;
  reconnects: number;
  round_trip_us: number;
  shipped_bytes: number;
  version?: string | null;
  wire_bytes: number;
};

export type Phases = {
  address?: number | null;
  apply?: number | null;
  asking: number;
  mount?: number | null;
  services?: number | null;
  serving?: number | null;
  silence: number;
  view?: number | null;
};

export type Positions = {
  acknowledged?: number | null;
  applied: number;
  checkpoint: number;
  committed: number;
  durable: number;
  end: number;
  first: number;
};

export type Problem = {
  text: string;
  why: Why;
};

export type Promoted = {
  acknowledged_chain?: string | null;
  acknowledged_lsn: number;
  base_view: number;
  decided_by: string;
  log_end_chain: string;
  log_end_lsn: number;
  outcome: string;
  phases_ms: Phases;
  view: number;
  why: string;
};

export type Receipt = (Happened) & ({
  at_ms: number;
  incarnation: number;
  node: number;
  number: number;
});

export type Resource = {
  cause?: string | null;
  health: Health;
  kind: ResourceKind;
  name: string;
  since_ms?: number | null;
  value: string;
};

export type ResourceKind = "node" | "log" | "link" | "path" | "directory" | "virtual_ip" | "service" | "checker" | "settings";

export type Resources = {
  age_ms: number;
  node: number;
  resources: Resource[];
};

export type Resync = {
  done_bytes: number;
  part: ResyncPart;
  seconds_left?: number | null;
  sent_bytes: number;
  total_bytes: number;
};

export type ResyncPart = "gives" | "takes" | "catches_up";

export type ResyncsGiven = {
  begun: number;
  content_bytes: number;
  finished: number;
  message_bytes: number;
  wire_bytes: number;
};

export type Role = "metrics" | "viewer" | "operator" | "administrator";

export type Sample = {
  at_ms: number;
  commits_per_s: number;
  lag_bytes: number;
  lag_ms: number;
  log_bytes: number;
  log_bytes_per_s: number;
  retention_bytes: number;
  stages: Stages;
  state: State;
  wire_bytes_per_s: number;
};

export type SeatStanding = {
  data_sync: DataSync;
  sentence: string;
  serves: boolean;
  state: State;
};

export type Service = {
  checkers?: Checker[];
  ended?: string | null;
  name: string;
  pid?: number | null;
  restarts?: number;
  running: boolean;
  state?: ServiceState;
};

export type ServiceState = "runs" | "starting" | "failed" | "stopped";

export type Session = {
  by: By;
  csrf: string;
  idle_s: number;
  left_s: number;
  name: string;
  role: Role;
};

export type SessionInfo = {
  certificate?: Offered | null;
  certificate_refused: boolean;
  encrypted: boolean;
  node: number;
  session?: Session | null;
  users: boolean;
};

export type SessionOver = {
  why: Over;
};

export type SettingsBase = {
  hash: string;
  node: number;
  version: number;
};

export type SettingsChanged = {
  at_once: string[];
  at_restart: string[];
  both: boolean;
  stamp: Stamp;
};

export type SettingsChecked = {
  at_once: string[];
  at_restart: string[];
  faults: SettingsFault[];
};

export type SettingsDraft = {
  base?: SettingsBase | null;
  here?: boolean;
  text: string;
};

export type SettingsFault = {
  line: number;
  text: string;
};

export type SettingsFrom = "document" | "file" | "nowhere";

export type SettingsStanding = {
  from: SettingsFrom;
  restart_due: string[];
  version?: Stamp | null;
};

export type SettingsVersion = {
  from: SettingsFrom;
  stamp?: Stamp | null;
  text: string;
};

export type Stage = "under_way" | "done" | "not_done" | "refused";

export type Stages = {
  acknowledgement?: Took | null;
  commit?: Took | null;
  compress?: Took | null;
  fuse?: Took | null;
  hand_over?: Took | null;
  local_disk?: Took | null;
  local_write?: Took | null;
  peer?: Took | null;
  queue?: Took | null;
  remote_disk?: Took | null;
  remote_sync?: Took | null;
  remote_write?: Took | null;
  wake_up?: Took | null;
  wire?: Took | null;
};

export type Stamp = {
  aside_for?: number | null;
  at_ms: number;
  hash: string;
  node: number;
  version: number;
  who: string;
};

export type State = "PRIM" | "SECOND" | "ALONE" | "STOP" | "WAIT";

export type Status = {
  alarms?: string[];
  changed_by_others?: string[];
  cluster: string;
  data_sync: DataSync;
  directories: Directory[];
  incarnation: number;
  lag_bytes: number;
  log: Positions;
  node: number;
  paths?: Path[];
  peer?: Peer | null;
  promotions?: Record<string, number>;
  resync?: Resync | null;
  resyncs_given?: ResyncsGiven;
  sentence: string;
  services?: Service[];
  settings?: SettingsStanding;
  state: State;
  verifications?: Verifications;
  version: string;
  view: number;
  views?: Views | null;
  virtual_ips?: Address[];
};

export type Step = {
  at_ms: number;
  node: number;
  standing: SeatStanding;
};

export type Switches = {
  auto_rejoin: boolean;
  checkers: boolean;
  error_detection: boolean;
  failover: boolean;
  maintenance_until_ms?: number | null;
  start_at_boot: boolean;
};

export type Took = {
  count: number;
  p50_us: number;
  p99_us: number;
};

export type UserChange = {
  role: Role;
} | {
  password: string;
} | {
  enabled: boolean;
};

export type UserEntry = {
  certificates: number;
  enabled: boolean;
  name: string;
  password: boolean;
  role: Role;
};

export type Verifications = {
  due_ms?: number | null;
  last?: LastVerified | null;
  running?: Verified | null;
};

export type Verified = {
  bytes: number;
  differences: number;
  files: number;
  files_total: number;
  unanswered: number;
};

export type VerifiedBy = "operator" | "schedule";

export type View = {
  forced: boolean;
  number: number;
  pair: boolean;
  primary: number;
};

export type Views = {
  chosen: View;
  highest: number;
  proposed?: View | null;
};

export type VirtualIp = {
  address: string;
  device?: string | null;
  owner?: number | null;
  trouble?: string | null;
};

export type Why = "not_logged_in" | "wrong_credentials" | "forbidden" | "csrf" | "too_many" | "not_found" | "bad_request" | "refused" | "unreachable" | "unavailable";
