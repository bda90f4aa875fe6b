//! What is shipped, and by whom: the source and the log stream behind one lock, so that the thread that
//! appended can ship by itself while the link's own thread sleeps.
//!
//! ```text
//!  link's thread:   push ── sleep until: acknowledged, more than a hand takes, a timer ──┐
//!    ^────────────────────────────────────────────────────────────────────────────────┘
//!  any thread:      Waker::wake ── Hand::ship ── push, if the lock is free and it is little
//! ```
//! Invariants: `acked <= sent`, and `sent - acked <= window_bytes`; every byte from the start's position
//! on goes into the stream once, in order, whoever brings it. A hand never waits for the lock and leaves
//! to the link's thread whatever is more than one frame, did not go into the stream whole, or failed.

use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use duolog_wal::Lsn;
use quinn::SendStream;
use tokio::time::Instant;

use crate::ack::Ack;
use crate::control::StreamKind;
use crate::drive::Drive;
use crate::error::{LinkError, OnStream};
use crate::frame::{Content, RAW_MAX};
use crate::pace::Pace;
use crate::pack::Packer;
use crate::settings::{Compression, Tuning};
use crate::source::Source;
use crate::stats::Stats;
use crate::streams;
use crate::waker::Hand;
use crate::worth::{Worth, is_hollow};

/// Sent and not acknowledged, from which on the link counts as behind.
const BEHIND_BYTES: u64 = 2 * RAW_MAX as u64;

/// The source of a link, and the stream that it is shipped on while a connection stands.
pub(crate) struct Shipping<S> {
    state: Mutex<State<S>>,
    drive: Drive,
    stats: Arc<Stats>,
}

struct State<S> {
    source: S,
    live: Option<Live>,
}

/// The stream of a connection, and what is on its way.
struct Live {
    log: SendStream,
    flow: Flow,
    /// The rest of a frame that the stream did not take whole.
    frame: [Bytes; 1],
    /// First byte that the secondary did not acknowledge.
    acked: Lsn,
    /// Wakes the link's thread where a hand was not enough.
    link: Waker,
    /// The link's thread wakes in time to announce what is committed.
    announces: bool,
    /// What a hand met, for the link's thread to end the connection with.
    failed: Option<LinkError>,
}

/// How things stand after a push.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pushed {
    /// Whether nothing of a frame is left.
    pub(crate) written: bool,
    /// Whether the secondary may be sent more.
    pub(crate) room: bool,
    /// Until when nothing of what waits may be sent.
    pub(crate) held_until: Option<Instant>,
    /// When to look next whether there is a commit position to announce.
    pub(crate) announce_at: Option<Instant>,
}

/// The stream is shipped on until this is dropped.
pub(crate) struct Stands<'a, S>(&'a Shipping<S>);

impl<S> Drop for Stands<'_, S> {
    fn drop(&mut self) {
        self.0.lock().live = None;
    }
}

impl<S> Shipping<S> {
    pub(crate) fn new(source: S, drive: Drive, stats: Arc<Stats>) -> Self {
        Self { state: Mutex::new(State { source, live: None }), drive, stats }
    }

    fn lock(&self) -> MutexGuard<'_, State<S>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks or tells the source something.
    pub(crate) fn source<T>(&self, what: impl FnOnce(&mut S) -> T) -> T {
        what(&mut self.lock().source)
    }

    /// Ships on that stream from now on, from `from` on; `link` is woken where a hand is not enough.
    pub(crate) fn begin(
        &self,
        log: SendStream,
        from: Lsn,
        tuning: &Tuning,
        link: Waker,
    ) -> Stands<'_, S> {
        self.lock().live = Some(Live {
            log,
            flow: Flow::new(from, tuning),
            frame: [Bytes::new()],
            acked: from,
            link,
            announces: false,
            failed: None,
        });
        Stands(self)
    }
}

impl<S: Source> Shipping<S> {
    /// For the link's thread: puts into the stream what it takes now, at most one frame.
    ///
    /// # Errors
    /// End the connection.
    pub(crate) fn push(&self, context: &mut Context<'_>) -> Result<Pushed, LinkError> {
        let State { source, live } = &mut *self.lock();
        let live = live.as_mut().expect("it is pushed while the stream stands");
        if !live.link.will_wake(context.waker()) {
            live.link.clone_from(context.waker());
        }
        match live.failed.take() {
            Some(error) => Err(error),
            None => live.push(source, context, &self.stats),
        }
    }

    /// For the link's thread, before it sleeps: whether there is more to send than was pushed.
    /// `announces` says whether it wakes in time to announce what is committed.
    pub(crate) fn has_more(&self, announces: bool) -> bool {
        let State { source, live } = &mut *self.lock();
        let live = live.as_mut().expect("it is asked while the stream stands");
        live.announces = announces;
        live.failed.is_some() || (source.end() > live.flow.sent && live.flow.held_until.is_none())
    }

    /// How far was sent.
    pub(crate) fn sent(&self) -> Lsn {
        self.lock().live.as_ref().map_or(Lsn::ZERO, |live| live.flow.sent)
    }

    /// Takes in an acknowledgement of what was sent.
    pub(crate) fn acknowledged(&self, ack: Ack) {
        let State { source, live } = &mut *self.lock();
        if let Some(live) = live {
            live.acked = ack.durable;
        }
        source.acknowledged(ack);
    }
}

