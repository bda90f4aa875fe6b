//! The secondary's end: listens, lets one peer in, receives, syncs, acknowledges.
//!
//! ```text
//!  wait ──> connection of the peer ── Hello, cut, Ready ──┐
//!   ^                                                     v
//!   │        receive all that is there ── sync ── acknowledge ── tell what is committed
//!   └─ error, stop, or a newer connection of the peer     └────── wait for more ──┘
//! ```
//! No timer gathers anything: while the disk syncs, the next bytes gather in the socket, and the
//! next sync takes all of them. Where more than a frame is not durable the sync goes on beside, and the
//! next bytes are taken in meanwhile; what is acknowledged is what is durable, either way. Handshakes of
//! others run beside and never delay the link.

use std::convert::Infallible;
use std::future::pending;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use duolog_wal::{Cursor, Lsn};
use quinn::{Connection, Endpoint, RecvStream, SendStream, TransportConfig};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use crate::ack::Ack;
use crate::arrivals::Arrivals;
use crate::bulk::Bulk;
use crate::control::{Message, StreamKind};
use crate::endpoint;
use crate::error::{LinkError, OnStream, Role};
use crate::frame::RAW_MAX;
use crate::handshake::{Hello, Refusal, of_this_pair, part};
use crate::hash::Hashed;
use crate::link::{FAREWELL_TIMEOUT, Shared};
use crate::pack::Unpacker;
use crate::protocol::Protocol;
use crate::resync::{self, Take};
use crate::settings::ListenConfig;
use crate::sink::{Sink, SinkError};
use crate::streams::{self, ANSWER_TIMEOUT, Control, now, unexpected};
use crate::tls;

/// How long a handshake may take.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// Most handshakes at a time; the others are turned away.
const HANDSHAKES_MAX: usize = 16;
/// Bytes of log that are gathered before a sync although more is there.
const GATHER_BYTES: usize = 1 << 20;
/// Bytes of log that were received and are not known to be durable, from which on the link does not wait
/// for the sync: more comes, or what came takes the disk long beside a hand-over.
const BULK_BYTES: u64 = RAW_MAX as u64;
/// Pieces taken from the stream at a time.
const PIECES: usize = 32;
/// How often what was hashed is told.
const HASHED_INTERVAL: Duration = Duration::from_millis(100);
/// How often the secondary looks whether it has something new to tell while nothing comes in.
const STANDING_INTERVAL: Duration = Duration::from_millis(100);

/// Keeps a sink reachable.
pub(crate) struct Listener<S> {
    door: Door,
    session: Session<S>,
    stopping: Shared,
}

impl<S: Sink> Listener<S> {
    pub(crate) fn new(config: ListenConfig, sink: S, shared: Shared) -> io::Result<Self> {
        // Any server configuration opens the endpoint; each connection gets one of its own.
        let (crypto, _) = tls::server(&config.credentials, config.tuning.newest_protocol)
            .map_err(io::Error::other)?;
        let server = quinn::ServerConfig::with_crypto(Arc::new(crypto));
        let endpoint = endpoint::endpoint(
            &shared.drive,
            &config.credentials.identity(),
            &config.tuning,
            Some(server),
        )?;
        let transport = endpoint::transport(&config.tuning);
        let session = Session {
            sink,
            stats: shared.stats.clone(),
            bulk: shared.bulk.clone(),
            connected: false,
        };
        let door = Door {
            endpoint,
            transport,
            config,
            handshakes: JoinSet::new(),
            stats: shared.stats.clone(),
        };
        Ok(Self { door, session, stopping: shared })
    }

    pub(crate) async fn run(self) {
        let Self { mut door, mut session, stopping } = self;
        let mut stopping = pin!(stopping.stopping());
        let mut next = None;
        loop {
            let connection = tokio::select! {
                biased;
                () = &mut stopping => break,
                connection = async {
                    match next.take() {
                        Some(connection) => connection,
                        None => door.enters().await,
                    }
                } => connection,
            };
            let credentials = door.config.credentials.clone();
            let error = tokio::select! {
                biased;
                error = credentials.distrusted(&connection) => error,
                Err(error) = session.run(&connection) => error,
                () = &mut stopping => LinkError::Stopped,
                newer = door.enters() => {
                    next = Some(newer);
                    LinkError::Replaced
                }
            };
            let error = error.explained(credentials.identity().fingerprint());
            streams::close(&connection, &error);
            session.ended(&error);
            match error {
                LinkError::Stopped => break,
                error => door.log(connection.remote_address(), &error),
            }
        }
        let stopped = LinkError::Stopped.close_code().code();
        door.endpoint.close(stopped, b"the secondary's link was stopped");
        timeout(FAREWELL_TIMEOUT, door.endpoint.wait_idle()).await.ok();
    }
}

