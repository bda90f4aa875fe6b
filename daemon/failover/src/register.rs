//! What a node must never forget about views: its part of the control block.

use duolog_wal::{Control, NodeId, View, ViewNum};

/// A node's register. The shell keeps it in the control block, durable before it goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Register {
    /// Last view known to be chosen. Number 0: this node belongs to none and can only follow.
    pub conf: View,
    /// This node's own proposal of a pair that is not known to be chosen.
    pub pend: Option<View>,
    /// Highest number that this node ever held. A new number is higher, always.
    pub hi: ViewNum,
}

impl Register {
    /// Of a node that was never part of a view.
    pub const fn empty(me: NodeId) -> Self {
        let conf = View {
            num: ViewNum(0),
            primary: me.peer(),
            pair: false,
            witness: 0,
            origin: me.peer(),
            forced: false,
        };
        Self { conf, pend: None, hi: ViewNum(0) }
    }

    /// Of the node that a pair begins with: ALONE, number 1.
    pub const fn first(me: NodeId) -> Self {
        let conf = View { num: ViewNum(1), primary: me, origin: me, ..Self::empty(me).conf };
        Self { conf, pend: None, hi: ViewNum(1) }
    }

    /// As the control block has it.
    pub const fn of(control: &Control) -> Self {
        Self { conf: control.conf, pend: control.pend, hi: control.hi }
    }

    /// Writes it into the control block.
    pub const fn store(&self, control: &mut Control) {
        control.conf = self.conf;
        control.pend = self.pend;
        control.hi = self.hi;
    }

    /// The view that commits are for: the own proposal, else what is chosen.
    pub const fn cur(&self) -> View {
        match self.pend {
            Some(pend) => pend,
            None => self.conf,
        }
    }

    /// Whether `me` has every commit of the chosen view.
    pub fn member(&self, me: NodeId) -> bool {
        self.conf.num.0 > 0 && (self.conf.pair || self.conf.primary == me)
    }
}
