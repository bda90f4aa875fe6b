//! The stream that a resynchronisation runs over: messages of any content, whole and in order,
//! between a worker at each end. What they mean is the workers' affair.
//!
//! ```text
//!  worker's thread                    link's thread                          the other end
//!  Pipe::send ── zstd ── frame ──> queue ── pace ──> stream of low priority ──> ...
//!  Pipe::receive <── zstd <────────────────── queue <────────────────────────── ...
//!
//! frame
//! at  size  field
//!  0     4  len    bytes that follow, 2 to FRAME_MAX, little-endian
//!  4     1  flags  bit 0: the message is compressed by zstd; other bits zero
//!  5        message, 1 to MESSAGE_MAX bytes once it is plain
//! ```
//!
//! Queues are short: a worker waits while the other end takes nothing. A worker never holds up the
//! link's thread, and learns of the connection's end at its next message.

use std::future::Future;
use std::io;
use std::pin::pin;
use std::time::Duration;

use duolog_wal::Cursor;
use quinn::{RecvStream, SendStream};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until};
use zstd::bulk::{Compressor, Decompressor};

use crate::control::{ControlError, StreamKind};
use crate::error::{LinkError, OnStream};
use crate::streams;

/// Longest message, in bytes.
pub const MESSAGE_MAX: usize = 256 << 10;
/// Longest frame after its length: zstd is not used where it does not shrink.
pub const FRAME_MAX: usize = 1 + MESSAGE_MAX;
/// Messages that wait at most, each way.
const QUEUE: usize = 16;
/// Shorter messages are not worth compressing.
const COMPRESS_FROM: usize = 512;
const LEVEL: i32 = 1;
const COMPRESSED: u8 = 1;
/// No pause is longer, so that another pace counts soon.
const PAUSE_MAX: Duration = Duration::from_millis(250);

/// The work of the end that has.
pub type Give = Box<dyn FnOnce(&mut Pipe) -> io::Result<()> + Send>;
/// The work of the end that lacks; it says where the log goes on.
pub type Take = Box<dyn FnOnce(&mut Pipe) -> io::Result<Cursor> + Send>;

/// A worker's end of the stream.
pub struct Pipe {
    to: mpsc::Sender<Frame>,
    from: mpsc::Receiver<Vec<u8>>,
    bytes_per_s: Option<u64>,
    compress: bool,
    compressor: Option<Compressor<'static>>,
    decompressor: Option<Decompressor<'static>>,
    wire_bytes: u64,
}

impl std::fmt::Debug for Pipe {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pipe").field("bytes_per_s", &self.bytes_per_s).finish_non_exhaustive()
    }
}

struct Frame {
    bytes: Vec<u8>,
    bytes_per_s: Option<u64>,
}

fn gone() -> io::Error {
    io::Error::new(io::ErrorKind::BrokenPipe, "the connection to the other node has ended")
}