/// Where connections come in. Only the peer with the configured certificate gets through.
struct Door {
    endpoint: Endpoint,
    transport: Arc<TransportConfig>,
    config: ListenConfig,
    handshakes: JoinSet<Result<Connection, (SocketAddr, LinkError)>>,
    stats: Arc<crate::stats::Stats>,
}

impl Door {
    /// The next connection of the peer. May be dropped at any time: handshakes go on.
    async fn enters(&mut self) -> Connection {
        loop {
            tokio::select! {
                biased;
                Some(handshake) = self.handshakes.join_next() => match handshake {
                    Ok(Ok(connection)) => return connection,
                    Ok(Err((from, error))) => self.log(from, &error),
                    // Nobody cancels a handshake; one that panicked has said so.
                    Err(_) => {}
                },
                incoming = self.endpoint.accept() => match incoming {
                    Some(incoming) => self.begin(incoming),
                    // The endpoint is closed by `run` alone, after its last use of this.
                    None => pending().await,
                }
            }
        }
    }

    fn begin(&mut self, incoming: quinn::Incoming) {
        let from = incoming.remote_address();
        if self.handshakes.len() >= HANDSHAKES_MAX {
            return incoming.refuse();
        }
        let credentials = &self.config.credentials;
        let ours = credentials.identity().fingerprint();
        let tls = tls::server(credentials, self.config.tuning.newest_protocol);
        let (transport, credentials) = (self.transport.clone(), credentials.clone());
        self.handshakes.spawn(async move {
            let failed = |error| (from, error);
            let (crypto, intruder) = tls.map_err(|error| failed(error.into()))?;
            let mut server = quinn::ServerConfig::with_crypto(Arc::new(crypto));
            server.transport_config(transport).migration(false);
            let connecting = incoming.accept_with(Arc::new(server)).map_err(|error| {
                // What the first packet says is judged here already.
                failed(LinkError::from(error).explained(ours))
            })?;
            match timeout(HANDSHAKE_TIMEOUT, connecting).await {
                Ok(Ok(connection)) => Ok(connection),
                Ok(Err(error)) => Err(failed(match intruder.seen() {
                    Some(presented) => credentials.refusal(presented),
                    None => LinkError::from(error).explained(ours),
                })),
                Err(_) => Err(failed(LinkError::NoAnswer { peer: from })),
            }
        });
    }

    fn log(&self, from: SocketAddr, error: &LinkError) {
        let line = error.line();
        tracing::warn!(%from, "no link to the primary: {line}");
        self.stats.failed(line);
    }
}

/// The sink, and what it is told of connections.
struct Session<S> {
    sink: S,
    stats: Arc<crate::stats::Stats>,
    bulk: Bulk,
    /// Whether the sink was told of a connection and not yet of its end.
    connected: bool,
}

impl<S: Sink> Session<S> {
    async fn run(&mut self, connection: &Connection) -> Result<Infallible, LinkError> {
        let streams = timeout(ANSWER_TIMEOUT, connection.accept_bi()).await;
        let (send, recv) = streams.map_err(|_| LinkError::Stream { stream: "control" })??;
        let mut control = Control { send, recv, role: Role::Secondary };
        let Message::Hello(theirs) = control.receive(ANSWER_TIMEOUT).await? else {
            return Err(unexpected("its Hello"));
        };
        let protocol = Protocol::of(connection);
        self.stats.peer(protocol, control.receive_release(protocol).await?);
        let ours = self.sink.hello();
        let joined = of_this_pair(&theirs, &ours).and_then(|()| self.sink.admits(&theirs));
        if let Err(refusal) = joined {
            return Err(control.refuse(connection, refusal).await);
        }
        control.send(&Message::Hello(ours.clone())).await?;
        control.send_release(protocol).await?;
        let (take, at) = match control.receive(ANSWER_TIMEOUT).await? {
            Message::Start => (None, ours.end),
            Message::Cut { candidates } => match self.cut(ours.end, &candidates) {
                Ok(at) => (None, at),
                Err(refusal) if refusal.is_of_histories() => {
                    let take = self.ready_to_take(connection, &mut control, &theirs, refusal);
                    let take = take.await?;
                    control.send(&Message::NeedsResync).await?;
                    let Message::Resync = control.receive(ANSWER_TIMEOUT).await? else {
                        return Err(unexpected("Resync"));
                    };
                    (Some(take), ours.end)
                }
                Err(refusal) => return Err(control.refuse(connection, refusal).await),
            },
            Message::Resync => {
                let why = "this node does not take one".to_owned();
                let refusal = Refusal::CannotResync { why };
                let take = self.ready_to_take(connection, &mut control, &theirs, refusal).await?;
                (Some(take), ours.end)
            }
            _ => return Err(unexpected("Start, Cut or Resync")),
        };
        let at = match take {
            Some(take) => {
                let (send, recv) = streams::accept_both(connection).await?;
                tracing::info!("this node is resynchronised from {}", connection.remote_address());
                resync::run(send, recv, true, resync::RESYNC, take).await?
            }
            None => at,
        };
        // What an earlier connection brought may be received and not synced.
        let ack = self.sink.sync()?;
        control.send(&Message::Ready { at }).await?;
        let acks = streams::open(connection, StreamKind::Acks).await?;
        let log = streams::accept(connection, StreamKind::Log).await?;
        tracing::info!(from = %at.lsn, "receiving the log from {}", connection.remote_address());
        self.connected = true;
        self.stats.connected();
        self.sink.connected(&theirs, at);
        let _stands = self.bulk.stands(connection);
        let unpacker = Unpacker::new(at.lsn).map_err(LinkError::Decompressor)?;
        let acks = Acks { stream: acks, protocol, last: None, told: Lsn::ZERO };
        self.receive(connection, Intake::new(log, unpacker), acks, ack).await
    }

