//! Going on alone: asking for it, being granted it, taking it, forcing it.
//!
//! Two nodes can never both be granted a successor of one view: each asks on top of the last
//! view that it knows to be chosen, and the witness that this view names lets only one of them
//! pass. A node acts on a grant by writing its own register, with its log synced before: a crash
//! between leaves a number that is never used.

use duolog_wal::{View, ViewNum};

use super::{Asking, Machine, Services, Split, Timer};
use crate::effect::{Decider, Note, Receipt, Task};
use crate::message::{Ask, Refusal, Reply, WitnessAnswer};
use crate::{Effect, Forced, Now, Promotion, Question};

/// Where the epoch begins in a view's number.
pub(super) const EPOCH: u32 = 48;

/// The epoch of a number: how many times operators forced a view.
pub(super) const fn epoch(num: ViewNum) -> u64 {
    num.0 >> EPOCH
}

impl Machine {
    /// Why this node should ask to go on alone; `None` while it should not.
    fn wants_alone(&self) -> Option<Promotion> {
        let register = &self.register;
        let same_witness = register.pend.is_none_or(|pend| pend.witness == register.conf.witness);
        let able = self.works()
            && self.log_known
            && self.log.complete
            && self.split.is_none()
            && register.member(self.me)
            && !(self.alone_here() && register.pend.is_none())
            // Once a proposal names another witness, the old one knows nothing of what the peer
            // may have done with the new one.
            && same_witness;
        // Without a witness nobody would stop a node that the other has long overtaken.
        if !able || (register.conf.witness == 0 && (!self.met || self.cut_off)) {
            return None;
        }
        if self.is_primary() {
            return match () {
                () if self.peer_stopped() => Some(Promotion::PeerStopped),
                () if self.peer.stalled => Some(Promotion::PeerStalled),
                () if !self.peer.here || self.overdue => Some(Promotion::PeerLost),
                () => None,
            };
        }
        let allowed = self.settings.failover && !self.maintenance && self.peer_allows_takeover();
        match (self.expired && allowed, self.gone) {
            (false, _) => None,
            (true, true) => Some(Promotion::PrimaryGone),
            (true, false) => Some(Promotion::PrimaryLost),
        }
    }

    pub(super) fn peer_allows_takeover(&self) -> bool {
        self.peer.beat.as_ref().is_none_or(|beat| beat.failover && beat.maintenance_ms == 0)
    }

    pub(super) fn settle_ask(&mut self) {
        let Some(why) = self.wants_alone() else {
            if self.asking.take().is_some() && self.register.pend.is_none() {
                self.timers.clear(Timer::Again);
            }
            return;
        };
        let conf = self.register.conf;
        let num = ViewNum(self.register.hi.0 + 1);
        let view = self.alone_view(num, conf.witness);
        if self.asking.is_some_and(|asking| asking.view == view) {
            return;
        }
        // The moment names the request: an answer to one that was dropped meanwhile, because the
        // primary was heard again, finds another.
        let nonce = (self.incarnation << 40) ^ self.now.0;
        let since = self.asking.map_or(self.now, |asking| asking.since);
        self.asking = Some(Asking { nonce, view, why, since, gateway: None });
        self.witness.newer = false;
        if conf.witness != 0 {
            self.timers.set(Timer::Again, self.now.plus(self.settings.heartbeat_ms));
            return self.send_ask();
        }
        if self.settings.gateway {
            let ticket = self.ticket();
            self.asking = Some(Asking { nonce, view, why, since, gateway: Some(ticket) });
            self.out.push(Effect::Run { task: Task::CheckGateway, ticket });
        } else {
            self.promote(view, why, Decider::Gateway, since);
        }
    }

    pub(super) fn send_ask(&mut self) {
        if let Some(Asking { nonce, view, gateway: None, .. }) = self.asking {
            let failover_ms = self.settings.failover_ms;
            let base = self.register.conf;
            let ask = Ask { view, base, nonce, failover_ms };
            self.tell_witness(Question::Ask(ask));
        }
    }

    /// The gateway answered.
    pub(super) fn gateway_answered(&mut self) {
        if let Some(Asking { view, why, since, .. }) = self.asking {
            self.promote(view, why, Decider::Gateway, since);
        }
    }

