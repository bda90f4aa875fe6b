//! Turns runs of log into frames and back, with one long-lived zstd context each way.
//!
//! Never more memory than the limits of [`frame`](crate::frame) and the zstd window, whatever
//! the peer sends.

use std::fmt;
use std::io;

use duolog_wal::Lsn;
use zstd::stream::raw::{CParameter, DParameter, Decoder, Encoder, InBuffer, Operation, OutBuffer};

use crate::frame::{Content, FrameError, HEADER_LEN, Header, RAW_MAX, WIRE_MAX};

/// Level and window of the compressor: what was measured to pay on pages and WAL.
const LEVEL: i32 = -1;
const WINDOW_LOG: u32 = 19;
/// The largest window that a peer may ask of us: 1 MiB.
const WINDOW_LOG_MAX: u32 = 20;

/// Makes frames of a connection. The compressor is made when the first frame needs it.
#[derive(Default)]
pub struct Packer {
    zstd: Option<Encoder<'static>>,
    raw: Vec<u8>,
}

impl Packer {
    /// A packer for a new connection.
    pub fn new() -> Self {
        Self::default()
    }

    /// A frame with the commit position alone; `lsn` is where the log goes on.
    pub fn commit(lsn: Lsn, committed: Lsn) -> Vec<u8> {
        Header { lsn, committed, content: Content::Commit }.encode().to_vec()
    }

    /// A frame with what `read` appends to its buffer: 1 to `RAW_MAX` bytes of log at `lsn`.
    /// Also returns how many those were.
    ///
    /// # Errors
    /// Those of `read`; `UnexpectedEof` when it appended nothing; those of zstd (no memory).
    pub fn data(
        &mut self,
        lsn: Lsn,
        committed: Lsn,
        max: usize,
        compress: bool,
        read: impl FnOnce(usize, &mut Vec<u8>) -> io::Result<()>,
    ) -> io::Result<(Vec<u8>, usize)> {
        let max = max.min(RAW_MAX);
        let mut out = Vec::new();
        let content = if compress {
            self.raw.clear();
            read(max, &mut self.raw)?;
            out.reserve_exact(HEADER_LEN + WIRE_MAX);
            out.resize(HEADER_LEN, 0);
            let raw_len = self.raw.len();
            if raw_len > 0 {
                let zstd = match &mut self.zstd {
                    Some(zstd) => zstd,
                    none => none.insert(encoder()?),
                };
                compress_into(zstd, &self.raw, &mut out)?;
            }
            Content::Zstd { raw_len, wire_len: out.len() - HEADER_LEN }
        } else {
            out.reserve_exact(HEADER_LEN + max);
            out.resize(HEADER_LEN, 0);
            read(max, &mut out)?;
            Content::Raw(out.len() - HEADER_LEN)
        };
        let raw_len = content.raw_len();
        assert!(raw_len <= max, "the source read {raw_len} bytes, more than the {max} asked for");
        if raw_len == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        out[..HEADER_LEN].copy_from_slice(&Header { lsn, committed, content }.encode());
        Ok((out, raw_len))
    }
}

/// Whether compressing pays: after a frame that hardly became smaller the next ones go as they are, at
/// each such frame twice as many, since what comes together is mostly alike.
#[derive(Debug, Default)]
pub(crate) struct Worth {
    /// Frames to send as they are before another is tried.
    left: u32,
    /// How many those were in the beginning.
    passed: u32,
}

/// Frames that go as they are at most before another is tried: 4 MiB of log.
const PASSED_MAX: u32 = 64;

impl Worth {
    /// Whether to compress the next frame.
    pub(crate) fn is_tried(&mut self) -> bool {
        let tried = self.left == 0;
        self.left = self.left.saturating_sub(1);
        tried
    }

    /// A frame of so many bytes of log was compressed to so many, its header included.
    pub(crate) fn tried(&mut self, raw_len: usize, frame_len: usize) {
        // A sixteenth less is what compressing and decompressing cost, about.
        let paid = frame_len.saturating_sub(HEADER_LEN) <= raw_len - raw_len / 16;
        self.passed = if paid { 0 } else { (self.passed * 2).clamp(1, PASSED_MAX) };
        self.left = self.passed;
    }
}

impl fmt::Debug for Packer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Packer").finish_non_exhaustive()
    }
}

