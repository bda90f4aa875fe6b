//! The world as a model that stateright explores.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use duolog_failover::{Action, Forced, Timer};
use duolog_wal::NodeId;
use stateright::util::HashableHashMap;
use stateright::{Checker, Model, Property};

use super::{Act, Bad, Letter, Limits, N1, N2, Serving, World, slot};

/// Where exploring begins, and how far it goes.
#[derive(Clone, Debug)]
pub(crate) struct Explored {
    pub(crate) start: World,
    pub(crate) limits: Limits,
    /// What must hold.
    pub(crate) holds: Vec<Bad>,
    /// What has been come by, seen before it was forgotten: node1 committed alone, node2 did,
    /// node2 committed for both, a write was cut off, one that acknowledged alone heard that the
    /// other was forced.
    pub(crate) reached: Arc<[AtomicBool; 5]>,
}

impl Explored {
    fn node_acts(&self, world: &World, node: NodeId, acts: &mut Vec<Act>) {
        let limits = &self.limits;
        let it = world.node(node);
        if it.register.conf.primary == node {
            acts.push(Act::Talk(node));
        }
        acts.push(Act::Hear(node));
        acts.extend(it.tasks.iter().map(|task| Act::Done(node, task.0)));
        if limits.until == 0 {
            // Saying anything again adds nothing: the network forgets nothing.
            acts.push(Act::Doubt(node));
            if it.machine.is_set(Timer::Lease) {
                acts.push(Act::Fire(node, Timer::Lease));
            }
        }
        if it.serving == Serving::Yes && world.used.writes < limits.writes {
            acts.push(Act::Write(node));
        }
        if it.durable < it.log.len() {
            acts.push(Act::Sync(node));
        }
        if world.used.reboots < limits.reboots {
            acts.push(Act::Reboot(node));
        }
        if world.used.swaps < limits.swaps && it.serving == Serving::Yes {
            acts.push(Act::Operator(node, Action::Swap));
        }
        if world.used.forces < limits.forces {
            let forced = Forced { who: "o".into(), reason: "r".into() };
            acts.push(Act::Operator(node, Action::ForceStart(forced)));
        }
        if world.used.stops < limits.stops {
            acts.push(Act::Operator(node, Action::Stop));
            acts.push(Act::Operator(node, Action::Start));
        }
    }
}

/// xorshift64*
struct Random(u64);

impl Random {
    const fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let drawn = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33;
        usize::try_from(drawn).expect("31 bits") % bound
    }
}

/// The ways that are cut for a while, where time passes. Whoever is cut off hears nothing, and
/// what was said stays on its way: late words are what leases guard against, and a walk in which
/// any word may arrive at any moment leaves hardly one unheard for that long.
#[derive(Clone, Copy, Debug, Default)]
struct Cut {
    peers: bool,
    /// Between a node and the witness.
    witness: [bool; 2],
}

impl Cut {
    fn draw(random: &mut Random) -> Self {
        let mut cut = || random.below(2) == 0;
        Self { peers: cut(), witness: [cut(), cut()] }
    }

    fn keeps(self, act: &Act) -> bool {
        match act {
            Act::Deliver(letter) => match **letter {
                Letter::Peer(..) | Letter::Ack(..) => self.peers,
                Letter::Ask(node, _) | Letter::Reply(node, _) => self.witness[slot(node)],
            },
            Act::Hear(_) | Act::Connect | Act::Ship | Act::CaughtUp => self.peers,
            Act::Talk(node) => self.witness[slot(*node)],
            _ => false,
        }
    }
}

impl Model for Explored {
    type State = World;
    type Action = Act;

    fn init_states(&self) -> Vec<World> {
        vec![self.start.clone()]
    }

    fn actions(&self, world: &World, acts: &mut Vec<Act>) {
        acts.extend(world.net.letters().map(Act::Deliver));
        for node in [N1, N2] {
            self.node_acts(world, node, acts);
        }
        if let Some((primary, follower)) = world.ends() {
            let (one, other) = (world.node(primary), world.node(follower));
            if world.connected {
                if other.log.len() < one.log.len() {
                    acts.push(Act::Ship);
                }
                if other.durable == one.log.len() && !one.register.cur().pair {
                    acts.push(Act::CaughtUp);
                }
                acts.push(Act::Sync(follower));
            } else {
                acts.push(Act::Connect);
            }
        }
        if self.limits.replaced && !world.used.replaced {
            acts.push(Act::Replace);
        }
        if world.now.0 < self.start.now.0 + self.limits.until {
            acts.push(Act::Wait);
        }
    }

