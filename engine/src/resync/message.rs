//! The messages of the dialogue as bytes. Pure.
//!
//! ```text
//! at  size  field
//!  0     1  kind
//!  1        body
//!
//! kind  name        from   body
//!    1  ask         taker  JSON: `plan::Ask`
//!    2  stands      giver  nothing: the taker's own plan is still good
//!    3  plan        giver  last u8 (1: the last part), then a part of the JSON of `plan::Plan`
//!    4  want        taker  left u64 (bytes still wanted, these included), then each extent:
//!                          id u64, offset u64, len u32, hashed u8; if hashed: 16, xxh3-128
//!    5  same        giver  nothing: the taker has these bytes already
//!    6  bytes       giver  runs u32, each: len u32, hole u8; then the bytes of those that are no
//!                          holes. The lengths add up to that of the extent
//!    7  again       giver  nothing: the plan is too old by now, ask once more
//!    8  enough      taker  nothing
//!    9  consistent  giver  lsn u64
//! ```
//!
//! Little-endian. Each extent that is wanted is answered by `same` or `bytes`, in order, or all
//! that are left by one `again`.

use duolog_wal::{FileId, Lsn};

use super::MESSAGE_MAX;

/// Bytes of a file that are hashed and sent together.
pub const CHUNK: u64 = 128 << 10;
/// Most extents in one message.
pub(super) const WANTS_MAX: usize = 32;
/// Bytes of a plan in one message.
pub(super) const PLAN_PART: usize = 128 << 10;
/// Longest plan that is taken, in bytes.
pub(super) const PLAN_MAX: usize = 1 << 30;

/// Bytes of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Extent {
    pub(crate) id: FileId,
    pub(crate) offset: u64,
    /// 1 to [`CHUNK`].
    pub(crate) len: u32,
}

/// Bytes that the taker needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Want {
    pub(super) extent: Extent,
    /// Hash of what the taker has there.
    pub(super) hash: Option<u128>,
}

/// Bytes that are one after the other in an extent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Run {
    pub(super) len: u32,
    /// They are a hole: zeros that take no room.
    pub(super) hole: bool,
}

/// A message, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Message<'a> {
    Ask(&'a [u8]),
    Stands,
    Plan { last: bool, part: &'a [u8] },
    Want { left: u64, wants: Vec<Want> },
    Same,
    Bytes { runs: Vec<Run>, bytes: &'a [u8] },
    Again,
    Enough,
    Consistent(Lsn),
}

impl Message<'_> {
    /// Puts the message's bytes into `out`.
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        out.clear();
        match self {
            Self::Ask(text) => {
                out.push(1);
                out.extend_from_slice(text);
            }
            Self::Stands => out.push(2),
            Self::Plan { last, part } => {
                out.extend_from_slice(&[3, u8::from(*last)]);
                out.extend_from_slice(part);
            }
            Self::Want { left, wants } => {
                out.push(4);
                out.extend_from_slice(&left.to_le_bytes());
                for want in wants {
                    out.extend_from_slice(&want.extent.id.0.to_le_bytes());
                    out.extend_from_slice(&want.extent.offset.to_le_bytes());
                    out.extend_from_slice(&want.extent.len.to_le_bytes());
                    out.push(u8::from(want.hash.is_some()));
                    if let Some(hash) = want.hash {
                        out.extend_from_slice(&hash.to_le_bytes());
                    }
                }
            }
            Self::Same => out.push(5),
            Self::Bytes { runs, bytes } => encode_bytes(runs, bytes, out),
            Self::Again => out.push(7),
            Self::Enough => out.push(8),
            Self::Consistent(lsn) => {
                out.push(9);
                out.extend_from_slice(&lsn.0.to_le_bytes());
            }
        }
    }
}

