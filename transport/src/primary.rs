//! The primary's end: dials, ships what the source has, takes in acknowledgements.
//!
//! ```text
//!            ┌── stop ───────────────────────────────────────────────────────────> end
//!  pause <───┴─ connect ── Hello, Start ── ship: read, frame, write │ acks │ sleep
//!    └──────────────^                          any error ──> disconnected, pause
//! ```
//! Invariants: `acked <= sent`, and `sent - acked <= window_bytes`; every byte from the start's
//! position on is sent once on a connection, in order; nothing waits for a timer except a commit
//! position that has no bytes to travel with, and what a secondary lacked before its source asked for
//! a pace.

use std::convert::Infallible;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::net::UdpSocket;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use duolog_wal::{Cursor, Lsn};
use quinn::{Connection, ConnectionError, Endpoint, RecvStream, SendStream, TransportConfig};
use tokio::time::{Instant, Sleep, sleep, timeout};

use crate::ack::{ACK_LEN, Ack, AckError};
use crate::control::{Message, StreamKind};
use crate::endpoint;
use crate::error::{LinkError, OnStream, Role};
use crate::frame::RAW_MAX;
use crate::handshake::{Hello, Meeting, Refusal, meet, of_this_pair};
use crate::hash::Hashed;
use crate::link::{FAREWELL_TIMEOUT, Shared};
use crate::pace::Pace;
use crate::pack::Packer;
use crate::protocol::Protocol;
use crate::resync;
use crate::settings::{Compression, DialConfig};
use crate::source::Source;
use crate::streams::{self, ANSWER_TIMEOUT, Control, now, unexpected};
use crate::tls;

/// How long the peer may take to answer at all.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// How long it may take to cut its log and to sync what it has.
const READY_TIMEOUT: Duration = Duration::from_mins(1);
/// How long a resynchronisation may take in all.
const RESYNC_TIMEOUT: Duration = Duration::from_hours(24 * 365);
/// Sent and not acknowledged, from which on the link counts as behind.
const BEHIND_BYTES: u64 = 2 * RAW_MAX as u64;

/// Keeps a source connected.
pub(crate) struct Dialer<S> {
    config: DialConfig,
    endpoint: Endpoint,
    transport: Arc<TransportConfig>,
    source: S,
    shared: Shared,
    /// The connection of the present attempt, so that a stop can close it with its code.
    live: Option<Connection>,
    /// Whether the source was told of a connection and not yet of its end.
    connected: bool,
}

impl<S: Source> Dialer<S> {
    pub(crate) fn new(
        config: DialConfig,
        socket: UdpSocket,
        source: S,
        shared: Shared,
    ) -> io::Result<Self> {
        let endpoint =
            endpoint::endpoint(socket, &config.credentials.identity(), &config.tuning, None)?;
        let transport = endpoint::transport(&config.tuning);
        Ok(Self { config, endpoint, transport, source, shared, live: None, connected: false })
    }

    pub(crate) async fn run(mut self) {
        let mut stopping = pin!(self.shared.stopping());
        let mut redial = Redial::new(
            Duration::from_millis(self.config.tuning.redial_min_ms),
            Duration::from_millis(self.config.tuning.redial_max_ms),
        );
        let mut logged = String::new();
        loop {
            let error = tokio::select! {
                biased;
                error = self.attempt() => error,
                () = &mut stopping => LinkError::Stopped,
            };
            if let Some(connection) = self.live.take() {
                streams::close(&connection, &error);
            }
            if std::mem::take(&mut self.connected) {
                redial.reset();
                self.shared.stats.disconnected();
                self.source.disconnected(&error);
            }
            if matches!(error, LinkError::Stopped) {
                break;
            }
            let line = error.line();
            let peer = self.config.peer;
            if line == logged {
                tracing::debug!(%peer, "still no link to the secondary: {line}");
            } else {
                tracing::warn!(%peer, "no link to the secondary: {line}");
                logged.clone_from(&line);
            }
            self.shared.stats.failed(line);
            let pause = if error.retry_slowly() {
                Duration::from_millis(self.config.tuning.refused_retry_ms)
            } else {
                redial.pause()
            };
            tokio::select! {
                biased;
                () = &mut stopping => break,
                () = sleep(pause) => {}
            }
        }
        self.endpoint
            .close(LinkError::Stopped.close_code().code(), b"the primary's link was stopped");
        timeout(FAREWELL_TIMEOUT, self.endpoint.wait_idle()).await.ok();
    }

