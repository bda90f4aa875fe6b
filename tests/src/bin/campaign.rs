//! Random faults on a real pair, for as long as wanted: `tests/campaign --seconds N --seed S`.
//!
//! Two nodes and a witness on hosts of their own, on disks whose power can be cut, with a
//! `PostgreSQL` that the pair starts where it serves and clients who write down what they were
//! promised. Faults come one by one or two together; after each the pair is mended and has to be
//! whole again, and what the server shows is compared with the promises. The seed repeats which
//! faults come, not the moments at which they hit. The last line is JSON; it fails when something
//! was lost, shown and lost, or acknowledged by two nodes at a time, or when the pair is stuck,
//! and ends at the first such thing.
//!
//! | figure              | counted from                                                        |
//! | ------------------- | ------------------------------------------------------------------- |
//! | `acknowledged`      | the clients' journal                                                |
//! | `lost`              | acknowledged there, and missing or in part when the table is read   |
//! | `phantom`           | shown to a reader and gone later, or shown and never written        |
//! | `split_brains`      | turns of a node, as clients were served, without a promotion of that node since it served last; and what the nodes themselves found |
//! | `takeovers`         | turns of a node, as clients were served                             |
//! | `longest_outage_ms` | between two acknowledgements, whoever gave them                     |
//!
//! `--plant NAME` has the nodes do something wrong, to see that it is found (`daemon/src/plant.rs`).

#![expect(clippy::unwrap_used, reason = "a campaign that cannot go on says why by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use duolog_tests::hosts::clients::{Clients, Served, longest_outage, turns};
use duolog_tests::hosts::cluster::{Cluster, Settings};
use duolog_tests::hosts::faults::KINDS;
use duolog_tests::hosts::machine::{LIMIT, Machine};
use duolog_tests::hosts::receipts::Receipt;
use duolog_tests::journal::{Broken, Moment, now_us};
use duolog_tests::random::Random;
use duolog_tests::wait;
use serde_json::json;

const CLIENTS: u32 = 4;
/// After so many faults the table is emptied, so that reading it stays quick.
const FAULTS_AN_EPOCH: u32 = 25;
/// An outage that lasted longer is told of with what was done meanwhile.
const LONG_MS: u64 = 8_000;
/// How long before an outage may be what began it.
const BEFORE_US: u64 = 2_000_000;

/// Counted from what clients were told and nodes wrote down.
#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    takeovers: u64,
    split_brains: u64,
    longest_outage_ms: u64,
}

/// What was done, and when.
struct Done {
    at_us: u64,
    what: String,
    /// How much the nodes had said by then.
    said: [u64; 2],
}

struct Campaign {
    cluster: Cluster,
    random: Random,
    begun: Instant,
    faults: u32,
    acknowledged: u64,
    broken: BTreeSet<(Broken, String)>,
    /// Of the epochs that have ended, and of the one that goes on.
    before: Counts,
    now: Counts,
    done: Vec<Done>,
    receipts: BTreeMap<(usize, u64), Receipt>,
}

/// A disk that hangs ends its node soon, so that it is seen to.
fn settings() -> Settings {
    let pair = format!("{}disk_stall_ms = 3000\n", Settings::default().pair);
    Settings { pair, ..Settings::default() }
}

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let (mut seconds, mut seed) = (60_u64, now_us());
    for pair in arguments.chunks(2) {
        match pair {
            [name, value] if name == "--seconds" => seconds = value.parse().unwrap(),
            [name, value] if name == "--seed" => seed = value.parse().unwrap(),
            _ => panic!("campaign [--seconds N] [--seed S]"),
        }
    }
    println!("seed {seed}");
    let mut campaign = Campaign {
        cluster: Cluster::start("campaign", seed, &settings()),
        random: Random::new(seed),
        begun: Instant::now(),
        faults: 0,
        acknowledged: 0,
        broken: BTreeSet::new(),
        before: Counts::default(),
        now: Counts::default(),
        done: Vec::new(),
        receipts: BTreeMap::new(),
    };
    let end = Instant::now() + Duration::from_secs(seconds);
    let mut stuck = None;
    while Instant::now() < end && stuck.is_none() && campaign.is_good() {
        stuck = campaign.epoch(end).err();
    }
    campaign.report(stuck.as_deref())
}

