//! What is served here: mounts and services, begun and ended together, in order.
//!
//! ```text
//!  start   log applied ── guardian told ── mounts ── services in order
//!  stop    services in reverse order ── mounts ── guardian told
//!  fence   connections aborted ── every process killed ── mounts ── guardian told
//! ```
//! It blocks, so it is called from the threads of tasks alone. Starts and stops exclude each
//! other; a stop calls off a start that is under way, and a fence waits for nobody.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use duolog_beat::now;
use duolog_engine::node::{Node, NodeError};
use duolog_failover::{Lease, Now};

use super::receipts::Started;
use crate::guardian::{self, Tether};
use crate::services::{KILL_LIMIT, ServiceStanding, Services, StartError, StopError};

/// How often a wait for the log looks whether it was called off.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// How long what was written may take to be on every disk once nothing is served any more.
const DRAIN: Duration = Duration::from_secs(5);

/// Whoever ends what is served when this process cannot.
pub(crate) trait Guard: std::fmt::Debug + Send + Sync {
    /// Mounts and services may be there from now on.
    fn serves(&self, incarnation: u64) -> io::Result<()>;
    /// Until when they may live.
    fn lease(&self, lease: Lease) -> io::Result<()>;
    /// They are gone.
    fn stopped(&self) -> io::Result<()>;
}

impl Guard for Tether {
    fn serves(&self, incarnation: u64) -> io::Result<()> {
        Self::serves(self, incarnation)
    }

    fn lease(&self, lease: Lease) -> io::Result<()> {
        Self::lease(
            self,
            match lease {
                Lease::None => guardian::Lease::None,
                Lease::Until(end) => guardian::Lease::Until(end.0),
                Lease::Endless => guardian::Lease::Endless,
            },
        )
    }

    fn stopped(&self) -> io::Result<()> {
        Self::stopped(self)
    }
}

/// Nobody: for a node that runs without a guardian.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Unguarded;

impl Guard for Unguarded {
    fn serves(&self, _incarnation: u64) -> io::Result<()> {
        Ok(())
    }

    fn lease(&self, _lease: Lease) -> io::Result<()> {
        Ok(())
    }

    fn stopped(&self) -> io::Result<()> {
        Ok(())
    }
}

/// Why nothing is served.
#[derive(Debug, thiserror::Error)]
pub(super) enum ServeError {
    /// Another view began, or an operator stopped it.
    #[error("the start was called off")]
    CalledOff,
    /// The log cannot be applied, or the directories not be mounted.
    #[error(transparent)]
    Node(#[from] NodeError),
    /// A service does not start.
    #[error(transparent)]
    Service(#[from] StartError),
    /// The guardian does not hear.
    #[error("the guardian cannot be told that this node serves")]
    Guard(#[source] io::Error),
}

/// What is served here.
pub(super) struct Served {
    node: Arc<Node>,
    services: Services,
    guard: Arc<dyn Guard>,
    /// Held by a start or a stop.
    operation: Mutex<()>,
    /// Starts that were called off: those with a lower number.
    called_off: AtomicU64,
    serving: AtomicBool,
}

impl std::fmt::Debug for Served {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Served").field("serving", &self.serving).finish_non_exhaustive()
    }
}

impl Served {
    pub(super) fn new(node: Arc<Node>, services: Services, guard: Arc<dyn Guard>) -> Self {
        let (operation, called_off) = (Mutex::new(()), AtomicU64::new(0));
        Self { node, services, guard, operation, called_off, serving: AtomicBool::new(false) }
    }

    /// Whether everything that is to be served is.
    pub(super) fn serving(&self) -> bool {
        self.serving.load(Ordering::Acquire)
    }

    /// Whether anything is served, or not yet ended.
    pub(super) fn anything(&self) -> bool {
        self.serving() || self.services.running() || self.node.is_mounted()
    }

    /// How the services stand.
    pub(super) fn services(&self) -> Vec<ServiceStanding> {
        self.services.standing()
    }

    pub(super) fn lease(&self, lease: Lease) -> io::Result<()> {
        self.guard.lease(lease)
    }

    /// Calls off every start with a number up to this one.
    pub(super) fn call_off(&self, number: u64) {
        self.called_off.fetch_max(number.saturating_add(1), Ordering::AcqRel);
    }

    /// Serves: the start of this number, unless it is called off. `started` learns how long each
    /// step took, also when one fails.
    pub(super) fn start(&self, number: u64, started: &mut Started) -> Result<(), ServeError> {
        let _alone = self.operation.lock().unwrap_or_else(PoisonError::into_inner);
        let go_on = || {
            let called_off = self.called_off.load(Ordering::Acquire) > number;
            if called_off { Err(ServeError::CalledOff) } else { Ok(()) }
        };
        go_on()?;
        while !self.node.wait_ready(LOOK_EVERY)? {
            go_on()?;
        }
        started.applied = Some(now());
        go_on()?;
        self.guard.serves(self.node.incarnation()).map_err(ServeError::Guard)?;
        self.node.mount()?;
        started.mounted = Some(now());
        go_on()?;
        self.services.start()?;
        go_on()?;
        self.serving.store(true, Ordering::Release);
        Ok(())
    }

    /// Ends services in order, each within its own time, and takes the mounts away; what was
    /// written is committed as far as the commit rule allows. An SQL server that is killed halfway
    /// loses what only a clean stop keeps, so it is not hurried: where the lease ends meanwhile,
    /// a fence does the rest.
    pub(super) fn stop(&self) -> Result<(), StopError> {
        self.serving.store(false, Ordering::Release);
        // Also ends the start of a service that is under way.
        let stopped = self.services.stop(None);
        let _alone = self.operation.lock().unwrap_or_else(PoisonError::into_inner);
        stopped?;
        // What a start had begun before it heard of its end.
        self.services.stop(None)?;
        self.node.unmount();
        if self.node.leads().is_some()
            && let Err(error) = self.node.drained(DRAIN)
        {
            tracing::warn!(%error, "the other node may lack what was written last");
        }
        self.is_gone();
        Ok(())
    }

    /// Ends everything at once.
    pub(super) fn fence(&self) -> Result<(), StopError> {
        self.serving.store(false, Ordering::Release);
        self.node.abort();
        self.services.kill_all(KILL_LIMIT)?;
        let _alone = self.operation.lock().unwrap_or_else(PoisonError::into_inner);
        // What a start had begun before it heard of its end.
        self.node.abort();
        self.services.kill_all(KILL_LIMIT)?;
        self.is_gone();
        Ok(())
    }

    fn is_gone(&self) {
        if let Err(error) = self.guard.stopped() {
            tracing::warn!(%error, "the guardian does not know that nothing is served any more");
        }
    }
}

/// A start that begins now.
pub(super) fn beginning() -> Started {
    Started { begun: now(), applied: None, mounted: None, ended: Now(0), failed: None }
}
