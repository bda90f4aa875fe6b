//! One machine on a bench: made as a disk would have it, fed by hand, its effects looked at.

use duolog_failover::message::{Beat, Prop};
use duolog_failover::{
    Effect, Event, LogFacts, Machine, Message, Now, Question, Register, Settings, State, Task,
    Ticket,
};
use duolog_wal::{Chain, Cursor, HistoryEntry, Lsn, NodeId, Time, View, ViewNum};

pub(crate) const N1: NodeId = NodeId::Node1;
pub(crate) const N2: NodeId = NodeId::Node2;
pub(crate) const WID: u128 = 7;

pub(crate) const fn view(num: u64, primary: NodeId, pair: bool, origin: NodeId) -> View {
    View { num: ViewNum(num), primary, pair, witness: WID, origin, forced: false }
}

pub(crate) const fn alone(num: u64, node: NodeId) -> View {
    view(num, node, false, node)
}

pub(crate) const fn pair(num: u64, primary: NodeId) -> View {
    view(num, primary, true, primary)
}

pub(crate) fn end(lsn: u64) -> Cursor {
    Cursor { lsn: Lsn(lsn), chain: Chain(u32::try_from(lsn).expect("small")), time: Time(0) }
}

/// A log of ten positions a view, all of it durable.
pub(crate) fn log(views: &[(u64, NodeId)]) -> LogFacts {
    let entry = |(at, (num, origin)): (usize, &(u64, NodeId))| HistoryEntry {
        num: ViewNum(*num),
        origin: *origin,
        start: Lsn(at as u64 * 10),
    };
    let history: Vec<_> = views.iter().enumerate().map(entry).collect();
    let end = end(history.len() as u64 * 10);
    LogFacts { end, durable: end.lsn, committed: end.lsn, history, complete: true }
}

pub(crate) struct Bench {
    pub(crate) machine: Machine,
    pub(crate) now: Now,
    /// Effects of the newest step.
    pub(crate) effects: Vec<Effect>,
}

impl Bench {
    pub(crate) fn new(me: NodeId, conf: View, pend: Option<View>, log: LogFacts) -> Self {
        let hi = pend.map_or(conf.num, |pend| pend.num.max(conf.num));
        let settings = Settings { auto_rejoin: true, ..Settings::normal(conf.witness != 0) };
        let now = Now(1_000_000);
        let register = Register { conf, pend, hi };
        let machine = Machine::new(me, 5, register, log.clone(), settings, now);
        let mut bench = Self { machine, now, effects: Vec::new() };
        bench.event(Event::Log(log));
        bench
    }

    /// Node1 is PRIM in view 2, node2 follows.
    pub(crate) fn prim() -> Self {
        let mut n1 = Self::new(N1, pair(1, N1), None, log(&[(1, N1)]));
        n1.peer(Message::Beat(beat(n1.now, pair(1, N1), None, false, log(&[(1, N1)]))));
        n1.event(Event::LinkUp { incarnation: 3, view: ViewNum(2) });
        n1.event(Event::Log(log(&[(1, N1), (2, N1)])));
        n1.peer(Message::Accepted { view: pair(2, N1), durable: Lsn(20) });
        n1.peer(Message::Beat(beat(n1.now, pair(2, N1), None, false, log(&[(1, N1), (2, N1)]))));
        let sent = n1.now;
        n1.peer(Message::Answer { incarnation: 5, sent });
        n1.done();
        assert!(n1.machine.serves() && n1.conf() == pair(2, N1));
        n1
    }

    pub(crate) fn event(&mut self, event: Event) -> &[Effect] {
        self.effects = self.machine.step(self.now, event);
        &self.effects
    }

    pub(crate) fn peer(&mut self, message: Message) -> &[Effect] {
        self.event(Event::Peer(message))
    }

    pub(crate) fn wait(&mut self, ms: u64) -> &[Effect] {
        self.now = self.now.plus(ms);
        self.event(Event::Tick)
    }

    /// The newest task of the newest step is done.
    pub(crate) fn done(&mut self) {
        let ticket = self.effects.iter().rev().find_map(|effect| match effect {
            Effect::Run { ticket, .. } => Some(*ticket),
            _ => None,
        });
        self.event(Event::Done(ticket.unwrap_or(Ticket(0))));
    }

    pub(crate) fn conf(&self) -> View {
        self.machine.register().conf
    }

    pub(crate) fn asked(&self) -> Option<(View, u64)> {
        self.effects.iter().find_map(|effect| match effect {
            Effect::ToWitness(Question::Ask(ask)) => Some((ask.view, ask.nonce)),
            _ => None,
        })
    }

    pub(crate) fn accepted(&self) -> Option<View> {
        self.effects.iter().find_map(|effect| match effect {
            Effect::ToPeer(Message::Accepted { view, .. }) => Some(*view),
            _ => None,
        })
    }

    pub(crate) fn proposed(&self) -> Option<Prop> {
        self.effects.iter().find_map(|effect| match effect {
            Effect::ToPeer(Message::Prop(prop)) => Some(*prop),
            _ => None,
        })
    }

    pub(crate) fn starts(&self) -> bool {
        let starts = |effect: &Effect| {
            matches!(effect, Effect::Run { task: Task::StartServices { .. }, .. })
        };
        self.effects.iter().any(starts)
    }

    /// Where in the newest effects the first of this kind stands.
    pub(crate) fn place(&self, kind: impl Fn(&Effect) -> bool) -> usize {
        self.effects.iter().position(kind).expect("an effect of that kind")
    }
}

/// A heartbeat of a node that stands like this.
pub(crate) fn beat(sent: Now, conf: View, pend: Option<View>, lease: bool, log: LogFacts) -> Beat {
    Beat {
        incarnation: 3,
        sent,
        conf,
        pend,
        hi: conf.num,
        lease,
        serves: lease,
        follows: false,
        state: State::Wait,
        stopped: false,
        end: log.end,
        durable: log.durable,
        committed: log.committed,
        complete: true,
        history: log.history,
        frozen: false,
        won: None,
        failover: true,
        maintenance_ms: 0,
    }
}
