//! Views of both nodes: proposing one, accepting one, knowing that it is chosen.
//!
//! The proposer's register holds the proposal before it is said, so from then on it acknowledges
//! nothing without the peer. The acceptor's log holds everything that the proposer's did before
//! the view is in its register, and only then it says so: a member has every commit of the view.

use duolog_wal::{Lsn, View, ViewNum};

use super::{Machine, Timer};
use crate::effect::{Decider, Note};
use crate::message::Prop;
use crate::{Effect, Message, Promotion, Question, Register};

impl Machine {
    /// Whether this node should begin a view of its own now, and does.
    pub(super) fn settle_lead(&mut self) {
        if !self.works() || !self.log_known || !self.log.complete || self.split.is_some() {
            return;
        }
        let Register { conf, pend, .. } = self.register;
        if !self.is_primary() || conf.num.0 == 0 {
            return;
        }
        if self.leads_chosen() {
            return self.settle_successor();
        }
        if self.forced_elsewhere().is_some() {
            return;
        }
        // A swap cannot be taken back: it is said again, by this incarnation or the next.
        if pend.is_some_and(|pend| pend.primary != self.me) {
            return;
        }
        // Led by this incarnation already: it waits for the peer.
        if self.begun.is_some() && self.begun == pend.map(|pend| pend.num) {
            return;
        }
        if self.serves() {
            return;
        }
        if !conf.pair && pend.is_none() {
            if self.may_raise() {
                self.raise(self.register.cur().witness);
                self.promotion = Some(Promotion::Restart);
            }
            return;
        }
        // A swap that this incarnation accepted begins here once the peer has it too.
        if self.accepted_here && conf.origin != self.me && pend.is_none() {
            if self.go {
                let since = self.now;
                self.lead(conf);
                self.receipt(Promotion::Swap, Decider::BothNodes, conf, since);
            }
            return;
        }
        // Who did not accept in time may now, while a witness that was asked meanwhile never
        // answers. What it grants late is no higher than the new number.
        if self.peer_takes_part() && (self.asking.is_none() || self.overdue) {
            self.propose(self.pair_view(self.register.cur().witness));
        }
    }

    /// This node leads the chosen view: whether another should follow it.
    fn settle_successor(&mut self) {
        let conf = self.register.conf;
        let witness = self.wanted_witness();
        let connected = self.peer_takes_part() && self.peer.link.is_some();
        if !conf.pair {
            let known = conf.witness == 0 || self.witness.here;
            let early = self.settings.join_without_witness || self.join_now;
            if witness != conf.witness && !self.restarting {
                self.raise(witness);
            } else if connected
                && self.peer.caught_up
                && !self.peer.stalled
                && !self.restarting
                && (known || early)
            {
                self.join_now = false;
                self.propose(self.pair_view(conf.witness));
            }
            return;
        }
        if !connected || self.asking.is_some() {
            // Nothing was said yet: services come back in the view that stands.
            self.swapping &= self.serves();
            return;
        }
        if self.swapping {
            if !self.serves() {
                self.swapping = false;
                self.out.push(Effect::SyncLog);
                self.log_stale = true;
                let primary = self.me.peer();
                self.propose(View { primary, ..self.pair_view(conf.witness) });
            }
            return;
        }
        let ahead = self.witness.wid == conf.witness
            && self.witness.reg.is_some_and(|reg| reg.num > conf.num);
        // A grant that nobody used would stand in the way of the next one; another witness has
        // to be named by both.
        if ahead || witness != conf.witness {
            self.propose(self.pair_view(witness));
        }
    }

    /// Whether the only member may serve again after a restart. With a witness always: nobody
    /// else can have moved. Without one the peer may have, and is looked for first.
    fn may_raise(&self) -> bool {
        let conf = self.register.conf;
        let peer_is_behind =
            self.peer.here && self.peer.beat.as_ref().is_some_and(|beat| beat.conf.num <= conf.num);
        let free = conf.witness != 0 || !self.settings.peer || conf.num.0 <= 1 || self.looked;
        free || peer_is_behind
    }

    fn pair_view(&self, witness: u128) -> View {
        View {
            num: self.next_num(),
            primary: self.me,
            pair: true,
            witness,
            origin: self.me,
            forced: false,
        }
    }

    fn propose(&mut self, view: View) {
        let conf = self.register.conf;
        if view.witness != conf.witness && self.register.pend.is_none() {
            self.out.push(Effect::Record(Note::Witness { from: conf.witness, to: view.witness }));
        }
        // Until now nobody could take over from a node that was ALONE: its time begins.
        let first = self.alone_here() && self.register.pend.is_none();
        self.leases.prop = first.then_some(self.now);
        self.persist(conf, Some(view));
        if view.primary == self.me {
            self.lead(view);
        } else {
            self.pend_own = true;
            self.settle_commit();
        }
        self.overdue = false;
        self.prop_due = true;
        self.timers.set(Timer::Again, self.now.plus(self.settings.heartbeat_ms));
        self.timers.set(Timer::Accept, self.now.plus(self.settings.failover_ms));
    }

    /// Says what is open again.
    pub(super) fn say_again(&mut self) {
        if self.asking.is_some() || self.register.pend.is_some() {
            self.timers.set(Timer::Again, self.now.plus(self.settings.heartbeat_ms));
        }
        self.send_ask();
        self.prop_due = self.register.pend.is_some();
    }

