//! What operators want of this node, from its own control socket and from the other node.

use std::sync::{Arc, Weak};

use duolog_beat::now;
use duolog_failover::{Action, Forced};
use duolog_wal::NodeId;

use super::life::Pair;
use crate::actions::words::Answering;
use crate::actions::{ActError, Refusal, Seat, SeatStanding, Wish};

impl Pair {
    /// What takes in the other daemon's words.
    pub(super) fn hearing(self: &Arc<Self>) -> impl Fn(&[u8]) + Send + use<> {
        let (words, pair) = (self.words.clone(), Arc::downgrade(self));
        move |word| {
            if let Some(pair) = Weak::upgrade(&pair) {
                let answering: Arc<dyn Answering> = pair;
                words.hear(word, &answering);
            }
        }
    }

    fn action(&self, wish: &Wish, who: &str) -> Action {
        let forced = |reason: &String| Forced { who: who.to_owned(), reason: reason.clone() };
        match wish {
            Wish::Start { without_witness: false } => Action::Start,
            Wish::Start { without_witness: true } => Action::StartWithoutWitness,
            Wish::Stop => Action::Stop,
            Wish::Restart => Action::Restart,
            Wish::Swap => Action::Swap,
            Wish::SwapWithoutSync { reason } => Action::SwapWithoutSync(forced(reason)),
            Wish::ForceStart { reason } => Action::ForceStart(forced(reason)),
            Wish::Failover { on } => Action::Failover(*on),
            Wish::Maintenance { for_ms } => Action::Maintenance(for_ms.map(|ms| now().plus(ms))),
            Wish::StartAtBoot { on } => Action::StartAtBoot(*on),
            Wish::AutoRejoin { on } => Action::AutoRejoin(*on),
            Wish::KeepWrites { reason } => {
                Action::SplitBrain { winner: self.config.node, forced: forced(reason) }
            }
        }
    }

    /// Whether anything is served here, or has not ended yet.
    fn serves(&self) -> bool {
        self.parts().is_some_and(|parts| parts.served.is_there())
    }
}

impl Answering for Pair {
    fn act(&self, wish: &Wish, who: &str) -> Result<(), Refusal> {
        match self.carry_out(self.action(wish, who)) {
            None => Err(Refusal::Ends),
            Some(Ok(())) => Ok(()),
            Some(Err(refused)) => {
                let status = self.status();
                Err(Refusal::of(&refused, status.state, &status.sentence))
            }
        }
    }

    fn standing(&self) -> SeatStanding {
        // Before the state: what ends in between is seen at the next look.
        let serves = self.serves();
        let status = self.status();
        let (state, sentence, data_sync) = (status.state, status.sentence, status.data_sync);
        SeatStanding { state, sentence, data_sync, serves }
    }
}

impl Seat for Pair {
    fn node(&self) -> NodeId {
        self.config.node
    }

    fn act(&self, wish: &Wish, who: &str) -> Result<(), ActError> {
        let node = self.config.node.number();
        Answering::act(self, wish, who).map_err(|why| ActError::Refused { node, why })
    }

    fn standing(&self) -> Result<SeatStanding, ActError> {
        Ok(Answering::standing(self))
    }
}
