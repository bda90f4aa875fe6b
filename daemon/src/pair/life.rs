//! The life of a node's process in a pair: opened, put into the machine's hands, stopped.

use std::net::IpAddr;
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use anyhow::{Context, anyhow};
use duolog_beat::now;
use duolog_console::api::cluster::Switches;
use duolog_engine::node::{self, Node};
use duolog_failover::{DataSync, Machine, Register, State};
use duolog_wal::{View, ViewNum};

use super::Input;
use super::checks::{Checks, Moves, Said, Ways};
use super::driver::{Driver, Shown};
use super::effects::{Hands, log_facts};
use super::health::watch;
use super::kept::{Kept, wall_ms};
use super::live::Going;
use super::peer::{Bond, PeerLink};
use super::post::Post;
use super::promotions::Promotions;
use super::receipts::Receipts;
use super::seat::Here;
use super::served::{Guard, Served};
use super::settings::settings;
use super::tasks::Tasks;
use crate::across::Across;
use crate::actions::serve::Actions;
use crate::actions::words::{Answering, OtherNode, Words};
use crate::actions::{Seat, SeatStanding, Target, Wish};
use crate::addresses::Addresses;
use crate::base::Turn;
use crate::config::Config;
use crate::control::Reply;
use crate::document::{Documents, Other};
use crate::drill::Running;
use crate::logs::Logs;
use crate::notify;
use crate::services::policy::Switched;
use crate::services::{Beside, Ended, ServiceStanding, Services, Units};
use crate::shell::node_config;
use crate::verify::Verifier;

/// How long the log may take to be applied and synced at the end.
const STOP: Duration = Duration::from_secs(10);

/// A node of a pair, as its process holds it.
#[derive(Debug)]
pub(crate) struct Pair {
    pub(crate) config: Config,
    guard: Arc<dyn Guard>,
    /// This node, as operators act on it.
    here: Arc<Here>,
    /// To and from the operators of the other node.
    words: Arc<Words>,
    actions: Actions,
    post: Arc<Post>,
    served: Arc<OnceLock<Arc<Served>>>,
    moves: Arc<Moves>,
    inputs: Sender<Input>,
    heard: Mutex<Option<Receiver<Input>>>,
    pub(super) shown: Arc<Mutex<Option<Shown>>>,
    pub(super) bond: Arc<Bond>,
    pub(super) promotions: Arc<Promotions>,
    parts: OnceLock<Parts>,
    /// One base copy at a time.
    pub(crate) copying: Arc<AtomicBool>,
    pub(crate) verifier: Arc<Verifier>,
    /// One drill at a time.
    drilling: Arc<AtomicBool>,
    /// The settings of the pair.
    pub(crate) documents: Arc<Documents>,
    pub(super) logs: Logs,
    /// The way to the other node for what is long.
    pub(crate) across: Arc<Across>,
}

/// What there is once the node is open.
#[derive(Debug)]
pub(super) struct Parts {
    pub(super) node: Arc<Node>,
    pub(super) served: Arc<Served>,
    pub(super) checks: Arc<Checks>,
}

impl Pair {
    /// A node that `guard` watches over.
    pub(crate) fn new(config: Config, file: &Path, guard: Arc<dyn Guard>, logs: &Logs) -> Self {
        let (inputs, heard) = channel();
        let (shown, served, post) = (Arc::default(), Arc::default(), Arc::new(Post::default()));
        let moves = Arc::<Moves>::default();
        let says = Arc::clone(&post);
        let words = Arc::new(Words::new(Box::new(move |word| says.word(word))));
        let other = || OtherNode::new(config.node.peer(), words.clone());
        let spoken = match config.peer {
            Some(_) => Other::Ways(Arc::new(other())),
            None => Other::Nobody,
        };
        let documents = Arc::new(Documents::load(&config, spoken));
        let here = Arc::new(Here {
            node: config.node,
            inputs: inputs.clone(),
            shown: Arc::clone(&shown),
            served: Arc::clone(&served),
            moves: Arc::clone(&moves),
            documents: Arc::clone(&documents),
            logs: logs.clone(),
            state_dir: config.state_dir.clone(),
        });
        let verifier = Arc::new(Verifier::load(&config));
        let actions = Actions::new(here.clone(), Some(Arc::new(other())));
        let across = Arc::new(Across::new(config.clone(), file));
        Self {
            across,
            here,
            words,
            actions,
            post,
            served,
            moves,
            config,
            guard,
            inputs,
            heard: Mutex::new(Some(heard)),
            shown,
            bond: Arc::default(),
            promotions: Arc::default(),
            parts: OnceLock::new(),
            copying: Arc::default(),
            drilling: Arc::default(),
            verifier,
            documents,
            logs: logs.clone(),
        }
    }

    pub(super) fn parts(&self) -> Option<&Parts> {
        self.parts.get()
    }

    /// How the paths of heartbeats stand.
    pub(super) fn post(&self) -> &Post {
        &self.post
    }

