//! What a resynchronisation costs: `benches/resync`, which says what the cases are.
//!
//! A pair on hosts of its own. Each case loses the second node, changes files on the first, which
//! is ALONE then, and lets the second one come back. Bytes are those that the node counts itself;
//! the network's own counters stand beside them. After each case both copies are compared. The
//! last line is JSON; the exit code is not zero when a bound is missed.

#![expect(clippy::unwrap_used, reason = "a measurement that fails says why by panicking")]

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use duolog_tests::hosts::bare::BarePair;
use duolog_tests::postgresql::{initdb, program, user};
use duolog_tests::process::{Process, run};
use duolog_tests::random::Random;
use duolog_tests::scratch::Scratch;
use duolog_tests::wait;
use serde_json::{Map, Value, json};

const LIMIT: Duration = Duration::from_mins(10);
const BLOCK: u64 = 8192;
const FILES: u64 = 16;
const SEGMENT: u64 = 16 << 20;
/// Folding begins early, and the log of 100 MiB of changes does not fit.
const SMALL_RETENTION: u64 = 64 << 20;
const LARGE_RETENTION: u64 = 4 << 30;
const PORT: &str = "6011";

/// Bounds of the promise.
const WIRE_RATIO_MAX: f64 = 1.2;
const PGBENCH_RATIO_MIN: f64 = 0.7;

struct Options {
    /// Everything is as many times smaller.
    smaller: u64,
    seconds: u64,
    rounds: u32,
    clients: u32,
    seed: u64,
    cases: Vec<String>,
}

fn options() -> Options {
    let cases = ["log", "folded", "disk", "pgbench-log", "pgbench"].map(str::to_owned).to_vec();
    let mut options = Options { smaller: 1, seconds: 8, rounds: 5, clients: 8, seed: 1, cases };
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    for pair in arguments.chunks(2) {
        match pair {
            [name, value] if name == "--scale" => {
                let scale: f64 = value.parse().expect("--scale takes a number up to 1");
                assert!(scale > 0.0 && scale <= 1.0, "--scale takes a number up to 1");
                // Whole megabytes stay whole ones.
                let fits = [1_u8, 2, 4, 8, 16].into_iter().rev();
                let fits = fits.map(|by| (by, 1.0 / f64::from(by)));
                let by = fits.filter(|(_, scale_of)| *scale_of >= scale).map(|(by, _)| by).next();
                options.smaller = by.unwrap_or(1).into();
            }
            [name, value] if name == "--seconds" => options.seconds = value.parse().unwrap(),
            [name, value] if name == "--rounds" => options.rounds = value.parse().unwrap(),
            [name, value] if name == "--clients" => options.clients = value.parse().unwrap(),
            [name, value] if name == "--seed" => options.seed = value.parse().unwrap(),
            [name, value] if name == "--cases" => {
                options.cases = value.split(',').map(str::to_owned).collect();
            }
            _ => panic!("benches/resync: see its first lines for its options"),
        }
    }
    options
}

fn main() -> ExitCode {
    let options = options();
    let scratch = Scratch::new("resync");
    let mut bench = Bench::new(&scratch, options);
    let mut missed = Vec::new();
    for case in bench.options.cases.clone() {
        match &*case {
            "log" | "folded" => bench.wire(&case, &mut missed),
            "disk" => bench.disk(&mut missed),
            "pgbench" | "pgbench-log" => bench.pgbench(&case, &mut missed),
            _ => panic!("there is no case {case}"),
        }
    }
    let mut result = std::mem::take(&mut bench.result);
    drop(bench);
    println!();
    for line in &missed {
        println!("MISSED {line}");
    }
    result.insert("missed".into(), json!(missed));
    println!("{}", Value::Object(result));
    if missed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

struct Bench<'a> {
    pair: BarePair,
    scratch: &'a Scratch,
    options: Options,
    random: Random,
    retention: u64,
    /// Bytes of each of the files.
    file_bytes: u64,
    result: Map<String, Value>,
}

