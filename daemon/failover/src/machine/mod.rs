//! The machine of a node.
//!
//! ```text
//!            start                    caught up, accepted
//!   STOP ───────────> WAIT ─────────────────────────────────> SECOND
//!     ^                │ ^ refused, fenced, higher view heard    │ primary lost + granted
//!     │ stop, failure  │ └──────────────┬───────────────┐        v
//!     └── every state  ├── re-paired ─> PRIM ── peer lost ──> ALONE
//!                      └── granted, or served alone before ─────^
//! ```
//! Each event changes what is known; then [`Machine::settle`] decides what follows from all that
//! is known, and says what differs from what it said before. So what a node does depends on
//! facts and not on the order in which it learnt them.
//!
//! What holds after every step:
//! - a new number is higher than every number this node ever held (`hi`);
//! - a view is led by one incarnation of its primary: `begun` is empty after a restart;
//! - commits are acknowledged only in the view `begun`, chosen and without an open proposal;
//! - services run only where commits may be acknowledged, or wait for it with a lease.

mod alone;
mod forget;
mod hear;
mod operator;
mod pair;
mod services;
mod split;
mod timers;
mod why;

use duolog_wal::{NodeId, View, ViewNum};

pub use self::timers::Timer;
use self::timers::Timers;
use crate::message::{Beat, Gone, HISTORY_MAX, Prop, WitnessBeat};
use crate::table::Why;
use crate::{
    CommitRule, Effect, Event, Lease, LinkRole, LogFacts, Message, Note, Now, Promotion, Question,
    Register, Settings, State, Ticket,
};

/// Whether the node takes part.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Mode {
    Work,
    Stopped(Stopped),
}

/// Why it does not.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Stopped {
    /// Start at boot is off.
    NotStarted,
    Operator,
    Services(String),
    Disk(String),
    NotFenced(String),
    TakenOver,
}

/// What is known of services here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Services {
    Down,
    Starting(Ticket),
    Up,
    Stopping(Ticket),
}

/// What is known of the peer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Peer {
    /// Heard of lately, and not as one who has forgotten what it belongs to.
    here: bool,
    /// The newest heartbeat.
    beat: Option<Beat>,
    /// The newest heartbeat that was answered with a lease: incarnation and when it was sent.
    answered: Option<(u64, Now)>,
    /// The connection: incarnation of the other end.
    link: Option<u64>,
    /// Why there is none.
    link_error: Option<String>,
    /// The follower has nearly everything.
    caught_up: bool,
    /// It answers and does not acknowledge.
    stalled: bool,
    /// Where the acknowledgements were when a commit began to wait.
    waiting: Option<duolog_wal::Lsn>,
    /// When it was last heard.
    heard: Now,
}

/// What is known of the witness.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
struct Seen {
    /// Heard of lately.
    here: bool,
    /// Identity of the one that answers.
    wid: u128,
    /// Its register.
    reg: Option<View>,
    /// It refused the newest request because of a newer view.
    newer: bool,
}

/// A request for a view of one's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Asking {
    nonce: u64,
    view: View,
    why: Promotion,
    since: Now,
    /// The gateway is asked in place of a witness.
    gateway: Option<Ticket>,
}

/// When the beats were sent whose answers let this node serve.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
struct Leases {
    peer: Option<Now>,
    witness: Option<Now>,
    /// A node that needed none until then begins its time with a proposal.
    prop: Option<Now>,
    /// When this node said that it serves no more: answers to what it sent until then are void.
    void: Option<Now>,
}

/// A split brain that was met.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Split {
    /// Commits were blocked, the log's facts are yet to say where it ended.
    Freezing,
    /// Nothing is acknowledged any more.
    Frozen,
}