    /// One connection from its beginning to its end.
    async fn attempt(&mut self) -> LinkError {
        let connection = match self.connect().await {
            Ok(connection) => connection,
            Err(error) => return error,
        };
        self.live = Some(connection.clone());
        let credentials = self.config.credentials.clone();
        let error = tokio::select! {
            biased;
            error = credentials.distrusted(&connection) => error,
            Err(error) = self.session(&connection) => error,
        };
        error.explained(credentials.identity().fingerprint())
    }

    async fn connect(&self) -> Result<Connection, LinkError> {
        let credentials = &self.config.credentials;
        let (crypto, intruder) = tls::client(credentials, self.config.tuning.newest_protocol)?;
        let mut config = quinn::ClientConfig::new(Arc::new(crypto));
        config.transport_config(self.transport.clone());
        let peer = self.config.peer;
        let connecting = self.endpoint.connect_with(config, peer, tls::SERVER_NAME)?;
        match timeout(CONNECT_TIMEOUT, connecting).await {
            Ok(Ok(connection)) => Ok(connection),
            // QUIC itself gives up when its idle time-out is below ours.
            Err(_) | Ok(Err(ConnectionError::TimedOut)) => Err(LinkError::NoAnswer { peer }),
            Ok(Err(error)) => Err(match intruder.seen() {
                Some(presented) => credentials.refusal(presented),
                None => LinkError::from(error).explained(credentials.identity().fingerprint()),
            }),
        }
    }

    async fn session(&mut self, connection: &Connection) -> Result<Infallible, LinkError> {
        let ours = self.source.hello();
        let (send, recv) = connection.open_bi().await?;
        let mut control = Control { send, recv, role: Role::Primary };
        let protocol = Protocol::of(connection);
        control.send(&Message::Hello(ours.clone())).await?;
        control.send_release(protocol).await?;
        let Message::Hello(theirs) = control.receive(ANSWER_TIMEOUT).await? else {
            return Err(unexpected("its Hello"));
        };
        self.shared.stats.peer(protocol, control.receive_release(protocol).await?);
        let at = match self.agree(&ours, &theirs) {
            Ok(meeting) => {
                control
                    .send(&match &meeting {
                        Meeting::Goes(_) => Message::Start,
                        Meeting::Parts(candidates) => {
                            Message::Cut { candidates: candidates.clone() }
                        }
                    })
                    .await?;
                match control.receive(READY_TIMEOUT).await? {
                    Message::Ready { at } if meeting.allows(&at) => at,
                    Message::NeedsResync => {
                        let why = "the secondary cannot cut its log".to_owned();
                        let refusal = Refusal::CannotResync { why };
                        self.resync(connection, &mut control, &theirs, refusal).await?
                    }
                    _ => return Err(unexpected("Ready at a position that it was offered")),
                }
            }
            Err(refusal) if refusal.is_of_histories() => {
                self.resync(connection, &mut control, &theirs, refusal).await?
            }
            Err(refusal) => return Err(control.refuse(connection, refusal).await),
        };
        let acks = streams::accept(connection, StreamKind::Acks).await?;
        let log = streams::open(connection, StreamKind::Log).await?;
        tracing::info!(peer = %self.config.peer, from = %at.lsn, "shipping the log to the secondary");
        self.connected = true;
        self.shared.stats.connected();
        self.source.connected(&theirs, at);
        let _stands = self.shared.bulk.stands(connection);
        let (bytes, hashed) = ([0; ACKS_READ], Vec::new());
        let acks = Acks { stream: acks, protocol, bytes, len: 0, durable: at.lsn, hashed };
        self.ship(connection, log, acks, at.lsn).await
    }

    /// Resynchronises the secondary, whose log could not go on because of `refusal`; returns where
    /// it goes on.
    async fn resync(
        &mut self,
        connection: &Connection,
        control: &mut Control,
        theirs: &Hello,
        refusal: Refusal,
    ) -> Result<Cursor, LinkError> {
        let give = match self.source.resync(theirs) {
            Ok(Some(give)) => give,
            Ok(None) => return Err(control.refuse(connection, refusal).await),
            Err(why) => {
                return Err(control.refuse(connection, Refusal::CannotResync { why }).await);
            }
        };
        tracing::info!(peer = %self.config.peer, why = %refusal, "the secondary is resynchronised");
        control.send(&Message::Resync).await?;
        // Refused there, or the worker's stream: whichever comes first.
        let ready = {
            let mut ready = pin!(control.receive(RESYNC_TIMEOUT));
            let (send, recv) = streams::open_both(connection).await?;
            let compress = self.config.tuning.compression != Compression::Off;
            let mut work = pin!(resync::run(send, recv, compress, resync::RESYNC, give));
            tokio::select! {
                biased;
                // It speaks before it is done only to refuse.
                early = &mut ready => Err(match early {
                    Ok(_) => unexpected("nothing while it is resynchronised"),
                    Err(error) => error,
                }),
                done = &mut work => match done {
                    Ok(()) => ready.await,
                    Err(error) => Err(error),
                },
            }
        };
        match ready? {
            Message::Ready { at } if self.source.cursor_at(at.lsn) == Some(at) => Ok(at),
            _ => Err(unexpected("Ready at a position of our log")),
        }
    }