    /// Says the proposal once the log's facts are those of the proposal: its end covers
    /// everything that was ever acknowledged without the peer.
    pub(super) fn settle_proposal(&mut self) {
        let Some(view) = self.register.pend.filter(|_| self.works()) else {
            self.prop_due = false;
            return;
        };
        let swap = view.primary != self.me;
        if swap && !self.timers.is_set(Timer::Again) {
            // Made by an earlier incarnation, which had stopped its services and synced its log.
            self.prop_due = true;
            self.timers.set(Timer::Again, self.now.plus(self.settings.heartbeat_ms));
            if !self.pend_own && !self.timers.is_set(Timer::Accept) && !self.overdue {
                self.timers.set(Timer::Accept, self.now.plus(self.settings.failover_ms));
            }
        }
        let newest = self.log.history.last();
        let ready = if swap {
            // The facts of before the sync know nothing of the last writes.
            self.log_known
                && !self.log_stale
                && self.log.durable == self.log.end.lsn
                && !self.serves()
        } else {
            self.begun == Some(view.num)
                && newest.is_some_and(|it| it.num == view.num && it.origin == view.origin)
        };
        if self.prop_due && ready {
            self.prop_due = false;
            self.tell_peer(Message::Prop(Prop {
                view,
                base: self.register.conf,
                incarnation: self.incarnation,
                end: self.log.end,
            }));
        }
    }

    pub(super) fn on_prop(&mut self, prop: Prop) {
        let Prop { view, base, .. } = prop;
        let conf = self.register.conf;
        let proper = view.pair && view.origin == self.me.peer() && base.primary == view.origin;
        if !self.works() || !proper {
            return;
        }
        if conf == view {
            return self.say_accepted();
        }
        // What builds on less than is chosen here would undo it.
        if view.num <= conf.num || !(base == conf || base.num > conf.num) {
            return;
        }
        if self.accepting.is_some_and(|open| open.view.num > view.num) {
            return;
        }
        // Somebody else's line is met by its heartbeats, which tell a split brain from a
        // successor: a number does not.
        if base != conf && self.alone_here() {
            return;
        }
        if base != conf {
            // No longer a member of the old view before anything of its log is touched. Nor of a
            // pair that it must have accepted and has forgotten, with all that it had.
            let forgotten = base.pair && base.num > self.register.hi;
            self.depose(if forgotten { Register::empty(self.me).conf } else { base });
        }
        self.accepting = Some(prop);
    }

    /// Accepts the proposal once the log is equal.
    pub(super) fn try_accept(&mut self) {
        let Some(Prop { view, base, end, incarnation }) = self.accepting else { return };
        let conf = self.register.conf;
        let forgotten = base.pair && conf.num.0 == 0;
        if !self.works() || !(conf == base || forgotten) {
            self.accepting = None;
            return;
        }
        let newest = self.log.history.last();
        // The record of the view stands in no other log than the proposer's and its copies. A
        // swap has none: there the logs end alike, and nothing is appended any more.
        let equal = if view.primary == self.me {
            self.log.end == end
        } else {
            newest.is_some_and(|it| it.num == view.num && it.origin == view.origin)
        };
        if !equal
            || self.log.durable < end.lsn
            || !self.log.complete
            || self.serves()
            || self.peer.link != Some(incarnation)
        {
            return;
        }
        self.accepting = None;
        self.persist(view, None);
        self.begun = None;
        self.asking = None;
        self.accepted_here = view.primary == self.me;
        self.go = false;
        self.met = true;
        self.answered_now();
        self.say_accepted();
        self.tell_witness(Question::Learn { view });
    }

    fn say_accepted(&mut self) {
        let (view, durable) = (self.register.conf, self.log.durable);
        self.tell_peer(Message::Accepted { view, durable });
    }

    pub(super) fn on_accepted(&mut self, view: View) {
        // An acceptance for an earlier incarnation of this primary tells what is chosen, and
        // nothing of this one's log.
        if self.register.pend == Some(view) && (view.primary != self.me || self.pend_own) {
            self.confirm();
        }
    }

    pub(super) fn on_acked(&mut self, view: ViewNum, _durable: Lsn) {
        let Register { conf, pend, .. } = self.register;
        if let Some(pend) = pend
            && pend.num == view
            && self.begun == Some(view)
        {
            return self.confirm();
        }
        if conf.pair && conf.num == view && self.leads_chosen() {
            self.met = true;
        }
    }

    /// The own proposal is chosen.
    pub(super) fn confirm(&mut self) {
        let Some(view) = self.register.pend else { return };
        self.persist(view, None);
        self.pend_own = false;
        self.overdue = false;
        self.prop_due = false;
        self.asking = None;
        self.met = true;
        self.timers.clear(Timer::Again);
        self.timers.clear(Timer::Accept);
        if view.primary != self.me {
            // Handed over: from here on it watches the other.
            self.begun = None;
            self.served = false;
            self.answered_now();
        }
        self.tell_peer(Message::Go { view });
        self.tell_witness(Question::Learn { view });
    }

    pub(super) fn on_go(&mut self, view: View) {
        if self.register.conf == view && self.is_primary() && view.origin != self.me {
            self.go = true;
        }
    }

    /// A view of both that this node proposed, by the word of somebody who knows it chosen.
    pub(super) fn hear_chosen_pair(&mut self, view: View) {
        if !view.pair || view.origin != self.me || view.num <= self.register.conf.num {
            return;
        }
        if self.register.pend == Some(view) && (view.primary != self.me || self.pend_own) {
            return self.confirm();
        }
        // Of an earlier incarnation, or dropped since: it is chosen all the same, so what was
        // proposed instead can never be.
        self.begun = None;
        self.pend_own = false;
        self.persist(view, None);
        self.timers.clear(Timer::Again);
        self.timers.clear(Timer::Accept);
        self.overdue = false;
        self.answered_now();
    }
}