impl<'a> Bench<'a> {
    /// A pair with all its files, equal on both nodes; node1 serves.
    fn new(scratch: &'a Scratch, options: Options) -> Self {
        let retention = LARGE_RETENTION;
        let directories = [("main", "postgresql"), ("blocks", "none")];
        let pair = BarePair::new(scratch.path(), &directories, &settings(retention));
        let file_bytes = (2 << 30) / FILES / options.smaller;
        let random = Random::new(options.seed);
        let result = Map::new();
        let mut bench = Self { pair, scratch, options, random, retention, file_bytes, result };
        let all = bench.file_bytes * FILES;
        println!("a directory of {} in {FILES} files, seed {}", mib(all), bench.options.seed);
        bench.pair.start(1);
        bench.pair.start(2);
        let serving = bench.pair.wait_pair();
        if serving != 1 {
            // All figures are of the same host.
            bench.pair.stop(2);
            bench.pair.wait_alone(1);
            bench.pair.start(2);
            assert_eq!(bench.pair.wait_pair(), 1);
        }
        let began = Instant::now();
        for number in 0..FILES {
            let path = bench.file(number);
            let mut file = File::create(path).unwrap();
            let mut bytes = vec![0; 1 << 20];
            for _ in 0..bench.file_bytes >> 20 {
                fill(&mut bench.random, &mut bytes);
                std::io::Write::write_all(&mut file, &bytes).unwrap();
            }
            file.sync_all().unwrap();
        }
        println!("written to both nodes in {:.1} s", began.elapsed().as_secs_f64());
        bench
    }

    fn file(&self, number: u64) -> std::path::PathBuf {
        self.pair.nodes[0].mounted("blocks").join(format!("file-{number:02}"))
    }

    fn status(&self) -> Value {
        self.pair.nodes[0].status().expect("node1 answers")
    }

    /// Restarts both nodes with another limit of what is kept for the peer.
    fn retain(&mut self, retention: u64) {
        if retention == self.retention {
            return;
        }
        // The second one first: node1 goes on and serves again afterwards.
        self.pair.stop(2);
        self.pair.stop(1);
        self.retention = retention;
        self.pair.configure(&settings(retention));
        self.pair.start(1);
        self.pair.start(2);
        assert_eq!(self.pair.wait_pair(), 1, "the node that stopped last serves");
    }

    /// Loses the second node, without a word.
    fn lose(&mut self) {
        self.pair.kill(2);
        self.pair.wait_alone(1);
    }

    /// Rewrites `count` different blocks, once each, all over the files, and syncs them. Returns how
    /// many bytes these are.
    fn scatter(&mut self, count: u64) -> u64 {
        let in_file = self.file_bytes / BLOCK;
        let mut blocks: Vec<u64> = (0..FILES * in_file).collect();
        let count = count.min(blocks.len() as u64);
        let files: Vec<_> = (0..FILES)
            .map(|number| File::options().write(true).open(self.file(number)).unwrap())
            .collect();
        let mut bytes = vec![0; usize::try_from(BLOCK).unwrap()];
        for at in 0..count {
            let pick = self.random.between(at, blocks.len() as u64 - 1);
            let (at, pick) = (usize::try_from(at).unwrap(), usize::try_from(pick).unwrap());
            blocks.swap(at, pick);
            fill(&mut self.random, &mut bytes);
            let (number, block) = (blocks[at] / in_file, blocks[at] % in_file);
            files[usize::try_from(number).unwrap()].write_all_at(&bytes, block * BLOCK).unwrap();
        }
        for file in files {
            file.sync_all().unwrap();
        }
        count * BLOCK
    }

    /// Brings the second node back and waits until it has everything; what that took.
    fn come_back(&mut self) -> Cost {
        let before = Counted::of(&self.status());
        self.pair.start(2);
        // The host's network is a new one on its side alone.
        let network = self.pair.nodes[0].network_bytes();
        let began = Instant::now();
        assert_eq!(self.pair.wait_pair(), 1, "node1 goes on");
        let seconds = began.elapsed().as_secs_f64();
        let network = self.pair.nodes[0].network_bytes() - network;
        let after = Counted::of(&self.status());
        Cost { counted: after.since(before), network, seconds }
    }

    /// Both copies are equal.
    fn compare(&self) {
        self.pair.nodes[0].command(&["verify"]);
    }

    fn keep(&mut self, name: &str, value: impl Into<Value>) {
        self.result.insert(name.to_owned(), value.into());
    }

