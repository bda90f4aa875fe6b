//! The daemon's end: says what it serves and until when, hears of signals, and fences itself when
//! the guardian is gone.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::fence::Fence;
use super::notice::Change;
use super::wire::{Lease, ReceiveError, ToDaemon, ToGuardian, hear, say};
use super::{FENCED, Farewell, boottime_ms};

/// How long everyone may take to be gone before it is said again that they are not.
const FENCE_LIMIT: Duration = Duration::from_secs(5);

/// What the guardian tells the daemon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FromGuardian {
    /// Stop cleanly.
    Stop,
    /// End at once.
    End,
}

/// The daemon's hold on its guardian.
#[derive(Clone, Debug)]
pub(crate) struct Tether {
    socket: Arc<OwnedFd>,
    /// Which incarnation serves, if one does.
    serves: Arc<Mutex<Option<u64>>>,
    /// The guardian is gone.
    gone: Arc<AtomicBool>,
}

impl Tether {
    /// Takes over the socket that the guardian gave as standard input. Call it once, before
    /// another thread or process is started.
    pub(crate) fn take() -> io::Result<Self> {
        let socket = rustix::io::fcntl_dupfd_cloexec(io::stdin().as_fd(), 3)?;
        let null = std::fs::File::open("/dev/null")?;
        rustix::stdio::dup2_stdin(null)?;
        Ok(Self { socket: Arc::new(socket), serves: Arc::default(), gone: Arc::default() })
    }

    /// Hears the guardian on a thread of its own. When it is gone, that thread fences everything
    /// that is served, says `farewell` and ends the process.
    pub(crate) fn listen(
        &self,
        mut fence: Fence,
        farewell: Option<Box<dyn Farewell>>,
        heard: impl Fn(FromGuardian) + Send + 'static,
    ) -> io::Result<()> {
        let tether = self.clone();
        std::thread::Builder::new().name("duolog-tether".into()).spawn(move || {
            loop {
                match hear(&tether.socket, true) {
                    Ok(ToDaemon::Stop) => heard(FromGuardian::Stop),
                    Ok(ToDaemon::End) => heard(FromGuardian::End),
                    Err(ReceiveError::NotUnderstood(error)) => tracing::error!(%error, "guardian"),
                    Err(error) => {
                        tracing::error!(%error, "the guardian is gone: ending what is served");
                        break;
                    }
                }
            }
            // Nobody is to start again what is killed now.
            tether.gone.store(true, Ordering::Release);
            while let Err(error) = fence.enforce(FENCE_LIMIT, None) {
                tracing::error!(%error, "this node cannot be fenced; nobody is told to take over");
            }
            let ended = boottime_ms();
            let serves = *tether.serves.lock().unwrap_or_else(PoisonError::into_inner);
            if let (Some(incarnation), Some(farewell)) = (serves, farewell)
                && let Err(error) = farewell.say(incarnation, ended)
            {
                tracing::warn!(%error, "the others do not know that this node serves no more");
            }
            crate::logs::flush();
            std::process::exit(FENCED.into());
        })?;
        Ok(())
    }

    /// Says that mounts and services may be there from now on. Before the first of them.
    ///
    /// # Errors
    /// The guardian does not hear: nothing may be served then.
    pub(crate) fn serves(&self, incarnation: u64) -> io::Result<()> {
        *self.serves.lock().unwrap_or_else(PoisonError::into_inner) = Some(incarnation);
        say(&self.socket, &ToGuardian::Serves { incarnation })
    }

    /// Says until when this node may serve.
    ///
    /// # Errors
    /// The guardian does not hear: it will fence too early.
    pub(crate) fn lease(&self, lease: Lease) -> io::Result<()> {
        say(&self.socket, &ToGuardian::Lease(lease))
    }

    /// Says that the state of this node is another one.
    ///
    /// # Errors
    /// The guardian does not hear: nobody is notified.
    pub(crate) fn changed(&self, change: Change) -> io::Result<()> {
        say(&self.socket, &ToGuardian::Changed(change))
    }

    /// Whether the guardian is gone: everything that is served is being ended, and this process
    /// after it.
    pub(crate) fn is_gone(&self) -> bool {
        self.gone.load(Ordering::Acquire)
    }

    /// Says that nothing is served any more.
    ///
    /// # Errors
    /// The guardian does not hear: it will fence what is not there.
    pub(crate) fn stopped(&self) -> io::Result<()> {
        *self.serves.lock().unwrap_or_else(PoisonError::into_inner) = None;
        say(&self.socket, &ToGuardian::Stopped)
    }
}