    fn agree(&self, ours: &Hello, theirs: &Hello) -> Result<Meeting, Refusal> {
        of_this_pair(ours, theirs)?;
        self.source.admits(theirs)?;
        if !theirs.whole {
            return Err(Refusal::CannotResync { why: "its copy is not whole".into() });
        }
        meet(ours, theirs, |lsn| self.source.cursor_at(lsn))
    }

    async fn ship(
        &mut self,
        connection: &Connection,
        mut log: SendStream,
        mut acks: Acks,
        from: Lsn,
    ) -> Result<Infallible, LinkError> {
        let mut flow = Flow::new(from, &self.config);
        let mut frame = [Bytes::new()];
        let mut timer = pin!(sleep(Duration::ZERO));
        let mut rest = pin!(sleep(Duration::ZERO));
        loop {
            if frame[0].is_empty()
                && let Some(next) = self.next_frame(&mut flow, acks.durable)?
            {
                frame = [next];
            }
            if !frame[0].is_empty() {
                match now(log.write_chunks(&mut frame)).await {
                    Some(written) => {
                        written.on(streams::name(StreamKind::Log))?;
                        flow.blocked = !frame[0].is_empty();
                    }
                    None => flow.blocked = true,
                }
            }
            let written = frame[0].is_empty();
            let room = flow.room(acks.durable) > 0;
            if written && room {
                self.shared.waker.falls_asleep();
                if self.source.end() > flow.sent && flow.held_until.is_none() {
                    // More to send: give the packets on their way first, and take in what came.
                    self.shared.waker.is_awake();
                    tokio::task::yield_now().await;
                    if let Some(read) = now(acks.read()).await {
                        self.take_in(connection, read?, &mut acks, flow.sent)?;
                    }
                    continue;
                }
            }
            let waits = flow.arm(self.source.committed(), timer.as_mut()) && written;
            let rests = written && room && flow.held_until.is_some();
            if let Some(until) = flow.held_until.filter(|until| *until != rest.deadline()) {
                rest.as_mut().reset(until);
            }
            tokio::select! {
                biased;
                read = acks.read() => {
                    self.shared.waker.is_awake();
                    self.take_in(connection, read?, &mut acks, flow.sent)?;
                }
                result = log.write_chunks(&mut frame), if !written => {
                    result.on(streams::name(StreamKind::Log))?;
                }
                () = self.shared.waker.woken(), if written && room => {}
                () = timer.as_mut(), if waits => {}
                () = rest.as_mut(), if rests => {}
            }
            self.shared.waker.is_awake();
        }
    }

    /// What to send now, if there is anything and the peer has room for it.
    fn next_frame(&mut self, flow: &mut Flow, acked: Lsn) -> Result<Option<Bytes>, LinkError> {
        let (end, committed) = (self.source.end(), self.source.committed());
        let waiting = end.since(flow.sent);
        let bytes_per_s =
            if waiting > RAW_MAX as u64 { self.source.catch_up_bytes_per_s() } else { None };
        let allowed = flow.pace.allows(waiting, bytes_per_s, Instant::now());
        flow.held_until = flow.pace.until().filter(|_| allowed == 0);
        let max = allowed.min(flow.room(acked)).min(RAW_MAX as u64);
        if max > 0 {
            let max = usize::try_from(max).unwrap_or(RAW_MAX);
            let compress = flow.compress(acked);
            let (source, sent) = (&mut self.source, flow.sent);
            let begun = Instant::now().into_std();
            let (bytes, raw_len) = flow
                .packer
                .data(sent, committed, max, compress, |max, buf| source.read(sent, max, buf))
                .map_err(LinkError::Source)?;
            flow.sent = sent.plus(raw_len as u64);
            self.source.packed(flow.sent, begun);
            self.shared.stats.frames(1, u64::from(compress), raw_len as u64, bytes.len() as u64);
            flow.announced(committed);
            return Ok(Some(bytes.into()));
        }
        if committed > flow.committed && Instant::now() >= flow.quiet_until {
            let bytes = Packer::commit(flow.sent, committed);
            self.shared.stats.frames(1, 0, 0, bytes.len() as u64);
            flow.announced(committed);
            return Ok(Some(bytes.into()));
        }
        Ok(None)
    }