    /// It did not: this node is the one that is cut off, and does not try its luck again.
    pub(super) fn gateway_silent(&mut self) {
        self.asking = None;
        self.cut_off = true;
        self.met = false;
    }

    pub(super) fn on_reply(&mut self, reply: Reply) {
        self.witness.here = true;
        self.timers.set(Timer::WitnessLost, self.now.plus(self.settings.peer_lost_ms));
        match reply {
            Reply::Beat(answer) => self.on_witness_answer(answer),
            Reply::Grant { view, nonce } => self.on_grant(view, nonce),
            Reply::Refuse { why, witness, reg, nonce } => {
                self.witness_is(witness, reg);
                if self.asking.is_some_and(|asking| asking.nonce == nonce) {
                    self.on_refuse(why);
                }
            }
        }
    }

    fn witness_is(&mut self, wid: u128, reg: Option<View>) {
        if self.witness.wid != wid {
            (self.witness.wid, self.witness.reg) = (wid, None);
        }
        let newer = |known: View| reg.is_some_and(|reg| reg.num > known.num);
        if self.witness.reg.is_none_or(newer) {
            self.witness.reg = reg;
        }
        if let Some(reg) = reg {
            self.hear_forced(reg);
        }
        // A witness knows a pair only once it was accepted, so an own proposal that it knows is
        // chosen, also when the acceptance never arrived here.
        if let Some(reg) = reg
            && reg.witness == wid
        {
            self.hear_chosen_pair(reg);
        }
    }

    fn on_witness_answer(&mut self, answer: WitnessAnswer) {
        self.witness_is(answer.witness, answer.reg);
        let conf = self.register.conf;
        let named = answer.witness == conf.witness
            && self.register.pend.is_none_or(|pend| pend.witness == conf.witness);
        let valid = answer.incarnation == self.incarnation && self.leases.void < Some(answer.sent);
        if answer.lease && named && valid {
            self.leases.witness = self.leases.witness.max(Some(answer.sent));
        }
    }

    fn on_grant(&mut self, view: View, nonce: u64) {
        let conf = self.register.conf;
        let asked = self.asking.filter(|asking| asking.nonce == nonce && asking.gateway.is_none());
        let Some(Asking { why, since, .. }) = asked else { return };
        let mine = !view.pair && view.primary == self.me && view.origin == self.me;
        // A grant of a witness that was replaced meanwhile, or of a number used before, is none.
        if mine
            && view.num > self.register.hi
            && view.witness == conf.witness
            && view.witness == self.register.cur().witness
            && self.register.member(self.me)
        {
            self.promote(view, why, Decider::Witness(view.witness), since);
        }
    }

    fn on_refuse(&mut self, why: Refusal) {
        let conf = self.register.conf;
        if why == Refusal::Newer && self.witness.reg.is_some_and(|reg| reg.num > conf.num) {
            self.witness.newer = true;
            // The other node may serve already.
            self.begun = None;
        }
    }

    /// Goes on alone in `view`, which is chosen. The register is durable before the first effect
    /// that counts on it, and the log before the register.
    fn promote(&mut self, view: View, why: Promotion, decided_by: Decider, since: Now) {
        let base = self.register.conf;
        self.out.push(Effect::SyncLog);
        self.persist(view, None);
        self.lead(view);
        self.receipt(why, decided_by, base, since);
        self.tell_witness(Question::Learn { view });
    }

    /// Begins to lead `view`: from here on it is this incarnation's.
    pub(super) fn lead(&mut self, view: View) {
        self.asking = None;
        self.accepting = None;
        self.pend_own = self.register.pend == Some(view);
        self.accepted_here = false;
        self.overdue = false;
        self.swapping = false;
        self.witness.newer = false;
        self.begun = Some(view.num);
        self.peer.waiting = None;
        self.expired = false;
        self.gone = false;
        self.timers.clear(Timer::Stall);
        self.timers.clear(Timer::Failover);
        if !self.pend_own {
            self.timers.clear(Timer::Again);
            self.timers.clear(Timer::Accept);
        }
        // Before its record stands in the log: what is acknowledged by the old rule ends there.
        self.settle_commit();
        self.out.push(Effect::BeginView(view));
    }