    /// The work of being resynchronised. Where there is none the primary is refused: by `refusal`,
    /// or by what the sink says against it.
    async fn ready_to_take(
        &mut self,
        connection: &Connection,
        control: &mut Control,
        theirs: &Hello,
        refusal: Refusal,
    ) -> Result<Take, LinkError> {
        let refusal = match self.sink.resync(theirs) {
            Ok(Some(take)) => return Ok(take),
            Ok(None) => refusal,
            Err(why) => Refusal::CannotResync { why },
        };
        Err(control.refuse(connection, refusal).await)
    }

    fn cut(&mut self, end: Cursor, candidates: &[Cursor]) -> Result<Cursor, Refusal> {
        let at = part(candidates, end, |lsn| self.sink.cursor_at(lsn))?;
        tracing::warn!(%end.lsn, at = %at.lsn, "the log's tail is not the primary's and is cut");
        let why = |error: io::Error| Refusal::NotCut { at: at.lsn, why: error.to_string() };
        self.sink.cut(at).map(|()| at).map_err(why)
    }

    async fn receive(
        &mut self,
        connection: &Connection,
        mut intake: Intake,
        mut acks: Acks,
        first: Ack,
    ) -> Result<Infallible, LinkError> {
        acks.send(first).await?;
        let mut clock = tokio::time::interval(STANDING_INTERVAL);
        clock.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut hashes = tokio::time::interval(HASHED_INTERVAL);
        hashes.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let synced = Arc::new(Notify::new());
        let mut arrivals = Arrivals::default();
        loop {
            let came = tokio::select! {
                biased;
                () = synced.notified() => {
                    if let Some(ack) = self.sync_beside(&synced) {
                        let ack = arrivals.timed(ack?);
                        self.acknowledge(connection, &mut acks, ack).await?;
                        self.tell_committed(&intake, &mut acks).await;
                    }
                    continue;
                }
                came = intake.wait() => came?,
                _ = hashes.tick() => {
                    for hashed in self.sink.hashed() {
                        acks.tell(hashed).await?;
                    }
                    continue;
                }
                _ = clock.tick() => {
                    let standing = self.sink.standing();
                    if acks.is_news(&standing) {
                        acks.send(standing.untimed()).await?;
                    }
                    continue;
                }
            };
            if !came {
                continue;
            }
            if !intake.batch.is_empty() {
                let raw_bytes = intake.batch.len() as u64;
                let (begun, from) = (Instant::now(), Lsn(intake.unpacker.next().0 - raw_bytes));
                self.sink.receive(from, &intake.batch)?;
                let write = begun.elapsed();
                arrivals.came(from, begun.into_std(), write);
                intake.batch.clear();
                let bulk = acks.lack_of(intake.unpacker.next()) >= BULK_BYTES;
                let ack = match bulk.then(|| self.sync_beside(&synced)).flatten() {
                    Some(ack) => ack?,
                    None => self.sink.sync()?,
                };
                let ack = arrivals.timed(ack);
                self.acknowledge(connection, &mut acks, ack).await?;
                self.stats.frames(0, 0, raw_bytes, 0);
            }
            self.stats.frames(intake.count(), 0, 0, std::mem::take(&mut intake.wire_bytes));
            self.tell_committed(&intake, &mut acks).await;
        }
    }

    /// What is durable by now, while the rest is being made so; `synced` is told when that is done.
    fn sync_beside(&mut self, synced: &Arc<Notify>) -> Option<Result<Ack, SinkError>> {
        let synced = synced.clone();
        self.sink.sync_beside(Box::new(move || synced.notify_one()))
    }

