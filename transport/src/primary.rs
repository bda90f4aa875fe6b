//! The primary's end: dials, ships what the source has, takes in acknowledgements.
//!
//! ```text
//!            ┌── stop ───────────────────────────────────────────────────────────> end
//!  pause <───┴─ connect ── Hello, Start ── ship: read, frame, write │ acks │ sleep
//!    └──────────────^                          any error ──> disconnected, pause
//! ```
//! Nothing waits for a timer except a commit position that has no bytes to travel with, and what a
//! secondary lacked before its source asked for a pace. While this thread sleeps, whoever appends ships
//! by itself: [`Shipping`](crate::shipping::Shipping) is what both work on.

use std::convert::Infallible;
use std::future::poll_fn;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use duolog_wal::{Cursor, Lsn};
use quinn::{Connection, ConnectionError, Endpoint, RecvStream, SendStream, TransportConfig};
use tokio::time::{Instant, sleep, timeout};

use crate::ack::{ACK_LEN, Ack, AckError};
use crate::control::{Message, StreamKind};
use crate::endpoint;
use crate::error::{LinkError, OnStream, Role};
use crate::handshake::{Hello, Meeting, Refusal, meet, of_this_pair};
use crate::hash::Hashed;
use crate::link::{FAREWELL_TIMEOUT, Shared};
use crate::protocol::Protocol;
use crate::resync;
use crate::settings::{Compression, DialConfig};
use crate::shipping::Shipping;
use crate::source::Source;
use crate::streams::{self, ANSWER_TIMEOUT, Control, now, unexpected};
use crate::tls;

/// How long the peer may take to answer at all.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// How long it may take to cut its log and to sync what it has.
const READY_TIMEOUT: Duration = Duration::from_mins(1);
/// How long a resynchronisation may take in all.
const RESYNC_TIMEOUT: Duration = Duration::from_hours(24 * 365);

/// Keeps a source connected.
pub(crate) struct Dialer<S> {
    config: DialConfig,
    endpoint: Endpoint,
    transport: Arc<TransportConfig>,
    shipping: Arc<Shipping<S>>,
    shared: Shared,
    /// The connection of the present attempt, so that a stop can close it with its code.
    live: Option<Connection>,
    /// Whether the source was told of a connection and not yet of its end.
    connected: bool,
}

impl<S: Source> Dialer<S> {
    pub(crate) fn new(config: DialConfig, source: S, shared: Shared) -> io::Result<Self> {
        let identity = config.credentials.identity();
        let endpoint = endpoint::endpoint(&shared.drive, &identity, &config.tuning, None)?;
        let transport = endpoint::transport(&config.tuning);
        let shipping = Shipping::new(source, shared.drive.clone(), shared.stats.clone());
        let shipping = Arc::new(shipping);
        let hand = Arc::downgrade(&shipping);
        shared.waker.lends(hand);
        Ok(Self { config, endpoint, transport, shipping, shared, live: None, connected: false })
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
                self.shipping.source(|source| source.disconnected(&error));
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
        let ours = self.shipping.source(|source| source.hello());
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
        self.shipping.source(|source| source.connected(&theirs, at));
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
        let give = match self.shipping.source(|source| source.resync(theirs)) {
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
            Message::Ready { at } if self.cursor_at(at.lsn) == Some(at) => Ok(at),
            _ => Err(unexpected("Ready at a position of our log")),
        }
    }

    fn agree(&self, ours: &Hello, theirs: &Hello) -> Result<Meeting, Refusal> {
        of_this_pair(ours, theirs)?;
        self.shipping.source(|source| source.admits(theirs))?;
        if !theirs.whole {
            return Err(Refusal::CannotResync { why: "its copy is not whole".into() });
        }
        meet(ours, theirs, |lsn| self.cursor_at(lsn))
    }

    fn cursor_at(&self, lsn: Lsn) -> Option<Cursor> {
        self.shipping.source(|source| source.cursor_at(lsn))
    }

    async fn ship(
        &mut self,
        connection: &Connection,
        log: SendStream,
        mut acks: Acks,
        from: Lsn,
    ) -> Result<Infallible, LinkError> {
        let (shipping, shared) = (self.shipping.clone(), &self.shared);
        let link = poll_fn(|context| Poll::Ready(context.waker().clone())).await;
        let _stands = shipping.begin(log, from, &self.config.tuning, link);
        let mut timer = pin!(sleep(Duration::ZERO));
        let mut rest = pin!(sleep(Duration::ZERO));
        let mut armed = None;
        loop {
            let pushed = poll_fn(|context| Poll::Ready(shipping.push(context))).await?;
            // One that is early enough stays: each commit would set another.
            armed = pushed.announce_at.map(|at| armed.map_or(at, |armed: Instant| armed.min(at)));
            if let Some(at) = armed.filter(|at| *at != timer.deadline()) {
                timer.as_mut().reset(at);
            }
            let goes_on = pushed.written && pushed.room;
            if goes_on {
                shared.waker.falls_asleep();
                if shipping.has_more(armed.is_some()) {
                    // More to send: give the packets on their way first, and take in what came.
                    shared.waker.is_awake();
                    tokio::task::yield_now().await;
                    if let Some(read) = now(acks.read()).await {
                        take_in(&shipping, shared, connection, read?, &mut acks)?;
                    }
                    continue;
                }
            }
            let rests = goes_on && pushed.held_until.is_some();
            if let Some(until) = pushed.held_until.filter(|until| *until != rest.deadline()) {
                rest.as_mut().reset(until);
            }
            tokio::select! {
                biased;
                read = acks.read() => {
                    shared.waker.is_awake();
                    take_in(&shipping, shared, connection, read?, &mut acks)?;
                }
                // Woken by the stream, which takes more.
                () = once_woken(), if !pushed.written => {}
                () = shared.waker.woken(), if goes_on => {}
                () = timer.as_mut(), if armed.is_some() && pushed.written => armed = None,
                () = rest.as_mut(), if rests => {}
            }
            shared.waker.is_awake();
        }
    }
}

/// Resolves when the task is polled again, whoever woke it.
async fn once_woken() {
    let mut polled = false;
    poll_fn(|_| if std::mem::replace(&mut polled, true) { Poll::Ready(()) } else { Poll::Pending })
        .await;
}

fn take_in<S: Source>(
    shipping: &Shipping<S>,
    shared: &Shared,
    connection: &Connection,
    read: usize,
    acks: &mut Acks,
) -> Result<(), LinkError> {
    let (count, newest) = acks.take(read, shipping.sent())?;
    for hashed in acks.hashed.drain(..) {
        shipping.source(|source| source.hashed(hashed));
    }
    if let Some(ack) = newest {
        shipping.acknowledged(ack);
        shared.stats.acks(count, connection.rtt());
    }
    Ok(())
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
