//! The third computer: a register on a disk, and the real witness over it.

use duolog_failover::message::Ask;
use duolog_failover::witness::WitnessEffect;
use duolog_failover::{Question, Witness};
use duolog_wal::{View, ViewNum};

use crate::clock::Clock;
use crate::network::Party;
use crate::plant::Plant;
use crate::world::World;

/// The witness's computer.
#[derive(Debug)]
pub(crate) struct WitnessHost {
    /// On its disk: identity and register.
    pub(crate) wid: u128,
    pub(crate) reg: Option<View>,
    pub(crate) clock: Clock,
    pub(crate) up: Option<Witness>,
}

impl World {
    /// Starts it, unless it runs.
    pub(crate) fn start_witness(&mut self) {
        if self.witness.up.is_none() {
            self.witness.clock = Clock::booted(self.now, &mut self.random);
            let now = self.witness.clock.now(self.now);
            if self.plant == Some(Plant::BlankWitness) {
                self.witness.reg = None;
            }
            self.witness.up = Some(Witness::new(self.witness.wid, self.witness.reg, now));
            self.say("the witness starts");
        }
    }

    /// Its disk is lost: it comes back as another one.
    pub(crate) fn lose_witness_disk(&mut self) {
        self.witness.wid += 1;
        self.witness.reg = None;
        self.witness.up = None;
        self.say("the witness loses its disk");
    }

    pub(crate) fn ask_witness(&mut self, from: usize, question: Question) {
        let question = match (self.plant, question) {
            // Nothing is newer than what a request builds on.
            (Some(Plant::GrantWithoutBase), Question::Ask(ask)) => {
                let base = View { num: ViewNum(u64::MAX), ..ask.base };
                Question::Ask(Ask { base, ..ask })
            }
            (_, question) => question,
        };
        let Some(witness) = &mut self.witness.up else { return };
        let now = self.witness.clock.now(self.now);
        let id = self.nodes[from].id;
        for effect in witness.step(now, id, &question) {
            match effect {
                WitnessEffect::Persist(view) => self.witness.reg = Some(view),
                WitnessEffect::Reply(reply) => {
                    let (from, to) = (Party::Witness, Party::Node(from));
                    self.send(from, to, &crate::world::Datagram::Reply(reply));
                }
            }
        }
    }
}