    /// The node, once it is open.
    pub(crate) fn node(&self) -> Option<&Arc<Node>> {
        self.parts().map(|parts| &parts.node)
    }

    /// A drill begins, unless one is under way; until what is returned is dropped.
    pub(crate) fn begin_drill(&self) -> Option<Turn> {
        Turn::take(&self.drilling)
    }

    /// To act on both nodes.
    pub(crate) fn actions(&self) -> &Actions {
        &self.actions
    }

    /// Whether this node serves.
    pub(crate) fn serves(&self) -> bool {
        self.served.get().is_some_and(|served| served.serving())
    }

    /// What asks the services as a client would, if anything can.
    pub(crate) fn probes_by(&self) -> Option<String> {
        self.served.get()?.probes_by()
    }

    /// Asks the services here once, as a client would.
    ///
    /// # Errors
    /// They do not run here, or are not well.
    pub(crate) fn probe(&self) -> Result<(), String> {
        match self.served.get() {
            Some(served) if served.serving() => served.probe(),
            _ => Err("this node does not serve".into()),
        }
    }

    /// What runs here, and what runs without Duolog; nothing before the node is open. Takes as long as
    /// the checks of the services.
    pub(crate) fn running(&self) -> Option<Running> {
        let served = self.served.get()?;
        let (run, do_not): (Vec<_>, Vec<_>) =
            served.services().into_iter().partition(|service| service.running);
        let names = |all: Vec<ServiceStanding>| all.into_iter().map(|it| it.service).collect();
        // Of those that Duolog runs the checks find what it started itself.
        let strays = if served.anything() { Vec::new() } else { served.strays() };
        let strays = strays.into_iter().map(|it| format!("{}: {}", it.service, it.how)).collect();
        Some(Running { run: names(run), do_not: names(do_not), strays })
    }

    /// Does something short beside the services.
    pub(crate) fn beside_services(&self, work: Beside<'_>) -> Result<String, String> {
        match self.served.get() {
            Some(served) => served.beside(work),
            None => Err("the node recovers its log; ask again".into()),
        }
    }

    /// Asks the node to end, in order.
    pub(crate) fn end(&self) {
        // It may have ended at this moment.
        self.inputs.send(Input::End).ok();
    }

    /// An operator acts on this node, the other one or both.
    pub(crate) fn act(&self, wish: Wish, target: Target, who: String, wait: Duration) -> Reply {
        self.actions.begin(wish, target, who, wait)
    }

    /// To act on both nodes as a user of the console does, who asks from that address.
    pub(crate) fn actions_of_console(&self, from: IpAddr) -> Actions {
        let other = self.other().map(|other| {
            let other: Arc<dyn Seat + Send + Sync> = Arc::new(other.of_console(from));
            other
        });
        Actions::new(self.here.clone(), other)
    }

    /// The other node, as it is spoken to between heartbeats.
    pub(crate) fn other(&self) -> Option<OtherNode> {
        let other = || OtherNode::new(self.config.node.peer(), self.words.clone());
        self.config.peer.as_ref().map(|_| other())
    }

    /// How this node stands, as the other one is told.
    pub(crate) fn stands(&self) -> SeatStanding {
        Answering::standing(&*self.here)
    }

    /// What operators switched here.
    pub(crate) fn switches(&self) -> Switches {
        let kept = Kept::load(&self.config.state_dir);
        let settings = settings(&self.config, &kept);
        Switches {
            failover: settings.failover,
            maintenance_until_ms: kept.maintenance_until_ms.filter(|until| *until > wall_ms()),
            start_at_boot: settings.start_at_boot,
            auto_rejoin: settings.auto_rejoin,
            error_detection: kept.error_detection != Some(false),
            checkers: kept.checkers != Some(false),
        }
    }

