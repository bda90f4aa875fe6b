//! The witness's part for one pair: an identity, one register, and whom it answered when.
//!
//! It holds no log and decides for nobody. It grants a view of one node to that node and
//! remembers it, so that no rival of that view is ever granted; and it does not grant while a
//! primary may still count on its answers. Its register is durable before a grant leaves.

use duolog_wal::{NodeId, View};

use crate::Now;
use crate::message::{Ask, Gone, Question, Refusal, Reply, WitnessAnswer, WitnessBeat};

/// What a witness must have done, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum WitnessEffect {
    /// Writes the register; durable before the next effect.
    Persist(View),
    /// Answers whoever asked.
    Reply(Reply),
}

/// The last answer that gave a node a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Lease {
    /// The heartbeat that was answered.
    incarnation: u64,
    sent: Now,
    /// When, by the witness's clock.
    at: Now,
    /// How long it lasts, as that heartbeat said.
    failover_ms: u64,
}

/// A witness, for one pair.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Witness {
    wid: u128,
    reg: Option<View>,
    started: Now,
    leases: [Option<Lease>; 2],
}

impl Witness {
    /// Of identity `wid`, with the register as it stands on disk.
    ///
    /// # Panics
    /// When `wid` is zero, which stands for "no witness".
    pub fn new(wid: u128, reg: Option<View>, now: Now) -> Self {
        assert!(wid != 0, "zero is no witness's identity");
        // It has forgotten whom it answered before, so its start counts as an answer to both.
        Self { wid, reg, started: now, leases: [None; 2] }
    }

    /// Identity.
    pub const fn wid(&self) -> u128 {
        self.wid
    }

    /// Highest view that it knows.
    pub const fn reg(&self) -> Option<View> {
        self.reg
    }

    /// Takes in one question of an authenticated node.
    #[must_use = "an effect that is dropped is a grant that is not kept"]
    pub fn step(&mut self, now: Now, from: NodeId, question: &Question) -> Vec<WitnessEffect> {
        match question {
            Question::Beat(beat) => self.beat(now, from, beat),
            Question::Ask(ask) => self.ask(now, from, ask),
            Question::Learn { view } => self.learn(*view),
            Question::Gone(gone) => {
                self.gone(from, *gone);
                Vec::new()
            }
        }
    }

    fn beat(&mut self, now: Now, from: NodeId, beat: &WitnessBeat) -> Vec<WitnessEffect> {
        let mut effects = self.learn(beat.conf);
        // Once a newer view is known, the other node may serve it: no lease for the old one.
        let lease = beat.lease
            && beat.conf.witness == self.wid
            && self.reg.is_none_or(|reg| reg.num <= beat.conf.num);
        if lease {
            let known = &mut self.leases[slot(from)];
            let (incarnation, sent) = (beat.incarnation, beat.sent);
            if known.is_none_or(|known| (known.incarnation, known.sent) <= (incarnation, sent)) {
                let failover_ms = beat.failover_ms;
                *known = Some(Lease { incarnation, sent, at: now, failover_ms });
            }
        }
        effects.push(WitnessEffect::Reply(Reply::Beat(WitnessAnswer {
            witness: self.wid,
            reg: self.reg,
            incarnation: beat.incarnation,
            sent: beat.sent,
            lease,
        })));
        effects
    }

    fn ask(&mut self, now: Now, from: NodeId, ask: &Ask) -> Vec<WitnessEffect> {
        let Ask { view, base, nonce, .. } = *ask;
        let refuse = |why, reg| {
            vec![WitnessEffect::Reply(Reply::Refuse { why, witness: self.wid, reg, nonce })]
        };
        let alone = |view: View| !view.pair && view.primary == from;
        if base.witness != self.wid || view.witness != self.wid || !alone(view) {
            return refuse(Refusal::OtherWitness, self.reg);
        }
        if self.reg == Some(view) {
            return vec![WitnessEffect::Reply(Reply::Grant { view, nonce })];
        }
        // A grant to the same node that it has not used: only it can profit.
        let own = self.reg.filter(|&reg| alone(reg));
        let newer = self.reg.is_none_or(|reg| view.num > reg.num);
        let built_on = self.reg.is_none_or(|reg| reg.num <= base.num);
        if newer && (built_on || own.is_some()) {
            if self.leased(now, from.peer(), ask.failover_ms) {
                return refuse(Refusal::Lease, self.reg);
            }
            self.reg = Some(view);
            return vec![
                WitnessEffect::Persist(view),
                WitnessEffect::Reply(Reply::Grant { view, nonce }),
            ];
        }
        match own {
            Some(view) => vec![WitnessEffect::Reply(Reply::Grant { view, nonce })],
            None => refuse(Refusal::Newer, self.reg),
        }
    }

    fn learn(&mut self, view: View) -> Vec<WitnessEffect> {
        if view.witness != self.wid || self.reg.is_some_and(|reg| view.num <= reg.num) {
            return Vec::new();
        }
        self.reg = Some(view);
        vec![WitnessEffect::Persist(view)]
    }

    /// A node whose services are gone needs no lease, unless it asked for one since.
    fn gone(&mut self, from: NodeId, gone: Gone) {
        let lease = &mut self.leases[slot(from)];
        if let Some(known) = lease
            && (known.incarnation, known.sent) <= (gone.incarnation, gone.at)
        {
            *lease = None;
        }
    }

    fn leased(&self, now: Now, node: NodeId, failover_ms: u64) -> bool {
        let after_start = now.since(self.started) < failover_ms;
        after_start
            || self.leases[slot(node)]
                .is_some_and(|lease| now.since(lease.at) < lease.failover_ms.max(failover_ms))
    }
}

const fn slot(node: NodeId) -> usize {
    match node {
        NodeId::Node1 => 0,
        NodeId::Node2 => 1,
    }
}