    fn take_in(
        &mut self,
        connection: &Connection,
        read: usize,
        acks: &mut Acks,
        sent: Lsn,
    ) -> Result<(), LinkError> {
        let (count, newest) = acks.take(read, sent)?;
        for hashed in acks.hashed.drain(..) {
            self.source.hashed(hashed);
        }
        if let Some(ack) = newest {
            self.source.acknowledged(ack);
            self.shared.stats.acks(count, connection.rtt());
        }
        Ok(())
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
    /// Until when a commit position alone is not worth a packet.
    quiet_until: Instant,
    /// How fast a secondary that lacks much catches up.
    pace: Pace,
    /// Until when nothing of what waits may be sent.
    held_until: Option<Instant>,
}

impl Flow {
    fn new(from: Lsn, config: &DialConfig) -> Self {
        Self {
            packer: Packer::new(),
            compression: config.tuning.compression,
            window_bytes: config.tuning.window_bytes,
            commit_interval: Duration::from_millis(config.tuning.commit_interval_ms),
            sent: from,
            committed: Lsn::ZERO,
            blocked: false,
            quiet_until: Instant::now(),
            pace: Pace::default(),
            held_until: None,
        }
    }

    /// Bytes that may be sent before more is acknowledged.
    fn room(&self, acked: Lsn) -> u64 {
        self.window_bytes.saturating_sub(self.sent.since(acked))
    }

    fn compress(&self, acked: Lsn) -> bool {
        match self.compression {
            Compression::Off => false,
            Compression::Always => true,
            Compression::Adaptive => self.blocked || self.sent.since(acked) >= BEHIND_BYTES,
        }
    }

    fn announced(&mut self, committed: Lsn) {
        self.committed = committed;
        self.quiet_until = Instant::now() + self.commit_interval;
    }

    /// Whether a commit position waits to be announced, and `timer` tells when to.
    fn arm(&self, committed: Lsn, mut timer: Pin<&mut Sleep>) -> bool {
        let waits = committed > self.committed;
        if waits && timer.deadline() != self.quiet_until {
            timer.as_mut().reset(self.quiet_until);
        }
        waits
    }
}

const ACKS_READ: usize = 64 * ACK_LEN;

/// The acknowledgements' stream.
struct Acks {
    stream: RecvStream,
    protocol: Protocol,
    bytes: [u8; ACKS_READ],
    len: usize,
    durable: Lsn,
    /// What came in besides and was not handed on.
    hashed: Vec<Hashed>,
}

impl Acks {
    /// Waits for more bytes and says how many came. May be dropped at any time.
    async fn read(&mut self) -> Result<usize, LinkError> {
        let stream = streams::name(StreamKind::Acks);
        let read = self.stream.read(&mut self.bytes[self.len..]).await.on(stream)?;
        read.ok_or(LinkError::Stream { stream })
    }

    /// How many whole acknowledgements are there after `read` more bytes, and the newest.
    fn take(&mut self, read: usize, sent: Lsn) -> Result<(u64, Option<Ack>), LinkError> {
        self.len += read;
        let (whole, rest) = self.bytes[..self.len].as_chunks::<ACK_LEN>();
        let (count, rest_at) = (whole.len(), self.len - rest.len());
        let mut newest: Option<Ack> = None;
        for bytes in whole {
            if let Some(hashed) = Hashed::decode(bytes)? {
                self.hashed.push(hashed);
                continue;
            }
            let mut ack = Ack::decode(bytes, self.protocol)?;
            if ack.durable > sent {
                return Err(AckError::PastSent { durable: ack.durable, sent }.into());
            }
            if ack.durable < self.durable {
                return Err(
                    AckError::TakenBack { durable: ack.durable, before: self.durable }.into()
                );
            }
            self.durable = ack.durable;
            if let (0, Some(before)) = (ack.disk_us, newest) {
                // It only says more of how things stand.
                (ack.disk_us, ack.write_part) = (before.disk_us, before.write_part);
            }
            newest = Some(ack);
        }
        self.bytes.copy_within(rest_at..self.len, 0);
        self.len -= rest_at;
        Ok((count as u64, newest))
    }
}

/// Pauses between attempts: doubling, bounded, and never in step with another node's.
struct Redial {
    min: Duration,
    max: Duration,
    next: Duration,
}

impl Redial {
    fn new(min: Duration, max: Duration) -> Self {
        Self { min, max, next: min }
    }

    fn reset(&mut self) {
        self.next = self.min;
    }

    /// Half to all of the present step.
    fn pause(&mut self) -> Duration {
        let step = self.next;
        self.next = (step * 2).min(self.max);
        let random = u32::try_from(RandomState::new().hash_one(step) % 1024).unwrap_or(0);
        step / 2 + step / 2 * random / 1024
    }
}
