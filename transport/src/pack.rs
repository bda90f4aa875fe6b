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
        Header {
            lsn,
            committed,
            content: Content::Commit,
        }
        .encode()
        .to_vec()
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
            Content::Zstd {
                raw_len,
                wire_len: out.len() - HEADER_LEN,
            }
        } else {
            out.reserve_exact(HEADER_LEN + max);
            out.resize(HEADER_LEN, 0);
            read(max, &mut out)?;
            Content::Raw(out.len() - HEADER_LEN)
        };
        let raw_len = content.raw_len();
        assert!(
            raw_len <= max,
            "the source read {raw_len} bytes, more than the {max} asked for"
        );
        if raw_len == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        out[..HEADER_LEN].copy_from_slice(
            &Header {
                lsn,
                committed,
                content,
            }
            .encode(),
        );
        Ok((out, raw_len))
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
        assert!(
            output.pos() < HEADER_LEN + WIRE_MAX,
            "zstd grew a frame past its bound"
        );
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
            return Err(FrameError::Gap {
                lsn: header.lsn,
                expected: self.next,
            });
        }
        self.committed = self.committed.max(header.committed);
        let (wire_left, raw_left) = (header.content.wire_len(), header.content.raw_len());
        if wire_left == 0 {
            self.frames += 1;
        } else {
            self.body = Some(Body {
                header,
                wire_left,
                raw_left,
            });
        }
        Ok(())
    }
}

impl Body {
    fn wrong_size(&self) -> FrameError {
        FrameError::Size {
            lsn: self.header.lsn,
            raw_len: self.header.content.raw_len(),
        }
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
        zstd.run(&mut input, &mut output)
            .map_err(|_| FrameError::Zstd(body.header.lsn))?;
        if out.len() - at > body.raw_left {
            return Err(body.wrong_size());
        }
        if input.pos() == read && out.len() == written {
            return Err(FrameError::Zstd(body.header.lsn));
        }
    }
    Ok(())
}
