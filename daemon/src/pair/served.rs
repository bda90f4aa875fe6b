//! What is served here: mounts and services, begun and ended together, in order.
//!
//! ```text
//!  start   log applied ── guardian told ── mounts ── addresses ── services in order
//!  stop    services in reverse order ── addresses ── mounts ── guardian told
//!  fence   addresses ── connections aborted ── every process killed ── mounts ── guardian told
//! ```
//! It blocks, so it is called from the threads of tasks alone. Starts and stops exclude each
//! other; a stop calls off a start that is under way, and a fence waits for nobody. A start waits
//! until every end that was asked for before it is over: a stop that a fence has overtaken would
//! else find what was started since, and end it while everybody believes that it runs.

use std::collections::BTreeSet;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use duolog_beat::now;
use duolog_engine::node::{Node, NodeError};
use duolog_failover::{Lease, Now};
use duolog_vip::VipError;

use super::checks::{Checks, Said};
use super::receipts::Started;
use crate::addresses::Addresses;
use crate::config::checkers::Checker;
use crate::guardian::{self, Tether};
use crate::services::Beside;
use crate::services::policy::Finding;
use crate::services::{
    KILL_LIMIT, RestartError, ServiceStanding, Services, StartError, StopError, Stray,
};
use crate::status::Address;

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
    /// The state of this node is another one: whoever is to be notified is.
    fn changed(&self, _change: guardian::Change) -> io::Result<()> {
        Ok(())
    }
    /// Whether whoever guards is gone, and everything is being ended because of it.
    fn is_gone(&self) -> bool {
        false
    }
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

    fn changed(&self, change: guardian::Change) -> io::Result<()> {
        Self::changed(self, change)
    }

    fn is_gone(&self) -> bool {
        Self::is_gone(self)
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
    /// An address of the clients cannot be taken.
    #[error(transparent)]
    Address(#[from] VipError),
    /// A service does not start.
    #[error(transparent)]
    Service(#[from] StartError),
    /// The guardian does not hear.
    #[error("the guardian cannot be told that this node serves")]
    Guard(#[source] io::Error),
}

/// Why something may still be served.
#[derive(Debug, thiserror::Error)]
pub(super) enum EndError {
    /// An address of the clients does not go away.
    #[error(transparent)]
    Address(#[from] VipError),
    /// Services do not end.
    #[error(transparent)]
    Service(#[from] StopError),
}

/// What is served here.
pub(super) struct Served {
    node: Arc<Node>,
    addresses: Arc<Addresses>,
    services: Services,
    guard: Arc<dyn Guard>,
    checks: Arc<Checks>,
    /// Held by a start or a stop.
    operation: Mutex<()>,
    /// Starts that were called off: those with a lower number.
    called_off: AtomicU64,
    ends: Arc<Ends>,
    serving: AtomicBool,
}

/// Stops and fences that were asked for and are not over.
#[derive(Debug, Default)]
struct Ends {
    open: Mutex<BTreeSet<u64>>,
    over: Condvar,
    /// The newest fence that was asked for: a stop before it need not be gentle any more.
    fence: AtomicU64,
}

/// A stop or fence from the moment it is asked for until it is over.
#[derive(Debug)]
pub(super) struct Ending {
    number: u64,
    ends: Arc<Ends>,
}

impl Drop for Ending {
    fn drop(&mut self) {
        self.ends.open.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.number);
        self.ends.over.notify_all();
    }
}

impl Ends {
    /// Waits until those before `number` are over, or `go_on` says no.
    fn wait<E>(&self, number: u64, go_on: impl Fn() -> Result<(), E>) -> Result<(), E> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            go_on()?;
            if open.first().is_none_or(|first| *first >= number) {
                return Ok(());
            }
            let waited = self.over.wait_timeout(open, LOOK_EVERY);
            open = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl std::fmt::Debug for Served {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Served").field("serving", &self.serving).finish_non_exhaustive()
    }
}

impl Served {
    pub(super) fn new(
        node: Arc<Node>,
        addresses: Arc<Addresses>,
        services: Services,
        guard: Arc<dyn Guard>,
        checks: Arc<Checks>,
    ) -> Self {
        Self {
            node,
            addresses,
            services,
            guard,
            checks,
            operation: Mutex::new(()),
            called_off: AtomicU64::new(0),
            ends: Arc::default(),
            serving: AtomicBool::new(false),
        }
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

    /// How the clients' addresses stand.
    pub(super) fn addresses(&self) -> Vec<Address> {
        self.addresses.standing()
    }

    /// Restarts a service and those after it; `life` as the start said.
    pub(super) fn restart(&self, from: usize, life: u64) -> Result<(), RestartError> {
        self.services.restart(from, life)
    }

    /// Remembers which process belongs to which service.
    pub(super) fn look(&self) {
        self.services.look();
    }

    /// Whether everything that is served is being ended because the guardian is gone.
    pub(super) fn is_given_up(&self) -> bool {
        self.guard.is_gone()
    }

    /// Looks at the services with these checkers from now on.
    pub(super) fn set_checkers(&self, checkers: Vec<Vec<Checker>>) {
        self.services.set_checkers(checkers);
    }

    /// Carries out a check of a service.
    pub(super) fn check(&self, service: usize, check: usize) -> Option<Finding> {
        self.services.check(service, check)
    }

    /// What asks the services as a client would.
    pub(super) fn probes_by(&self) -> Option<String> {
        self.services.probes_by()
    }

    /// Asks the services once, as a client would.
    pub(super) fn probe(&self) -> Result<(), String> {
        self.services.probe()
    }

    /// Does something short beside the services.
    pub(super) fn beside(&self, work: Beside<'_>) -> Result<String, String> {
        self.services.beside(work)
    }

    /// What runs here, seen from outside.
    pub(super) fn strays(&self) -> Vec<Stray> {
        self.services.strays()
    }

    pub(super) fn lease(&self, lease: Lease) -> io::Result<()> {
        self.guard.lease(lease)
    }

    /// Has those notified who are to hear of another state; waits for nobody.
    pub(super) fn changed(&self, from: &str, to: &str, sentence: &str) {
        if let Err(error) = self.guard.changed(guardian::Change::now(from, to, sentence)) {
            tracing::warn!(%error, "the guardian does not hear: nobody is notified");
        }
    }

    /// A stop or fence of this number is asked for: calls off every start with a lower one, and
    /// holds up those with a higher one until it is over.
    pub(super) fn ending(&self, number: u64, fence: bool) -> Ending {
        self.called_off.fetch_max(number, Ordering::AcqRel);
        if fence {
            self.ends.fence.fetch_max(number, Ordering::AcqRel);
        }
        self.ends.open.lock().unwrap_or_else(PoisonError::into_inner).insert(number);
        Ending { number, ends: self.ends.clone() }
    }

    /// Serves: the start of this number, unless it is called off. `started` learns how long each
    /// step took, also when one fails.
    pub(super) fn start(&self, number: u64, started: &mut Started) -> Result<(), ServeError> {
        let go_on = || {
            let called_off = self.called_off.load(Ordering::Acquire) > number;
            if called_off { Err(ServeError::CalledOff) } else { Ok(()) }
        };
        self.ends.wait(number, go_on)?;
        let _alone = self.operation.lock().unwrap_or_else(PoisonError::into_inner);
        go_on()?;
        let asked = self.addresses.ask();
        while !self.node.wait_ready(LOOK_EVERY)? {
            go_on()?;
        }
        started.applied = Some(now());
        go_on()?;
        self.guard.serves(self.node.incarnation()).map_err(ServeError::Guard)?;
        self.node.mount()?;
        started.mounted = Some(now());
        go_on()?;
        // Before the services, which may listen on them.
        self.addresses.take(asked)?;
        started.addressed = Some(now());
        go_on()?;
        self.services.start()?;
        go_on()?;
        self.serving.store(true, Ordering::Release);
        self.checks.tell(Said::Started(self.services.life()));
        // An end that was asked for meanwhile was said before: it is said again.
        if go_on().is_err() {
            self.checks.tell(Said::Stopped);
        }
        Ok(())
    }

    /// Ends services in order, each within its own time, and takes the mounts away; what was
    /// written is committed as far as the commit rule allows. An SQL server that is killed halfway
    /// loses what only a clean stop keeps, so it is not hurried: where the lease ends meanwhile,
    /// a fence does the rest.
    pub(super) fn stop(&self, ending: &Ending) -> Result<(), EndError> {
        self.serving.store(false, Ordering::Release);
        self.checks.tell(Said::Stopped);
        // Also ends the start of a service that is under way.
        let stopped = self.services.stop(None);
        let _alone = self.operation.lock().unwrap_or_else(PoisonError::into_inner);
        stopped?;
        // What a start had begun before it heard of its end.
        self.services.stop(None)?;
        // Not before: whoever is connected is to hear that the services end.
        self.addresses.drop_all()?;
        self.node.unmount();
        self.drain(ending);
        self.is_gone();
        Ok(())
    }

    /// Waits until what was written last is on every disk; not any longer once it is to be fenced.
    fn drain(&self, ending: &Ending) {
        let until = Instant::now() + DRAIN;
        while self.node.leads().is_some() {
            let Err(error) = self.node.drained(LOOK_EVERY) else { return };
            let fenced = self.ends.fence.load(Ordering::Acquire) > ending.number;
            let waits = matches!(error, NodeError::Unconfirmed { .. });
            if fenced || !waits || Instant::now() >= until {
                tracing::warn!(%error, "the other node may lack what was written last");
                return;
            }
        }
    }

    /// Ends everything at once.
    pub(super) fn fence(&self, _ending: &Ending) -> Result<(), EndError> {
        self.serving.store(false, Ordering::Release);
        self.checks.tell(Said::Stopped);
        // One that stays is an error below, when everything else has ended.
        self.addresses.drop_all().ok();
        self.node.abort();
        self.services.kill_all(KILL_LIMIT)?;
        let _alone = self.operation.lock().unwrap_or_else(PoisonError::into_inner);
        // What a start had begun before it heard of its end.
        self.node.abort();
        self.services.kill_all(KILL_LIMIT)?;
        self.addresses.drop_all()?;
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
    let begun = now();
    Started { begun, applied: None, mounted: None, addressed: None, ended: Now(0), failed: None }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use duolog_engine::node::{self, NodeConfig};
    use duolog_engine::store::{Directory, LocalRules};
    use duolog_wal::{ClusterId, NodeId};

    use super::*;
    use crate::logs::Logs;
    use crate::processes::own;
    use crate::services::policy::Switched;

    /// A fence may be over before the stop that it overtook: what is started then would be ended
    /// by that stop.
    #[test]
    fn a_start_waits_until_every_end_before_it_is_over() {
        let ends: Arc<Ends> = Arc::default();
        let open = |number| {
            ends.open.lock().unwrap().insert(number);
            Ending { number, ends: ends.clone() }
        };
        let (stop, fence) = (open(1), open(2));
        let (say, started) = channel();
        let starter = std::thread::spawn({
            let ends = ends.clone();
            move || say.send(ends.wait(3, || Ok::<(), ()>(()))).unwrap()
        });
        drop(fence);
        assert!(started.recv_timeout(Duration::from_millis(200)).is_err(), "it does not wait");
        drop(stop);
        assert_eq!(started.recv_timeout(Duration::from_mins(1)).unwrap(), Ok(()));
        starter.join().unwrap();
        // One that comes after it calls it off, and is not waited for.
        let _later = open(5);
        assert_eq!(ends.wait(4, || Ok::<(), ()>(())), Ok(()));
        assert_eq!(ends.wait(6, || Err("called off")), Err("called off"));
    }

    #[test]
    fn nothing_is_started_while_an_end_before_it_is_under_way() {
        let name = "pair::served::tests::nothing_is_started_while_an_end_before_it_is_under_way";
        own::process(name, || {
            let dir = tempfile::tempdir().unwrap();
            let data = dir.path().join("data");
            std::fs::create_dir(&data).unwrap();
            let directory = Directory::of(&data, LocalRules::default()).unwrap();
            let state = dir.path().join("state");
            let config = NodeConfig::new(ClusterId(7), NodeId::Node1, state, vec![directory]);
            node::adopt(&config).unwrap();
            let node = Node::open(config).unwrap();
            let services =
                Services::new(&[], None, &Logs::at(dir.path()), Box::new(|_| {})).unwrap();
            let (addresses, (tell, _told)) = (Addresses::start(&[]).unwrap(), channel());
            let checks = Arc::new(Checks::new(&[], Switched::ON, tell));
            let served = Served::new(node, addresses, services, Arc::new(Unguarded), checks);
            let ending = served.ending(1, false);
            let (say, started) = channel();
            std::thread::scope(|scope| {
                scope.spawn(|| say.send(served.start(2, &mut beginning())).unwrap());
                let early = started.recv_timeout(Duration::from_millis(300));
                drop(ending);
                assert!(early.is_err(), "it does not wait: {early:?}");
                let late = started.recv_timeout(Duration::from_mins(1)).unwrap();
                // It goes as far as it can on a node that does not lead.
                let refused = matches!(late, Err(ServeError::Node(NodeError::NotLeading)));
                assert!(refused, "{late:?}");
            });
        });
    }
}
