//! The life of a node's process: opened, put into its role, mounted, stopped.
//!
//! ```text
//!  Opening ── Node::open ──> Open ── PRIM: link, lead, wait for the peer, mount ──┐
//!                              └──── SECOND: link ────────────────────────────────┴── ready
//!  ready ── stop ──> Stopping: unmount, drain, checkpoint ──> end
//!     └──── a failure ──> unmount ──> end, with its cause
//! ```
//! One thread walks this path, because each step may wait for a disk; the questions of others are
//! answered beside it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, TryRecvError};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use anyhow::{Context, anyhow};
use duolog_engine::log::LogOptions;
use duolog_engine::node::{Node, NodeConfig, Patches};
use duolog_engine::store::{self, LocalRules};
use duolog_transport::{Link, Protocol, Stats};
use duolog_wal::Lsn;

use crate::alarms;
use crate::config::{Config, Preset, Role};
use crate::document::{Documents, Other};
use crate::guardian::{Lease, Tether};
use crate::link::{self, Bond};
use crate::logs::{self, Logs};
use crate::notify;
use crate::resync;
use crate::services::{Beside, KILL_LIMIT, Services, Units};
use crate::standing::{Facts, Phase, standing};
use crate::status::{self, Directory, Positions, Status, ratio};
use crate::verify::Verifier;

/// How often a wait for the peer looks whether it was told to stop.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// How long a clean stop waits for the peer to confirm and apply everything.
const DRAIN: Duration = Duration::from_secs(10);
/// The same while the peer is not connected.
const DRAIN_UNCONNECTED: Duration = Duration::from_secs(1);

/// What happens to a node from outside.
#[derive(Debug)]
pub(crate) enum Event {
    /// It shall stop cleanly.
    Stop,
    /// It leads: the peer is connected and the view begun.
    Leads,
    /// It can go no further.
    Failed(anyhow::Error),
}

/// A node's process, as far as it has come.
#[derive(Debug)]
pub(crate) struct Shell {
    pub(crate) config: Config,
    role: Role,
    phase: Mutex<Phase>,
    pub(crate) node: OnceLock<Arc<Node>>,
    stats: OnceLock<Arc<Stats>>,
    bond: Arc<Bond>,
    mounted: AtomicBool,
    /// Its guardian, where it has one.
    tether: Option<Tether>,
    services: Services,
    service_ended: Arc<Mutex<Option<String>>>,
    /// One base copy at a time.
    pub(crate) copying: Arc<AtomicBool>,
    pub(crate) verifier: Arc<Verifier>,
    /// The settings of the pair.
    pub(crate) documents: Arc<Documents>,
    logs: Logs,
}

/// What was begun and has to be ended.
struct Running {
    node: Arc<Node>,
    link: Option<Link>,
}

impl Shell {
    /// A node that keeps `role` whatever happens.
    pub(crate) fn new(
        config: Config,
        role: Role,
        tether: Option<Tether>,
        logs: &Logs,
    ) -> anyhow::Result<Self> {
        // Only a guardian can hold services together.
        let list = if tether.is_some() { config.services.as_slice() } else { &[] };
        if list.is_empty() && !config.services.is_empty() {
            tracing::warn!("a node with a fixed role runs no services: [[service]] is not used");
        }
        if !config.addresses.is_empty() {
            tracing::warn!("a node with a fixed role takes no address: [[virtual_ip]] is not used");
        }
        let units = if list.is_empty() { None } else { Units::prepare(&config)? };
        let service_ended = Arc::new(Mutex::new(None));
        let ended = service_ended.clone();
        let services = Services::new(
            list,
            units,
            logs,
            Box::new(move |end| {
                let said = format!("service {} {}", end.service, end.how);
                *ended.lock().unwrap_or_else(PoisonError::into_inner) = Some(said);
            }),
        )?;
        let other = config.peer.as_ref().map_or(Other::Nobody, |_| Other::Silent);
        Ok(Self {
            verifier: Arc::new(Verifier::load(&config)),
            documents: Arc::new(Documents::load(&config, other)),
            config,
            role,
            phase: Mutex::new(Phase::Opening),
            node: OnceLock::new(),
            stats: OnceLock::new(),
            bond: Arc::default(),
            mounted: AtomicBool::new(false),
            tether,
            services,
            service_ended,
            copying: Arc::default(),
            logs: logs.clone(),
        })
    }

    /// Does something short beside the services.
    pub(crate) fn beside_services(&self, work: Beside<'_>) -> Result<String, String> {
        self.services.beside(work)
    }

    /// Runs the node until [`Event::Stop`] or a failure. Blocks.
    pub(crate) fn live(
        self: &Arc<Self>,
        say: &Sender<Event>,
        events: &Receiver<Event>,
    ) -> anyhow::Result<()> {
        notify::waiting("recovers the log");
        logs::now_is(status::State::Wait);
        let node = Node::open(node_config(&self.config)?)?;
        if self.node.set(node.clone()).is_err() {
            unreachable!("a shell lives once");
        }
        self.enter(Phase::Open);
        watch(&node, say.clone())?;
        let mut running = Running { node, link: None };
        let ended = self.serve(&mut running, say, events);
        let result = match ended {
            Ok(()) => self.stop(&running),
            Err(error) => {
                // Whoever waits for a commit gets an error, not silence.
                running.node.unmount();
                self.services.kill_all(KILL_LIMIT)?;
                self.say_stopped();
                Err(error)
            }
        };
        if let Some(Err(error)) = running.link.map(Link::stop) {
            tracing::warn!(%error, "the link did not end");
        }
        result
    }