fn encoder() -> io::Result<Encoder<'static>> {
    let mut encoder = Encoder::new(LEVEL)?;
    encoder.set_parameter(CParameter::WindowLog(WINDOW_LOG))?;
    Ok(encoder)
}

/// Appends all of `raw`, compressed and flushed, to `out` within its capacity.
fn compress_into(encoder: &mut Encoder<'static>, raw: &[u8], out: &mut Vec<u8>) -> io::Result<()> {
    let at = out.len();
    let mut input = InBuffer::around(raw);
    let mut output = OutBuffer::around_pos(out, at);
    while input.pos() < raw.len() || encoder.flush(&mut output)? > 0 {
        assert!(output.pos() < HEADER_LEN + WIRE_MAX, "zstd grew a frame past its bound");
        encoder.run(&mut input, &mut output)?;
    }
    Ok(())
}

/// Reads the frames of a connection as their bytes come in, in pieces of any size.
pub struct Unpacker {
    zstd: Decoder<'static>,
    head: [u8; HEADER_LEN],
    head_len: usize,
    body: Option<Body>,
    next: Lsn,
    committed: Lsn,
    frames: u64,
}

struct Body {
    header: Header,
    wire_left: usize,
    raw_left: usize,
}

impl Unpacker {
    /// For a connection on which the log goes on at `next`.
    pub fn new(next: Lsn) -> io::Result<Self> {
        let mut zstd = Decoder::new()?;
        zstd.set_parameter(DParameter::WindowLogMax(WINDOW_LOG_MAX))?;
        Ok(Self {
            zstd,
            head: [0; HEADER_LEN],
            head_len: 0,
            body: None,
            next,
            committed: Lsn::ZERO,
            frames: 0,
        })
    }

    /// Takes bytes off the front of `input` and appends the log in them to `out`, until `input`
    /// is used up or a frame has ended with at least `enough` bytes in `out`. So `out` grows to
    /// no more than `enough + RAW_MAX`.
    ///
    /// After an error the connection is of no use any more.
    pub fn feed(
        &mut self,
        input: &mut &[u8],
        out: &mut Vec<u8>,
        enough: usize,
    ) -> Result<(), FrameError> {
        while !input.is_empty() {
            let Some(body) = &mut self.body else {
                if out.len() >= enough {
                    return Ok(());
                }
                self.head(input)?;
                continue;
            };
            let (bytes, rest) = input.split_at(body.wire_left.min(input.len()));
            *input = rest;
            body.wire_left -= bytes.len();
            let before = out.len();
            if let Content::Zstd { .. } = body.header.content {
                decompress(&mut self.zstd, body, bytes, out)?;
            } else {
                out.extend_from_slice(bytes);
            }
            let grown = out.len() - before;
            body.raw_left -= grown;
            self.next = self.next.plus(grown as u64);
            if body.wire_left == 0 {
                if body.raw_left > 0 {
                    return Err(body.wrong_size());
                }
                self.body = None;
                self.frames += 1;
            }
        }
        Ok(())
    }

    /// Position of the next byte of log.
    pub fn next(&self) -> Lsn {
        self.next
    }

    /// The highest commit position that a frame announced.
    pub fn committed(&self) -> Lsn {
        self.committed
    }

    /// How many frames have come in whole.
    pub fn frames(&self) -> u64 {
        self.frames
    }

    fn head(&mut self, input: &mut &[u8]) -> Result<(), FrameError> {
        let wanted = &mut self.head[self.head_len..];
        let (bytes, rest) = input.split_at(wanted.len().min(input.len()));
        wanted[..bytes.len()].copy_from_slice(bytes);
        *input = rest;
        self.head_len += bytes.len();
        if self.head_len < HEADER_LEN {
            return Ok(());
        }
        self.head_len = 0;
        let header = Header::decode(&self.head)?;
        if header.lsn != self.next {
            return Err(FrameError::Gap { lsn: header.lsn, expected: self.next });
        }
        self.committed = self.committed.max(header.committed);
        let (wire_left, raw_left) = (header.content.wire_len(), header.content.raw_len());
        if wire_left == 0 {
            self.frames += 1;
        } else {
            self.body = Some(Body { header, wire_left, raw_left });
        }
        Ok(())
    }
}

