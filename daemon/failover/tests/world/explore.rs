//! The world as a model that stateright explores.

use duolog_failover::{Action, Forced, Timer};
use duolog_wal::NodeId;
use stateright::{Checker, Model, Property};

use super::{Act, Bad, Limits, N1, N2, Serving, World};

/// Where exploring begins, and how far it goes.
#[derive(Clone, Debug)]
pub(crate) struct Explored {
    pub(crate) start: World,
    pub(crate) limits: Limits,
    /// What must hold.
    pub(crate) holds: Vec<Bad>,
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
        (next != *world).then_some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let mut properties = vec![
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
        ];
        if self.limits.writes > 0 && self.limits.views > 1 {
            properties.extend([
                Property::sometimes("node1 commits alone", |_, world: &World| {
                    world.committed_by(N1, false)
                }),
                Property::sometimes("node2 commits alone", |_, world: &World| {
                    world.committed_by(N2, false)
                }),
            ]);
        }
        if self.limits.swaps > 0 && self.limits.writes > 0 {
            properties.push(Property::sometimes("node2 commits for both", |_, world: &World| {
                world.committed_by(N2, true)
            }));
        }
        if self.limits.reboots > 0 && self.limits.writes > 1 {
            properties.push(Property::sometimes("a write is cut off", |_, world: &World| {
                world.cut_a_write()
            }));
        }
        properties
    }

    fn within_boundary(&self, world: &World) -> bool {
        let highest = world.highest().0 & 0xffff_ffff_ffff;
        let base = self.start.highest().0;
        world.highest().0 >> 48 <= u64::from(self.limits.forces)
            && (highest < base || highest - base < self.limits.views)
    }
}

impl Explored {
    fn holds(&self, world: &World, what: Bad) -> bool {
        !self.holds.contains(&what) || !world.ghost.bad.contains(&what)
    }

    /// Explores everything within the limits, prints what it came to, and panics with the way
    /// to the first thing that must not happen.
    pub(crate) fn explore(self, name: &str) {
        let checker = self.checker().threads(1).spawn_dfs().join();
        println!(
            "{name}: {} states, {} with repetitions, depth {}",
            checker.unique_state_count(),
            checker.state_count(),
            checker.max_depth(),
        );
        for (what, path) in checker.discoveries() {
            let sometimes = what.contains("commits") || what.contains("cut off");
            if !sometimes {
                println!("{what} fails:");
                for act in path.into_actions() {
                    println!("  {act:?}");
                }
            }
        }
        checker.assert_properties();
    }

    /// Walks at random from where exploring begins, `walks` times `steps`, and panics with the
    /// way to the first thing that must not happen.
    ///
    /// Returns in how many of them each node committed a write alone.
    pub(crate) fn walk(&self, seed: u64, walks: u64, steps: usize) -> [u64; 2] {
        let mut alone = [0; 2];
        for walk in 0..walks {
            let mut reached = [false; 2];
            let mut random = seed.wrapping_add(walk).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
            let mut world = self.start.clone();
            let mut way = Vec::new();
            for _ in 0..steps {
                let mut acts = Vec::new();
                self.actions(&world, &mut acts);
                // xorshift64*
                random ^= random >> 12;
                random ^= random << 25;
                random ^= random >> 27;
                let drawn = random.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33;
                let at = usize::try_from(drawn).expect("31 bits") % acts.len();
                let act = acts.swap_remove(at);
                let mut next = world.clone();
                next.act(&act);
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
