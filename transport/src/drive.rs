//! What QUIC runs on: a queue of tasks that the link's thread works off and that any other thread may
//! lend a hand with, the connections' timers, and one place to sleep.
//!
//! Never blocks but in [`Drive::block_on`], and calls nothing of a source or sink by itself.
//!
//! ```text
//!  link's thread:  tasks, the link's own work ──> timers that are due ──> sleeps: socket, kick, timer
//!  any thread:     writes to a stream ── lend_a_hand: the task that sends it ──> the packet is out
//!                  whatever is left over ── kick ──> link's thread
//! ```
//! A thread that appends sends by itself: the link's thread need not wake, which costs 10 to 30 us and
//! the processor that the secondary could use. For a timer that a hand set it is woken only if it would
//! sleep past it; so that this is seldom, it sleeps no longer than [`TICK`] after a hand was lent.
//!
//! No wake is lost: whoever adds work adds it, *then* reads whether the link's thread sleeps; that one
//! says that it sleeps, *then* looks for work. Both in one order, so that one of the two sees the other.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::future::Future;
use std::io;
use std::net::UdpSocket;
use std::os::fd::OwnedFd;
use std::pin::{Pin, pin};
use std::sync::atomic::Ordering::SeqCst;
use std::sync::atomic::{AtomicBool, AtomicU64, fence};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError, Weak};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use quinn::{AsyncTimer, AsyncUdpSocket, Runtime};
use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use rustix::io::Errno;
use rustix::time::Timespec;

use crate::udp::Socket;

/// The longest sleep after a hand was lent. Shorter than what QUIC waits for an answer at least
/// (25 ms, which the peer may take for it, and the round trip).
const TICK: Duration = Duration::from_millis(20);
/// Tasks that a lent hand runs at most: one sends, the other one is for what came in meanwhile.
const HAND_RUNS: usize = 2;
/// Rounds of work after which the socket is looked at although there is more to do.
const LOOK_EVERY: u32 = 4;
/// The link's thread does not sleep.
const AWAKE: u64 = 0;

type Work = Pin<Box<dyn Future<Output = ()> + Send>>;

/// The tasks of one link. Clones are the same.
#[derive(Clone)]
pub(crate) struct Drive(Arc<Shared>);

struct Shared {
    ready: Mutex<VecDeque<Arc<Task>>>,
    /// All that were spawned: each holds what wakes it, and that holds the task.
    tasks: Mutex<Vec<Weak<Task>>>,
    main_ready: AtomicBool,
    /// Nothing runs any more.
    over: AtomicBool,
    timers: Mutex<Timers>,
    /// Until when the link's thread sleeps, in nanoseconds from `base`, or [`AWAKE`].
    sleeps_until: AtomicU64,
    /// Whether a hand was lent since the link's thread slept last.
    helped: AtomicBool,
    kick: OwnedFd,
    socket: Arc<Socket>,
    base: Instant,
}

#[derive(Default)]
struct Timers {
    due: BTreeMap<(Instant, u64), Waker>,
    next: u64,
}

/// One task: it is polled by one thread at a time, whichever.
struct Task {
    work: Mutex<Option<Work>>,
    queued: AtomicBool,
    drive: Arc<Shared>,
}

thread_local! {
    /// The drive whose tasks this thread runs: what it wakes, it looks at itself.
    static RUNS: std::cell::Cell<*const Shared> = const { std::cell::Cell::new(std::ptr::null()) };
}

/// Says that this thread runs the tasks of a drive, until it is dropped.
struct Runs(*const Shared);

impl Runs {
    fn of(shared: &Arc<Shared>) -> Self {
        Self(RUNS.replace(Arc::as_ptr(shared)))
    }
}

