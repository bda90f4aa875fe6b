//! What the peer says, and what its silence says.
//!
//! A heartbeat of a primary is answered only while this node stands by that primary's view; the
//! answer is a promise not to take over for `failover_ms`, and the primary's lease is shorter.

use duolog_wal::{Lsn, View};

use super::alone::epoch;
use super::{Machine, Mode, Services, Stopped, Timer};
use crate::effect::Note;
use crate::message::{Beat, Gone};
use crate::{Effect, LinkRole, Message, Now};

impl Machine {
    /// Starts looking: at the process's start and whenever an operator starts the node.
    pub(super) fn begin_looking(&mut self) {
        let settings = &self.settings;
        self.timers.set(Timer::PeerLost, self.now.plus(settings.peer_lost_ms));
        self.timers.set(Timer::Look, self.now.plus(settings.peer_lost_ms));
        self.looked = false;
        // Until a peer that was there before has had the time to be heard, it counts as there.
        self.peer.here = true;
        self.answered_now();
    }

    /// This node will not take over for `failover_ms` from now.
    pub(super) fn answered_now(&mut self) {
        self.expired = false;
        self.gone = false;
        self.timers.set(Timer::Failover, self.now.plus(self.settings.failover_ms));
    }

    pub(super) fn on_message(&mut self, message: Message) {
        match message {
            Message::Beat(beat) => self.on_beat(beat),
            Message::Answer { incarnation, sent } => {
                if incarnation == self.incarnation && self.leases.void < Some(sent) {
                    self.leases.peer = self.leases.peer.max(Some(sent));
                }
            }
            Message::Prop(prop) => self.on_prop(prop),
            Message::Accepted { view, .. } => self.on_accepted(view),
            Message::Go { view } => self.on_go(view),
            Message::Gone(gone) => self.on_gone(gone),
        }
    }

    fn on_beat(&mut self, beat: Beat) {
        let stamp = (beat.incarnation, beat.sent);
        if self.peer.beat.as_ref().is_some_and(|last| stamp < (last.incarnation, last.sent)) {
            return;
        }
        let restarted =
            self.peer.beat.as_ref().is_some_and(|last| last.incarnation < beat.incarnation);
        if restarted {
            self.peer.stalled = false;
            self.peer.waiting = None;
            self.timers.clear(Timer::Stall);
        }
        let conf = self.register.conf;
        // One that was accepted into this view and knows less than the view was restored from
        // somewhere: it is not the member that the view counts on.
        let forgot = self.leads_chosen() && conf.pair && beat.conf.num < conf.num;
        if !forgot {
            self.peer.here = true;
            self.peer.heard = self.now;
            self.timers.set(Timer::PeerLost, self.now.plus(self.settings.peer_lost_ms));
        }
        self.hear_forced(beat.conf);
        if self.works() {
            self.hear_view(&beat);
            self.answer(&beat);
        }
        if beat.stopped && self.works() && !self.is_primary() && beat.conf == self.register.conf {
            self.on_gone(Gone { incarnation: beat.incarnation, at: beat.sent });
        }
        self.peer.beat = Some(beat);
    }

    /// What the peer's chosen view means for this node's.
    fn hear_view(&mut self, beat: &Beat) {
        let view = beat.conf;
        let conf = self.register.conf;
        self.on_go(view);
        self.hear_chosen_pair(view);
        if self.meets_split(beat) {
            return self.begin_split(beat);
        }
        let lost = beat.won == Some(conf) && self.alone_here();
        let above = view.num > self.register.conf.num;
        // An operator who forces one of two lines has settled which goes on.
        let settled = self.split.is_none() || lost || epoch(view.num) > epoch(conf.num);
        // A view of both counts here only by this node's own acceptance.
        if above && !view.pair && view.primary == self.me.peer() && settled {
            self.split = None;
            self.depose(view);
            if self.served && !self.settings.auto_rejoin {
                self.halt(Stopped::TakenOver);
            }
        }
    }