/// The machine of one node: takes in events, says what to do.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
pub struct Machine {
    me: NodeId,
    incarnation: u64,
    register: Register,
    settings: Settings,
    log: LogFacts,
    now: Now,
    timers: Timers,
    mode: Mode,
    services: Services,
    peer: Peer,
    witness: Seen,
    leases: Leases,
    asking: Option<Asking>,
    /// A proposal for which the log is being made equal.
    accepting: Option<Prop>,
    /// The view that this incarnation leads: its record is in the log.
    begun: Option<ViewNum>,
    /// `pend` was made by this incarnation.
    pend_own: bool,
    /// The proposal has to be said.
    prop_due: bool,
    /// `conf` was accepted by this incarnation.
    accepted_here: bool,
    /// The peer did not accept in time.
    overdue: bool,
    /// The peer has this view too: what makes this node primary in it may begin.
    go: bool,
    /// `failover_ms` passed since the primary was last answered.
    expired: bool,
    /// The primary said that it serves no more.
    gone: bool,
    /// In this incarnation the peer was met in the chosen view. Without a witness only such a
    /// node may go on alone.
    met: bool,
    /// The gateway did not answer: this node is cut off until the peer or an operator speaks.
    cut_off: bool,
    /// Served since it was last started, and was not stopped in order.
    served: bool,
    /// An operator wants to swap.
    swapping: bool,
    /// An operator wants a restart.
    restarting: bool,
    /// The operator takes a joiner in without a witness.
    join_now: bool,
    /// Looked long enough for a peer before serving alone again.
    looked: bool,
    maintenance: bool,
    /// Services that failed moved from one node to the other, and may not again until then.
    services_moved_until: Option<Now>,
    split: Option<Split>,
    /// The peer's view that lost the split brain against this node.
    won: Option<View>,
    /// The newest view of the peer that an operator forced, as heard by this process.
    overruled: Option<View>,
    log_known: bool,
    /// The log was synced since its facts were told.
    log_stale: bool,
    /// Why it was promoted last; for the receipt of a start.
    promotion: Option<Promotion>,
    tickets: u64,
    said: Said,
    why: Why,
    out: Vec<Effect>,
}

/// What was last said to the shell and the peer.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Said {
    commit: CommitRule,
    lease: Lease,
    link: LinkRole,
    beat: Option<BeatKey>,
}

/// What of a heartbeat is worth a heartbeat out of turn.
type BeatKey = (Register, [bool; 7], State);

impl Machine {
    /// The machine of node `me` that has just started for the `incarnation`-th time, with the
    /// register and the log as they stand on disk. Its first deadline is now.
    ///
    /// Nothing runs yet: services that an earlier process left behind have been fenced.
    pub fn new(
        me: NodeId,
        incarnation: u64,
        register: Register,
        log: LogFacts,
        settings: Settings,
        now: Now,
    ) -> Self {
        let mode =
            if settings.start_at_boot { Mode::Work } else { Mode::Stopped(Stopped::NotStarted) };
        let mut machine = Self {
            me,
            incarnation,
            register,
            settings,
            log,
            now,
            timers: Timers::default(),
            mode,
            services: Services::Down,
            peer: Peer::default(),
            witness: Seen::default(),
            leases: Leases::default(),
            asking: None,
            accepting: None,
            begun: None,
            pend_own: false,
            prop_due: false,
            accepted_here: false,
            overdue: false,
            go: false,
            expired: false,
            gone: false,
            met: false,
            cut_off: false,
            served: false,
            swapping: false,
            restarting: false,
            join_now: false,
            looked: false,
            maintenance: false,
            services_moved_until: None,
            split: None,
            won: None,
            overruled: None,
            log_known: false,
            log_stale: false,
            promotion: None,
            tickets: 0,
            said: Said {
                commit: CommitRule::Blocked,
                lease: Lease::None,
                link: LinkRole::Off,
                beat: None,
            },
            why: Why::Starts,
            out: Vec::new(),
        };
        machine.timers.set(Timer::Beat, now);
        machine.begin_looking();
        machine.why = machine.find_why();
        machine
    }