    /// Puts the node into its role and waits; returns when it was told to stop.
    fn serve(
        &self,
        running: &mut Running,
        say: &Sender<Event>,
        events: &Receiver<Event>,
    ) -> anyhow::Result<()> {
        let node = &running.node;
        match (self.role, &self.config.peer) {
            (Role::Second, Some(peer)) => {
                node.follow();
                let keys = self.documents.keys(&self.config)?.credentials();
                let link = link::receive(&self.config, peer, node, &self.bond, keys)?;
                self.keep(link, &mut running.link);
            }
            (Role::Second, None) => return Err(anyhow!("a SECOND needs a [peer]")),
            (Role::Prim, Some(peer)) => {
                let keys = self.documents.keys(&self.config)?.credentials();
                let link = link::ship(peer, node, &self.bond, keys, say.clone())?;
                self.keep(link, &mut running.link);
                notify::waiting(&self.status().sentence);
                match next(events)? {
                    Event::Stop => return Ok(()),
                    Event::Leads => {}
                    Event::Failed(error) => return Err(error),
                }
                if !self.mount(node, events)? {
                    return Ok(());
                }
            }
            (Role::Prim, None) => {
                node.lead(false)?;
                if !self.mount(node, events)? {
                    return Ok(());
                }
            }
        }
        let status = self.status();
        logs::now_is(status.state);
        tracing::info!(target: logs::STATE, state = %status.state, "{}", status.sentence);
        notify::ready(&status.sentence);
        loop {
            match next(events)? {
                Event::Stop => return Ok(()),
                Event::Leads => {}
                Event::Failed(error) => return Err(error),
            }
        }
    }

    /// Mounts once everything in the log is on both nodes; `false` when told to stop before.
    fn mount(&self, node: &Arc<Node>, events: &Receiver<Event>) -> anyhow::Result<bool> {
        while !node.wait_ready(LOOK_EVERY)? {
            notify::waiting(&self.status().sentence);
            match events.try_recv() {
                Ok(Event::Stop) => return Ok(false),
                Ok(Event::Failed(error)) => return Err(error),
                Ok(Event::Leads) | Err(TryRecvError::Empty) => {}
                Err(TryRecvError::Disconnected) => return Err(orphaned()),
            }
        }
        if let Some(tether) = &self.tether {
            let incarnation = node.status().incarnation;
            tether.lease(Lease::Endless).and_then(|()| tether.serves(incarnation))?;
        }
        node.mount().context("cannot mount the directories")?;
        self.mounted.store(true, Ordering::Relaxed);
        self.services.start()?;
        Ok(true)
    }

    fn say_stopped(&self) {
        if let Some(tether) = &self.tether
            && let Err(error) = tether.stopped()
        {
            tracing::warn!(%error, "the guardian does not hear");
        }
    }

    fn stop(&self, running: &Running) -> anyhow::Result<()> {
        self.enter(Phase::Stopping);
        logs::now_is(self.status().state);
        notify::stopping();
        let limit = if self.config.peer.is_none() || self.bond.connected() {
            DRAIN
        } else {
            DRAIN_UNCONNECTED
        };
        self.services.stop(None)?;
        let stopped = running.node.stop(limit);
        self.mounted.store(false, Ordering::Relaxed);
        self.say_stopped();
        stopped.context("stopped, but not cleanly")?;
        tracing::info!("stopped");
        Ok(())
    }

    fn keep(&self, link: Link, place: &mut Option<Link>) {
        if self.stats.set(link.stats()).is_err() {
            unreachable!("a shell has one link");
        }
        *place = Some(link);
    }

    fn enter(&self, phase: Phase) {
        *self.phase.lock().unwrap_or_else(PoisonError::into_inner) = phase;
    }

