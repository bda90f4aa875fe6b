//! Carries out what the machines want.

use duolog_failover::{
    CommitRule, Effect, Event, Lease, LinkRole, Message, Question, State, Task, Ticket,
};
use duolog_wal::{Chain, Cursor, Lsn, NodeId, ViewNum};

use super::{Letter, Rec, Serving, World};

impl World {
    pub(crate) fn perform(&mut self, node: NodeId, effects: Vec<Effect>) {
        let mut log_changed = false;
        for effect in effects {
            match effect {
                Effect::Persist(register) => {
                    self.node_mut(node).register = register;
                    self.confirmed(register.conf);
                }
                Effect::SyncLog => {
                    let it = self.node_mut(node);
                    it.durable = it.log.len();
                    log_changed = true;
                    // A commit that only waited for this disk is acknowledged by it.
                    self.commit(node);
                }
                Effect::BeginView(view) => {
                    self.node_mut(node).log.push(Rec::View(view.num, view.origin));
                    log_changed = true;
                }
                Effect::Commit(rule) => {
                    self.commit(node);
                    let it = self.node_mut(node);
                    it.rule = rule;
                    it.acked = 0;
                    log_changed |= self.ghost.split;
                    self.commit(node);
                }
                Effect::Lease(lease) => {
                    self.node_mut(node).lease = match lease {
                        Lease::Until(end) => Some(end),
                        Lease::None | Lease::Endless => None,
                    };
                }
                Effect::Link(role) => self.link(node, role),
                Effect::ToPeer(message) => {
                    let message = self.erase(node, message);
                    let known = match message {
                        // Where time stands still leases do not end by themselves.
                        Message::Answer { .. } => !self.timed,
                        Message::Beat(_) | Message::Go { .. } => !self.late,
                        _ => false,
                    };
                    if !known {
                        self.net.insert(Letter::Peer(node.peer(), message));
                    }
                }
                Effect::ToWitness(question) => {
                    // `Act::Talk` is the heartbeat, and tells what is chosen as well.
                    let known = match question {
                        Question::Beat(_) => true,
                        Question::Learn { .. } => !self.late,
                        _ => false,
                    };
                    if known {
                        continue;
                    }
                    self.net.insert(Letter::Ask(node, question));
                }
                Effect::Run { task, ticket } => self.run(node, task, ticket),
                Effect::Receipt(_) | Effect::Record(_) | Effect::Reply(_) | Effect::Keep(_) => {}
            }
        }
        self.node_mut(node).machine.forget_names();
        if !self.timed && !self.witnesses.is_empty() {
            self.node_mut(node).machine.forget_stamps();
        }
        if log_changed {
            self.log_changed(node);
        }
        // Without a clock what takes its time is over at once.
        if !self.timed
            && let Some((ticket, _)) = self.node(node).tasks.first().copied()
        {
            self.done(node, ticket);
        }
    }

    /// What of a heartbeat no machine looks at is not explored: each of its values would make
    /// another message of it.
    fn erase(&mut self, node: NodeId, message: Message) -> Message {
        match message {
            Message::Beat(mut beat) => {
                beat.hi = beat.conf.num.max(beat.hi);
                if !self.ghost.split {
                    beat.end = Cursor::default();
                    beat.committed = Lsn(0);
                    beat.history.clear();
                    beat.hi = ViewNum(0);
                }
                beat.durable = Lsn(0);
                beat.state = State::Wait;
                beat.follows = false;
                beat.serves = false;
                if !self.timed {
                    beat.sent = super::LATE;
                }
                self.node_mut(node).said = Some(beat.clone());
                Message::Beat(beat)
            }
            // Of one that is no swap the last view of the log tells whether logs are equal.
            Message::Prop(mut prop) => {
                if prop.view.primary == prop.view.origin {
                    prop.end.chain = Chain(0);
                } else {
                    // Where the proposer believes its log to end.
                    let upto = usize::try_from(prop.end.lsn.0).expect("a few");
                    let log = &self.node(node).log[..upto];
                    assert_eq!(prop.end, super::forget::remember(log));
                }
                Message::Prop(prop)
            }
            Message::Accepted { view, .. } => Message::Accepted { view, durable: Lsn(0) },
            Message::Answer { incarnation, .. } if !self.timed => {
                Message::Answer { incarnation, sent: super::LATE }
            }
            other => other,
        }
    }

    fn link(&mut self, node: NodeId, role: LinkRole) {
        let before = std::mem::replace(&mut self.node_mut(node).link, role);
        let keeps = match (before, role) {
            (LinkRole::Ship { .. }, LinkRole::Ship { .. }) => true,
            (
                LinkRole::Follow { incarnation: one, .. },
                LinkRole::Follow { incarnation: other, .. },
            ) => one == other,
            _ => false,
        };
        if !keeps && std::mem::take(&mut self.connected) {
            self.event(node.peer(), Event::LinkDown { why: String::new() });
        }
    }

    fn run(&mut self, node: NodeId, task: Task, ticket: Ticket) {
        match task {
            Task::StartServices { view } => {
                self.node_mut(node).serving = Serving::Starting;
                self.started(node, view);
            }
            // Ends whatever start is under way.
            Task::StopServices | Task::Fence => self.node_mut(node).tasks.clear(),
            Task::CheckGateway => {}
        }
        self.node_mut(node).tasks.push((ticket, task));
    }

    pub(crate) fn done(&mut self, node: NodeId, ticket: Ticket) {
        let it = self.node_mut(node);
        let Some(at) = it.tasks.iter().position(|task| task.0 == ticket) else { return };
        let (_, task) = it.tasks.remove(at);
        match task {
            Task::StartServices { .. } => it.serving = Serving::Yes,
            Task::StopServices | Task::Fence => it.serving = Serving::No,
            Task::CheckGateway => {}
        }
        self.event(node, Event::Done(ticket));
    }

    /// The guardian's own fence: everything at once, then it says so.
    pub(crate) fn guardian_fences(&mut self, node: NodeId) {
        let it = self.node_mut(node);
        it.serving = Serving::No;
        it.lease = None;
        it.tasks.clear();
        let (incarnation, at) = (it.incarnation, self.now);
        self.event(node, Event::Fenced { incarnation, at });
        let gone = duolog_failover::message::Gone { incarnation, at };
        self.net.insert(Letter::Peer(node.peer(), Message::Gone(gone)));
        self.net.insert(Letter::Ask(node, Question::Gone(gone)));
    }

    /// Whether an append there could be acknowledged, now or once messages arrive.
    pub(crate) fn can_commit(&self, node: NodeId) -> bool {
        let it = self.node(node);
        match it.rule {
            CommitRule::Blocked => false,
            CommitRule::Local => true,
            CommitRule::Pair { view } => {
                // The peer would have to acknowledge in this view.
                self.node(node.peer()).register.conf.num == view
            }
        }
    }

    /// Acknowledges to clients what may be.
    pub(crate) fn commit(&mut self, node: NodeId) {
        let it = self.node(node);
        let upto = match it.rule {
            CommitRule::Blocked => return,
            CommitRule::Local => it.durable,
            CommitRule::Pair { .. } => it.durable.min(it.acked),
        };
        if self.ghost.split && upto > it.committed {
            self.node_mut(node).committed = upto;
        }
        self.acknowledged(node, upto);
    }
}
