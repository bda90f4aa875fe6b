//! The register: what a node must never forget of views. It stands in the control block; what it
//! says is decided elsewhere.

use duolog_wal::{Control, View, ViewNum};

use super::{Node, NodeError};
use crate::log::Claims;

/// What a node must never forget of views.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Register {
    /// Highest number that this node ever held: every number that it gives is above.
    pub hi: ViewNum,
    /// The view last known to be chosen.
    pub conf: View,
    /// An own proposal that is not known to be chosen.
    pub pend: Option<View>,
}

/// The records that say what this node's disk once held, at its start.
pub(super) fn claims(control: &Control) -> Claims {
    let member = |view: &View| view.pair || view.primary == control.node;
    let of = |view: Option<View>| view.filter(member).map(|view| view.num);
    Claims::Of([of(Some(control.conf)), of(control.pend)])
}

impl Node {
    /// The register as it stands on disk.
    pub fn register(&self) -> Register {
        let control = self.control.get();
        Register { hi: control.hi, conf: control.conf, pend: control.pend }
    }

    /// Replaces the register; when it returns the new one is durable.
    ///
    /// # Errors
    /// Either the old or the new one stands on disk, and the node takes no other until a restart.
    pub fn persist(&self, register: Register) -> Result<(), NodeError> {
        self.control.update(|control| {
            // What earlier views promised is on disk here; their records no longer speak for it.
            self.promise(control);
            control.hi = register.hi;
            control.conf = register.conf;
            control.pend = register.pend;
        })?;
        Ok(())
    }

    /// The view last known to be chosen.
    pub fn view(&self) -> View {
        self.register().conf
    }
}