    fn next_state(&self, world: &World, act: Act) -> Option<World> {
        let mut next = world.clone();
        next.act(&act);
        self.look(&next);
        next.forget(self.operators(&next));
        (next != *world).then_some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let all = [
            Property::<Self>::always("S1", |_, world| world.keeps(Bad::S1)),
            Property::<Self>::always("S2", |_, world| world.keeps(Bad::S2)),
            Property::<Self>::always("S3", |_, world| world.keeps(Bad::S3)),
            Property::<Self>::always("S4", |_, world| world.keeps(Bad::S4)),
            Property::<Self>::always("S4p", |_, world| world.keeps(Bad::S4p)),
            Property::<Self>::always("S4x", |_, world| world.keeps(Bad::S4x)),
            Property::<Self>::always("LM", |_, world| world.keeps(Bad::Lm)),
            Property::<Self>::always("CD", |_, world| world.keeps(Bad::Cd)),
            Property::<Self>::always("UQ", |_, world| world.keeps(Bad::Uq)),
            Property::<Self>::always("KEPT", |_, world| world.keeps(Bad::Kept)),
            Property::<Self>::always("HF", |_, world| world.keeps(Bad::Hf)),
            Property::<Self>::always("table", |_, world| world.keeps(Bad::Table)),
        ];
        let sought = self.sought();
        all.into_iter().filter(|it| sought.iter().any(|bad| bad.name() == it.name)).collect()
    }

    fn within_boundary(&self, world: &World) -> bool {
        let highest = world.highest().0;
        let forces = highest >> 48;
        // A forced view begins to count anew.
        let from = if forces == 0 { self.start.highest().0 } else { forces << 48 };
        forces <= u64::from(self.limits.forces) && highest < from + self.limits.views
    }
}

impl Explored {
    /// Whether operators may still do anything in that world but force.
    fn operators(&self, world: &World) -> bool {
        world.used.swaps < self.limits.swaps || world.used.stops < self.limits.stops
    }

    /// What must hold, or of that the one property that is asked for.
    fn sought(&self) -> Vec<Bad> {
        let Ok(name) = std::env::var("DUOLOG_HOLDS") else { return self.holds.clone() };
        let sought: Vec<_> = self.holds.iter().copied().filter(|bad| bad.name() == name).collect();
        assert!(!sought.is_empty(), "{name} is not looked for here");
        sought
    }

    fn look(&self, world: &World) {
        let seen = [
            world.committed_by(N1, false),
            world.committed_by(N2, false),
            world.committed_by(N2, true),
            world.cut_a_write(),
            world.ghost.overruled,
        ];
        for (reached, seen) in self.reached.iter().zip(seen) {
            reached.fetch_or(seen, Ordering::Relaxed);
        }
    }

    /// Which of these the limits let happen.
    const fn may_reach(&self) -> [bool; 5] {
        let Limits { views, writes, reboots, swaps, forces, .. } = self.limits;
        let alone = writes > 0 && views > 1;
        let cut = writes > 1 && reboots > 0;
        [alone, alone, writes > 0 && swaps > 0, cut, views > 1 && forces > 0]
    }

    /// Explores everything within the limits, prints what it came to, and panics with the way
    /// to the first thing that must not happen.
    pub(crate) fn explore(self, name: &str) {
        let (reached, may) = (self.reached.clone(), self.may_reach());
        let checker = self.checker().threads(1).spawn_dfs().join();
        println!(
            "{name}: {} states, {} with repetitions, depth {}",
            checker.unique_state_count(),
            checker.state_count(),
            checker.max_depth(),
        );
        for (what, path) in checker.discoveries() {
            println!("{what} fails:");
            for act in path.into_actions() {
                println!("  {act:?}");
            }
        }
        checker.assert_properties();
        let reached = [0, 1, 2, 3, 4].map(|at| reached[at].load(Ordering::Relaxed));
        let missed = may.iter().zip(reached).any(|(may, reached)| *may && !reached);
        assert!(!missed, "a run that comes by nothing shows nothing: {reached:?} of {may:?}");
    }