    /// Bytes on the wire for 100 MiB of changes in 2 GiB.
    fn wire(&mut self, case: &str, missed: &mut Vec<String>) {
        let folded = case == "folded";
        self.retain(if folded {
            SMALL_RETENTION / self.options.smaller.min(2)
        } else {
            LARGE_RETENTION
        });
        self.lose();
        let first = number(&self.status(), "/log/first");
        let changed = self.scatter(12_800 / self.options.smaller);
        if folded {
            let past = wait::within(LIMIT, || {
                (number(&self.status(), "/log/first") > first).then_some(())
            });
            assert!(past.is_some(), "nothing was folded");
        }
        let cost = self.come_back();
        self.compare();
        assert_eq!(cost.counted.begun > 0, folded, "by the log, or by what was folded");
        let (plain, wire) = (cost.counted.plain(), cost.counted.wire());
        let ratio = float(plain) / float(changed);
        println!(
            "{case:<12} changed {}, sent {} before compression ({ratio:.3}), {} after it, \
             network {}, {:.1} s until both were up to date",
            mib(changed),
            mib(plain),
            mib(wire),
            mib(cost.network),
            cost.seconds
        );
        // Headers, encryption, acknowledgements and heartbeats come on top; nothing is missing.
        let (least, most) = (wire, wire + wire / 8 + (4 << 20));
        if !(least..=most).contains(&cost.network) {
            missed.push(format!("{case}: {} counted, {} on the network", wire, cost.network));
        }
        if ratio >= WIRE_RATIO_MAX {
            missed.push(format!("{case}: wire ratio {ratio:.3}, the bound is {WIRE_RATIO_MAX}"));
        }
        self.keep(&format!("wire_ratio_{case}"), rounded(ratio));
        self.keep(&format!("wire_bytes_{case}"), plain);
        self.keep(&format!("compressed_bytes_{case}"), wire);
        self.keep(&format!("network_bytes_{case}"), cost.network);
        self.keep(&format!("changed_bytes_{case}"), changed);
        self.keep(&format!("seconds_{case}"), rounded(cost.seconds));
    }

    /// The most disk that the log takes while ALONE, with several times the limit written.
    fn disk(&mut self, missed: &mut Vec<String>) {
        self.retain(SMALL_RETENTION);
        self.lose();
        let state = self.pair.nodes[0].state_dir();
        let (over, blocks) = (AtomicBool::new(false), 5 * SMALL_RETENTION / BLOCK);
        let (most, changed) = std::thread::scope(|scope| {
            let watch = scope.spawn(|| {
                let mut most = 0;
                while !over.load(Ordering::Relaxed) {
                    most = most.max(disk_bytes(&state));
                }
                most
            });
            let changed = self.scatter(blocks);
            over.store(true, Ordering::Relaxed);
            (watch.join().unwrap(), changed)
        });
        self.come_back();
        self.compare();
        let limit = SMALL_RETENTION + SEGMENT;
        println!(
            "{:<12} changed {} while ALONE, at most {} of disk; limit and one segment are {}",
            "disk",
            mib(changed),
            mib(most),
            mib(limit)
        );
        if most >= limit {
            missed.push(format!("disk: {most} bytes, the bound is {limit}"));
        }
        self.keep("disk_peak_bytes", most);
        self.keep("disk_limit_bytes", limit);
        self.keep("disk_over_limit_bytes", most.saturating_sub(limit));
    }