/// A message read and written again, and whatever it carries looked at as its reader does; `None`
/// when it is none. For whoever tries what hostile bytes do.
#[cfg(any(test, feature = "sim"))]
pub fn read_and_written(message: &[u8]) -> Option<Vec<u8>> {
    let read = decode(message)?;
    match &read {
        Message::Ask(text) => {
            if let Ok(ask) = serde_json::from_slice::<super::plan::Ask>(text) {
                super::plan::history(&ask.history);
            }
        }
        Message::Plan { part, .. } => {
            if let Ok(plan) = serde_json::from_slice::<super::plan::Plan>(part) {
                plan.cursor();
                super::plan::history(&plan.history);
                crate::store::check_manifest(&plan.manifest);
            }
        }
        _ => {}
    }
    let mut out = Vec::new();
    read.encode(&mut out);
    Some(out)
}

fn encode_bytes(runs: &[Run], bytes: &[u8], out: &mut Vec<u8>) {
    out.clear();
    out.push(6);
    let count = u32::try_from(runs.len()).expect("a chunk has few runs");
    out.extend_from_slice(&count.to_le_bytes());
    for run in runs {
        out.extend_from_slice(&run.len.to_le_bytes());
        out.push(u8::from(run.hole));
    }
    out.extend_from_slice(bytes);
}

/// Takes a message apart; `None` when it is none.
pub(super) fn decode(message: &[u8]) -> Option<Message<'_>> {
    let (&kind, body) = message.split_first()?;
    if message.len() > MESSAGE_MAX {
        return None;
    }
    let empty = |message| body.is_empty().then_some(message);
    match kind {
        1 => Some(Message::Ask(body)),
        2 => empty(Message::Stands),
        3 => {
            let (&last, part) = body.split_first()?;
            (last < 2).then_some(Message::Plan { last: last == 1, part })
        }
        4 => wants(Fields(body)),
        5 => empty(Message::Same),
        6 => bytes(Fields(body)),
        7 => empty(Message::Again),
        8 => empty(Message::Enough),
        9 => {
            let mut fields = Fields(body);
            let lsn = Lsn(fields.u64()?);
            fields.0.is_empty().then_some(Message::Consistent(lsn))
        }
        _ => None,
    }
}

fn wants(mut fields: Fields<'_>) -> Option<Message<'_>> {
    let left = fields.u64()?;
    let mut wants = Vec::new();
    while !fields.0.is_empty() {
        let (id, offset, len) = (FileId(fields.u64()?), fields.u64()?, fields.u32()?);
        let hash = match fields.u8()? {
            0 => None,
            1 => Some(fields.u128()?),
            _ => return None,
        };
        let fits = (1..=CHUNK).contains(&u64::from(len)) && offset.checked_add(CHUNK).is_some();
        if !fits || wants.len() == WANTS_MAX {
            return None;
        }
        wants.push(Want { extent: Extent { id, offset, len }, hash });
    }
    Some(Message::Want { left, wants })
}

fn bytes(mut fields: Fields<'_>) -> Option<Message<'_>> {
    let count = fields.u32()? as usize;
    // Each run takes five bytes of the message, so this cannot be made to take much memory.
    if count > fields.0.len() / 5 {
        return None;
    }
    let mut runs = Vec::with_capacity(count);
    let (mut all, mut data) = (0_u64, 0_u64);
    for _ in 0..count {
        let len = fields.u32()?;
        let hole = match fields.u8()? {
            hole @ (0 | 1) => hole == 1,
            _ => return None,
        };
        let run = Run { len, hole };
        all += u64::from(run.len);
        data += if run.hole { 0 } else { u64::from(run.len) };
        runs.push(run);
    }
    let fits = all <= CHUNK && data == fields.0.len() as u64;
    fits.then_some(Message::Bytes { runs, bytes: fields.0 })
}

/// Reads fields from the front.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*taken)
    }

    fn u8(&mut self) -> Option<u8> {
        self.take::<1>().map(|[byte]| byte)
    }

    fn u32(&mut self) -> Option<u32> {
        self.take().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.take().map(u64::from_le_bytes)
    }

    fn u128(&mut self) -> Option<u128> {
        self.take().map(u128::from_le_bytes)
    }
}