impl<S: Source> Hand for Shipping<S> {
    fn ship(&self) -> bool {
        let mut enough = false;
        self.drive.lend_a_hand(|| {
            let Ok(mut state) = self.state.try_lock() else { return false };
            let State { source, live } = &mut *state;
            let Some(live) = live else { return false };
            let waiting = source.end().since(live.flow.sent);
            if waiting == 0 {
                enough = live.announces;
                return false;
            }
            if waiting > RAW_MAX as u64 || !live.frame[0].is_empty() || live.failed.is_some() {
                return false;
            }
            let link = live.link.clone();
            match live.push(source, &mut Context::from_waker(&link), &self.stats) {
                Ok(pushed) => enough = pushed.written && pushed.room && live.announces,
                Err(error) => live.failed = Some(error),
            }
            true
        });
        enough
    }
}

impl Live {
    fn push(
        &mut self,
        source: &mut impl Source,
        context: &mut Context<'_>,
        stats: &Stats,
    ) -> Result<Pushed, LinkError> {
        if self.frame[0].is_empty()
            && let Some(next) = self.flow.next_frame(source, self.acked, stats)?
        {
            self.frame = [next];
        }
        let wrote = !self.frame[0].is_empty();
        // Until it is all in, or the stream has noted whom to wake for the rest.
        while !self.frame[0].is_empty() {
            let written = pin!(self.log.write_chunks(&mut self.frame)).poll(context);
            let Poll::Ready(written) = written else { break };
            written.on(streams::name(StreamKind::Log))?;
        }
        if wrote {
            self.flow.blocked = !self.frame[0].is_empty();
        }
        Ok(Pushed {
            written: self.frame[0].is_empty(),
            room: self.flow.room(self.acked) > 0,
            held_until: self.flow.held_until,
            announce_at: self.flow.announce_at(source.committed()),
        })
    }
}

/// How far a connection has come, and what that allows.
struct Flow {
    packer: Packer,
    compression: Compression,
    window_bytes: u64,
    commit_interval: Duration,
    /// First byte that was not sent.
    sent: Lsn,
    /// The commit position that was sent.
    committed: Lsn,
    /// Whether the stream did not take a frame at once.
    blocked: bool,
    /// What compressing has brought while the link was not behind, and while it was.
    worth_idle: Worth,
    worth_behind: Worth,
    /// Until when a commit position alone is not worth a packet.
    quiet_until: Instant,
    /// How fast a secondary that lacks much catches up.
    pace: Pace,
    /// Until when nothing of what waits may be sent.
    held_until: Option<Instant>,
}

impl Flow {
    fn new(from: Lsn, tuning: &Tuning) -> Self {
        Self {
            packer: Packer::new(),
            compression: tuning.compression,
            window_bytes: tuning.window_bytes,
            commit_interval: Duration::from_millis(tuning.commit_interval_ms),
            sent: from,
            committed: Lsn::ZERO,
            blocked: false,
            worth_idle: Worth::IDLE,
            worth_behind: Worth::BEHIND,
            quiet_until: Instant::now(),
            pace: Pace::default(),
            held_until: None,
        }
    }

    /// What to send now, if there is anything and the peer has room for it.
    fn next_frame(
        &mut self,
        source: &mut impl Source,
        acked: Lsn,
        stats: &Stats,
    ) -> Result<Option<Bytes>, LinkError> {
        let (end, committed) = (source.end(), source.committed());
        let waiting = end.since(self.sent);
        let bytes_per_s =
            if waiting > RAW_MAX as u64 { source.catch_up_bytes_per_s() } else { None };
        let allowed = self.pace.allows(waiting, bytes_per_s, Instant::now());
        self.held_until = self.pace.until().filter(|_| allowed == 0);
        let max = allowed.min(self.room(acked)).min(RAW_MAX as u64);
        if max > 0 {
            let max = usize::try_from(max).unwrap_or(RAW_MAX);
            let (sent, behind) = (self.sent, self.is_behind(acked));
            let worth = if behind { &mut self.worth_behind } else { &mut self.worth_idle };
            let mut tried = false;
            let compress = |bytes: &[u8]| match self.compression {
                Compression::Off => false,
                Compression::Always => true,
                Compression::Adaptive if is_hollow(bytes) => true,
                Compression::Adaptive => {
                    tried = worth.tries(bytes);
                    tried
                }
            };
            let begun = Instant::now().into_std();
            let (bytes, content) = self
                .packer
                .data(sent, committed, max, compress, |max, buf| source.read(sent, max, buf))
                .map_err(LinkError::Source)?;
            if tried {
                worth.learn(content);
            }
            let raw_len = content.raw_len() as u64;
            self.sent = sent.plus(raw_len);
            source.packed(self.sent, begun);
            let compressed = matches!(content, Content::Zstd { .. });
            stats.frames(1, u64::from(compressed), raw_len, bytes.len() as u64);
            self.announced(committed);
            return Ok(Some(bytes.into()));
        }
        if committed > self.committed && Instant::now() >= self.quiet_until {
            let bytes = Packer::commit(self.sent, committed);
            stats.frames(1, 0, 0, bytes.len() as u64);
            self.announced(committed);
            return Ok(Some(bytes.into()));
        }
        Ok(None)
    }

    /// Bytes that may be sent before more is acknowledged.
    fn room(&self, acked: Lsn) -> u64 {
        self.window_bytes.saturating_sub(self.sent.since(acked))
    }

    fn is_behind(&self, acked: Lsn) -> bool {
        self.blocked || self.sent.since(acked) >= BEHIND_BYTES
    }

    fn announced(&mut self, committed: Lsn) {
        self.committed = committed;
        self.quiet_until = Instant::now() + self.commit_interval;
    }

    /// When to look next whether there is a commit position to announce. Also while nothing new is
    /// committed but will be, so that a commit need not wake the link's thread for it.
    fn announce_at(&self, committed: Lsn) -> Option<Instant> {
        if committed > self.committed {
            return Some(self.quiet_until);
        }
        (self.sent > self.committed).then(|| Instant::now() + self.commit_interval)
    }
}