    /// How the node stands now.
    pub(crate) fn status(&self) -> Status {
        let config = &self.config;
        let node = self.node.get().map(|node| node.status());
        let link = self.stats.get().map(|stats| stats.snapshot()).unwrap_or_default();
        let mounted = self.mounted.load(Ordering::Relaxed);
        let log = node.as_ref().map_or_else(Positions::default, |node| Positions {
            first: node.first,
            end: node.end,
            durable: node.durable,
            acknowledged: match self.role {
                Role::Prim => node.acknowledged,
                Role::Second => Some(node.durable),
            },
            committed: node.committed,
            applied: node.applied,
            checkpoint: node.checkpoint,
        });
        let facts = Facts {
            role: self.role,
            peer: config.peer.as_ref().map(|_| config.node.peer()),
            phase: *self.phase.lock().unwrap_or_else(PoisonError::into_inner),
            failure: node.as_ref().and_then(|node| node.failure.clone()),
            connected: self.bond.connected(),
            caught_up: self.bond.caught_up(),
            mounted,
            end: Lsn(log.end),
            acknowledged: log.acknowledged.map(Lsn),
            last_error: link.last_error.clone(),
        };
        let (state, mut sentence, data_sync) = standing(&facts);
        if let Some(ended) = &*self.service_ended.lock().unwrap_or_else(PoisonError::into_inner) {
            sentence = format!("{sentence}; {ended}");
        }
        let lacks = match (self.role, log.acknowledged) {
            (Role::Second, _) => log.applied,
            (Role::Prim, acknowledged) => acknowledged.unwrap_or(log.end),
        };
        Status {
            version: env!("CARGO_PKG_VERSION").into(),
            cluster: config.cluster.to_string(),
            node: config.node.number(),
            view: node.as_ref().map_or(0, |node| node.view),
            incarnation: node.as_ref().map_or(0, |node| node.incarnation),
            state,
            sentence,
            data_sync,
            lag_bytes: log.end.saturating_sub(lacks),
            log,
            peer: config.peer.as_ref().map(|peer| status::Peer {
                address: peer.address.to_string(),
                connected: facts.connected,
                reconnects: link.reconnects,
                shipped_bytes: link.raw_bytes,
                wire_bytes: link.wire_bytes,
                compression_ratio: ratio(link.raw_bytes, link.wire_bytes),
                protocol: link.protocol.map(Protocol::number),
                version: link.peer_release.clone(),
                round_trip_us: link.round_trip_us,
                last_error: link.last_error,
            }),
            directories: config
                .directories
                .iter()
                .map(|directory| Directory {
                    path: directory.path.display().to_string(),
                    preset: directory.preset.name().into(),
                    mounted,
                })
                .collect(),
            views: None,
            resync: self.node.get().and_then(|node| resync::progress(node)),
            promotions: BTreeMap::new(),
            resyncs_given: self.node.get().map(|node| resync::given(node)).unwrap_or_default(),
            paths: Vec::new(),
            virtual_ips: Vec::new(),
            services: Vec::new(),
            alarms: [self.logs.alarms(), alarms::up()].concat(),
            verifications: self.verifier.verifications(),
            changed_by_others: self
                .node
                .get()
                .map(|node| node.changed_by_others())
                .unwrap_or_default(),
            settings: self.documents.standing(),
        }
    }
}

/// The engine's settings of a node.
pub(crate) fn node_config(config: &Config) -> anyhow::Result<NodeConfig> {
    let mut directories = Vec::new();
    for directory in &config.directories {
        let preset = match directory.preset {
            Preset::None => store::Preset::None,
            Preset::Postgresql => store::Preset::Postgresql,
            Preset::Mariadb => store::Preset::Mariadb,
            Preset::Sqlite => store::Preset::Sqlite,
        };
        let path = &directory.path;
        let local = LocalRules::new(preset, &directory.local)
            .with_context(|| format!("the patterns of {} cannot be used", path.display()))?;
        let directory = store::Directory::of(path, local)
            .with_context(|| format!("cannot look at {}", path.display()))?;
        directories.push(directory);
    }
    let state_dir = config.state_dir.clone();
    let mut node = NodeConfig::new(config.cluster, config.node, state_dir, directories);
    let sizes = &config.log;
    node.log = LogOptions { segment_bytes: sizes.segment_bytes, ..LogOptions::default() };
    node.checkpoint_bytes = sizes.checkpoint_bytes;
    node.unacknowledged_max_bytes = sizes.unacknowledged_max_bytes;
    node.recovery_window_bytes = sizes.recovery_window_bytes;
    node.has_peer = config.peer.is_some();
    node.retention_bytes = config.pair.retention_bytes;
    node.resync_bytes_per_s = config.pair.resync_bytes_per_s;
    node.patches = patches();
    Ok(node)
}

/// Whether changed bytes alone are logged: as always, unless benchmarks or tests say otherwise in
/// `DUOLOG_PATCHES`, which is no setting of operators.
fn patches() -> Patches {
    match std::env::var("DUOLOG_PATCHES").as_deref() {
        Ok("never") => Patches::Never,
        Ok("always") => Patches::Always,
        _ => Patches::default(),
    }
}

/// Says it when the node fails, until it stops.
fn watch(node: &Arc<Node>, say: Sender<Event>) -> anyhow::Result<()> {
    let node = node.clone();
    let watching = std::thread::Builder::new().name("duolog-watch".into()).spawn(move || {
        if let Some(failure) = node.wait_failure(Duration::MAX / 4) {
            // Nobody listens any more when the process ends for another reason.
            say.send(Event::Failed(anyhow::Error::new(failure).context("this node stops"))).ok();
        }
    });
    watching.context("cannot start a thread").map(drop)
}

fn next(events: &Receiver<Event>) -> anyhow::Result<Event> {
    events.recv().map_err(|_| orphaned())
}

fn orphaned() -> anyhow::Error {
    anyhow!("nobody is left who could stop this node")
}