    /// Transactions a second of a server on the node while nothing is resynchronised, and while
    /// something is, one after the other several times.
    fn pgbench(&mut self, case: &str, missed: &mut Vec<String>) {
        let by_log = case == "pgbench-log";
        // All files are rewritten, which folds, and what clients write meanwhile has room: otherwise
        // clients and contents race for the limit, and contents have to win.
        let half = FILES * self.file_bytes / 2;
        self.retain(if by_log { LARGE_RETENTION } else { half });
        let server = self.start_server();
        // Not measured: what was never read before, connections that were never made.
        self.transactions(2, || {});
        let (mut without, mut with) = (Vec::new(), Vec::new());
        let (mut seconds, mut changed) = (Vec::new(), 0);
        let rounds = self.options.rounds;
        for round in 1..=rounds {
            self.lose();
            changed = self.scatter(u64::MAX);
            // What is written is written before anything is measured.
            rustix::fs::sync();
            let alone = self.transactions(self.options.seconds, || {});
            let began = Instant::now();
            self.pair.start(2);
            let node = &self.pair.nodes[0];
            wait::until("a resynchronisation", LIMIT, || {
                runs(&node.status()?, by_log).then_some(())
            });
            let mut lasted = true;
            let beside = self.transactions(self.options.seconds, || {
                lasted &= node.status().is_some_and(|status| runs(&status, by_log));
            });
            let lasted = if lasted { "" } else { " (it ended before)" };
            self.pair.wait_pair();
            seconds.push(began.elapsed().as_secs_f64());
            println!(
                "{case:<12} round {round}: {alone:.0} TPS ALONE, {beside:.0} while {} came over{lasted}, \
                 {:.1} s in all",
                mib(changed),
                seconds.last().unwrap()
            );
            without.push(alone);
            with.push(beside);
        }
        server.kill();
        self.compare();
        let (without, with, seconds) = (median(without), median(with), median(seconds));
        let ratio = with / without;
        println!(
            "{case:<12} medians: {without:.0} TPS ALONE, {with:.0} beside a resynchronisation \
             ({ratio:.2}), which took {seconds:.1} s for {}",
            mib(changed)
        );
        if ratio < PGBENCH_RATIO_MIN {
            missed.push(format!("{case}: {ratio:.2} of the TPS, the bound is {PGBENCH_RATIO_MIN}"));
        }
        let name = case.replace('-', "_");
        self.keep(&format!("{name}_ratio"), rounded(ratio));
        self.keep(&format!("{name}_tps_alone"), rounded(without));
        self.keep(&format!("{name}_tps_resync"), rounded(with));
        self.keep(&format!("{name}_resync_seconds"), rounded(seconds));
    }

    /// A server on the first node, in the mount, with the tables of pgbench.
    fn start_server(&self) -> Process {
        let (node, outside) = (&self.pair.nodes[0], self.scratch.path().join("outside"));
        let (data, seen) = (node.directory("main"), node.mounted("main"));
        let sockets = outside.join("sockets");
        user().make_dir(&sockets);
        let new = !seen.join("PG_VERSION").exists();
        if new {
            let from = outside.join("template");
            user().make_dir(&from);
            initdb(&from);
            user().make_dir(&seen);
            let mut copy = node.host_command("cp");
            copy.args(["-a"]).arg(from.join(".")).arg(&data);
            run(copy, LIMIT);
        }
        let mut command = node.host_command("setpriv");
        command.args(["--reuid", "postgres", "--regid", "postgres", "--init-groups", "--"]);
        command.arg(program("postgres").get_args().last().unwrap());
        command.arg("-D").arg(&data).arg("-k").arg(&sockets);
        for setting in [
            "listen_addresses=",
            &format!("port={PORT}"),
            "shared_buffers=256MB",
            "max_wal_size=4GB",
            "checkpoint_timeout=1h",
            "autovacuum=off",
            "fsync=on",
            "synchronous_commit=on",
            "full_page_writes=on",
        ] {
            command.args(["-c", setting]);
        }
        let mut server = Process::start("the server", command, &outside.join("server.said"));
        wait::until("the server", LIMIT, || {
            server.assert_runs();
            let mut ask = self.client("pg_isready");
            ask.status().unwrap().success().then_some(())
        });
        if new {
            let mut fill = self.client("pgbench");
            fill.args(["-i", "-q", "-s", "10", "postgres"]);
            run(fill, LIMIT);
            // Every page is written once, so that its full-page image is behind it.
            for statement in [
                "CHECKPOINT",
                "UPDATE pgbench_accounts SET filler = filler",
                "UPDATE pgbench_tellers SET filler = filler",
                "UPDATE pgbench_branches SET filler = filler",
                "VACUUM",
            ] {
                let mut sql = self.client("psql");
                sql.args(["-q", "-d", "postgres", "-c", statement]);
                run(sql, LIMIT);
            }
        }
        server
    }

    fn client(&self, name: &str) -> std::process::Command {
        let mut command = program(name);
        command.arg("-h").arg(self.scratch.path().join("outside/sockets")).args(["-p", PORT]);
        command
    }