/// The hash by which equal chunks are known.
pub(crate) fn hash(bytes: &[u8]) -> u128 {
    xxhash_rust::xxh3::xxh3_128(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn messages() -> Vec<Message<'static>> {
        let extent = Extent { id: FileId(1), offset: 2, len: 3 };
        let wants = vec![Want { extent, hash: None }, Want { extent, hash: Some(4) }];
        let runs = vec![Run { len: 2, hole: false }, Run { len: 5, hole: true }];
        vec![
            Message::Ask(b"{}"),
            Message::Stands,
            Message::Plan { last: true, part: b"p" },
            Message::Want { left: 6, wants },
            Message::Same,
            Message::Bytes { runs, bytes: b"ab" },
            Message::Again,
            Message::Enough,
            Message::Consistent(Lsn(7)),
        ]
    }

    /// Written down once: other bytes are another version of what the two ends speak.
    #[test]
    fn messages_keep_their_bytes() {
        let mut extent = vec![1, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0];
        let mut want = vec![4, 6, 0, 0, 0, 0, 0, 0, 0];
        want.extend_from_slice(&extent);
        want.push(0);
        want.append(&mut extent);
        want.extend_from_slice(&[1, 4]);
        want.extend_from_slice(&[0; 15]);
        let golden: [&[u8]; 9] = [
            b"\x01{}",
            &[2],
            b"\x03\x01p",
            &want,
            &[5],
            &[6, 2, 0, 0, 0, 2, 0, 0, 0, 0, 5, 0, 0, 0, 1, b'a', b'b'],
            &[7],
            &[8],
            &[9, 7, 0, 0, 0, 0, 0, 0, 0],
        ];
        let mut out = Vec::new();
        for (message, golden) in messages().iter().zip(golden) {
            message.encode(&mut out);
            assert_eq!(out, golden, "{message:?}");
            assert_eq!(decode(golden).as_ref(), Some(message));
        }
    }

    #[test]
    fn what_is_no_message_is_refused_without_a_panic() {
        let mut out = Vec::new();
        for message in messages() {
            message.encode(&mut out);
            for len in 0..out.len() {
                // Text may be shorter, everything else is exact.
                let cut = decode(&out[..len]);
                let text = matches!(cut, Some(Message::Ask(_) | Message::Plan { .. }));
                let fewer = matches!(&cut, Some(Message::Want { wants, .. }) if wants.len() < 2);
                assert!(cut.is_none() || text || fewer, "{len} bytes of {message:?}");
            }
        }
        let want = |len: u32, offset: u64| {
            let extent = Extent { id: FileId(1), offset, len };
            let mut out = Vec::new();
            Message::Want { left: 0, wants: vec![Want { extent, hash: None }] }.encode(&mut out);
            decode(&out).is_some()
        };
        let chunk = u32::try_from(CHUNK).unwrap();
        assert!(want(chunk, 0) && want(1, u64::MAX - CHUNK));
        assert!(!want(0, 0) && !want(chunk + 1, 0) && !want(1, u64::MAX));
        // Runs that claim to be many, that are more than their bytes, more than a chunk.
        for bad in [
            &[6, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0][..],
            &[6, 1, 0, 0, 0, 2, 0, 0, 0, 0, b'a'],
            &[6, 1, 0, 0, 0, 1, 0, 2, 0, 1],
            &[6, 1, 0, 0, 0, 2, 0, 0, 0, 1, b'a'],
            &[99],
            &[],
        ] {
            assert_eq!(decode(bad), None, "{bad:?}");
        }
        let many = Want { extent: Extent { id: FileId(1), offset: 0, len: 1 }, hash: None };
        Message::Want { left: 0, wants: vec![many; WANTS_MAX + 1] }.encode(&mut out);
        assert_eq!(decode(&out), None);
        assert_eq!(decode(&vec![1; MESSAGE_MAX + 1]), None);
    }
}
