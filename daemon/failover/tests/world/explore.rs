//! The world as a model that stateright explores.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use duolog_failover::{Action, Forced, Timer};
use duolog_wal::NodeId;
use stateright::util::HashableHashMap;
use stateright::{Checker, Model, Property};

use super::{Act, Bad, Limits, N1, N2, Serving, World};

/// Where exploring begins, and how far it goes.
#[derive(Clone, Debug)]
pub(crate) struct Explored {
    pub(crate) start: World,
    pub(crate) limits: Limits,
    /// What must hold.
    pub(crate) holds: Vec<Bad>,
    /// What has been come by, seen before it was forgotten: node1 committed alone, node2 did,
    /// node2 committed for both, a write was cut off.
    pub(crate) reached: Arc<[AtomicBool; 4]>,
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
        vec![
            Property::always("S1", |model: &Self, world| model.holds(world, Bad::S1)),
            Property::always("S2", |model: &Self, world| model.holds(world, Bad::S2)),
            Property::always("S3", |model: &Self, world| model.holds(world, Bad::S3)),
            Property::always("S4", |model: &Self, world| model.holds(world, Bad::S4)),
            Property::always("S4p", |model: &Self, world| model.holds(world, Bad::S4p)),
            Property::always("S4x", |model: &Self, world| model.holds(world, Bad::S4x)),
            Property::always("LM", |model: &Self, world| model.holds(world, Bad::Lm)),
            Property::always("CD", |model: &Self, world| model.holds(world, Bad::Cd)),
            Property::always("UQ", |model: &Self, world| model.holds(world, Bad::Uq)),
            Property::always("KEPT", |model: &Self, world| model.holds(world, Bad::Kept)),
            Property::always("table", |model: &Self, world| model.holds(world, Bad::Table)),
        ]
    }

    fn within_boundary(&self, world: &World) -> bool {
        let highest = world.highest().0 & 0xffff_ffff_ffff;
        let base = self.start.highest().0;
        world.highest().0 >> 48 <= u64::from(self.limits.forces)
            && (highest < base || highest - base < self.limits.views)
    }
}

impl Explored {
    /// Whether operators may still do anything in that world but force.
    fn operators(&self, world: &World) -> bool {
        world.used.swaps < self.limits.swaps || world.used.stops < self.limits.stops
    }

    fn look(&self, world: &World) {
        let seen = [
            world.committed_by(N1, false),
            world.committed_by(N2, false),
            world.committed_by(N2, true),
            world.cut_a_write(),
        ];
        for (reached, seen) in self.reached.iter().zip(seen) {
            reached.fetch_or(seen, Ordering::Relaxed);
        }
    }

    /// Which of these the limits let happen.
    const fn may_reach(&self) -> [bool; 4] {
        let Limits { views, writes, reboots, swaps, .. } = self.limits;
        let alone = writes > 0 && views > 1;
        [alone, alone, writes > 0 && swaps > 0, writes > 1 && reboots > 0]
    }

    fn holds(&self, world: &World, what: Bad) -> bool {
        !self.holds.contains(&what) || !world.ghost.bad.contains(&what)
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
        let reached = [0, 1, 2, 3].map(|at| reached[at].load(Ordering::Relaxed));
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
    /// way to the first thing that must not happen.
    ///
    /// Returns in how many of them each node committed a write alone.
    pub(crate) fn walk(&self, seed: u64, walks: u64, steps: usize) -> [u64; 2] {
        let mut alone = [0; 2];
        for walk in 0..walks {
            let mut reached = [false; 2];
            let mut random = Random::new(seed.wrapping_add(walk));
            let mut world = self.start.clone();
            let mut way = Vec::new();
            for _ in 0..steps {
                let mut acts = Vec::new();
                self.actions(&world, &mut acts);
                let at = random.below(acts.len());
                let act = acts.swap_remove(at);
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
                if let Some(bad) = world.ghost.bad.iter().find(|bad| self.holds.contains(bad)) {
                    for act in &way[way.len().saturating_sub(40)..] {
                        println!("  {act:?}");
                    }
                    for node in &world.nodes {
                        println!("{:?} {:?} {:?}", node.log, node.register, node.machine);
                    }
                    panic!("{bad:?} fails, seed {}", seed.wrapping_add(walk));
                }
            }
            for (count, reached) in alone.iter_mut().zip(reached) {
                *count += u64::from(reached);
            }
        }
        println!("{walks} walks from seed {seed}: each node committed alone in {alone:?}");
        alone
    }
}