    /// Walks at random through worlds that forget nothing, and holds beside each the world that
    /// forgets: what may happen next is the same for both.
    pub(crate) fn walk_beside(&self, seed: u64, walks: u64, steps: usize) -> usize {
        let mut held = 0;
        for walk in 0..walks {
            let mut random = Random::new(seed.wrapping_add(walk));
            let mut world = self.start.clone();
            for _ in 0..steps {
                let mut forgets = world.clone();
                forgets.forget(self.operators(&world));
                let (one, other) = (self.next(&world), self.next(&forgets));
                for (next, forgotten) in [(&one, &other), (&other, &one)] {
                    if let Some((world, act)) = next.iter().find(|it| !forgotten.contains_key(it.0))
                    {
                        let same = forgotten.keys().find(|other| !next.contains_key(other));
                        println!("{world:?}\nor\n{same:?}");
                        panic!("seed {}: {act:?} leads there alone", seed.wrapping_add(walk));
                    }
                }
                held += one.len();
                let mut acts = Vec::new();
                self.actions(&world, &mut acts);
                let mut next = world.clone();
                next.act(&acts[random.below(acts.len())]);
                if self.within_boundary(&next) {
                    world = next;
                }
            }
        }
        held
    }

    /// What each act leads to, once that has forgotten; less the world itself.
    fn next(&self, world: &World) -> HashableHashMap<World, Act> {
        let mut here = world.clone();
        here.forget(self.operators(world));
        let mut acts = Vec::new();
        self.actions(world, &mut acts);
        let next = acts.into_iter().map(|act| {
            let mut next = world.clone();
            next.act(&act);
            next.forget(self.operators(&next));
            (next, act)
        });
        next.filter(|(next, _)| *next != here && self.within_boundary(next)).collect()
    }

    /// Walks at random from where exploring begins, `walks` times `steps`, and panics with the
    /// way to the first thing that must not happen. Goes on walking, twenty times as often at
    /// most, until it has come by everything that makes a walk worth something.
    pub(crate) fn walk(&self, seed: u64, walks: u64, steps: usize) {
        let what = ["node1 committed alone", "node2 committed alone", "a forced one was heard of"];
        let mut met = [0_u64; 3];
        let wanted = if self.limits.forces > 0 { 3 } else { 2 };
        let mut walked = 0;
        while walked < walks || (met[..wanted].contains(&0) && walked < 20 * walks) {
            let reached = self.walk_once(seed.wrapping_add(walked), steps);
            for (count, reached) in met.iter_mut().zip(reached) {
                *count += u64::from(reached);
            }
            walked += 1;
        }
        let met: Vec<_> = what.into_iter().zip(met).take(wanted).collect();
        println!("{walked} walks from seed {seed}: {met:?}");
        assert!(met.iter().all(|(_, count)| *count > 0), "walks that come by nothing show nothing");
    }

    fn walk_once(&self, seed: u64, steps: usize) -> [bool; 3] {
        let mut reached = [false; 3];
        let sought = self.sought();
        let mut random = Random::new(seed);
        let mut world = self.start.clone();
        let mut way = Vec::new();
        let mut cut = Cut::default();
        for _ in 0..steps {
            let Some(act) = self.draw(&world, cut, &mut random) else { break };
            if act == Act::Wait && random.below(8) == 0 {
                cut = Cut::draw(&mut random);
            }
            let mut next = world.clone();
            next.act(&act);
            next.sweep();
            if !self.within_boundary(&next) {
                continue;
            }
            way.push(act);
            world = next;
            for (node, reached) in [N1, N2].into_iter().zip(&mut reached) {
                *reached |= world.committed_by(node, false);
            }
            reached[2] |= world.ghost.overruled;
            if let Some(bad) = world.ghost.bad.iter().find(|bad| sought.contains(bad)) {
                println!("{} fails:", bad.name());
                for act in &way[way.len().saturating_sub(40)..] {
                    println!("  {act:?}");
                }
                for node in &world.nodes {
                    println!("{:?} {:?} {:?}", node.log, node.register, node.machine);
                }
                panic!("{} fails, seed {seed}", bad.name());
            }
        }
        reached
    }

    /// What happens next; `None` once nothing may. Where time passes every fourth time a moment
    /// does, however much might happen instead.
    fn draw(&self, world: &World, cut: Cut, random: &mut Random) -> Option<Act> {
        let mut acts = Vec::new();
        self.actions(world, &mut acts);
        if cut.peers && world.connected {
            acts.push(Act::Disconnect);
        }
        acts.retain(|act| !cut.keeps(act));
        if acts.contains(&Act::Wait) && random.below(4) == 0 {
            return Some(Act::Wait);
        }
        (!acts.is_empty()).then(|| acts.swap_remove(random.below(acts.len())))
    }
}