impl Body {
    fn wrong_size(&self) -> FrameError {
        FrameError::Size { lsn: self.header.lsn, raw_len: self.header.content.raw_len() }
    }
}

impl fmt::Debug for Unpacker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Unpacker")
            .field("next", &self.next)
            .field("committed", &self.committed)
            .field("frames", &self.frames)
            .finish_non_exhaustive()
    }
}

/// Appends to `out` what `bytes` of the frame hold, or fails when that is more than the frame
/// may still hold. One byte of room above that limit tells the two apart: when the decoder left
/// it free, it holds nothing back.
fn decompress(
    zstd: &mut Decoder<'static>,
    body: &Body,
    bytes: &[u8],
    out: &mut Vec<u8>,
) -> Result<(), FrameError> {
    let at = out.len();
    out.reserve(body.raw_left + 1);
    let mut input = InBuffer::around(bytes);
    while input.pos() < bytes.len() {
        let (read, written) = (input.pos(), out.len());
        let mut output = OutBuffer::around_pos(out, written);
        zstd.run(&mut input, &mut output).map_err(|_| FrameError::Zstd(body.header.lsn))?;
        if out.len() - at > body.raw_left {
            return Err(body.wrong_size());
        }
        if input.pos() == read && out.len() == written {
            return Err(FrameError::Zstd(body.header.lsn));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_compress_is_tried_now_and_then_alone() {
        let mut worth = Worth::default();
        let tries = |worth: &mut Worth, frames: u32, frame_len| {
            let mut tries = 0;
            for _ in 0..frames {
                if worth.is_tried() {
                    worth.tried(RAW_MAX, frame_len);
                    tries += 1;
                }
            }
            tries
        };
        assert_eq!(tries(&mut worth, 100, RAW_MAX / 2), 100, "what compresses is compressed");
        // Tried, and then 1, 2, 4, ... 64 and always 64 are passed over.
        assert_eq!(tries(&mut worth, 1000, HEADER_LEN + RAW_MAX), 21);
        assert_eq!(tries(&mut worth, 1000, RAW_MAX / 2), 1000 - 44, "seen within 64 frames");
    }

    fn frame(lsn: u64, content: Content, wire: &[u8]) -> Vec<u8> {
        let header = Header { lsn: Lsn(lsn), committed: Lsn::ZERO, content };
        [&header.encode()[..], wire].concat()
    }

    fn zstd(raw: &[u8], window_log: u32) -> Vec<u8> {
        let mut encoder = Encoder::new(1).unwrap();
        encoder.set_parameter(CParameter::WindowLog(window_log)).unwrap();
        let mut out = Vec::with_capacity(raw.len() + 1000);
        let mut input = InBuffer::around(raw);
        let mut output = OutBuffer::around(&mut out);
        while input.pos() < raw.len() || encoder.flush(&mut output).unwrap() > 0 {
            encoder.run(&mut input, &mut output).unwrap();
        }
        out
    }

    fn compressed(lsn: u64, raw_len: usize, wire: &[u8]) -> Vec<u8> {
        frame(lsn, Content::Zstd { raw_len, wire_len: wire.len() }, wire)
    }

    fn feed(mut bytes: &[u8]) -> (Result<(), FrameError>, Vec<u8>) {
        let mut out = Vec::new();
        let mut unpacker = Unpacker::new(Lsn::ZERO).unwrap();
        (unpacker.feed(&mut bytes, &mut out, usize::MAX), out)
    }

    /// Compressed and raw frames in any order give back the log, however the stream is cut.
    #[test]
    fn frames_of_both_kinds_interleave_and_come_in_any_pieces() {
        let log: Vec<u8> = (0..400_000_u32)
            .map(|i| u8::try_from(((i / 100 * 7) ^ (i % 100)) & 0xff).unwrap())
            .collect();
        let mut packer = Packer::new();
        let (mut stream, mut at, mut frames) = (Vec::new(), 0, 0_u64);
        while at < log.len() {
            let max = [1, 5000, RAW_MAX, 300][usize::try_from(frames % 4).unwrap()];
            let compress = frames % 3 != 0;
            let lsn = Lsn(at as u64);
            let (bytes, len) = packer
                .data(lsn, lsn, max, compress, |max, buf| {
                    buf.extend(&log[at..log.len().min(at + max)]);
                    Ok(())
                })
                .unwrap();
            stream.extend(bytes);
            at += len;
            frames += 1;
            stream.extend(Packer::commit(Lsn(at as u64), lsn));
            frames += 1;
        }
        for piece in [1, 7, 31, 32, 33, 1452, 1 << 20] {
            let mut unpacker = Unpacker::new(Lsn::ZERO).unwrap();
            let mut out = Vec::new();
            for mut bytes in stream.chunks(piece) {
                unpacker.feed(&mut bytes, &mut out, usize::MAX).unwrap();
            }
            assert!(out == log, "in pieces of {piece}");
            assert_eq!((unpacker.next(), unpacker.frames()), (Lsn(log.len() as u64), frames));
        }
    }

    /// A few bytes that decompress to gigabytes stop at what their header announces.
    #[test]
    fn a_bomb_is_refused_before_it_grows() {
        let bomb = zstd(&vec![0; 50 << 20], 20);
        assert!(bomb.len() < WIRE_MAX, "{} bytes", bomb.len());
        for raw_len in [1, 100, RAW_MAX] {
            let (result, out) = feed(&compressed(0, raw_len, &bomb));
            assert_eq!(result, Err(FrameError::Size { lsn: Lsn(0), raw_len }));
            assert!(out.capacity() <= 4 * RAW_MAX, "{} bytes of memory", out.capacity());
        }
    }

    /// Many small frames that grow to 64 KiB each stop at the bound of the caller.
    #[test]
    fn many_small_bombs_stop_at_the_callers_bound() {
        let mut packer = Packer::new();
        let mut stream = Vec::new();
        for i in 0..200 {
            let read = |max, buf: &mut Vec<u8>| {
                buf.resize(max, 7);
                Ok(())
            };
            let lsn = Lsn(i * RAW_MAX as u64);
            stream.extend(packer.data(lsn, lsn, RAW_MAX, true, read).unwrap().0);
        }
        assert!(stream.len() < 200 * 100, "{} bytes", stream.len());
        let mut unpacker = Unpacker::new(Lsn::ZERO).unwrap();
        let (mut input, mut total) = (&stream[..], 0);
        while !input.is_empty() {
            let mut out = Vec::new();
            unpacker.feed(&mut input, &mut out, 1 << 20).unwrap();
            assert!(out.len() < (1 << 20) + RAW_MAX, "{} bytes", out.len());
            total += out.len();
        }
        assert_eq!(total, 200 * RAW_MAX);
    }

    /// A window of 128 MiB is not granted.
    #[test]
    fn a_large_window_is_refused() {
        let (result, _) = feed(&compressed(0, 1000, &zstd(&[7; 1000], 27)));
        assert_eq!(result, Err(FrameError::Zstd(Lsn(0))));
        assert_eq!(feed(&compressed(0, 1000, &zstd(&[7; 1000], 20))), (Ok(()), vec![7; 1000]));
    }

    #[test]
    fn a_frame_that_holds_too_little_is_refused() {
        let (result, _) = feed(&compressed(0, 1001, &zstd(&[7; 1000], 20)));
        assert_eq!(result, Err(FrameError::Size { lsn: Lsn(0), raw_len: 1001 }));
    }

    #[test]
    fn a_frame_that_does_not_continue_the_log_is_refused() {
        for lsn in [0, 3, 5] {
            let stream = [frame(0, Content::Raw(4), b"abcd"), frame(lsn, Content::Raw(1), b"e")];
            let gap = FrameError::Gap { lsn: Lsn(lsn), expected: Lsn(4) };
            assert_eq!(feed(&stream.concat()).0, Err(gap));
        }
    }

    /// A good stream with one byte changed at each place: an error or other bytes, no panic, and
    /// never more than the headers announce.
    #[test]
    fn a_damaged_stream_never_panics() {
        let raw: Vec<u8> = (0..200).collect();
        let mut stream = compressed(0, 200, &zstd(&raw, 17));
        stream.extend(frame(200, Content::Raw(3), b"end"));
        for at in 0..stream.len() {
            for flip in [1, 0x10, 0x80, 0xff] {
                let mut damaged = stream.clone();
                damaged[at] ^= flip;
                let (_, out) = feed(&damaged);
                assert!(out.len() <= 2 * RAW_MAX);
            }
        }
    }
}
