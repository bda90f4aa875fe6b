//! The session: agrees with the kernel, reads requests, and ends.
//!
//! ```text
//! mount --> INIT --> serving --(unmount, abort, ENODEV)--> ended
//! ```
//! Owns the reading threads; each reads a request, decodes it, and calls the handler, which
//! must not block. What the handler has no say in is answered here. It never waits without a
//! bound for the kernel to let go of a mount: one that others hold is aborted.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread;
use std::time::Duration;

use rustix::io::Errno;

use super::connection::Connection;
use super::device::Device;
use super::flags::InitFlags;
use super::init::negotiate;
use super::mount::{self, MountError, MountOptions};
use super::notify::Notifier;
use super::reader::{ReadBuffer, Reader};
use super::request::Request;

/// How long readers may take to end after an abort.
const END_BOUND: Duration = Duration::from_secs(5);

/// Decides what requests mean. Called from the reading threads, at times side by side.
///
/// It must not block: what has to wait keeps the [`Reply`](super::Reply) and copies of what it needs, and
/// returns. While all readers are in here, nobody takes the requests that follow.
pub trait Handler: Send + Sync + 'static {
    /// Takes in one request.
    fn handle(&self, request: Request<'_>);
}

impl<H: Handler + ?Sized> Handler for Arc<H> {
    fn handle(&self, request: Request<'_>) {
        (**self).handle(request);
    }
}

/// What kernel and session agreed on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Negotiated {
    /// Minor version of the protocol: the lower of the kernel's and ours.
    pub minor: u32,
    /// Features that both have.
    pub flags: InitFlags,
    /// Features that the kernel offered, ours or not.
    pub offered: InitFlags,
    /// The largest WRITE, and the largest READ, in bytes.
    pub max_write: u32,
}

/// How a session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionEnd {
    /// The mount is gone. Also said of an abort where `ABORT_ERROR` was not agreed on, or where
    /// it took an unmount by force.
    Unmounted,
    /// It was aborted; the mount may still be at its path, and answers errors.
    Aborted,
    /// Reading failed, or a handler panicked; the connection was aborted.
    Failed(Errno),
}

/// The mount could not be taken away within bounds.
#[derive(Debug, thiserror::Error)]
pub enum UnmountError {
    /// `umount2(2)` refused; the connection was aborted, the dead mount is still there.
    #[error("unmounting {path}", path = .path.display())]
    Unmount {
        /// Where.
        path: PathBuf,
        /// Why.
        source: Errno,
    },
    /// The mount is held somewhere else, and there was no way to abort the connection.
    #[error(
        "the connection {connection} still lives: echo 1 > /sys/fs/fuse/connections/{connection}/abort"
    )]
    Alive {
        /// Its number in fusectl.
        connection: u32,
    },
}

/// A mounted file system and the threads that serve it. Dropped, it is aborted and unmounted.
#[derive(Debug)]
pub struct Session {
    shared: Arc<Shared>,
    connection: Arc<Connection>,
    negotiated: Negotiated,
}

/// What the session and its readers share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) device: Arc<Device>,
    readers: Mutex<Readers>,
    ended: Condvar,
}

#[derive(Debug)]
struct Readers {
    running: usize,
    end: Option<SessionEnd>,
}

impl Session {
    /// Mounts, agrees with the kernel, and starts to serve with `handler`.
    pub fn mount<H: Handler>(options: &MountOptions, handler: H) -> Result<Self, MountError> {
        let (device, connection) = mount::mount(options)?;
        // From here on an error drops the session, which unmounts.
        let mut session = Self::of(device, connection, Negotiated::default());
        session.negotiated = negotiate(&session.shared.device, options.masked_flags)?;
        session.start(options.read_threads, &Arc::new(handler))?;
        Ok(session)
    }

    /// Serves on with a mount whose server died: `device` is its descriptor, which another process
    /// kept, `agreed` what the dead one had negotiated. Requests in flight come again, marked
    /// [`resent`](Request::resent), where [`InitFlags::HAS_RESEND`](super::InitFlags::HAS_RESEND)
    /// was agreed on. The handler must know nodes and open files by the same numbers.
    pub fn take_over<H: Handler>(
        options: &MountOptions,
        device: OwnedFd,
        agreed: Negotiated,
        handler: H,
    ) -> Result<Self, MountError> {
        let session = Self::of(device, mount::living(options)?, agreed);
        session.start(options.read_threads, &Arc::new(handler))?;
        if agreed.flags.has(InitFlags::HAS_RESEND)
            && let Err(cause) = session.notifier().resend()
        {
            tracing::error!(%cause, "requests in flight are not delivered again");
        }
        Ok(session)
    }

    fn of(device: OwnedFd, connection: Connection, negotiated: Negotiated) -> Self {
        let readers = Readers { running: 0, end: None };
        let shared = Shared {
            device: Arc::new(Device::new(device)),
            readers: Mutex::new(readers),
            ended: Condvar::new(),
        };
        Self { shared: Arc::new(shared), connection: Arc::new(connection), negotiated }
    }