    /// Takes in one event; returns what to do about it, in order.
    #[must_use = "an effect that is dropped is a failover that does not happen"]
    pub fn step(&mut self, now: Now, event: Event) -> Vec<Effect> {
        self.now = now;
        // What is over is over before anything else is looked at: a grant that comes after the
        // lease ended finds the services stopping.
        while let Some(timer) = self.timers.take_due(now) {
            self.on_timer(timer);
            self.settle();
        }
        self.on_event(event);
        self.settle();
        std::mem::take(&mut self.out)
    }

    /// What follows when `timer` goes off now, whenever it was due. For model checkers, in which
    /// every deadline may pass at any time.
    #[must_use = "an effect that is dropped is a failover that does not happen"]
    pub fn fire(&mut self, timer: Timer) -> Vec<Effect> {
        if self.timers.at(timer).is_some() {
            self.timers.clear(timer);
            self.on_timer(timer);
            self.settle();
        }
        std::mem::take(&mut self.out)
    }

    /// Whether it has asked to go on alone and waits for the answer.
    pub const fn asks(&self) -> bool {
        self.asking.is_some()
    }

    /// Whether `timer` is set.
    pub fn is_set(&self, timer: Timer) -> bool {
        self.timers.at(timer).is_some()
    }

    /// When [`Event::Tick`] is due at the latest.
    pub fn deadline(&self) -> Option<Now> {
        self.timers.next()
    }

    /// The register as it was last persisted.
    pub const fn register(&self) -> &Register {
        &self.register
    }

    /// The settings as operators left them.
    pub const fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The view that this incarnation leads, chosen or proposed.
    pub const fn leads(&self) -> Option<ViewNum> {
        self.begun
    }

    /// Whether services run here, or may.
    pub const fn serves(&self) -> bool {
        !matches!(self.services, Services::Down)
    }

    fn on_timer(&mut self, timer: Timer) {
        match timer {
            Timer::Beat => {
                self.timers.set(Timer::Beat, self.now.plus(self.settings.heartbeat_ms));
                self.said.beat = None;
            }
            Timer::PeerLost => self.peer.here = false,
            Timer::WitnessLost => self.witness.here = false,
            Timer::Failover => self.expired = true,
            Timer::Lease => self.lease_over(),
            Timer::Again => self.say_again(),
            Timer::Accept => self.overdue = true,
            Timer::Stall => self.stall(),
            Timer::Rejoin => self.peer.stalled = false,
            Timer::Look => self.looked = true,
            Timer::Maintenance => self.maintenance = false,
        }
    }

    fn on_event(&mut self, event: Event) {
        match event {
            Event::Tick => {}
            Event::Log(log) => {
                self.log = log;
                self.log_known = true;
                self.log_stale = false;
                if self.split == Some(Split::Freezing) {
                    self.split = Some(Split::Frozen);
                }
            }
            Event::Peer(message) => self.on_message(message),
            Event::Witness(reply) => self.on_reply(reply),
            Event::LinkUp { incarnation, .. } => {
                self.peer.link = Some(incarnation);
                self.peer.link_error = None;
            }
            Event::LinkDown { why } => {
                self.link_lost();
                self.peer.link_error = Some(why);
            }
            Event::Acked { view, durable } => self.on_acked(view, durable),
            Event::CaughtUp => self.peer.caught_up = self.peer.link.is_some(),
            Event::Waiting { wanted, acked } => self.on_waiting(wanted, acked),
            Event::Done(ticket) => self.on_done(ticket),
            Event::Failed { ticket, cause } => self.on_failed(ticket, cause),
            Event::ServicesFailed { cause } => self.halt(Stopped::Services(cause)),
            Event::ServicesMoved { until } => self.services_moved_until = Some(until),
            Event::Fenced { incarnation, at } => self.on_fenced(incarnation, at),
            Event::DiskFailed { cause } => self.halt(Stopped::Disk(cause)),
            Event::Operator(action) => self.on_action(action),
        }
    }

