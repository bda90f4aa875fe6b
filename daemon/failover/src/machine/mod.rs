//! The machine of a node.

use duolog_wal::NodeId;

use crate::{Effect, Event, LogFacts, Now, Register, Settings, Standing};

/// The machine of one node: takes in events, says what to do.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Machine {
    me: NodeId,
    incarnation: u64,
    register: Register,
    settings: Settings,
    log: LogFacts,
}

impl Machine {
    /// The machine of node `me` that has just started for the `incarnation`-th time, with the
    /// register and the log as they stand on disk. Its first deadline is now.
    pub fn new(
        me: NodeId,
        incarnation: u64,
        register: Register,
        log: LogFacts,
        settings: Settings,
        now: Now,
    ) -> Self {
        let _ = now;
        Self { me, incarnation, register, settings, log }
    }

    /// Takes in one event; returns what to do about it, in order.
    #[must_use = "an effect that is dropped is a failover that does not happen"]
    pub fn step(&mut self, now: Now, event: Event) -> Vec<Effect> {
        let _ = (now, event);
        Vec::new()
    }

    /// When [`Event::Tick`](crate::Event::Tick) is due at the latest.
    pub fn deadline(&self) -> Option<Now> {
        None
    }

    /// How the node stands.
    pub fn standing(&self) -> Standing {
        let _ = (self.me, self.incarnation, &self.settings, &self.log);
        Standing {
            state: crate::State::Wait,
            sentence: "starts".into(),
            sync: crate::DataSync::NotUptodate,
            colour: crate::Colour::Magenta,
        }
    }

    /// The register as it was last persisted.
    pub const fn register(&self) -> &Register {
        &self.register
    }
}