    /// A higher chosen view of the peer: this node is no member of its own any more, before
    /// anything of its log is touched.
    pub(super) fn depose(&mut self, view: View) {
        self.begun = None;
        self.pend_own = false;
        self.asking = None;
        self.accepting = None;
        self.accepted_here = false;
        self.go = false;
        self.swapping = false;
        self.overdue = false;
        self.met = false;
        self.won = None;
        self.timers.clear(Timer::Again);
        self.timers.clear(Timer::Accept);
        // Nothing may be acknowledged beside the other.
        self.settle_commit();
        self.persist(view, None);
        self.answered_now();
    }

    /// Answers a heartbeat that asks for a lease.
    fn answer(&mut self, beat: &Beat) {
        let conf = self.register.conf;
        let stands_by = beat.conf == conf || beat.pend == Some(conf);
        if !beat.lease || conf.primary == self.me || !stands_by || self.begun.is_some() {
            return;
        }
        self.answered_now();
        self.asking = None;
        self.peer.answered = Some((beat.incarnation, beat.sent));
        let (incarnation, sent) = (beat.incarnation, beat.sent);
        self.tell_peer(Message::Answer { incarnation, sent });
    }

    /// Nothing is served there any more, if it was said after the last lease was given.
    fn on_gone(&mut self, gone: Gone) {
        let stamp = (gone.incarnation, gone.at);
        let late = self.peer.answered.is_some_and(|answered| stamp < answered)
            || self.peer.beat.as_ref().is_some_and(|beat| {
                (beat.lease || beat.serves) && stamp < (beat.incarnation, beat.sent)
            });
        if !late && self.works() && !self.is_primary() {
            self.expired = true;
            self.gone = true;
            self.timers.clear(Timer::Failover);
        }
    }

    pub(super) fn on_waiting(&mut self, wanted: Lsn, acked: Lsn) {
        let waits = wanted > acked && self.register.conf.pair && self.leads_chosen();
        if !waits {
            self.peer.waiting = None;
            self.timers.clear(Timer::Stall);
        } else if self.peer.waiting.is_none_or(|before| before < acked) {
            self.peer.waiting = Some(acked);
            self.timers.set(Timer::Stall, self.now.plus(self.settings.stall_ms));
        }
    }

    pub(super) fn stall(&mut self) {
        let Some(acked) = self.peer.waiting.take() else { return };
        if self.register.conf.pair && self.leads_chosen() {
            self.peer.stalled = true;
            let ms = self.settings.stall_ms;
            self.timers.set(Timer::Rejoin, self.now.plus(ms.saturating_mul(6)));
            self.out.push(Effect::Record(Note::Stalled { acked, ms }));
        }
    }

    /// Takes part in nothing from now on. What runs is stopped or fenced by what is settled.
    pub(super) fn halt(&mut self, why: Stopped) {
        if matches!(self.mode, Mode::Stopped(Stopped::Disk(_))) {
            return;
        }
        let in_order = matches!(why, Stopped::Operator | Stopped::Services(_));
        self.mode = Mode::Stopped(why);
        self.asking = None;
        self.accepting = None;
        self.swapping = false;
        self.restarting = false;
        self.split = None;
        // What is stopped in order commits its last on both nodes.
        if !in_order || self.services == Services::Down {
            self.begun = None;
        }
    }

    /// For the witness and the peer: this node serves or wants to, and somebody else might.
    pub(super) fn wants_lease(&self) -> bool {
        let cur = self.register.cur();
        let able = match self.mode {
            Mode::Work => true,
            // What does not end cannot be helped by putting off the one who could take over.
            Mode::Stopped(Stopped::NotFenced(_)) => false,
            Mode::Stopped(_) => self.serves(),
        };
        able && cur.primary == self.me && cur.pair && cur.num.0 > 0
    }

    pub(super) fn follows(&self) -> bool {
        matches!(self.said.link, LinkRole::Follow { .. })
    }

    pub(super) fn lease_end(&self) -> Option<Now> {
        let leases = &self.leases;
        let sent = leases.peer.max(leases.witness).max(leases.prop)?;
        Some(sent.plus(self.settings.fence_ms))
    }
}