impl Campaign {
    /// Faults under the same clients; then everything is checked and begins anew.
    fn epoch(&mut self, end: Instant) -> Result<(), String> {
        let clients = self.cluster.start_clients(CLIENTS);
        let mut result = self.faults(&clients, end);
        if result.is_ok() {
            self.count(&clients.stop());
            result = self.read();
        } else {
            self.count(&clients.served());
        }
        self.acknowledged += self.cluster.journal().promises().acknowledged();
        let Counts { takeovers, split_brains, longest_outage_ms } = std::mem::take(&mut self.now);
        self.before.takeovers += takeovers;
        self.before.split_brains += split_brains;
        self.before.longest_outage_ms = self.before.longest_outage_ms.max(longest_outage_ms);
        if result.is_ok() && self.is_good() {
            let seed = self.random.bits();
            self.cluster.begin_anew(seed);
        }
        result
    }

    fn faults(&mut self, clients: &Clients, end: Instant) -> Result<(), String> {
        let mut serving = self.served_again(clients)?;
        for _ in 0..FAULTS_AN_EPOCH {
            self.faults += 1;
            let count = if self.random.once_in(3) { 2 } else { 1 };
            for _ in 0..count {
                let kind = self.random.between(0, KINDS - 1);
                let what = self.cluster.fault(kind, serving, &mut self.random);
                self.note(&format!("{what}; node{serving} served"));
                self.rest(1500);
            }
            self.rest(3000);
            self.cluster.mend();
            self.note("mended");
            self.rest(1000);
            serving = self.served_again(clients)?;
            self.note(&format!("node{serving} serves, the pair is whole"));
            if self.random.once_in(2) {
                self.read()?;
            }
            self.count(&clients.served());
            if Instant::now() >= end || !self.is_good() {
                break;
            }
        }
        Ok(())
    }

    /// Waits for a whole pair that serves its clients; says who serves.
    fn served_again(&mut self, clients: &Clients) -> Result<usize, String> {
        let whole = self.cluster.try_make_whole();
        let serving = whole.ok_or_else(|| self.stuck("the pair is stuck"))?;
        let commit = clients.wait_for_commit(LIMIT);
        commit.map(|_| serving).ok_or_else(|| {
            let mut errors = clients.errors();
            let last = errors.split_off(errors.len().saturating_sub(8)).join("\n");
            self.stuck(&format!("no commit on a whole pair, clients were told last:\n{last}\nso"))
        })
    }

    /// How both nodes stand and what they said, at length: it may never come again.
    fn stuck(&self, what: &str) -> String {
        let mut text = format!("{what}:\n{}\n", self.cluster.states());
        for node in &self.cluster.nodes {
            if node.host().is_on() {
                text.push_str(&node.try_command(&["status", "--json"]).1);
                text.push_str(&node.host().waits());
            }
            text.push_str(&node.said());
            text.push_str("\n\n");
        }
        text
    }

    /// Up to so many milliseconds.
    fn rest(&mut self, most_ms: u64) {
        let until = Instant::now() + Duration::from_millis(self.random.between(0, most_ms));
        while let Some(left) = until.checked_duration_since(Instant::now()) {
            std::thread::park_timeout(left);
        }
    }

    /// Writes down what was done.
    fn note(&mut self, what: &str) {
        let seconds = self.begun.elapsed().as_secs_f32();
        let text = format!("{seconds:7.1} s  fault {}: {what}", self.faults);
        println!("{text}");
        let said = self.cluster.nodes.each_ref().map(Machine::said_bytes);
        self.done.push(Done { at_us: now_us(), what: text, said });
    }