    /// Transactions a second; `meanwhile` is called again and again.
    fn transactions(&self, seconds: u64, mut meanwhile: impl FnMut()) -> f64 {
        let said = self.scratch.path().join("outside/pgbench.said");
        fs::write(&said, "").unwrap();
        let mut command = self.client("pgbench");
        let clients = self.options.clients.to_string();
        command.args(["-n", "-c", &clients, "-j", "2", "-T", &seconds.to_string(), "postgres"]);
        let mut process = Process::start("pgbench", command, &said);
        let ended = wait::within(LIMIT, || {
            let ended = process.ended();
            if ended.is_none() {
                meanwhile();
                // Asking costs the node time, too.
                std::thread::park_timeout(Duration::from_secs(1));
            }
            ended
        });
        assert!(ended.is_some_and(|it| it.success()), "pgbench failed:\n{}", process.said());
        let text = fs::read_to_string(said).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix("tps = "));
        line.unwrap().split_whitespace().next().unwrap().parse().unwrap()
    }
}

/// Whether the node resynchronises the other one at this moment.
fn runs(status: &Value, by_log: bool) -> bool {
    let alone = status["state"] == "ALONE" && status["peer"]["connected"] == true;
    if by_log { alone } else { status["resync"]["part"] == "gives" }
}

fn settings(retention: u64) -> String {
    format!(
        "[pair]\nauto_rejoin = true\nretention_bytes = {retention}\n\n\
         [log]\nsegment_bytes = {SEGMENT}\n"
    )
}

/// What the node counted.
#[derive(Clone, Copy)]
struct Counted {
    begun: u64,
    message_bytes: u64,
    message_wire_bytes: u64,
    log_bytes: u64,
    log_wire_bytes: u64,
}

impl Counted {
    fn of(status: &Value) -> Self {
        Self {
            begun: number(status, "/resyncs_given/begun"),
            message_bytes: number(status, "/resyncs_given/message_bytes"),
            message_wire_bytes: number(status, "/resyncs_given/wire_bytes"),
            log_bytes: number(status, "/peer/shipped_bytes"),
            log_wire_bytes: number(status, "/peer/wire_bytes"),
        }
    }

    fn since(self, before: Self) -> Self {
        // The link counts anew when its role changes; then all of it is new.
        let link = |now: u64, before: u64| if now < before { now } else { now - before };
        Self {
            begun: self.begun - before.begun,
            message_bytes: self.message_bytes - before.message_bytes,
            message_wire_bytes: self.message_wire_bytes - before.message_wire_bytes,
            log_bytes: link(self.log_bytes, before.log_bytes),
            log_wire_bytes: link(self.log_wire_bytes, before.log_wire_bytes),
        }
    }

    /// Before compression.
    fn plain(self) -> u64 {
        self.message_bytes + self.log_bytes
    }

    fn wire(self) -> u64 {
        self.message_wire_bytes + self.log_wire_bytes
    }
}

struct Cost {
    counted: Counted,
    network: u64,
    seconds: f64,
}

fn number(status: &Value, at: &str) -> u64 {
    status.pointer(at).and_then(Value::as_u64).unwrap_or_else(|| panic!("no {at} in {status}"))
}

/// Bytes that do not compress.
fn fill(random: &mut Random, bytes: &mut [u8]) {
    for part in bytes.chunks_mut(8) {
        part.copy_from_slice(&random.bits().to_le_bytes()[..part.len()]);
    }
}

/// Bytes of the files below a directory: two looks in a row must see the same files.
fn disk_bytes(dir: &Path) -> u64 {
    fn add(dir: &Path, found: &mut BTreeMap<u64, u64>) {
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            match entry.metadata() {
                Ok(meta) if meta.is_dir() => add(&entry.path(), found),
                Ok(meta) => drop(found.insert(meta.ino(), meta.len().max(meta.blocks() * 512))),
                // Renamed or removed meanwhile.
                Err(_) => {}
            }
        }
    }
    let look = || {
        let mut found = BTreeMap::new();
        add(dir, &mut found);
        found
    };
    let mut last = look();
    loop {
        let now = look();
        if now == last {
            return now.values().sum();
        }
        last = now;
    }
}

fn median(mut all: Vec<f64>) -> f64 {
    all.sort_unstable_by(f64::total_cmp);
    match all.len() {
        0 => 0.0,
        len if len % 2 == 1 => all[len / 2],
        len => f64::midpoint(all[len / 2 - 1], all[len / 2]),
    }
}

#[expect(clippy::cast_precision_loss, reason = "far below 2^52 bytes")]
fn float(bytes: u64) -> f64 {
    bytes as f64
}

fn rounded(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

fn mib(bytes: u64) -> String {
    format!("{:.1} MiB", float(bytes) / f64::from(1 << 20))
}
