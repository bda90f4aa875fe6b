//! Services: when they may run, and until when.
//!
//! They run only where commits may be acknowledged. In a view of both nodes they start once the
//! peer has the view and has answered a heartbeat, and end when nobody has answered one for
//! `fence_ms`: by then the peer may have taken over.

use super::{Leases, Machine, Mode, Services, Stopped, Timer};
use crate::effect::{Lease, Task};
use crate::{Effect, Now, Ticket};

impl Machine {
    /// Whether services that run may go on running.
    fn may_run(&self) -> bool {
        self.works()
            && self.split.is_none()
            && !self.swapping
            && !self.restarting
            && self.is_primary()
            && self.begun.is_some()
            && self.register.pend.is_none_or(|pend| pend.primary == self.me)
    }

    /// Whether services may be started.
    fn may_start(&self) -> bool {
        let lease = self.alone_here() || self.lease_end().is_some_and(|end| end > self.now);
        self.may_run() && self.leads_chosen() && lease && self.log_known
    }

    pub(super) fn settle_services(&mut self) {
        match self.services {
            Services::Down if self.may_start() => {
                let ticket = self.ticket();
                self.services = Services::Starting(ticket);
                self.served = true;
                // From here on the guardian ends it when its time is over.
                self.settle_lease();
                let task = Task::StartServices { view: self.register.conf };
                self.out.push(Effect::Run { task, ticket });
            }
            Services::Starting(_) | Services::Up if !self.may_run() => {
                let in_order = self.begun.is_some();
                self.end_services(if in_order { Task::StopServices } else { Task::Fence });
            }
            _ => {}
        }
    }

    pub(super) fn end_services(&mut self, task: Task) {
        // What may no longer be acknowledged is not acknowledged while it stops either.
        self.settle_commit();
        let ticket = self.ticket();
        self.services = Services::Stopping(ticket);
        self.out.push(Effect::Run { task, ticket });
    }

    /// What did not end before is tried again.
    pub(super) fn fence_again(&mut self) {
        self.mode = Mode::Stopped(Stopped::Operator);
        self.end_services(Task::Fence);
    }

    /// The lease ended: somebody else may serve from now on.
    pub(super) fn lease_over(&mut self) {
        self.leases.peer = None;
        self.leases.witness = None;
        self.leases.prop = None;
        let alone = self.alone_here() && self.register.pend.is_none();
        if alone || !self.serves() {
            return;
        }
        self.begun = None;
        self.swapping = false;
        if matches!(self.services, Services::Stopping(_)) {
            // In order takes too long now.
            self.end_services(Task::Fence);
        }
    }

    pub(super) fn settle_lease(&mut self) {
        let alone = self.alone_here() && self.register.pend.is_none();
        let lease = match self.lease_end() {
            _ if !self.serves() => Lease::None,
            _ if alone => Lease::Endless,
            Some(end) => Lease::Until(end),
            None => Lease::None,
        };
        match lease {
            Lease::Until(end) => self.timers.set(Timer::Lease, end),
            Lease::None | Lease::Endless => self.timers.clear(Timer::Lease),
        }
        if lease != self.said.lease {
            self.said.lease = lease;
            self.out.push(Effect::Lease(lease));
        }
    }

    pub(super) fn on_done(&mut self, ticket: Ticket) {
        if self.services == Services::Starting(ticket) {
            self.services = Services::Up;
        } else if self.services == Services::Stopping(ticket) {
            self.services_are_down();
        } else if self.asking.is_some_and(|asking| asking.gateway == Some(ticket)) {
            self.gateway_answered();
        }
    }

    pub(super) fn on_failed(&mut self, ticket: Ticket, cause: String) {
        if self.services == Services::Starting(ticket) {
            self.halt(Stopped::Services(cause));
        } else if self.services == Services::Stopping(ticket) {
            // Whatever still runs may still read. The lease stays until a later fence succeeds.
            self.begun = None;
            self.mode = Mode::Stopped(Stopped::NotFenced(cause));
        } else if self.asking.is_some_and(|asking| asking.gateway == Some(ticket)) {
            self.gateway_silent();
        }
    }

    /// The guardian fenced by itself.
    pub(super) fn on_fenced(&mut self, incarnation: u64, at: Now) {
        if incarnation == self.incarnation && self.serves() {
            self.void_leases(at);
            self.begun = None;
            self.services_are_down();
        }
    }

    /// It was said that nothing is served here since `at`: whoever promised before that not to
    /// take over is free of it.
    pub(super) fn void_leases(&mut self, at: Now) {
        self.leases = Leases { void: self.leases.void.max(Some(at)), ..Leases::default() };
    }

    fn services_are_down(&mut self) {
        let led = self.begun.is_some();
        self.services = Services::Down;
        if let Mode::Stopped(why) = &self.mode {
            let taken_over = matches!(why, Stopped::TakenOver);
            self.begun = None;
            // The secondary need not wait for the failover time.
            if !taken_over && self.is_primary() {
                self.say_gone();
            }
        } else if self.restarting {
            self.restarting = false;
            self.begun = None;
        } else if self.swapping && !led {
            self.swapping = false;
        }
    }
}