    /// Decides what follows from what is known.
    fn settle(&mut self) {
        self.settle_forced();
        self.settle_split();
        self.settle_lead();
        // A connection of another kind is gone before it could count for an acceptance.
        self.settle_link();
        self.try_accept();
        self.settle_ask();
        self.settle_services();
        self.settle_link();
        self.settle_commit();
        self.settle_lease();
        self.settle_proposal();
        self.settle_why();
        self.settle_beat();
    }

    const fn works(&self) -> bool {
        matches!(self.mode, Mode::Work)
    }

    fn alone_here(&self) -> bool {
        !self.register.conf.pair && self.is_primary() && self.register.conf.num.0 > 0
    }

    /// The chosen view names this node as its primary.
    fn is_primary(&self) -> bool {
        self.register.conf.primary == self.me
    }

    /// It leads the chosen view, and no proposal is open.
    fn leads_chosen(&self) -> bool {
        self.begun == Some(self.register.conf.num) && self.register.pend.is_none()
    }

    /// The peer is heard and takes part.
    fn peer_takes_part(&self) -> bool {
        self.peer.here && self.peer.beat.as_ref().is_some_and(|beat| !beat.stopped)
    }

    /// The peer is connected, and said that this node's chosen view is its own.
    fn peer_stands_by(&self) -> bool {
        self.leads_chosen()
            && self.peer.link.is_some()
            && self.peer.beat.as_ref().is_some_and(|beat| beat.conf == self.register.conf)
    }

    fn peer_stopped(&self) -> bool {
        self.peer.beat.as_ref().is_some_and(|beat| beat.stopped)
    }

    /// The identity that the next view names.
    fn wanted_witness(&self) -> u128 {
        let cur = self.register.cur().witness;
        match self.settings.witness {
            false => 0,
            // A grant alone does not count: who was not heard otherwise has no name yet.
            true if self.witness.here && self.witness.wid != 0 => self.witness.wid,
            true => cur,
        }
    }

    /// A number that nobody has seen yet, as far as is known.
    fn next_num(&self) -> ViewNum {
        let reg = self.witness.reg.map_or(ViewNum(0), |reg| reg.num);
        ViewNum(self.register.hi.max(reg).0 + 1)
    }

    fn persist(&mut self, conf: View, pend: Option<View>) {
        let held = conf.num.max(pend.map_or(ViewNum(0), |pend| pend.num));
        let register = Register { conf, pend, hi: self.register.hi.max(held) };
        if register != self.register {
            self.register = register;
            self.out.push(Effect::Persist(register));
        }
    }

    fn ticket(&mut self) -> Ticket {
        self.tickets += 1;
        Ticket(self.tickets)
    }

    fn settle_commit(&mut self) {
        let conf = self.register.conf;
        let rule = if self.split.is_some() || !self.leads_chosen() {
            CommitRule::Blocked
        } else if conf.pair {
            CommitRule::Pair { view: conf.num }
        } else {
            CommitRule::Local
        };
        if rule != self.said.commit {
            self.said.commit = rule;
            self.out.push(Effect::Commit(rule));
        }
    }

    fn settle_link(&mut self) {
        let role = self.link_role();
        if role == self.said.link {
            return;
        }
        if !same_connection(role, self.said.link) {
            self.link_lost();
        }
        self.said.link = role;
        self.out.push(Effect::Link(role));
    }

    fn link_role(&self) -> LinkRole {
        let Register { conf, pend, .. } = self.register;
        if !self.settings.peer {
            return LinkRole::Off;
        }
        // Also while services are being stopped: their last commits need the peer.
        if let Some(view) = self.begun {
            return LinkRole::Ship { view };
        }
        if !self.works() {
            return LinkRole::Off;
        }
        // The rest of the log for the peer that is to lead; nothing is appended any more.
        if pend.is_some_and(|pend| pend.primary != self.me) {
            return LinkRole::Ship { view: conf.num };
        }
        let member = self.register.member(self.me);
        let ack = conf.num;
        if let Some(prop) = self.accepting {
            let (incarnation, view) = (prop.incarnation, prop.view.num);
            return LinkRole::Follow { incarnation, view, ack, member };
        }
        let follows = conf.num.0 > 0 && !self.is_primary();
        match &self.peer.beat {
            Some(beat) if follows && beat.conf == conf => {
                LinkRole::Follow { incarnation: beat.incarnation, view: conf.num, ack, member }
            }
            // Not heard of for the moment: what stands, stands.
            _ if follows => match self.said.link {
                LinkRole::Follow { incarnation, .. } => {
                    LinkRole::Follow { incarnation, view: conf.num, ack, member }
                }
                _ => LinkRole::Off,
            },
            _ => LinkRole::Off,
        }
    }

