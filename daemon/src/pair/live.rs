//! What of new settings of the pair a node goes by while it runs.

use std::sync::mpsc::{Sender, sync_channel};
use std::sync::{Arc, Weak};

use duolog_engine::node::Node;
use duolog_failover::Action;

use super::Input;
use super::checks::{Checks, Said};
use crate::config::Shared;
use crate::document::Live;
use crate::verify::Verifier;

/// A node that runs.
pub(super) struct Going {
    /// May end before the document does.
    pub node: Weak<Node>,
    pub verifier: Arc<Verifier>,
    pub checks: Arc<Checks>,
    pub inputs: Sender<Input>,
}

impl Live for Going {
    fn apply(&self, was: &Shared, new: &Shared) {
        if was.services != new.services {
            self.checks.tell(Said::Rules(new.services.clone()));
        }
        let (was, new) = (&was.pair, &new.pair);
        if let Some(node) = self.node.upgrade() {
            node.set_resync_bytes_per_s(new.resync_bytes_per_s);
        }
        self.verifier.set_schedule(new.verify_every_s, new.verify_bytes_per_s);
        // As an operator would switch them: what was said last counts, here and after a restart.
        if was.auto_rejoin != new.auto_rejoin {
            self.act(Action::AutoRejoin(new.auto_rejoin));
        }
        if was.start_at_boot != new.start_at_boot {
            self.act(Action::StartAtBoot(new.start_at_boot));
        }
    }
}

impl Going {
    fn act(&self, action: Action) {
        // Nobody waits for the answer; the driver ends before this does.
        let (told, _answer) = sync_channel(1);
        self.inputs.send(Input::Act(action, told)).ok();
    }
}
