//! What a campaign does to a pair. Which fault comes is drawn from the seed; when it hits is not.
//!
//! Most are one thing that happens to one computer or one way. Two are a sequence, since each of
//! its parts alone hides what the whole would show: a commit that is on one disk only is missed
//! once that disk's node stays away, and a witness that grants too much does harm only to nodes
//! that build on different views.

use std::time::Duration;

use rustix::process::Signal;

use super::cluster::Cluster;
use super::lan::{Segment, Who};
use super::machine::On;
use crate::random::Random;
use crate::wait;

/// How many different faults there are.
pub const KINDS: u64 = 19;
/// How long a part of a sequence may be waited for; a sequence that does not come about is none.
const PART: Duration = Duration::from_secs(10);
/// How slow a disk of the node is that shall be late with what it accepts.
const LATE: Duration = Duration::from_millis(300);

impl Cluster {
    /// Does something bad while node `serving` serves, and says what. `kind`: which of [`KINDS`].
    pub fn fault(&mut self, kind: u64, serving: usize, random: &mut Random) -> String {
        let node = if random.once_in(3) { 3 - serving } else { serving };
        let (own, other) = (Who::node(node), Who::node(3 - node));
        let on = if random.once_in(2) { On::Log } else { On::Data };
        let machine = self.node(node);
        let (guardian, daemon) = if machine.host().is_on() {
            (machine.guardian(), machine.daemon())
        } else {
            (None, None)
        };
        match kind {
            0 | 1 => {
                if let Some(daemon) = daemon {
                    machine.signal(Some(daemon), Signal::KILL);
                }
                format!("the daemon of node{node} is killed")
            }
            2 => {
                if let Some(guardian) = guardian {
                    machine.signal(Some(guardian), Signal::KILL);
                }
                format!("the guardian of node{node} is killed")
            }
            3 => {
                for pid in [guardian, daemon].into_iter().flatten() {
                    machine.signal(Some(pid), Signal::STOP);
                }
                format!("node{node} is stalled")
            }
            4 => {
                if let Some(daemon) = daemon {
                    machine.signal(Some(daemon), Signal::STOP);
                }
                format!("the daemon of node{node} is stalled")
            }
            5 | 6 => {
                machine.kill();
                format!("everything on node{node} is killed")
            }
            7 | 8 => {
                machine.cut_power();
                format!("node{node} loses its power")
            }
            9 => {
                self.cut_both();
                "both nodes lose their power".into()
            }
            10 => {
                self.lan.isolate(own);
                format!("node{node} is cut off")
            }
            11 => {
                self.lan.cut(own, other);
                "the nodes are cut off from each other".into()
            }
            12 => {
                self.lan.cut_one_way(own, other);
                format!("nothing gets from node{node} to the other one")
            }
            13 => {
                let witness = self.witness.as_mut().expect("a campaign has a witness");
                if witness.is_on() {
                    witness.cut_power();
                }
                "the witness loses its power".into()
            }
            14 => {
                self.lan.cut(own, Who::Witness);
                self.lan.take_down(Segment::B);
                format!("node{node} loses the witness and the second path")
            }
            15 => {
                machine.disk(on).slow_down(Duration::from_millis(80));
                format!("a disk of node{node} is slow: {on:?}")
            }
            16 => {
                machine.disk(on).set_hanging(true);
                format!("a disk of node{node} hangs: {on:?}")
            }
            17 => self.only_the_other_comes_back(serving),
            _ => self.parted_while_they_make_a_view(serving),
        }
    }

    /// Both at one moment, before either could do anything about it.
    pub fn cut_both(&mut self) {
        for machine in &self.nodes {
            machine.freeze();
        }
        for machine in &mut self.nodes {
            machine.kill_all();
        }
        for machine in &mut self.nodes {
            machine.cut_power();
        }
    }

    /// What was acknowledged has to be on the disk of the node that did not serve as well.
    fn only_the_other_comes_back(&mut self, serving: usize) -> String {
        self.cut_both();
        let other = 3 - serving;
        self.nodes[other - 1].boot(&self.lan);
        let serves = wait::within(PART, || {
            let status = self.nodes[other - 1].status()?;
            // The one that serves was granted a view of its own at the last moment, or the
            // witness is away: then this node rightly waits for the other one.
            let waits = ["may have gone on", "the witness does not answer"];
            let waits = waits.iter().any(|why| status.sentence.contains(why));
            let serves = status.state == "ALONE";
            (waits || serves).then_some(serves)
        });
        let then = if serves == Some(true) { "and serves" } else { "alone" };
        format!("both nodes lose their power, node{other} comes back {then}")
    }

    /// The node that serves is started anew and proposes a view of both; the other one has not
    /// accepted it, since its disk is slow, when the first one loses everybody. So the other one
    /// takes over, on top of the same view as the proposal. Then the first one is heard by the
    /// witness again, and by nobody else: it asks for a view above its proposal, and must not get it.
    fn parted_while_they_make_a_view(&mut self, serving: usize) -> String {
        let (own, other) = (Who::node(serving), Who::node(3 - serving));
        let failover = |it: &Self, on| it.nodes[2 - serving].try_command(&["failover", on]).0;
        // However long the start takes.
        let held = failover(self, "off");
        self.node(3 - serving).disk(On::Log).slow_down(LATE);
        self.node(serving).kill();
        self.nodes[serving - 1].boot(&self.lan);
        let proposes = wait::within(PART, || {
            let status = self.nodes[serving - 1].status()?;
            let ended = matches!(&*status.state, "SECOND" | "STOP" | "PRIM");
            let proposes = status.sentence.contains("to have the same log before it serves");
            (ended || proposes).then_some(proposes)
        });
        self.lan.isolate(own);
        self.node(3 - serving).disk(On::Log).slow_down(Duration::ZERO);
        if held {
            wait::within(PART, || failover(self, "on").then_some(()));
        }
        let alone = wait::within(PART, || {
            let status = self.nodes[2 - serving].status()?;
            (status.state == "ALONE").then_some(())
        });
        self.lan.reconnect_but_for(own, other);
        let when = match (proposes, alone) {
            (Some(true), Some(())) => "while they make a view, and from all but the witness later",
            _ => "too late to matter",
        };
        format!("everything on node{serving} is killed, it starts and is cut off {when}")
    }
}
