//! What a machine may forget without ever doing anything else for it. For model checkers, to which
//! two machines that will do the same are one; nothing here is called where the product runs.

use duolog_wal::{Cursor, NodeId, View, ViewNum};

use super::alone::{EPOCH, epoch};
use super::{Leases, Machine, Services, Timer};
use crate::message::Prop;
use crate::{LinkRole, LogFacts, Register};

impl Machine {
    /// Forgets what only tells one task or promotion from another while none is under way. For
    /// model checkers, to which two machines that will do the same are one.
    pub fn forget_names(&mut self) {
        let busy = matches!(self.services, Services::Starting(_) | Services::Stopping(_))
            || self.asking.is_some_and(|asking| asking.gateway.is_some());
        if !busy {
            self.tickets = 0;
        }
        self.promotion = None;
        self.peer.link_error = None;
    }

    /// Forgets what only clocks, operators who want no automatic rejoin, and pairs without a
    /// witness ask for. For model checkers in which time stands still, with a witness.
    pub fn forget_stamps(&mut self) {
        self.peer.answered = None;
        self.leases = Leases { prop: Some(self.now), ..Leases::default() };
        self.served = false;
        self.met = false;
        if let Some(beat) = &mut self.peer.beat {
            (beat.pend, beat.lease) = (None, false);
        }
        if !self.is_primary() {
            self.witness.reg = None;
        }
    }

    /// Forgets what was heard of the past. Numbers of chosen views only rise, so what is known
    /// of lower ones never counts again. Where time stands still and a witness decides.
    ///
    /// With `operators`, somebody may still stop, start or swap; that they may asks for more.
    pub fn forget_past(&mut self, operators: bool) {
        let Register { conf, pend, .. } = self.register;
        let primary = self.is_primary();
        let linked = match self.said.link {
            LinkRole::Follow { incarnation, .. } => Some(incarnation),
            _ => None,
        };
        // Whatever ends an acceptance, the view is another one then.
        let accepts = self.accepting.is_some();
        if let Some(beat) = &mut self.peer.beat {
            // A follower asks which incarnation it is that it follows in this view, unless it
            // does; a primary asks before a swap whether the other has the view.
            let known = primary || accepts || linked == Some(beat.incarnation);
            if beat.conf.num < conf.num || (beat.conf == conf && known && !operators) {
                beat.conf = Register::empty(self.me).conf;
            }
            if beat.conf.num < conf.num || (primary && beat.conf == conf) {
                beat.incarnation = 0;
            }
        }
        // Of a register only the number counts, and only while it is ahead.
        self.witness.reg = self.witness.reg.filter(|reg| reg.num > conf.num);
        if let Some(reg) = &mut self.witness.reg {
            *reg = View { num: reg.num, ..Register::empty(NodeId::Node1).conf };
        }
        // Of a forced view of the other only the epoch counts.
        self.overruled = self.forced_elsewhere().map(|view| View {
            num: ViewNum(epoch(view.num) << EPOCH),
            ..Register::empty(self.me.peer()).conf
        });
        if primary {
            // A primary takes over from nobody; whoever becomes a follower begins anew.
            self.expired = false;
            self.gone = false;
            self.timers.clear(Timer::Failover);
        }
        if !self.accepted_here {
            self.go = false;
        }
        if pend.is_none() {
            self.timers.clear(Timer::Accept);
            if self.asking.is_none() {
                self.timers.clear(Timer::Again);
            }
        }
    }

    /// The log's facts as they were last told.
    pub const fn log(&self) -> &LogFacts {
        &self.log
    }

    /// Counts the log's positions from elsewhere: the same facts, and the same ends.
    pub fn count_from(&mut self, log: LogFacts, end: impl Fn(&Prop) -> Cursor) {
        self.log = log;
        if let Some(prop) = &mut self.accepting {
            prop.end = end(prop);
        }
    }

    /// Whether this incarnation was handed the chosen view and does not lead it yet.
    pub fn was_handed(&self) -> bool {
        self.accepted_here && self.is_primary() && self.begun.is_none()
    }

    /// The open proposal, if this incarnation may take an acceptance of it at its word.
    pub fn proposes(&self) -> Option<View> {
        self.register.pend.filter(|pend| self.pend_own || pend.primary != self.me)
    }
}
