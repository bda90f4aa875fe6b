//! Random faults on a real pair, for as long as wanted: `tests/campaign --seconds N --seed S`.
//!
//! Two nodes and a witness on hosts of their own, on disks whose power can be cut, with a
//! `PostgreSQL` that the pair starts where it serves and clients who write down what they were
//! promised. Faults come one by one or two together; after each the pair is mended and has to be
//! whole again, and what the server shows is compared with the promises. The seed repeats which
//! faults come, not the moments at which they hit. The last line is JSON; it fails when something
//! was lost, shown and lost, or acknowledged by two nodes at a time, or when the pair is stuck.

#![expect(clippy::unwrap_used, reason = "a campaign that cannot go on says why by panicking")]

use std::collections::BTreeSet;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use duolog_tests::hosts::clients::{Served, changes, longest_outage_ms};
use duolog_tests::hosts::cluster::{Cluster, Settings};
use duolog_tests::hosts::machine::{LIMIT, On};
use duolog_tests::hosts::{Segment, Who};
use duolog_tests::journal::{Broken, Moment, now_us};
use duolog_tests::random::Random;
use duolog_tests::wait;
use rustix::process::Signal;
use serde_json::json;

const CLIENTS: u32 = 4;
/// After so many faults the table is emptied, so that reading it stays quick.
const FAULTS_AN_EPOCH: u32 = 25;

struct Campaign {
    cluster: Cluster,
    random: Random,
    faults: u32,
    acknowledged: u64,
    broken: Vec<(Broken, String)>,
    takeovers: u64,
    split_brains: u64,
    longest_outage_ms: u64,
    /// Receipts that were counted: node and number.
    counted: BTreeSet<(usize, u64)>,
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
    let cluster = Cluster::start("campaign", seed, &Settings::default());
    let mut campaign = Campaign {
        cluster,
        random: Random::new(seed),
        faults: 0,
        acknowledged: 0,
        broken: Vec::new(),
        takeovers: 0,
        split_brains: 0,
        longest_outage_ms: 0,
        counted: BTreeSet::new(),
    };
    let end = Instant::now() + Duration::from_secs(seconds);
    let mut stuck = None;
    while Instant::now() < end && stuck.is_none() {
        stuck = campaign.epoch(end).err();
    }
    campaign.report(stuck.as_deref())
}

impl Campaign {
    /// Faults under the same clients; then everything is checked and begins anew.
    fn epoch(&mut self, end: Instant) -> Result<(), String> {
        let clients = self.cluster.start_clients(CLIENTS);
        let mut result = Ok(());
        for _ in 0..FAULTS_AN_EPOCH {
            let serving = self.whole()?;
            if clients.wait_for_commit(LIMIT).is_none() {
                result = Err(format!("no commit on a whole pair:\n{}", self.cluster.states()));
            }
            if result.is_err() || Instant::now() >= end {
                break;
            }
            self.faults += 1;
            let count = if self.random.once_in(3) { 2 } else { 1 };
            for _ in 0..count {
                let what = self.fault(serving);
                println!("fault {}: {what}, node{serving} served", self.faults);
                self.rest(1500);
            }
            self.rest(3000);
            self.cluster.mend();
            self.rest(1000);
            if self.random.once_in(2) {
                self.read();
            }
        }
        let whole = self.whole();
        let served = clients.stop();
        self.count(&served);
        result?;
        whole?;
        self.read();
        let promises = self.cluster.journal().promises();
        self.acknowledged += promises.acknowledged();
        let seed = self.random.bits();
        self.cluster.begin_anew(seed);
        Ok(())
    }

    /// Waits for a whole pair; says who serves.
    fn whole(&mut self) -> Result<usize, String> {
        let whole = self.cluster.try_make_whole();
        whole.ok_or_else(|| {
            let said =
                self.cluster.nodes.each_ref().map(duolog_tests::hosts::machine::Machine::said);
            let states = self.cluster.states();
            format!("the pair is stuck:\n{states}\n{}\n\n{}", said[0], said[1])
        })
    }

    /// Up to so many milliseconds.
    fn rest(&mut self, most_ms: u64) {
        let until = Instant::now() + Duration::from_millis(self.random.between(0, most_ms));
        while let Some(left) = until.checked_duration_since(Instant::now()) {
            std::thread::park_timeout(left);
        }
    }