    /// Runs the node until its end. Blocks.
    pub(crate) fn live(&self) -> anyhow::Result<()> {
        let heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner).take();
        let heard = heard.ok_or_else(|| anyhow!("a node lives once"))?;
        let config = &self.config;
        notify::waiting("recovers the log");
        let node = Node::open(node_config(config)?)?;
        if config.peer.is_none() {
            be_alone(&node)?;
        }
        watch(&node, &config.pair, self.shown.clone(), self.inputs.clone())
            .context("cannot start a thread")?;
        let kept = Kept::load(&config.state_dir);
        let (tell, told) = channel();
        let switched = Switched {
            suspended: kept.error_detection == Some(false),
            checkers: kept.checkers != Some(false),
        };
        let checks = Arc::new(Checks::new(&config.services, switched, tell));
        let watch = checks.clone();
        let on_end = Box::new(move |_: Ended| watch.tell(Said::Ended));
        let units = Units::prepare(config)?;
        let services = Services::new(&config.services, units, &self.logs, on_end)?;
        let addresses = Addresses::start(&config.addresses).context("cannot start a thread")?;
        let (guard, watch) = (self.guard.clone(), checks.clone());
        let served = Served::new(node.clone(), addresses, services, guard, watch);
        let served = Arc::new(served);
        let answering: Arc<dyn Answering> = self.here.clone();
        self.post.start(config, &self.bond, &self.inputs, &self.words, &answering)?;
        let ways = Ways {
            inputs: self.inputs.clone(),
            shown: self.shown.clone(),
            moves: self.moves.clone(),
            other: config
                .peer
                .as_ref()
                .map(|_| OtherNode::new(config.node.peer(), self.words.clone())),
        };
        let parts = Parts { node: node.clone(), served: served.clone(), checks: checks.clone() };
        if self.parts.set(parts).is_err() || self.served.set(served.clone()).is_err() {
            unreachable!("a node lives once");
        }
        let driver = self.driver(&node, served.clone(), &checks, kept, heard)?;
        checks.start(told, served.clone(), ways).context("cannot start a thread")?;
        let shown = self.shown.clone();
        let may = move || {
            shown.lock().unwrap_or_else(PoisonError::into_inner).as_ref().is_some_and(is_whole)
        };
        self.verifier.schedule(&node, may).context("cannot start a thread")?;
        self.documents.goes_live(Box::new(Going {
            node: Arc::downgrade(&node),
            verifier: self.verifier.clone(),
            checks: checks.clone(),
            inputs: self.inputs.clone(),
        }));
        self.documents.start().context("cannot start a thread")?;
        let ended = driver.run();
        // Whatever came: nothing is served by a process that is about to end.
        let ending = served.ending(u64::MAX, true);
        if node.status().mounted {
            served.fence(&ending).context("what is served here does not end")?;
        }
        let mut hands = ended?;
        if let Some(link) = hands.link.take() {
            link.stop();
        }
        drop(hands);
        node.follow();
        node.stop(STOP).context("stopped, but not cleanly")?;
        tracing::info!("stopped");
        Ok(())
    }

    fn driver(
        &self,
        node: &Arc<Node>,
        served: Arc<Served>,
        checks: &Arc<Checks>,
        kept: Kept,
        heard: Receiver<Input>,
    ) -> anyhow::Result<Driver> {
        let config = &self.config;
        let moved = Arc::new(AtomicBool::new(false));
        let link = match &config.peer {
            Some(peer) => {
                let (bond, inputs, across) = (&self.bond, &self.inputs, &self.across);
                let credentials = self.documents.keys(config)?.credentials();
                let ways = (bond, across);
                Some(PeerLink::start(config, peer, node, ways, inputs, &moved, credentials)?)
            }
            None => None,
        };
        let looks = node.clone();
        let fingerprint = Box::new(move |lsn| looks.cursor_at(lsn).ok().flatten());
        let receipts = Receipts::start(
            &config.state_dir,
            config.node.number(),
            node.incarnation(),
            fingerprint,
            self.promotions.clone(),
        );
        let receipts = Arc::new(Mutex::new(receipts.context("cannot keep receipts")?));
        let settings = settings(config, &kept);
        settings.check().context("[pair]")?;
        let tasks = Tasks::new(served, receipts.clone(), self.inputs.clone(), config.gateway);
        let (post, state_dir) = (self.post.clone(), config.state_dir.clone());
        let (node, rule) = (node.clone(), node::CommitRule::Blocked);
        let (checks, moved_until) = (checks.clone(), self.moves.load(&kept));
        let hands = Hands {
            node: node.clone(),
            link,
            post,
            tasks,
            receipts,
            kept,
            checks,
            moved_until,
            state_dir,
            rule,
        };
        let known = node.register();
        let machine = Machine::new(
            config.node,
            node.incarnation(),
            Register { conf: known.conf, pend: known.pend, hi: known.hi },
            log_facts(&node),
            settings,
            now(),
        );
        let (shown, heartbeat_ms) = (self.shown.clone(), config.pair.heartbeat_ms);
        Ok(Driver::new(machine, node, hands, heard, moved, shown, heartbeat_ms))
    }
}

/// Whether this node is the primary of two copies that are up to date.
fn is_whole(shown: &Shown) -> bool {
    let standing = &shown.standing;
    standing.state == State::Prim && standing.sync == DataSync::Uptodate
}

/// A node whose configuration names no other is ALONE, whatever it was before.
fn be_alone(node: &Node) -> anyhow::Result<()> {
    let known = node.register();
    let me = node.config().node;
    if known.pend.is_none() && known.conf.num.0 > 0 && !known.conf.pair && known.conf.primary == me
    {
        return Ok(());
    }
    let hi = ViewNum(known.hi.max(known.conf.num).0 + 1);
    let conf = View { num: hi, primary: me, pair: false, witness: 0, origin: me, forced: false };
    tracing::warn!(view = hi.0, "there is no [peer]: this node is ALONE from now on");
    node.persist(node::Register { hi, conf, pend: None })?;
    Ok(())
}
