//! The SQL server of a node and its clients: they write, commit and wait, and look at what is
//! there. And what the shell does about the log for them.

use duolog_failover::{CommitRule, Event, LinkRole, Ticket};
use duolog_wal::{FileId, Operation, Time};

use crate::invariants::{acknowledged, phantom, stale};
use crate::node::Services;
use crate::plant::Plant;
use crate::world::{Happening, World};

/// Commits that wait at the same time, at most.
const CLIENTS: usize = 6;

impl World {
    /// Has the log synced soon.
    pub(crate) fn want_sync(&mut self, node: usize) {
        let slow = self.nodes[node].slow_until > self.now;
        let up = self.nodes[node].up.as_mut().unwrap();
        if !up.syncing && up.log.durable() < up.log.end_lsn() {
            up.syncing = true;
            let incarnation = up.incarnation;
            self.soon(1, if slow { 4000 } else { 5 }, Happening::Synced(node, incarnation));
        }
    }

    pub(crate) fn synced(&mut self, node: usize) {
        let up = self.nodes[node].up.as_mut().unwrap();
        up.syncing = false;
        up.log.sync().unwrap();
        up.log.prepare().unwrap();
        let follows = matches!(up.link, LinkRole::Follow { .. });
        self.moved(node);
        if follows {
            self.acknowledge(node);
            let facts = self.nodes[node].facts(self.plant == Some(Plant::Incomplete));
            self.feed(node, Event::Log(facts));
        }
        if self.nodes[node].up.is_some() {
            self.want_sync(node);
        }
    }

    /// A position, or what a commit needs, changed: clients are told, pages written.
    pub(crate) fn moved(&mut self, node: usize) {
        let without_peer = self.plant == Some(Plant::CommitWithoutPeer);
        let up = self.nodes[node].up.as_mut().unwrap();
        let before = up.committed;
        up.commit(without_peer);
        let (committed, durable) = (up.committed, up.log.durable());
        let applied = if up.leads { durable } else { committed.min(durable) };
        let mut told = Vec::new();
        while let Some((lsn, write)) = up.waiting.front().copied()
            && lsn <= committed
        {
            up.waiting.pop_front();
            told.push((lsn, write));
        }
        if self.nodes[node].store.apply(applied) {
            self.say(&format!("node{} has a whole copy again", node + 1));
            let facts = self.nodes[node].facts(false);
            self.acknowledge(node);
            self.feed(node, Event::Log(facts));
        }
        for (lsn, write) in told {
            acknowledged::told(self, node, lsn, write);
        }
        if committed > before && self.nodes[node].up.is_some() {
            self.ship(node);
        }
    }

    /// Starts the SQL server once the whole log is committed and applied.
    pub(crate) fn may_start(&mut self, node: usize, ticket: Ticket) {
        let up = self.nodes[node].up.as_mut().unwrap();
        if up.services != Services::Starting(ticket) {
            return;
        }
        let incarnation = up.incarnation;
        let end = up.log.end_lsn();
        if up.committed < end && self.plant != Some(Plant::StartAtOnce) {
            return self.soon(5, 10, Happening::MayStart(node, incarnation, ticket));
        }
        self.nodes[node].guardian.serves = Some(incarnation);
        self.oracle.starts += 1;
        self.oracle.takeovers +=
            u64::from(self.oracle.last_served.replace(node).is_some_and(|last| last != node));
        self.say(&format!("node{} serves", node + 1));
        phantom::before_the_first_read(self, node, end);
        stale::at_a_read(self, node, "begins to serve");
        let task = duolog_failover::Task::StartServices {
            view: self.nodes[node].up.as_ref().unwrap().machine.register().conf,
        };
        self.soon(20, 800, Happening::Done(node, incarnation, ticket, task));
    }

    /// Nothing is served any more.
    pub(crate) fn services_end(&mut self, node: usize) {
        self.nodes[node].guardian.serves = None;
        let up = self.nodes[node].up.as_mut().unwrap();
        up.services = Services::Down;
        up.waiting.clear();
    }

    /// A client writes, commits, or reads. What it reads comes out of the page cache, whatever
    /// the daemon does meanwhile.
    pub(crate) fn client(&mut self, node: usize, incarnation: u64) {
        let serves = self.nodes[node].guardian.serves == Some(incarnation);
        if !serves || !self.lives(node, incarnation) {
            return;
        }
        let pause = if self.network.calm { 3000 } else { 400 };
        self.soon(5, pause, Happening::Client(node, incarnation));
        if self.random.once_in(2) {
            return stale::at_a_read(self, node, "is read");
        }
        let frozen = self.nodes[node].frozen_until > self.now;
        let up = self.nodes[node].up.as_mut().unwrap();
        if frozen || up.services != Services::Up || up.waiting.len() >= CLIENTS || !up.leads {
            return;
        }
        self.numbers += 1;
        let write = self.numbers;
        let mut data = write.to_le_bytes().to_vec();
        data.resize(8 + self.random.below(600), 0x5a);
        let operation = Operation::Write { id: FileId::FIRST, offset: 0, data: &data };
        let time = Time(self.now * 1_000_000);
        let end = up.log.append(&operation, up.committed, time).unwrap().end;
        up.have.insert(end, write);
        if !self.random.once_in(4) {
            let up = self.nodes[node].up.as_mut().unwrap();
            up.waiting.push_back((end, write));
            self.want_sync(node);
        }
        self.ship(node);
    }

    /// What the shell tells the machine again and again.
    pub(crate) fn pulse(&mut self, node: usize) {
        let half = self.nodes[node].settings.heartbeat_ms / 2;
        let incarnation = self.nodes[node].up.as_ref().unwrap().incarnation;
        self.at(self.now + half, Happening::Pulse(node, incarnation));
        let up = self.nodes[node].up.as_ref().unwrap();
        if up.leads {
            let acked = match up.rule {
                CommitRule::Pair { view } => up.acked.get(&view).copied().unwrap_or_default(),
                _ => up.committed,
            };
            let wanted = up.waiting.back().map_or(acked, |(lsn, _)| *lsn);
            self.feed(node, Event::Waiting { wanted, acked });
            self.caught_up(node);
        }
    }
}