    /// Does something bad, and says what.
    fn fault(&mut self, serving: usize) -> String {
        let node = if self.random.once_in(3) { 3 - serving } else { serving };
        let (own, other) = (Who::node(node), Who::node(3 - node));
        let on = if self.random.once_in(2) { On::Log } else { On::Data };
        let which = self.random.between(0, 15);
        let cluster = &mut self.cluster;
        let machine = cluster.node(node);
        let (guardian, daemon) = if machine.host().is_on() {
            (machine.guardian(), machine.daemon())
        } else {
            (None, None)
        };
        match which {
            0 | 1 => {
                if let Some(daemon) = daemon {
                    machine.signal(Some(daemon), Signal::KILL);
                }
                format!("the daemon of node{node} is killed")
            }
            2 => {
                if let Some(guardian) = guardian {
                    machine.signal(Some(guardian), Signal::KILL);
                }
                format!("the guardian of node{node} is killed")
            }
            3 => {
                for pid in [guardian, daemon].into_iter().flatten() {
                    machine.signal(Some(pid), Signal::STOP);
                }
                format!("node{node} is stalled")
            }
            4 => {
                if let Some(daemon) = daemon {
                    machine.signal(Some(daemon), Signal::STOP);
                }
                format!("the daemon of node{node} is stalled")
            }
            5 | 6 => {
                machine.kill();
                format!("everything on node{node} is killed")
            }
            7 | 8 => {
                machine.cut_power();
                format!("node{node} loses its power")
            }
            9 => {
                for machine in &cluster.nodes {
                    machine.freeze();
                }
                for machine in &mut cluster.nodes {
                    machine.cut_power();
                }
                "both nodes lose their power".into()
            }
            10 => {
                cluster.lan.isolate(own);
                format!("node{node} is cut off")
            }
            11 => {
                cluster.lan.cut(own, other);
                "the nodes are cut off from each other".into()
            }
            12 => {
                cluster.lan.cut_one_way(own, other);
                format!("nothing gets from node{node} to the other one")
            }
            13 => {
                let witness = cluster.witness.as_mut().unwrap();
                if witness.is_on() {
                    witness.cut_power();
                }
                "the witness loses its power".into()
            }
            14 => {
                cluster.lan.cut(own, Who::Witness);
                cluster.lan.take_down(Segment::B);
                format!("node{node} loses the witness and the second path")
            }
            _ => {
                machine.disk(on).slow_down(Duration::from_millis(80));
                format!("a disk of node{node} is slow: {on:?}")
            }
        }
    }

    /// Reads what the server shows, whoever writes meanwhile.
    fn read(&mut self) {
        let not_before_us = now_us();
        let Some(rows) = wait::within(LIMIT, || self.cluster.try_rows()) else { return };
        let moment = Moment { not_before_us, not_after_us: now_us() };
        let (_, broken) = self.cluster.journal().promises().find(&rows, moment);
        for (how, what) in broken {
            println!("BROKEN ({how:?}): {what}");
            self.broken.push((how, what));
        }
        self.cluster.journal().seen(&rows);
    }

    fn count(&mut self, served: &[Served]) {
        let changed = changes(served);
        self.takeovers += changed;
        self.longest_outage_ms = self.longest_outage_ms.max(longest_outage_ms(served));
        let mut reasons = 0;
        for receipt in self.cluster.receipts() {
            if self.counted.insert((receipt.node, receipt.number)) {
                reasons += u64::from(receipt.is_a_change());
                self.split_brains += u64::from(receipt.event == "split_brain");
            }
        }
        // More changes than takeovers: two nodes took turns.
        self.split_brains += changed.saturating_sub(reasons);
    }

    fn report(self, stuck: Option<&str>) -> ExitCode {
        if let Some(stuck) = stuck {
            println!("{stuck}");
        }
        let of = |kinds: &[Broken]| {
            let broken: BTreeSet<_> =
                self.broken.iter().filter(|(how, _)| kinds.contains(how)).collect();
            broken.len()
        };
        let lost = of(&[Broken::Lost, Broken::Torn]);
        let phantom = of(&[Broken::Vanished, Broken::Phantom]);
        let line = json!({
            "acknowledged": self.acknowledged,
            "lost": lost,
            "phantom": phantom,
            "split_brains": self.split_brains,
            "takeovers": self.takeovers,
            "longest_outage_ms": self.longest_outage_ms,
            "faults": self.faults,
            "stuck": stuck.is_some(),
        });
        println!("{line}");
        let good = lost == 0 && phantom == 0 && self.split_brains == 0 && stuck.is_none();
        if good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}
