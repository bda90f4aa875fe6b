//! A link as its owner holds it: a thread of its own, counters, a way to wake and to stop it.

use std::fmt;
use std::future::Future;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::{oneshot, watch};

use crate::bulk::Bulk;
use crate::drive::Drive;
use crate::endpoint;
use crate::primary::Dialer;
use crate::secondary::Listener;
use crate::settings::{DialConfig, ListenConfig, SettingsError};
use crate::sink::Sink;
use crate::source::Source;
use crate::stats::{Snapshot, Stats};
use crate::waker::Waker;

/// How long [`Link::stop`] waits for the thread.
const STOP_TIMEOUT: Duration = Duration::from_secs(3);
/// How long the thread waits until the peer has heard that the link stops.
pub(crate) const FAREWELL_TIMEOUT: Duration = Duration::from_millis(300);
/// Wanted priority of the link's thread: a commit waits for it. Needs a privilege.
const NICE: i32 = -15;

/// Ships from `source` to the secondary; connects, and connects again, until it is stopped.
///
/// # Errors
/// What is wrong with the settings, the socket or the thread. That the peer cannot be reached
/// or refuses is no error here: it is logged, told to the source and tried again.
pub fn dial(config: DialConfig, source: impl Source) -> Result<Link, StartError> {
    config.tuning.check()?;
    let bind = config.bind.unwrap_or(match config.peer {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    });
    start(&config.name.clone(), bind, &config.tuning.clone(), |shared| async move {
        Dialer::new(config, source, shared)?.run().await;
        Ok(())
    })
}

/// Receives into `sink` from the one peer that is configured, until it is stopped. A newer
/// connection of that peer takes the place of an older one.
///
/// # Errors
/// What is wrong with the settings, the address or the thread.
pub fn listen(config: ListenConfig, sink: impl Sink) -> Result<Link, StartError> {
    config.tuning.check()?;
    start(&config.name.clone(), config.bind, &config.tuning.clone(), |shared| async move {
        Listener::new(config, sink, shared)?.run().await;
        Ok(())
    })
}

/// What the thread shares with the link's owner.
pub(crate) struct Shared {
    pub(crate) drive: Drive,
    pub(crate) stats: Arc<Stats>,
    pub(crate) waker: Waker,
    pub(crate) bulk: Bulk,
    pub(crate) stop: watch::Receiver<bool>,
}

impl Shared {
    /// Resolves when the owner wants the link to end, or is gone.
    pub(crate) fn stopping(&self) -> impl Future<Output = ()> + use<> {
        let mut stop = self.stop.clone();
        async move {
            // An owner that is gone wants the same.
            stop.wait_for(|stop| *stop).await.ok();
        }
    }
}

fn start<F, W>(
    name: &str,
    bind: SocketAddr,
    tuning: &crate::settings::Tuning,
    work: W,
) -> Result<Link, StartError>
where
    W: FnOnce(Shared) -> F + Send + 'static,
    F: Future<Output = io::Result<()>>,
{
    let socket =
        endpoint::socket(bind, tuning).map_err(|source| StartError::Bind { bind, source })?;
    let local_addr = socket.local_addr().map_err(|source| StartError::Bind { bind, source })?;
    let drive = Drive::new(socket).map_err(|source| StartError::Bind { bind, source })?;
    let (stop, stopping) = watch::channel(false);
    let stats = Arc::new(Stats::default());
    let waker = Waker::default();
    let bulk = Bulk::default();
    let shared = Shared {
        drive: drive.clone(),
        stats: stats.clone(),
        waker: waker.clone(),
        bulk: bulk.clone(),
        stop: stopping,
    };
    let (ended, end) = channel();
    let aside = Aside::begin().map_err(StartError::Thread)?;
    let thread = std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(move || {
            let _ended: Sender<()> = ended;
            // Of the calling thread alone, on Linux.
            if let Err(error) = rustix::process::setpriority_process(None, NICE) {
                tracing::debug!(%error, "the link's thread keeps its normal priority");
            }
            let stats = shared.stats.clone();
            let aside: Aside = aside;
            let within = aside.handle.enter();
            if let Err(error) = drive.block_on(async { work(shared).await }) {
                tracing::error!(%error, "the link could not start");
                stats.failed(format!("the link could not start: {error}"));
            }
            drop(within);
        })
        .map_err(StartError::Thread)?;
    Ok(Link { stats, waker, bulk, local_addr, stop, end: Mutex::new(end), thread: Some(thread) })
}

