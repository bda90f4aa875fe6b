//! What operators want, and what they are told.

use super::{Machine, Mode, Services, Stopped, Timer};
use crate::effect::{Kept, Note, Refused};
use crate::{Action, Effect, Forced, Now, State};

impl Machine {
    pub(super) fn on_action(&mut self, action: Action) {
        let result = self.act(action);
        self.out.push(Effect::Reply(result));
    }

    fn act(&mut self, action: Action) -> Result<(), Refused> {
        match action {
            Action::Start => self.start(false),
            Action::StartWithoutWitness => self.start(true),
            Action::Stop => self.stop(),
            Action::Restart => self.restart(),
            Action::Swap => self.swap(),
            Action::SwapWithoutSync(forced) => self.hand_over(&forced),
            Action::ForceStart(forced) => self.force_start(forced),
            Action::Failover(on) => {
                self.settings.failover = on;
                self.out.push(Effect::Keep(Kept::Failover(on)));
                Ok(())
            }
            Action::Maintenance(until) => {
                self.maintain(until);
                Ok(())
            }
            Action::StartAtBoot(on) => {
                self.settings.start_at_boot = on;
                self.out.push(Effect::Keep(Kept::StartAtBoot(on)));
                Ok(())
            }
            Action::AutoRejoin(on) => {
                self.settings.auto_rejoin = on;
                self.out.push(Effect::Keep(Kept::AutoRejoin(on)));
                Ok(())
            }
            Action::ErrorDetection(on) => {
                self.out.push(Effect::Keep(Kept::ErrorDetection(on)));
                Ok(())
            }
            Action::Checkers(on) => {
                self.out.push(Effect::Keep(Kept::Checkers(on)));
                Ok(())
            }
            Action::SplitBrain { winner, forced } => {
                named(&forced)?;
                if winner != self.me {
                    return Err(Refused::OtherNode(winner));
                }
                if self.settle_split_by_hand(forced) { Ok(()) } else { Err(Refused::NoSplitBrain) }
            }
        }
    }

    fn start(&mut self, without_witness: bool) -> Result<(), Refused> {
        match &self.mode {
            Mode::Stopped(Stopped::Disk(_)) => return Err(Refused::State(State::Stop)),
            Mode::Stopped(_) if self.serves() => return Err(Refused::Busy),
            Mode::Stopped(_) => self.go_to_work(),
            // A second start is the operator's word that it shall not wait any longer.
            Mode::Work => {}
        }
        self.join_now |= without_witness;
        Ok(())
    }

    fn go_to_work(&mut self) {
        self.mode = Mode::Work;
        self.begun = None;
        self.pend_own = false;
        self.accepted_here = false;
        self.overdue = false;
        self.go = false;
        self.met = false;
        self.cut_off = false;
        self.served = false;
        self.timers.clear(Timer::Again);
        self.timers.clear(Timer::Accept);
        self.begin_looking();
    }

    fn stop(&mut self) -> Result<(), Refused> {
        match self.mode {
            // Stopped for another reason: from now on for this one.
            Mode::Stopped(Stopped::Disk(_)) => Err(Refused::State(State::Stop)),
            Mode::Stopped(Stopped::NotFenced(_)) => {
                self.fence_again();
                Ok(())
            }
            Mode::Stopped(_) => {
                self.mode = Mode::Stopped(Stopped::Operator);
                Ok(())
            }
            Mode::Work => {
                let led = self.is_primary() && !self.serves();
                self.halt(Stopped::Operator);
                if led {
                    self.say_gone();
                }
                Ok(())
            }
        }
    }

    fn restart(&mut self) -> Result<(), Refused> {
        match self.mode {
            Mode::Stopped(_) => self.start(false),
            Mode::Work if matches!(self.services, Services::Up | Services::Starting(_)) => {
                self.restarting = true;
                self.served = false;
                Ok(())
            }
            Mode::Work if self.serves() => Err(Refused::Busy),
            Mode::Work => {
                self.go_to_work();
                Ok(())
            }
        }
    }

    fn swap(&mut self) -> Result<(), Refused> {
        if self.is_primary() && self.swapping {
            return Err(Refused::Busy);
        }
        match self.why.state() {
            State::Prim => {}
            State::Second => return Err(Refused::OtherNode(self.me.peer())),
            state => return Err(Refused::State(state)),
        }
        if !(self.peer_stands_by() && self.peer_takes_part() && !self.peer.stalled) {
            return Err(Refused::PeerNotUptodate);
        }
        self.swapping = true;
        self.served = false;
        Ok(())
    }

    /// Stops so that the peer, which is not up to date, can be forced. What it lacks is cut off
    /// here once its view is heard.
    fn hand_over(&mut self, forced: &Forced) -> Result<(), Refused> {
        named(forced)?;
        match self.why.state() {
            State::Prim | State::Alone => {}
            State::Second => return Err(Refused::OtherNode(self.me.peer())),
            state => return Err(Refused::State(state)),
        }
        self.out.push(Effect::Record(Note::Forced(forced.clone())));
        self.halt(Stopped::Operator);
        Ok(())
    }

    fn force_start(&mut self, forced: Forced) -> Result<(), Refused> {
        named(&forced)?;
        match &self.mode {
            Mode::Stopped(Stopped::Disk(_) | Stopped::NotFenced(_)) => {
                return Err(Refused::State(State::Stop));
            }
            _ if !self.log_known || !self.log.complete => return Err(Refused::NotComplete),
            _ if matches!(self.services, Services::Stopping(_)) => return Err(Refused::Busy),
            Mode::Stopped(_) => self.go_to_work(),
            Mode::Work => {}
        }
        self.force(forced);
        Ok(())
    }

    fn maintain(&mut self, until: Option<Now>) {
        self.maintenance = until.is_some_and(|until| until > self.now);
        match until {
            Some(until) if self.maintenance => self.timers.set(Timer::Maintenance, until),
            _ => self.timers.clear(Timer::Maintenance),
        }
        self.out.push(Effect::Keep(Kept::Maintenance(until)));
    }
}

/// An override has a reason, and somebody who gave it.
fn named(forced: &Forced) -> Result<(), Refused> {
    if forced.reason.trim().is_empty() || forced.who.trim().is_empty() {
        return Err(Refused::NoReason);
    }
    Ok(())
}
