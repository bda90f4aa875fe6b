//! An answer of the other node as it crosses, in pieces:
//!
//! ```text
//! at  size  field
//!  0     1  kind   n: name of a file, d: bytes of it, t: text, l: the last one, x: refused
//!  1        text in UTF-8; of d bytes; of l JSON
//! ```
//! An answer without `l` or `x` broke off, and counts for nothing.

use std::io;

use duolog_transport::resync::{MESSAGE_MAX, Pipe};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Bytes that go into one piece.
pub(crate) const PIECE_MAX: usize = 64 << 10;
const _: () = assert!(PIECE_MAX < MESSAGE_MAX, "a piece fits a message");

/// A piece of an answer.
#[derive(Debug)]
pub(crate) enum Piece {
    /// A file of this name follows.
    Name(String),
    /// Bytes of it.
    Data(Vec<u8>),
    /// Text.
    Text(String),
}

/// Reads an answer.
pub(crate) struct Pieces<'a> {
    pipe: &'a mut Pipe,
    left: u64,
    message: Vec<u8>,
    last: Option<Vec<u8>>,
    refused: Option<String>,
}

fn malformed(why: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

fn text(bytes: &[u8]) -> io::Result<String> {
    let text = std::str::from_utf8(bytes).map_err(|_| malformed("a text that is none"))?;
    Ok(text.to_owned())
}

impl<'a> Pieces<'a> {
    /// At most so many bytes are read.
    pub(super) const fn new(pipe: &'a mut Pipe, bytes_max: u64) -> Self {
        Self { pipe, left: bytes_max, message: Vec::new(), last: None, refused: None }
    }

    /// The next piece; nothing when all of them came.
    ///
    /// # Errors
    /// It broke off, is too long, is none, or was refused.
    pub(crate) fn next(&mut self) -> io::Result<Option<Piece>> {
        if self.last.is_some() {
            return Ok(None);
        }
        self.pipe.receive(&mut self.message)?;
        let more = self.left.checked_sub(self.message.len() as u64);
        self.left = more.ok_or_else(|| malformed("an answer that is longer than any"))?;
        let (kind, body) = self.message.split_first().ok_or_else(|| malformed("an empty piece"))?;
        Ok(Some(match kind {
            b'n' => Piece::Name(text(body)?),
            b'd' => Piece::Data(body.to_vec()),
            b't' => Piece::Text(text(body)?),
            b'l' => {
                self.last = Some(body.to_vec());
                return Ok(None);
            }
            b'x' => {
                self.refused = Some(text(body)?);
                return Err(malformed("refused"));
            }
            _ => return Err(malformed("a piece of unknown kind")),
        }))
    }

    /// The last piece, which says what the whole was; everything else must have been read.
    ///
    /// # Errors
    /// As [`Self::next`], or it is none of these.
    pub(crate) fn last<T: DeserializeOwned>(&mut self) -> io::Result<T> {
        if self.next()?.is_some() {
            return Err(malformed("more than was asked for"));
        }
        Ok(serde_json::from_slice(self.last.as_deref().unwrap_or_default())?)
    }

    /// The next piece, which is a value.
    ///
    /// # Errors
    /// As [`Self::next`], or it is none.
    pub(crate) fn value<T: DeserializeOwned>(&mut self) -> io::Result<T> {
        match self.next()? {
            Some(Piece::Data(bytes)) => Ok(serde_json::from_slice(&bytes)?),
            _ => Err(malformed("no value")),
        }
    }

    /// Sends another question on the same stream.
    pub(crate) fn say(&mut self, message: &[u8]) -> io::Result<()> {
        self.pipe.send(message)
    }

    /// Why the other node refused, if it did.
    pub(super) fn refused(&mut self) -> Option<String> {
        self.refused.take()
    }
}

/// The only piece of an answer, where it is a short one.
///
/// # Errors
/// As [`Pieces::last`].
pub(crate) fn only<T: DeserializeOwned>(pieces: &mut Pieces<'_>) -> io::Result<T> {
    pieces.last()
}

/// Sends an answer.
pub(crate) struct Sender<'a>(pub(super) &'a mut Pipe);

impl Sender<'_> {
    fn send(&mut self, kind: u8, body: &[u8]) -> io::Result<()> {
        self.0.send(&[&[kind], body].concat())
    }

    /// The bytes that follow are of a file of this name.
    pub(crate) fn name(&mut self, name: &str) -> io::Result<()> {
        self.send(b'n', name.as_bytes())
    }

    /// Bytes of the file.
    pub(crate) fn data(&mut self, bytes: &[u8]) -> io::Result<()> {
        bytes.chunks(PIECE_MAX).try_for_each(|bytes| self.send(b'd', bytes))
    }

    /// Text of at most [`PIECE_MAX`] bytes a piece.
    pub(crate) fn text(&mut self, mut text: &str) -> io::Result<()> {
        while !text.is_empty() {
            let (piece, rest) = text.split_at(text.floor_char_boundary(PIECE_MAX));
            self.send(b't', piece.as_bytes())?;
            text = rest;
        }
        Ok(())
    }

    /// Waits for another question on the same stream.
    pub(crate) fn heard(&mut self) -> io::Result<()> {
        self.0.receive(&mut Vec::new())
    }

    /// A value, in one piece.
    pub(crate) fn value(&mut self, value: &impl Serialize) -> io::Result<()> {
        self.send(b'd', &serde_json::to_vec(value)?)
    }

    /// That was all of it.
    pub(crate) fn last(&mut self, what: &impl Serialize) -> io::Result<()> {
        let bytes = serde_json::to_vec(what)?;
        if bytes.len() >= MESSAGE_MAX {
            return self.refuse("the answer is too long");
        }
        self.send(b'l', &bytes)
    }

    /// There is none, for this reason.
    pub(crate) fn refuse(&mut self, why: &str) -> io::Result<()> {
        self.send(b'x', &why.as_bytes()[..why.floor_char_boundary(PIECE_MAX)])
    }
}
