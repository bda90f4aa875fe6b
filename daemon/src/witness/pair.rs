//! One pair of a witness: what its nodes ask, judged, limited, decided and kept.
//!
//! A grant leaves after its register is on disk. When the disk fails the pair is not answered:
//! what the machine decided and the file does not hold must not be said. It is opened anew a
//! little later, from the file, as after a start. Memory does not grow with what comes.

use std::sync::Arc;

use duolog_beat::{Kind, NUMBER_LEN, Party, Secret, Session, Taken, Wire, random};
use duolog_engine::disk::Disk;
use duolog_failover::message::Ask;
use duolog_failover::{Now, Question, Witness, WitnessEffect};
use duolog_wal::{ClusterId, NodeId, View, ViewNum};

use super::limit::Limit;
use super::state::{State, StateError};
use crate::plant::{Plant, planted};

/// A question that was held back longer is not believed.
const FRESH_MS: u64 = 3000;
/// Datagrams to a node whose sending time is remembered: more than it is sent in `FRESH_MS`.
const REMEMBERED: usize = 512;
/// Fresh questions of one node: ten times what the fast profile asks.
const QUESTIONS: [u64; 2] = [200, 150];
/// Welcomes to one node: it needs one at its start, a replay could ask for many.
const WELCOMES: [u64; 2] = [50, 25];
/// Writes to the disk for one pair: a change of view needs two.
const WRITES: [u64; 2] = [30, 3];
/// After the disk failed the pair is opened anew no sooner.
const REOPEN_MS: u64 = 2000;

/// One pair.
#[derive(Debug)]
pub(super) struct Pair<D> {
    disk: Arc<D>,
    open: Option<Open<D>>,
    /// When it was last opened, or failed to.
    tried: Now,
    wid: u128,
    cluster: ClusterId,
    nodes: [Node; 2],
    writes: Limit,
}

#[derive(Debug)]
struct Open<D> {
    state: State<D>,
    machine: Witness,
}

#[derive(Debug)]
struct Node {
    session: Session,
    questions: Limit,
    welcomes: Limit,
}

impl<D: Disk> Pair<D> {
    /// Reads its file, or makes one.
    pub(super) fn open(
        disk: &Arc<D>,
        cluster: ClusterId,
        secrets: &[Secret; 2],
        now: Now,
    ) -> Result<Self, StateError> {
        let open = Open::new(disk, cluster, now)?;
        let node = |node: NodeId, secret: &Secret| {
            let ends = [Party::Witness, Party::Node(node)];
            let keys = secret.keys(cluster, ends[0], ends[1]);
            let own = random().map_err(|source| StateError::Random { source })?;
            // Zero stands for "not known".
            let own = u64::from_le_bytes(own).max(1);
            Ok(Node {
                session: Session::new(cluster, ends, keys, own, FRESH_MS, REMEMBERED),
                questions: Limit::new(QUESTIONS[0], QUESTIONS[1], now),
                welcomes: Limit::new(WELCOMES[0], WELCOMES[1], now),
            })
        };
        Ok(Self {
            disk: Arc::clone(disk),
            wid: open.state.wid(),
            open: Some(open),
            tried: now,
            nodes: [node(NodeId::Node1, &secrets[0])?, node(NodeId::Node2, &secrets[1])?],
            cluster,
            writes: Limit::new(WRITES[0], WRITES[1], now),
        })
    }

    /// Its identity in this pair.
    pub(super) const fn wid(&self) -> u128 {
        self.wid
    }

    /// The answer to a datagram that says it is from `from`, if it gets one.
    pub(super) fn take(&mut self, from: NodeId, bytes: &[u8], now: Now) -> Option<Vec<u8>> {
        let node = &mut self.nodes[usize::from(from.number()) - 1];
        let packet = node.session.authentic(bytes).filter(|packet| packet.kind.is_question())?;
        match node.session.take(&packet, now.0) {
            Taken::Fresh { .. } if node.questions.take(now) => {}
            Taken::Unproved if node.welcomes.take(now) => {
                return Some(node.session.welcome(&packet, now.0));
            }
            _ => return None,
        }
        let reply = match packet.kind {
            Kind::Message => {
                let question = packet.payload.get(NUMBER_LEN..).and_then(Question::decode)?;
                self.decide(from, &question, now)?
            }
            _ => Vec::new(),
        };
        let node = &mut self.nodes[usize::from(from.number()) - 1];
        node.session.answer(Kind::Answer, &packet, bytes.len(), &reply, now.0)
    }

    /// The machine's reply as bytes, what it rests on being on disk; nothing when it cannot be.
    fn decide(&mut self, from: NodeId, question: &Question, now: Now) -> Option<Vec<u8>> {
        self.reopen(now);
        let open = self.open.as_mut()?;
        // Before the machine knows: what it knows it believes to be on disk.
        if newer(question) > open.machine.reg().map(|reg| reg.num) && !self.writes.take(now) {
            return None;
        }
        let planted = built_on_the_newest(open.machine.reg(), question);
        let question = planted.as_ref().unwrap_or(question);
        let mut reply = Vec::new();
        for effect in open.machine.step(now, from, question) {
            match effect {
                WitnessEffect::Persist(view) => {
                    if let Err(error) = open.state.write(Some(view)) {
                        let error = anyhow::Error::from(error);
                        tracing::error!(pair = %self.cluster, "not served: {error:#}");
                        self.open = None;
                        self.tried = now;
                        return None;
                    }
                    tracing::info!(
                        pair = %self.cluster, node = %from,
                        "view {} is known: {} {}", view.num.0,
                        if view.pair { "both nodes, primary" } else { "ALONE," }, view.primary
                    );
                }
                WitnessEffect::Reply(said) => reply = said.encode(),
            }
        }
        Some(reply)
    }

    fn reopen(&mut self, now: Now) {
        if self.open.is_some() || now.since(self.tried) < REOPEN_MS {
            return;
        }
        self.tried = now;
        match Open::new(&self.disk, self.cluster, now) {
            Ok(open) if open.state.wid() == self.wid => {
                tracing::info!(pair = %self.cluster, "served again");
                self.open = Some(open);
            }
            Ok(_) => tracing::error!(
                pair = %self.cluster,
                "not served: its file was replaced; restart the witness"
            ),
            Err(error) => {
                let error = anyhow::Error::from(error);
                tracing::error!(pair = %self.cluster, "still not served: {error:#}");
            }
        }
    }
}

impl<D: Disk> Open<D> {
    fn new(disk: &Arc<D>, cluster: ClusterId, now: Now) -> Result<Self, StateError> {
        let (state, reg) = State::open(disk, cluster)?;
        let machine = Witness::new(state.wid(), reg, now);
        Ok(Self { state, machine })
    }
}

/// What is judged in place of the question where that fault is planted.
fn built_on_the_newest(reg: Option<View>, question: &Question) -> Option<Question> {
    let Question::Ask(ask) = question else { return None };
    let num = reg.filter(|_| planted(Plant::GrantWithoutBase))?.num;
    Some(Question::Ask(Ask { base: View { num, ..ask.base }, ..*ask }))
}

/// The view that a question may put into the register.
const fn newer(question: &Question) -> Option<ViewNum> {
    Some(match question {
        Question::Beat(beat) => beat.conf.num,
        Question::Ask(ask) => ask.view.num,
        Question::Learn { view } => view.num,
        Question::Gone(_) => return None,
    })
}

#[cfg(test)]
mod tests;
