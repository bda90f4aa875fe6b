//! What surrounds a machine on its node: events go in, effects are carried out in order, as the
//! daemon does it.

use duolog_failover::message::Gone;
use duolog_failover::{Effect, Event, Kept, Lease, Message, Question, Register, Task, Ticket};
use duolog_wal::{Operation, Time};

use crate::invariants::{registers, views};
use crate::network::Party;
use crate::node::Services;
use crate::plant::Plant;
use crate::world::{Datagram, Happening, World};

impl World {
    /// Starts the daemon of a node, unless it runs.
    pub(crate) fn boot(&mut self, node: usize) {
        if self.nodes[node].up.is_some() {
            return;
        }
        let pretend = self.plant == Some(Plant::Incomplete);
        let complete = self.nodes[node].store.complete || pretend;
        if let Err(error) = self.nodes[node].boot(self.now, complete) {
            return self.breaks("recovery", error);
        }
        let up = self.nodes[node].up.as_ref().unwrap();
        let incarnation = up.incarnation;
        let (end, conf) = (up.log.end_lsn(), up.machine.register().conf);
        let line = format!(
            "node{} starts for the {incarnation}. time: log to {end}, view {} pair {} of {}",
            node + 1,
            conf.num.0,
            conf.pair,
            conf.primary
        );
        self.say(&line);
        registers::after_boot(self, node);
        self.check_boot(node);
        let facts = self.nodes[node].facts(pretend);
        self.feed(node, Event::Log(facts));
        self.soon(0, 100, Happening::Pulse(node, incarnation));
    }

    /// The daemon dies; with `power` the computer loses its power.
    pub(crate) fn crash(&mut self, node: usize, power: bool) {
        let Some(up) = self.nodes[node].up.take() else { return };
        let how = if power { "loses its power" } else { "is killed" };
        self.say(&format!(
            "node{} {how}, log {} durable {}",
            node + 1,
            up.log.end_lsn(),
            up.log.durable()
        ));
        if let Some(connection) = up.connection {
            self.connection_dies(connection, 1 - node, if power { 3000 } else { 50 });
        }
        let host = &mut self.nodes[node];
        drop(up);
        host.frozen_until = 0;
        if power {
            host.disk.cut_power();
            host.guardian.serves = None;
            host.guardian.lease = Lease::None;
        } else {
            host.disk.kill();
            if let Some(incarnation) = host.guardian.serves {
                self.soon(1, 100, Happening::Fenced(node, incarnation));
            }
        }
    }

    /// Gives the machine an event and carries out what it wants.
    pub(crate) fn feed(&mut self, node: usize, event: Event) {
        let host = &mut self.nodes[node];
        let Some(up) = &mut host.up else { return };
        let effects = up.machine.step(host.clock.now(self.now), event);
        let mut of_the_log = false;
        for effect in effects {
            of_the_log |=
                matches!(effect, Effect::SyncLog | Effect::BeginView(_) | Effect::Commit(_));
            let Some(up) = &mut self.nodes[node].up else { return };
            if let Some(left) = &mut up.dies_after {
                if *left == 0 {
                    return self.crash(node, true);
                }
                *left -= 1;
            }
            self.perform(node, effect);
            if self.broken.is_some() {
                return;
            }
        }
        if self.nodes[node].up.is_none() {
            return;
        }
        self.schedule_tick(node);
        if of_the_log {
            let facts = self.nodes[node].facts(self.plant == Some(Plant::Incomplete));
            self.feed(node, Event::Log(facts));
        }
    }

    fn schedule_tick(&mut self, node: usize) {
        let host = &mut self.nodes[node];
        let up = host.up.as_mut().unwrap();
        let Some(deadline) = up.machine.deadline() else { return };
        let at = host.clock.when(deadline).max(self.now);
        if up.tick_at.is_none_or(|before| at < before) {
            up.tick_at = Some(at);
            let incarnation = up.incarnation;
            self.at(at, Happening::Tick(node, incarnation));
        }
    }