    async fn acknowledge(
        &mut self,
        connection: &Connection,
        acks: &mut Acks,
        ack: Ack,
    ) -> Result<(), LinkError> {
        if acks.is_news(&ack) {
            acks.send(ack).await?;
            self.stats.acks(1, connection.rtt());
        }
        Ok(())
    }

    async fn tell_committed(&mut self, intake: &Intake, acks: &mut Acks) {
        if let Some(committed) = acks.news(intake.unpacker.committed()) {
            // The acknowledgement leaves first: a commit waits for it, applying does not.
            tokio::task::yield_now().await;
            self.sink.committed(committed);
        }
    }

    fn ended(&mut self, why: &LinkError) {
        if std::mem::take(&mut self.connected) {
            self.stats.disconnected();
            self.sink.disconnected(why);
        }
    }
}

/// The log stream, gathered into runs of log.
struct Intake {
    log: RecvStream,
    unpacker: Unpacker,
    /// Pieces that were read from the stream; those before `at` are used up.
    pieces: [Bytes; PIECES],
    at: usize,
    len: usize,
    /// The log in whole and begun frames, ending at the unpacker's position.
    batch: Vec<u8>,
    wire_bytes: u64,
    frames: u64,
}

impl Intake {
    fn new(log: RecvStream, unpacker: Unpacker) -> Self {
        Self {
            log,
            unpacker,
            pieces: std::array::from_fn(|_| Bytes::new()),
            at: 0,
            len: 0,
            batch: Vec::new(),
            wire_bytes: 0,
            frames: 0,
        }
    }

    /// Waits until something is there and takes in all of it, up to `GATHER_BYTES`. Says whether
    /// that was the end of at least one frame: the rest of a begun one is on its way, and a sync
    /// for a part of it would be in the way of the sync for all of it.
    ///
    /// May be dropped while it waits.
    async fn wait(&mut self) -> Result<bool, LinkError> {
        let stream = streams::name(StreamKind::Log);
        let before = self.unpacker.frames();
        if self.at == self.len {
            let read = self.log.read_chunks(&mut self.pieces).await.on(stream)?;
            self.took(read)?;
        }
        loop {
            while self.at < self.len {
                let piece = &mut self.pieces[self.at];
                let mut left = &piece[..];
                self.unpacker.feed(&mut left, &mut self.batch, GATHER_BYTES)?;
                let used = piece.len() - left.len();
                self.wire_bytes += used as u64;
                if left.is_empty() {
                    *piece = Bytes::new();
                    self.at += 1;
                } else {
                    bytes::Buf::advance(piece, used);
                    return Ok(true);
                }
            }
            match now(self.log.read_chunks(&mut self.pieces)).await {
                Some(read) => {
                    let read = read.on(stream)?;
                    self.took(read)?;
                }
                None => return Ok(self.unpacker.frames() > before),
            }
        }
    }

    fn took(&mut self, read: Option<usize>) -> Result<(), LinkError> {
        let stream = streams::name(StreamKind::Log);
        (self.at, self.len) = (0, read.ok_or(LinkError::Stream { stream })?);
        Ok(())
    }

    /// Frames that came in since the last call.
    fn count(&mut self) -> u64 {
        let frames = self.unpacker.frames();
        frames - std::mem::replace(&mut self.frames, frames)
    }
}

/// The acknowledgements' stream.
struct Acks {
    stream: SendStream,
    protocol: Protocol,
    last: Option<Ack>,
    /// The commit position that the sink was told.
    told: Lsn,
}

impl Acks {
    /// Whether that says anything that was not said, times aside.
    fn is_news(&self, ack: &Ack) -> bool {
        self.last.is_none_or(|last| last.untimed() != ack.untimed())
    }

    /// Bytes before `upto` that were not acknowledged.
    fn lack_of(&self, upto: Lsn) -> u64 {
        upto.0.saturating_sub(self.last.map_or(0, |last| last.durable.0))
    }

    async fn send(&mut self, ack: Ack) -> Result<(), LinkError> {
        self.last = Some(ack);
        self.stream.write_all(&ack.encode(self.protocol)).await.on(streams::name(StreamKind::Acks))
    }

    async fn tell(&mut self, hashed: Hashed) -> Result<(), LinkError> {
        self.stream.write_all(&hashed.encode()).await.on(streams::name(StreamKind::Acks))
    }

    /// The commit position as far as it was acknowledged, if the sink does not know it yet.
    fn news(&mut self, committed: Lsn) -> Option<Lsn> {
        let committed = committed.min(self.last?.durable);
        (committed > self.told).then(|| {
            self.told = committed;
            committed
        })
    }
}
