//! Worlds that will do the same, made one.
//!
//! What is forgotten: letters that can do nothing any more (`net.rs`); what the machines may
//! forget; what both logs have on disk and is acknowledged, but for its last view; which of
//! the clients' writes is which, but for the order in which they stand; how a write that only
//! branches have was cut off. `what_is_forgotten_changes_nothing` holds worlds that forget beside
//! worlds that do not.

use std::collections::BTreeMap;
use std::sync::Mutex;

use duolog_failover::message::Prop;
use duolog_failover::{CommitRule, Message};
use duolog_wal::{Chain, Cursor, Lsn};

use super::{Letter, N1, N2, Rec, World, common, end, facts, fingerprint};

/// Logs that were proposed for a swap, by their fingerprints.
static BOOK: Mutex<BTreeMap<u32, Vec<Rec>>> = Mutex::new(BTreeMap::new());

/// Remembers the log that ends there.
pub(crate) fn remember(log: &[Rec]) -> Cursor {
    let mut book = BOOK.lock().expect("nobody panics with it");
    let known = book.entry(fingerprint(log)).or_insert_with(|| log.to_vec());
    assert_eq!(known, log, "two logs with one fingerprint");
    end(log)
}

/// How positions and writes are called once the world has forgotten.
struct Names {
    /// Records that both logs begin with and that are forgotten.
    prefix: Vec<Rec>,
    head: Option<Rec>,
    writes: Vec<u8>,
}

impl Names {
    fn rec(&self, rec: Rec) -> Rec {
        match rec {
            Rec::View(..) => rec,
            Rec::Write(id) => {
                let place = self.writes.iter().position(|known| *known == id);
                // One that stands nowhere any more.
                Rec::Write(place.map_or(100 + id, |place| u8::try_from(place).expect("a few")))
            }
        }
    }

    /// The last view of what is forgotten stands for it.
    fn log(&self, log: &[Rec]) -> Vec<Rec> {
        let rest = log[self.prefix.len()..].iter().map(|rec| self.rec(*rec));
        self.head.into_iter().chain(rest).collect()
    }

    /// Nothing asks how far below the end of what is forgotten a position lies.
    fn place(&self, place: usize) -> usize {
        place.max(self.prefix.len()) - self.prefix.len() + usize::from(self.head.is_some())
    }

    /// Of a proposal that is no swap only the position counts.
    fn end(&self, prop: &Prop) -> Cursor {
        let lsn = Lsn(self.place(usize::try_from(prop.end.lsn.0).expect("a few")) as u64);
        let gone = Cursor { lsn, chain: Chain(0), ..prop.end };
        if prop.view.primary == prop.view.origin || prop.end.chain == gone.chain {
            return gone;
        }
        let log = {
            let book = BOOK.lock().expect("nobody panics with it");
            book[&prop.end.chain.0].clone()
        };
        let known = |rec: &Rec| match rec {
            Rec::View(..) => true,
            Rec::Write(id) => self.prefix.contains(rec) || self.writes.contains(id),
        };
        if log.starts_with(&self.prefix) && log.iter().all(known) {
            return remember(&self.log(&log));
        }
        // No log here will ever be equal to it again.
        gone
    }
}

impl World {
    /// Forgets what can never count again; with `operators`, if these may still act.
    pub(crate) fn forget(&mut self, operators: bool) {
        let names = self.names();
        self.ghost.overruled = false;
        for node in [N1, N2] {
            let it = self.node_mut(node);
            it.machine.forget_past(operators);
            // What both have on disk need not be acknowledged to be counted.
            it.acked = match it.rule {
                CommitRule::Pair { .. } => it.acked.max(names.prefix.len()),
                CommitRule::Local | CommitRule::Blocked => 0,
            };
        }
        self.sweep();
        if names.prefix.len() > 1
            || names.writes.iter().enumerate().any(|(at, id)| at != usize::from(*id))
        {
            self.rename(&names);
        }
        self.forget_branches();
    }

    fn names(&self) -> Names {
        let [one, other] = &self.nodes;
        let mut upto = common(&one.log, &other.log).min(one.durable).min(other.durable);
        for known in self.ghost.committed.iter().filter(|known| !known.is_empty()) {
            upto = upto.min(common(known, &one.log));
        }
        let view = |rec: &&Rec| matches!(rec, Rec::View(..));
        let head = one.log[..upto].iter().rev().find(view).copied();
        if head.is_none() {
            upto = 0;
        }
        let logs = [&one.log, &other.log].into_iter().chain(&self.ghost.committed);
        let mut writes = Vec::new();
        for rec in logs.filter(|log| !log.is_empty()).flat_map(|log| &log[upto..]) {
            if let Rec::Write(id) = rec
                && !writes.contains(id)
            {
                writes.push(*id);
            }
        }
        Names { prefix: one.log[..upto].to_vec(), head, writes }
    }

    /// Of branches counts only which of the writes that may still be missed they hold.
    fn forget_branches(&mut self) {
        if self.nodes.iter().all(|node| node.branches.is_empty()) {
            return;
        }
        let [one, other] = &self.nodes;
        let mut kept: Vec<Rec> = Vec::new();
        for rec in one.branches.iter().chain(&other.branches).flatten() {
            let stands = |log: &Vec<Rec>| log.contains(rec);
            let counts =
                stands(&one.log) || stands(&other.log) || self.ghost.committed.iter().any(stands);
            if matches!(rec, Rec::Write(_)) && counts && !kept.contains(rec) {
                kept.push(*rec);
            }
        }
        kept.sort();
        self.node_mut(N2).branches.clear();
        let branches = &mut self.node_mut(N1).branches;
        branches.clear();
        if !kept.is_empty() {
            branches.push(kept);
        }
    }

    fn rename(&mut self, names: &Names) {
        for node in [N1, N2] {
            let it = self.node_mut(node);
            let told = it.machine.log();
            let upto = usize::try_from(told.end.lsn.0).expect("a few");
            let durable = usize::try_from(told.durable.0).expect("a few");
            it.log = names.log(&it.log);
            it.durable = names.place(it.durable);
            if it.acked > 0 {
                it.acked = names.place(it.acked);
            }
            let told =
                facts(&it.log[..names.place(upto).min(it.log.len())], names.place(durable), 0);
            it.machine.count_from(told, |prop| names.end(prop));
            for branch in &mut it.branches {
                *branch = branch.iter().map(|rec| names.rec(*rec)).collect();
                branch.sort();
            }
        }
        for known in &mut self.ghost.committed {
            if !known.is_empty() {
                *known = names.log(known);
            }
        }
        let net = std::mem::take(&mut self.net);
        for letter in net.letters() {
            self.net.insert(match &*letter {
                Letter::Peer(to, Message::Prop(prop)) => {
                    let end = names.end(prop);
                    Letter::Peer(*to, Message::Prop(Prop { end, ..*prop }))
                }
                Letter::Ack(to, view, durable) => Letter::Ack(*to, *view, names.place(*durable)),
                other => other.clone(),
            });
        }
    }
}