/// A thread for what no commit waits for: timers of hundreds of milliseconds, handshakes of others,
/// answers to questions. Dropping it ends and drops them.
struct Aside {
    handle: tokio::runtime::Handle,
    goes_on: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Aside {
    fn begin() -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
        let handle = runtime.handle().clone();
        let (goes_on, end) = oneshot::channel();
        let thread =
            std::thread::Builder::new().name("duolog-aside".to_owned()).spawn(move || {
                // It ends by its other end being dropped.
                runtime.block_on(end).ok();
            })?;
        Ok(Self { handle, goes_on: Some(goes_on), thread: Some(thread) })
    }
}

impl Drop for Aside {
    fn drop(&mut self) {
        drop(self.goes_on.take());
        // What it ran holds the socket, whose port the next link may want.
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("a thread of the link panicked");
        }
    }
}

/// A running link. Dropping it tells it to stop and does not wait.
pub struct Link {
    stats: Arc<Stats>,
    waker: Waker,
    bulk: Bulk,
    local_addr: SocketAddr,
    stop: watch::Sender<bool>,
    /// Hangs up when the thread ends. Locked by `stop` alone, so that links can be shared.
    end: Mutex<Receiver<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Link {
    /// Counters to read at any time, also after the link has ended.
    pub fn stats(&self) -> Arc<Stats> {
        self.stats.clone()
    }

    /// The counters now.
    pub fn snapshot(&self) -> Snapshot {
        self.stats.snapshot()
    }

    /// Wakes the link after an append or an advance of the commit position. Of no use on a
    /// secondary.
    pub fn waker(&self) -> Waker {
        self.waker.clone()
    }

    /// The way for questions to the other node, and for its questions.
    pub fn bulk(&self) -> Bulk {
        self.bulk.clone()
    }

    /// The address that the link is bound to.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Ends the link: the peer is told, the source or sink is told and dropped, the thread ends.
    /// What was sent and not acknowledged may or may not have arrived.
    ///
    /// # Errors
    /// `Stuck` after 3 seconds: the thread waits in the source or sink, for a disk for instance.
    /// It ends once that returns, without anybody waiting.
    ///
    /// # Panics
    /// When the source or sink panicked.
    pub fn stop(mut self) -> Result<(), StopError> {
        self.stop.send_replace(true);
        match self.end.get_mut().unwrap_or_else(PoisonError::into_inner).recv_timeout(STOP_TIMEOUT)
        {
            Err(RecvTimeoutError::Timeout) => return Err(StopError::Stuck),
            Ok(()) | Err(RecvTimeoutError::Disconnected) => {}
        }
        if let Some(Err(panic)) = self.thread.take().map(JoinHandle::join) {
            std::panic::resume_unwind(panic);
        }
        Ok(())
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.stop.send_replace(true);
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link").field("local_addr", &self.local_addr).finish_non_exhaustive()
    }
}

/// Why a link was not started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A value that it cannot work with.
    #[error("the link's settings")]
    Settings(#[from] SettingsError),
    /// The address is taken, or not of this computer.
    #[error("binding the link to {bind}")]
    Bind {
        /// The address.
        bind: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// No thread or no event queue.
    #[error("starting the link's thread")]
    Thread(#[source] io::Error),
}

/// Why a link did not end in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StopError {
    /// Its thread waits for the log.
    #[error("the link's thread waits for the log and did not end within 3 seconds")]
    Stuck,
}