    pub(super) fn receipt(&mut self, why: Promotion, decided_by: Decider, base: View, asked: Now) {
        self.promotion = Some(why);
        let last_heard = match why {
            Promotion::PrimaryLost | Promotion::PrimaryGone | Promotion::PeerLost => {
                self.peer.heard
            }
            _ => self.now,
        };
        self.out.push(Effect::Receipt(Receipt {
            why,
            decided_by,
            view: self.register.conf,
            base,
            acknowledged: self.log.committed,
            promoted: self.log.end,
            last_heard,
            asked,
            decided: self.now,
        }));
    }

    /// The only member was restarted, or names another witness: nobody else can have moved, so
    /// it raises its number by itself.
    pub(super) fn raise(&mut self, witness: u128) {
        let base = self.register.conf;
        let view = self.alone_view(self.next_num(), witness);
        if view.witness != base.witness {
            self.out.push(Effect::Record(Note::Witness { from: base.witness, to: view.witness }));
        }
        self.persist(view, None);
        self.out.push(Effect::SyncLog);
        self.lead(view);
        self.tell_witness(Question::Learn { view });
    }

    /// Keeps in mind that an operator forced the other node, whoever tells it.
    pub(super) fn hear_forced(&mut self, view: View) {
        let known = self.overruled.map_or(0, |view| epoch(view.num));
        if view.primary == self.me.peer() && epoch(view.num) > known {
            self.overruled = Some(view);
        }
    }

    /// The view of the other node that an operator forced while this one was in the way: its line
    /// goes on from there, whatever this node was granted before. A number above the forced one
    /// would make a second line of this one.
    pub(super) fn forced_elsewhere(&self) -> Option<View> {
        self.overruled.filter(|view| epoch(view.num) > epoch(self.register.conf.num))
    }

    /// Ends what this node leads, at once, when the other was forced: until they meet there are
    /// two lines, and this is the one whose tail becomes a branch.
    pub(super) fn settle_forced(&mut self) {
        if self.begun.is_none() {
            return;
        }
        let Some(view) = self.forced_elsewhere() else { return };
        self.begun = None;
        self.settle_commit();
        self.out.push(Effect::Record(Note::Overruled { view }));
        if matches!(self.services, Services::Stopping(_)) {
            // In order takes too long now.
            self.end_services(Task::Fence);
        }
    }

    /// An operator overrode the protocol.
    pub(super) fn force(&mut self, forced: Forced) {
        let base = self.register.conf;
        let heard = self.peer.beat.as_ref().map_or(ViewNum(0), |beat| beat.hi.max(beat.conf.num));
        let seen = self.witness.reg.map_or(ViewNum(0), |reg| reg.num);
        let highest = self.register.hi.max(heard).max(seen);
        let num = ViewNum((epoch(highest) + 1) << EPOCH);
        let view = View { forced: true, ..self.alone_view(num, self.wanted_witness()) };
        self.split = None;
        self.won = None;
        self.out.push(Effect::Record(Note::Forced(forced.clone())));
        self.out.push(Effect::SyncLog);
        self.persist(view, None);
        self.lead(view);
        self.receipt(Promotion::Force, Decider::Operator(forced), base, self.now);
        self.tell_witness(Question::Learn { view });
    }

    /// The winner of a split brain goes on, above both lines.
    pub(super) fn win(&mut self, beaten: View, heard: ViewNum, decided_by: Decider) {
        let base = self.register.conf;
        let num = ViewNum(self.register.hi.max(heard).max(beaten.num).0 + 1);
        let view = self.alone_view(num, base.witness);
        self.split = None::<Split>;
        self.won = Some(beaten);
        self.out.push(Effect::SyncLog);
        self.persist(view, None);
        self.lead(view);
        self.receipt(Promotion::SplitBrain, decided_by, base, self.now);
        self.tell_witness(Question::Learn { view });
    }

    fn alone_view(&self, num: ViewNum, witness: u128) -> View {
        View { num, primary: self.me, pair: false, witness, origin: self.me, forced: false }
    }
}