    fn perform(&mut self, node: usize, effect: Effect) {
        let up = self.nodes[node].up.as_mut().unwrap();
        let incarnation = up.incarnation;
        match effect {
            Effect::Persist(register) => self.persist(node, register),
            Effect::SyncLog => {
                up.log.sync().unwrap();
                self.moved(node);
            }
            Effect::BeginView(view) => {
                up.leads = true;
                let time = Time(self.now * 1_000_000);
                up.log.append(&Operation::View(view), up.committed, time).unwrap();
                self.say(&format!(
                    "node{} begins view {} pair {}",
                    node + 1,
                    view.num.0,
                    view.pair
                ));
                self.want_sync(node);
                self.ship(node);
            }
            Effect::Commit(rule) => {
                up.rule = rule;
                self.moved(node);
            }
            Effect::Lease(lease) => {
                self.nodes[node].guardian.lease = lease;
                if let Lease::Until(end) = lease {
                    let at = self.nodes[node].clock.when(end);
                    self.at(at, Happening::Lease(node, end));
                }
            }
            Effect::Link(role) => self.link(node, role),
            Effect::ToPeer(message) => {
                let (from, to) = (Party::Node(node), Party::Node(1 - node));
                self.send(from, to, &Datagram::Peer(message));
            }
            Effect::ToWitness(question) => {
                self.send(Party::Node(node), Party::Witness, &Datagram::Question(question));
            }
            Effect::Run { task, ticket } => self.begin_task(node, incarnation, task, ticket),
            Effect::Receipt(receipt) => {
                let (why, view) = (receipt.why, receipt.view.num.0);
                self.say(&format!("node{} is promoted in view {view}: {why:?}", node + 1));
            }
            Effect::Record(note) => self.say(&format!("node{}: {note:?}", node + 1)),
            Effect::Reply(_) => {}
            Effect::Keep(kept) => {
                let settings = &mut self.nodes[node].settings;
                match kept {
                    Kept::Failover(on) => settings.failover = on,
                    Kept::StartAtBoot(on) => settings.start_at_boot = on,
                    Kept::AutoRejoin(on) => settings.auto_rejoin = on,
                    Kept::ErrorDetection(_) | Kept::Checkers(_) | Kept::Maintenance(_) => {}
                }
            }
        }
    }

    fn persist(&mut self, node: usize, register: Register) {
        if self.plant != Some(Plant::RegisterNotWritten) {
            let up = self.nodes[node].up.as_ref().unwrap();
            let durable = up.log.durable();
            let updated = up.control.update(|control| {
                control.durable = control.durable.max(durable);
                register.store(control);
            });
            updated.unwrap();
        }
        let Register { conf, pend, hi } = register;
        let open = pend.map_or(0, |pend| pend.num.0);
        self.say(&format!(
            "node{} writes: view {} pair {} of {}, open {open}, hi {}",
            node + 1,
            conf.num.0,
            conf.pair,
            conf.primary,
            hi.0
        ));
        views::chosen(self, node, register);
    }

    fn begin_task(&mut self, node: usize, incarnation: u64, task: Task, ticket: Ticket) {
        let up = self.nodes[node].up.as_mut().unwrap();
        match task {
            Task::StartServices { .. } => {
                up.services = Services::Starting(ticket);
                self.want_sync(node);
                self.at(self.now, Happening::MayStart(node, incarnation, ticket));
            }
            Task::StopServices => {
                up.services = Services::Stopping(ticket);
                let spread = usize::try_from(self.nodes[node].settings.stop_services_ms).unwrap();
                self.soon(1, spread - 1, Happening::Done(node, incarnation, ticket, task));
            }
            Task::Fence => {
                up.services = Services::Stopping(ticket);
                up.waiting.clear();
                self.soon(1, 100, Happening::Done(node, incarnation, ticket, task));
            }
            Task::CheckGateway => {
                self.soon(1, 50, Happening::Done(node, incarnation, ticket, task));
            }
        }
    }

    pub(crate) fn task_done(&mut self, node: usize, ticket: Ticket, task: Task) {
        let up = self.nodes[node].up.as_mut().unwrap();
        match task {
            Task::StartServices { .. } if up.services == Services::Starting(ticket) => {
                up.services = Services::Up;
                let incarnation = up.incarnation;
                self.soon(1, 50, Happening::Client(node, incarnation));
            }
            Task::StopServices | Task::Fence if up.services == Services::Stopping(ticket) => {
                self.services_end(node);
            }
            Task::CheckGateway => {}
            _ => return,
        }
        self.feed(node, Event::Done(ticket));
    }

    /// The guardian's own clock ran to the end of the lease.
    pub(crate) fn lease_ends(&mut self, node: usize, end: duolog_failover::Now) {
        let guardian = self.nodes[node].guardian;
        if guardian.lease == Lease::Until(end)
            && let Some(incarnation) = guardian.serves
            && self.plant != Some(Plant::NoFence)
        {
            self.say(&format!("node{}: the lease is over", node + 1));
            self.soon(0, 50, Happening::Fenced(node, incarnation));
        }
    }

    /// The guardian has ended all that was served.
    pub(crate) fn fenced(&mut self, node: usize, incarnation: u64) {
        let host = &mut self.nodes[node];
        if host.guardian.serves != Some(incarnation) {
            return;
        }
        host.guardian.serves = None;
        let at = host.clock.now(self.now);
        self.say(&format!("node{} is fenced", node + 1));
        if self.lives(node, incarnation) {
            self.services_end(node);
            self.feed(node, Event::Fenced { incarnation, at });
        } else {
            // The daemon is dead: the guardian says it.
            let gone = Gone { incarnation, at };
            let (from, to) = (Party::Node(node), Party::Node(1 - node));
            self.send(from, to, &Datagram::Peer(Message::Gone(gone)));
            self.send(from, Party::Witness, &Datagram::Question(Question::Gone(gone)));
        }
    }
}