    /// Reads what the server shows, whoever writes meanwhile.
    fn read(&mut self) -> Result<(), String> {
        let not_before_us = now_us();
        let rows = wait::within(LIMIT, || self.cluster.try_rows());
        let rows = rows.ok_or_else(|| self.stuck("nobody shows the rows"))?;
        let moment = Moment { not_before_us, not_after_us: now_us() };
        let (_, broken) = self.cluster.journal().promises().find(&rows, moment);
        for (how, what) in broken {
            println!("BROKEN ({how:?}): {what}");
            self.broken.insert((how, what));
        }
        self.cluster.journal().seen(&rows);
        Ok(())
    }

    /// Counts what clients were told in this epoch.
    fn count(&mut self, served: &[Served]) {
        for receipt in self.cluster.receipts() {
            self.receipts.insert((receipt.node, receipt.number), receipt);
        }
        let turns = turns(served);
        let explains = |turn: &_| self.receipts.values().any(|receipt| receipt.explains(turn));
        let unexplained: Vec<_> = turns.iter().filter(|turn| !explains(turn)).collect();
        if unexplained.len() as u64 > self.now.split_brains {
            println!("SPLIT BRAIN: {unexplained:?} of {turns:?}");
        }
        self.now.takeovers = turns.len() as u64;
        self.now.split_brains = unexplained.len() as u64;
        if let Some([last, next]) = longest_outage(served) {
            let ms = (next.acknowledged_us - last.acknowledged_us) / 1000;
            if ms > self.now.longest_outage_ms.max(LONG_MS) {
                self.tell_outage(&last, &next);
            }
            self.now.longest_outage_ms = ms;
        }
    }

    /// What was done during an outage, and what the nodes did.
    fn tell_outage(&self, last: &Served, next: &Served) {
        let (from_us, to_us) = (last.acknowledged_us, next.acknowledged_us);
        let (ms, node, then) = ((to_us - from_us) / 1000, last.node, next.node);
        println!("OUTAGE of {ms} ms: node{node} acknowledged before, node{then} after");
        let meanwhile = from_us - BEFORE_US..=to_us;
        let done = self.done.iter().map(|done| (done.at_us, done.what.clone()));
        let receipts = self.receipts.values().map(|receipt| {
            let Receipt { node, event, why, phases_ms, outcome, .. } = receipt;
            let text = format!("  node{node}: {event} {why} {phases_ms:?} {outcome}");
            (receipt.at_ms * 1000, text)
        });
        let mut lines: Vec<_> =
            done.chain(receipts).filter(|(at_us, _)| meanwhile.contains(at_us)).collect();
        lines.sort();
        for (at_us, text) in lines {
            println!("  {:>6} ms {text}", (at_us.cast_signed() - from_us.cast_signed()) / 1000);
        }
        let before = self.done.iter().rfind(|done| done.at_us <= from_us);
        for (node, said) in self.cluster.nodes.iter().zip(before.map_or([0; 2], |it| it.said)) {
            println!("node{} said:\n{}", node.number(), node.said_after(said));
        }
    }

    /// How many promises are broken in one of these ways.
    fn broken(&self, kinds: &[Broken]) -> usize {
        self.broken.iter().filter(|(how, _)| kinds.contains(how)).count()
    }

    fn split_brains(&self) -> u64 {
        let found = self.receipts.values().filter(|receipt| receipt.event == "split_brain");
        self.before.split_brains + self.now.split_brains + found.count() as u64
    }

    fn is_good(&self) -> bool {
        self.broken.is_empty() && self.split_brains() == 0
    }

    fn report(self, stuck: Option<&str>) -> ExitCode {
        if let Some(stuck) = stuck {
            println!("{stuck}");
        }
        let line = json!({
            "acknowledged": self.acknowledged,
            "lost": self.broken(&[Broken::Lost, Broken::Torn]),
            "phantom": self.broken(&[Broken::Vanished, Broken::Phantom]),
            "split_brains": self.split_brains(),
            "takeovers": self.before.takeovers,
            "longest_outage_ms": self.before.longest_outage_ms,
            "faults": self.faults,
            "seconds": self.begun.elapsed().as_secs(),
            "stuck": stuck.is_some(),
        });
        println!("{line}");
        let good = self.is_good() && stuck.is_none();
        if good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}