fn malformed(why: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

impl Pipe {
    /// Sends a message; waits while the other end takes none.
    ///
    /// # Errors
    /// `BrokenPipe` when the connection has ended; what zstd says.
    ///
    /// # Panics
    /// When the message is empty or longer than [`MESSAGE_MAX`].
    pub fn send(&mut self, message: &[u8]) -> io::Result<()> {
        assert!((1..=MESSAGE_MAX).contains(&message.len()), "{} bytes", message.len());
        let bytes = self.frame(message)?;
        self.wire_bytes += bytes.len() as u64;
        self.to.blocking_send(Frame { bytes, bytes_per_s: self.bytes_per_s }).map_err(|_| gone())
    }

    fn frame(&mut self, message: &[u8]) -> io::Result<Vec<u8>> {
        let mut flags = 0;
        let mut body = None;
        if self.compress && message.len() >= COMPRESS_FROM {
            let compressor = match &mut self.compressor {
                Some(compressor) => compressor,
                none => none.insert(Compressor::new(LEVEL)?),
            };
            let smaller = compressor.compress(message)?;
            if smaller.len() < message.len() {
                (flags, body) = (COMPRESSED, Some(smaller));
            }
        }
        let body = body.as_deref().unwrap_or(message);
        let len = u32::try_from(1 + body.len()).expect("at most FRAME_MAX");
        let mut bytes = Vec::with_capacity(5 + body.len());
        bytes.extend_from_slice(&len.to_le_bytes());
        bytes.push(flags);
        bytes.extend_from_slice(body);
        Ok(bytes)
    }

    /// Waits for the next message and puts it into `message`.
    ///
    /// # Errors
    /// `BrokenPipe` when the connection or the stream has ended, `InvalidData` when what came is
    /// no message.
    pub fn receive(&mut self, message: &mut Vec<u8>) -> io::Result<()> {
        let frame = self.from.blocking_recv().ok_or_else(gone)?;
        self.wire_bytes += 4 + frame.len() as u64;
        message.clear();
        match frame.split_first() {
            Some((0, plain)) if !plain.is_empty() => message.extend_from_slice(plain),
            Some((&COMPRESSED, packed)) => {
                let decompressor = match &mut self.decompressor {
                    Some(decompressor) => decompressor,
                    none => none.insert(Decompressor::new()?),
                };
                // Never more memory than this, whatever the frame claims.
                message.resize(MESSAGE_MAX, 0);
                let len = decompressor
                    .decompress_to_buffer(packed, &mut message[..])
                    .map_err(|_| malformed("a message that does not unpack"))?;
                message.truncate(len);
            }
            _ => return Err(malformed("a message of unknown form")),
        }
        if message.is_empty() {
            return Err(malformed("an empty message"));
        }
        Ok(())
    }

    /// From here on at most so many bytes a second are sent; `None`: as fast as it goes.
    pub fn pace(&mut self, bytes_per_s: Option<u64>) {
        self.bytes_per_s = bytes_per_s;
    }

    /// Bytes of the frames of all messages so far, both ways, before encryption.
    pub fn wire_bytes(&self) -> u64 {
        self.wire_bytes
    }
}

/// What a worker is, to the system and to the other streams.
#[derive(Clone, Copy)]
pub(crate) struct Work {
    /// Name of its thread.
    pub(crate) thread: &'static str,
    /// The stream's; the log's is zero, and the higher one is sent first.
    pub(crate) priority: i32,
    /// What it is called where something is wrong with it.
    pub(crate) kind: StreamKind,
    /// That the worker broke off.
    pub(crate) broke: fn(io::Error) -> LinkError,
}

/// A resynchronisation.
pub(crate) const RESYNC: Work = Work {
    thread: "duolog-resync",
    priority: -1,
    kind: StreamKind::Resync,
    broke: LinkError::Resync,
};

/// Runs `work` on a thread of its own over the stream until it is done, and all that it sent is on
/// its way. Dropped, or on an error, the worker's pipe breaks.
pub(crate) async fn run<T: Send + 'static>(
    send: SendStream,
    recv: RecvStream,
    compress: bool,
    as_what: Work,
    work: impl FnOnce(&mut Pipe) -> io::Result<T> + Send + 'static,
) -> Result<T, LinkError> {
    // Commits and what keeps the connection go before it.
    let stream = streams::name(as_what.kind);
    send.set_priority(as_what.priority).map_err(|_| LinkError::Stream { stream })?;
    let (to, outgoing) = mpsc::channel(QUEUE);
    let (incoming, from) = mpsc::channel(QUEUE);
    let (tell, told) = oneshot::channel();
    let mut pipe = Pipe {
        to,
        from,
        bytes_per_s: None,
        compress,
        compressor: None,
        decompressor: None,
        wire_bytes: 0,
    };
    std::thread::Builder::new()
        .name(as_what.thread.into())
        .spawn(move || {
            let done = work(&mut pipe);
            drop(pipe);
            // Where nobody waits any more nobody wants to know.
            tell.send(done).ok();
        })
        .map_err(as_what.broke)?;
    let sends = pin!(outgo(send, outgoing, stream));
    let receives = pin!(income(recv, incoming, stream));
    let ended = pin!(async {
        let panicked = || io::Error::other("the worker panicked");
        told.await.unwrap_or_else(|_| Err(panicked())).map_err(as_what.broke)
    });
    finish(sends, receives, ended).await
}

/// Waits for the worker and for all that it sent; what comes in meanwhile is handed to it.
async fn finish<T>(
    mut sends: impl Future<Output = Result<(), LinkError>> + Unpin,
    mut receives: impl Future<Output = Result<(), LinkError>> + Unpin,
    mut ended: impl Future<Output = Result<T, LinkError>> + Unpin,
) -> Result<T, LinkError> {
    let (mut sent, mut received, mut done) = (false, false, None);
    loop {
        if let (true, Some(_)) = (sent, &done) {
            return done.take().expect("it was looked at");
        }
        tokio::select! {
            biased;
            result = &mut ended, if done.is_none() => {
                let failed = result.is_err();
                done = Some(result);
                if failed {
                    return done.take().expect("it was set");
                }
            }
            result = &mut sends, if !sent => { result?; sent = true; }
            result = &mut receives, if !received => { result?; received = true; }
        }
    }
}

async fn outgo(
    mut send: SendStream,
    mut frames: mpsc::Receiver<Frame>,
    stream: &'static str,
) -> Result<(), LinkError> {
    let mut free = Instant::now();
    while let Some(frame) = frames.recv().await {
        if let Some(bytes_per_s) = frame.bytes_per_s {
            sleep_until(free).await;
            let nanos = frame.bytes.len() as u64 * 1_000_000_000 / bytes_per_s.max(1);
            free = free.max(Instant::now()) + Duration::from_nanos(nanos).min(PAUSE_MAX);
        }
        send.write_all(&frame.bytes).await.on(stream)?;
    }
    // The other end may have closed it first.
    send.finish().ok();
    Ok(())
}

async fn income(
    mut recv: RecvStream,
    to: mpsc::Sender<Vec<u8>>,
    stream: &'static str,
) -> Result<(), LinkError> {
    loop {
        let mut length = [0; 4];
        match recv.read_exact(&mut length).await {
            Err(quinn::ReadExactError::FinishedEarly(0)) => return Ok(()),
            read => read.on(stream)?,
        }
        let len = usize::try_from(u32::from_le_bytes(length)).unwrap_or(usize::MAX);
        if !(2..=FRAME_MAX).contains(&len) {
            return Err(ControlError::Frame { bytes: len }.into());
        }
        let mut frame = vec![0; len];
        recv.read_exact(&mut frame).await.on(stream)?;
        if to.send(frame).await.is_err() {
            // The worker is done, or broke off and says why.
            return Ok(());
        }
    }
}