impl Drop for Runs {
    fn drop(&mut self) {
        RUNS.set(self.0);
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Drive {
    /// A drive for QUIC over that socket.
    ///
    /// # Errors
    /// What the system says of the socket's options, or that it has no descriptor left.
    pub(crate) fn new(socket: UdpSocket) -> io::Result<Self> {
        Ok(Self(Arc::new(Shared {
            ready: Mutex::default(),
            tasks: Mutex::default(),
            main_ready: AtomicBool::new(false),
            over: AtomicBool::new(false),
            timers: Mutex::default(),
            sleeps_until: AtomicU64::new(AWAKE),
            helped: AtomicBool::new(false),
            kick: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?,
            socket: Arc::new(Socket::new(socket)?),
            base: Instant::now(),
        })))
    }

    /// The socket, as QUIC uses it.
    pub(crate) fn socket(&self) -> Arc<dyn AsyncUdpSocket> {
        self.0.socket.clone()
    }

    /// Runs `main` to its end, and the tasks beside it; then drops them.
    pub(crate) fn block_on<T>(&self, main: impl Future<Output = T>) -> T {
        let shared = &self.0;
        let _runs = Runs::of(shared);
        let waker = Waker::from(Arc::new(Main(self.0.clone())));
        let mut context = Context::from_waker(&waker);
        let mut main = pin!(main);
        shared.main_ready.store(true, SeqCst);
        let mut rounds: u32 = 0;
        let done = loop {
            let tasks = locked(&shared.ready).len();
            for _ in 0..tasks {
                let Some(task) = locked(&shared.ready).pop_front() else { break };
                task.run();
            }
            if shared.main_ready.swap(false, SeqCst)
                && let Poll::Ready(done) = main.as_mut().poll(&mut context)
            {
                break done;
            }
            rounds = rounds.wrapping_add(1);
            if !shared.has_work() {
                shared.sleep();
            } else if rounds.is_multiple_of(LOOK_EVERY) {
                shared.look(Some(&Timespec::default()));
            }
            shared.fire();
        };
        shared.over.store(true, SeqCst);
        let tasks = std::mem::take(&mut *locked(&shared.tasks));
        for task in tasks.iter().filter_map(Weak::upgrade) {
            // Dropped without the lock: what it holds may wake it.
            let work = locked(&task.work).take();
            drop(work);
        }
        // What is dropped may wake, so not under the lock.
        let ready = std::mem::take(&mut *locked(&shared.ready));
        drop(ready);
        shared.socket.forget();
        done
    }

    /// Does `work`, which says whether it made anything ready; runs that, as far as it is little, and
    /// leaves the rest to the link's thread. Never blocks if `work` does not.
    pub(crate) fn lend_a_hand(&self, work: impl FnOnce() -> bool) {
        let shared = &self.0;
        if RUNS.get() == Arc::as_ptr(shared) {
            work();
            return;
        }
        {
            let _runs = Runs::of(shared);
            if !work() {
                return;
            }
            for _ in 0..HAND_RUNS {
                let Some(task) = locked(&shared.ready).pop_front() else { break };
                if !task.try_run() {
                    locked(&shared.ready).push_back(task);
                    break;
                }
            }
        }
        shared.helped.store(true, SeqCst);
        if shared.has_work() || shared.socket.is_blocked() {
            shared.kick();
        }
    }
}

impl Shared {
    fn has_work(&self) -> bool {
        self.main_ready.load(SeqCst) || !locked(&self.ready).is_empty()
    }

    /// Something was made ready. Whoever runs the tasks sees it; others wake the link's thread.
    fn added(&self) {
        if !std::ptr::eq(RUNS.get(), self) {
            self.kick();
        }
    }

    /// A timer was set. The link's thread wakes for it by itself, unless it sleeps past it.
    fn set(&self, at: Instant) {
        fence(SeqCst);
        if self.since_base(at) < self.sleeps_until.load(SeqCst) {
            self.kick();
        }
    }

    /// Ends the sleep of the link's thread, if it sleeps.
    fn kick(&self) {
        fence(SeqCst);
        if self.sleeps_until.load(SeqCst) != AWAKE && self.sleeps_until.swap(AWAKE, SeqCst) != AWAKE
        {
            // It fails where it was kicked 2^64 times and did not wake.
            rustix::io::write(&self.kick, &1_u64.to_le_bytes()).ok();
        }
    }

    fn since_base(&self, at: Instant) -> u64 {
        let since = at.saturating_duration_since(self.base).as_nanos();
        u64::try_from(since).unwrap_or(u64::MAX).max(AWAKE + 1)
    }

    /// Sleeps until something comes in, a timer is due or somebody kicks; not at all if there is work.
    fn sleep(&self) {
        let tick = self.helped.swap(false, SeqCst).then(|| Instant::now() + TICK);
        let first = || locked(&self.timers).due.first_key_value().map(|((at, _), _)| *at);
        let until = [first(), tick].into_iter().flatten().min();
        self.sleeps_until.store(until.map_or(u64::MAX, |until| self.since_base(until)), SeqCst);
        fence(SeqCst);
        // What was added, set or lent before it was said that this thread sleeps.
        let sooner = first().is_some_and(|first| until.is_none_or(|until| first < until));
        if !self.has_work() && !sooner && !self.helped.load(SeqCst) {
            let left = until.map(|until| {
                let left = until.saturating_duration_since(Instant::now());
                Timespec::try_from(left).unwrap_or(Timespec { tv_sec: i64::MAX, tv_nsec: 0 })
            });
            self.look(left.as_ref());
        }
        self.sleeps_until.store(AWAKE, SeqCst);
    }

    /// Waits for the socket or a kick for at most so long.
    fn look(&self, limit: Option<&Timespec>) {
        let mut wanted = PollFlags::IN;
        wanted.set(PollFlags::OUT, self.socket.is_blocked());
        let mut fds = [
            PollFd::from_borrowed_fd(self.socket.fd(), wanted),
            PollFd::new(&self.kick, PollFlags::IN),
        ];
        match poll(&mut fds, limit) {
            Ok(0) | Err(Errno::INTR) => return,
            Ok(_) => {}
            Err(error) => {
                // Only no memory; the socket is then looked at, which does no harm.
                tracing::debug!(%error, "waiting for the link's socket");
                self.socket.readable();
                return;
            }
        }
        if fds[1].revents().contains(PollFlags::IN) {
            let mut count = [0; 8];
            rustix::io::read(&self.kick, &mut count).ok();
        }
        let happened = fds[0].revents();
        if happened.contains(PollFlags::OUT) {
            self.socket.writable();
        }
        if happened.intersects(PollFlags::IN | PollFlags::ERR) {
            self.socket.readable();
        }
    }

    /// Wakes whoever waits for a timer that is due.
    fn fire(&self) {
        let mut due = Vec::new();
        {
            let mut timers = locked(&self.timers);
            if timers.due.is_empty() {
                return;
            }
            let now = Instant::now();
            while let Some(first) = timers.due.first_entry()
                && first.key().0 <= now
            {
                due.push(first.remove());
            }
        }
        due.into_iter().for_each(Waker::wake);
    }
}

impl Task {
    fn run(self: &Arc<Self>) {
        self.poll(locked(&self.work));
    }

    /// Says whether it ran: another thread may be at it.
    fn try_run(self: &Arc<Self>) -> bool {
        match self.work.try_lock() {
            Ok(work) => self.poll(work),
            Err(TryLockError::Poisoned(work)) => self.poll(work.into_inner()),
            Err(TryLockError::WouldBlock) => return false,
        }
        true
    }

    fn poll(self: &Arc<Self>, mut work: MutexGuard<'_, Option<Work>>) {
        // Woken from here on, it is polled once more.
        self.queued.store(false, SeqCst);
        let Some(future) = work.as_mut() else { return };
        let waker = Waker::from(self.clone());
        if future.as_mut().poll(&mut Context::from_waker(&waker)).is_ready() {
            *work = None;
        }
    }
}

impl Wake for Task {
    fn wake(self: Arc<Self>) {
        if self.queued.swap(true, SeqCst) {
            return;
        }
        let drive = self.drive.clone();
        let mut ready = locked(&drive.ready);
        // Under the lock: what came after the last look would keep itself, and the socket with it.
        if drive.over.load(SeqCst) {
            // Its work may be dropped with it, which may wake others.
            drop(ready);
            return;
        }
        ready.push_back(self);
        drop(ready);
        drive.added();
    }
}

/// The link's own work, as it is woken.
struct Main(Arc<Shared>);

impl Wake for Main {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.0.main_ready.swap(true, SeqCst) {
            self.0.added();
        }
    }
}

impl Runtime for Drive {
    fn new_timer(&self, at: Instant) -> Pin<Box<dyn AsyncTimer>> {
        let mut timers = locked(&self.0.timers);
        timers.next += 1;
        Box::pin(Timer { drive: self.0.clone(), number: timers.next, at, set: None })
    }