    fn start<H: Handler>(&self, threads: usize, handler: &Arc<H>) -> Result<(), MountError> {
        for number in 0..threads.clamp(1, 16) {
            let buffer = ReadBuffer::new(self.negotiated.max_write).map_err(MountError::Thread)?;
            self.shared.lock().running += 1;
            let reader =
                Reader::new(&self.shared, &self.connection, self.negotiated.flags, handler);
            // Where no thread starts, the closure is dropped with the reader in it, which counts
            // itself out.
            thread::Builder::new()
                .name(format!("fuse-{number}"))
                .spawn(move || reader.run(buffer))
                .map_err(MountError::Thread)?;
        }
        Ok(())
    }

    /// What was agreed on with the kernel.
    pub const fn negotiated(&self) -> Negotiated {
        self.negotiated
    }

    /// The mount, for who may have to abort it.
    pub const fn connection(&self) -> &Arc<Connection> {
        &self.connection
    }

    /// The number of the connection in `/sys/fs/fuse/connections`.
    pub fn connection_id(&self) -> u32 {
        self.connection.id()
    }

    /// Ends every request with an error, now and from now on; the mount stays at its path.
    pub fn abort(&self) {
        self.connection.abort();
    }

    /// Tells the kernel to forget what it caches.
    pub fn notifier(&self) -> Notifier {
        Notifier { device: Arc::clone(&self.shared.device) }
    }

    /// The descriptor of the session, for a process that keeps it alive past this one.
    pub fn device(&self) -> BorrowedFd<'_> {
        self.shared.device.as_fd()
    }

    /// How the session ended, once all readers have; `None` when `bound` passes first.
    pub fn wait(&self, bound: Duration) -> Option<SessionEnd> {
        let readers = self.shared.lock();
        let (readers, _) = self
            .shared
            .ended
            .wait_timeout_while(readers, bound, |readers| readers.running > 0)
            .unwrap_or_else(PoisonError::into_inner);
        if readers.running > 0 { None } else { readers.end }
    }

    /// Waits until the session ends, by whomever.
    pub fn join(&self) -> SessionEnd {
        let readers = self.shared.lock();
        let readers = self
            .shared
            .ended
            .wait_while(readers, |readers| readers.running > 0)
            .unwrap_or_else(PoisonError::into_inner);
        readers.end.unwrap_or(SessionEnd::Unmounted)
    }

    /// Takes the mount away: dirty pages are written back and the mount detached, which may take
    /// up to `grace` and needs the handler to answer; then whatever is left is aborted. Processes
    /// that still use it get errors.
    pub fn unmount(self, grace: Duration) -> Result<SessionEnd, UnmountError> {
        self.take_away(grace)
    }

    fn take_away(&self, grace: Duration) -> Result<SessionEnd, UnmountError> {
        let alive = || UnmountError::Alive { connection: self.connection.id() };
        let connection = Arc::clone(&self.connection);
        let (done, detached) = mpsc::channel();
        // On a thread of its own, because the kernel lets it wait for our own answers.
        let detacher = thread::Builder::new().name("fuse-unmount".into()).spawn(move || {
            if let Err(cause) = connection.write_back() {
                tracing::warn!(%cause, "writing back before the unmount");
            }
            // Nobody listens any more where it took longer than all bounds together.
            done.send(connection.detach()).ok();
        });
        let in_time = detacher.is_ok().then(|| detached.recv_timeout(grace).ok()).flatten();
        // Others may hold the mount, in other namespaces too, and keep it alive for ever.
        let aborted = self.connection.abort();
        let detached = match (in_time, &detacher) {
            (Some(detached), _) => detached,
            (None, Ok(_)) => detached.recv_timeout(END_BOUND).map_err(|_| alive())?,
            (None, Err(_)) => self.connection.detach(),
        };
        let end = self.wait(if aborted { END_BOUND } else { grace }).ok_or_else(alive)?;
        match detached {
            Ok(()) => Ok(end),
            Err(source) => {
                Err(UnmountError::Unmount { path: self.connection.path().into(), source })
            }
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if self.shared.lock().running > 0 {
            self.connection.abort();
        }
        if let Err(cause) = self.connection.detach() {
            tracing::error!(path = %self.connection.path().display(), %cause, "unmounting");
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Readers> {
        self.readers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A reader is no more. What the first one says is why, unless another one failed.
    pub(super) fn reader_ended(&self, end: SessionEnd) {
        let mut readers = self.lock();
        readers.running -= 1;
        if readers.end.is_none() || matches!(end, SessionEnd::Failed(_)) {
            readers.end = Some(end);
        }
        if readers.running == 0 {
            self.ended.notify_all();
        }
    }
}