    fn link_lost(&mut self) {
        self.peer.link = None;
        self.peer.caught_up = false;
    }

    fn settle_beat(&mut self) {
        let beat = self.beat();
        let flags = [
            beat.lease,
            beat.serves,
            beat.follows,
            beat.stopped,
            beat.complete,
            beat.frozen,
            beat.failover && beat.maintenance_ms == 0,
        ];
        let key = (self.register, flags, beat.state);
        if self.said.beat == Some(key) {
            return;
        }
        self.said.beat = Some(key);
        self.tell_witness(Question::Beat(WitnessBeat {
            incarnation: self.incarnation,
            sent: self.now,
            conf: self.register.conf,
            lease: beat.lease,
            failover_ms: self.settings.failover_ms,
        }));
        self.tell_peer(Message::Beat(beat));
    }

    fn beat(&self) -> Beat {
        let Register { conf, pend, hi } = self.register;
        let skip = self.log.history.len().saturating_sub(HISTORY_MAX);
        Beat {
            incarnation: self.incarnation,
            sent: self.now,
            conf,
            pend,
            hi,
            lease: self.wants_lease(),
            serves: self.serves(),
            follows: self.follows() && self.peer.link.is_some(),
            state: self.why.state(),
            stopped: !self.works() && !self.serves(),
            end: self.log.end,
            durable: self.log.durable,
            committed: self.log.committed,
            complete: self.log.complete,
            history: self.log.history[skip..].to_vec(),
            frozen: self.split == Some(Split::Frozen),
            won: self.won,
            failover: self.settings.failover && !self.keeps_failed_services(),
            maintenance_ms: match self.timers.at(Timer::Maintenance) {
                Some(at) if self.maintenance => at.since(self.now).max(1),
                _ => 0,
            },
        }
    }

    /// Stopped because services failed, so soon after they failed at the other node that nobody is
    /// to take them over from here yet.
    fn keeps_failed_services(&self) -> bool {
        matches!(self.mode, Mode::Stopped(Stopped::Services(_)))
            && self.services_moved_until.is_some_and(|until| self.now < until)
    }

    fn say_gone(&mut self) {
        self.void_leases(self.now);
        let gone = Gone { incarnation: self.incarnation, at: self.now };
        self.tell_peer(Message::Gone(gone));
        self.tell_witness(Question::Gone(gone));
    }

    fn tell_peer(&mut self, message: Message) {
        if self.settings.peer {
            self.out.push(Effect::ToPeer(message));
        }
    }

    fn tell_witness(&mut self, question: Question) {
        if self.settings.witness {
            self.out.push(Effect::ToWitness(question));
        }
    }

    fn settle_why(&mut self) {
        let why = self.find_why();
        let (from, to) = (self.why.state(), why.state());
        self.why = why;
        if from != to {
            let sentence = self.standing().sentence;
            self.out.push(Effect::Record(Note::Changed { from, to, sentence }));
        }
    }
}

/// Whether a connection made for one role serves the other as well.
const fn same_connection(a: LinkRole, b: LinkRole) -> bool {
    match (a, b) {
        (LinkRole::Ship { .. }, LinkRole::Ship { .. }) | (LinkRole::Off, LinkRole::Off) => true,
        (
            LinkRole::Follow { incarnation: one, .. },
            LinkRole::Follow { incarnation: other, .. },
        ) => one == other,
        _ => false,
    }
}