    fn spawn(&self, work: Work) {
        let task = Arc::new(Task {
            work: Mutex::new(Some(work)),
            queued: AtomicBool::new(false),
            drive: self.0.clone(),
        });
        {
            let mut tasks = locked(&self.0.tasks);
            tasks.retain(|task| task.strong_count() > 0);
            tasks.push(Arc::downgrade(&task));
        }
        task.wake();
    }

    fn wrap_udp_socket(&self, socket: UdpSocket) -> io::Result<Arc<dyn AsyncUdpSocket>> {
        // Only the one that it sleeps on would ever be looked at.
        drop(socket);
        Err(io::ErrorKind::Unsupported.into())
    }
}

impl fmt::Debug for Drive {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Drive").finish_non_exhaustive()
    }
}

/// A timer of a connection.
struct Timer {
    drive: Arc<Shared>,
    number: u64,
    at: Instant,
    /// For when it is set, and for whom.
    set: Option<(Instant, Waker)>,
}

impl Timer {
    fn unset(&mut self) {
        if let Some((at, _)) = self.set.take() {
            locked(&self.drive.timers).due.remove(&(at, self.number));
        }
    }
}

impl AsyncTimer for Timer {
    fn reset(mut self: Pin<&mut Self>, at: Instant) {
        self.at = at;
    }

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let (at, number) = (self.at, self.number);
        if Instant::now() >= at {
            self.unset();
            return Poll::Ready(());
        }
        let waker = context.waker();
        if !self.set.as_ref().is_some_and(|(set, whose)| *set == at && whose.will_wake(waker)) {
            self.unset();
            self.set = Some((at, waker.clone()));
            locked(&self.drive.timers).due.insert((at, number), waker.clone());
            self.drive.set(at);
        }
        Poll::Pending
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        self.unset();
    }
}

impl fmt::Debug for Timer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Timer").field("at", &self.at).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
