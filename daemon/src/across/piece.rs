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
    message: Vec<u8>,
    answer: Read,
}

/// How far an answer was read. Pure: the messages are given.
#[derive(Debug)]
struct Read {
    /// Bytes that may still come.
    left: u64,
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

impl Read {
    const fn new(bytes_max: u64) -> Self {
        Self { left: bytes_max, last: None, refused: None }
    }

    /// Takes in the next message; nothing when that was the last piece.
    fn take(&mut self, message: &[u8]) -> io::Result<Option<Piece>> {
        let more = self.left.checked_sub(message.len() as u64);
        self.left = more.ok_or_else(|| malformed("an answer that is longer than any"))?;
        let (kind, body) = message.split_first().ok_or_else(|| malformed("an empty piece"))?;
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

    /// What the last piece says.
    fn said<T: DeserializeOwned>(&self) -> io::Result<T> {
        Ok(serde_json::from_slice(self.last.as_deref().unwrap_or_default())?)
    }
}

impl<'a> Pieces<'a> {
    /// At most so many bytes are read.
    pub(super) const fn new(pipe: &'a mut Pipe, bytes_max: u64) -> Self {
        Self { pipe, message: Vec::new(), answer: Read::new(bytes_max) }
    }

    /// The next piece; nothing when all of them came.
    ///
    /// # Errors
    /// It broke off, is too long, is none, or was refused.
    pub(crate) fn next(&mut self) -> io::Result<Option<Piece>> {
        if self.answer.last.is_some() {
            return Ok(None);
        }
        self.pipe.receive(&mut self.message)?;
        self.answer.take(&self.message)
    }

    /// The last piece, which says what the whole was; everything else must have been read.
    ///
    /// # Errors
    /// As [`Self::next`], or it is none of these.
    pub(crate) fn last<T: DeserializeOwned>(&mut self) -> io::Result<T> {
        if self.next()?.is_some() {
            return Err(malformed("more than was asked for"));
        }
        self.answer.said()
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
        self.answer.refused.take()
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

#[cfg(test)]
mod tests {
    use super::*;

    /// As much as the other node may say, whatever it says.
    const MAX: u64 = 1000;

    fn kind(result: io::Result<Option<Piece>>) -> String {
        match result {
            Ok(piece) => format!("{piece:?}"),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn what_is_no_piece_is_refused_and_said_to_be() {
        for (message, said) in [
            (&b""[..], "an empty piece"),
            (b"n\xff", "a text that is none"),
            (b"t\xc3", "a text that is none"),
            (b"x\xff", "a text that is none"),
            (b"L[]", "a piece of unknown kind"),
            (b"\0", "a piece of unknown kind"),
            (b"xno", "refused"),
        ] {
            let mut read = Read::new(MAX);
            assert_eq!(kind(read.take(message)), said, "{message:?}");
            assert_eq!(read.refused.is_some(), message == b"xno", "{message:?}");
            assert!(read.last.is_none(), "{message:?}");
        }
    }

    #[test]
    fn an_answer_is_no_longer_than_it_may_be_however_it_is_cut() {
        for len in [1, 7, 250, 999, 1000] {
            let (mut read, piece) = (Read::new(MAX), vec![b'd'; len]);
            let mut taken = 0;
            let why = (0..=MAX).find_map(|_| match read.take(&piece) {
                Ok(_) => {
                    taken += len as u64;
                    None
                }
                Err(why) => Some(why.to_string()),
            });
            assert_eq!(why.as_deref(), Some("an answer that is longer than any"));
            assert!(taken <= MAX && taken + len as u64 > MAX, "{taken} bytes in pieces of {len}");
        }
    }

    /// What the last piece says is as hostile as all others.
    #[test]
    fn a_last_piece_that_is_none_of_what_was_asked_for_is_an_error() {
        let last = |body: &[u8]| {
            let mut read = Read::new(u64::MAX);
            assert!(read.take(&[b"l", body].concat()).unwrap().is_none());
            read.said::<Vec<String>>()
        };
        assert_eq!(last(b"[\"a log\"]").unwrap(), ["a log"]);
        let deep = b"[".repeat(200_000);
        for body in [&b""[..], b"[", b"{}", b"[1]", b"[\"a\"] more", b"\xff", &deep] {
            let start = &body[..body.len().min(9)];
            assert!(last(body).is_err(), "{start:?}");
        }
        assert!(Read::new(MAX).said::<Vec<String>>().is_err(), "one that never came");
    }

    /// Of any bytes a piece is what they say or nothing, and never more than came.
    #[test]
    fn whatever_comes_is_read_as_it_was_sent_or_not_at_all() {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let mut random = move || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()
        };
        let (mut read_whole, mut refused) = (0, 0);
        for _ in 0..20_000 {
            let [len, first, ..] = random();
            let mut message: Vec<u8> = (0..len / 6).flat_map(|_| random()).collect();
            if let Some(kind) = message.first_mut()
                && first % 8 < 5
            {
                *kind = b"ndtlx"[usize::from(first % 8)];
            }
            if first > 127 {
                message.iter_mut().skip(1).for_each(|byte| *byte &= 0x7f);
            }
            let mut read = Read::new(MAX);
            let again = match read.take(&message) {
                Ok(Some(Piece::Name(name))) => [b"n", name.as_bytes()].concat(),
                Ok(Some(Piece::Data(bytes))) => [&b"d"[..], &bytes].concat(),
                Ok(Some(Piece::Text(text))) => [b"t", text.as_bytes()].concat(),
                Ok(None) => [b"l", read.last.as_deref().unwrap()].concat(),
                Err(_) if read.refused.is_some() => {
                    [b"x", read.refused.unwrap().as_bytes()].concat()
                }
                Err(_) => {
                    refused += 1;
                    continue;
                }
            };
            assert_eq!(again, message);
            read_whole += 1;
        }
        assert!(read_whole > 5_000 && refused > 2_000, "{read_whole} read, {refused} refused");
    }
}
