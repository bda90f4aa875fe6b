//! What nodes and witness say to each other, as the payload of a datagram. Pure.
//!
//! One byte says which message; then its fields in the order of the lists below, little-endian,
//! without gaps. A `bool` is 0 or 1, an `Option` a `bool` and the value if there is one, a list
//! its length in one byte and its items, a [`View`] 32 bytes as in the control block. What is
//! left over, or does not read, refuses the whole. The version is the datagram's. Each list is
//! written once and serves both ways; `tests` below keep the bytes. A payload that begins with
//! 0xff is none of these: the rest is a word of one daemon to the other, which nobody here reads.

use duolog_failover::message::{
    Ask, Beat, Gone, HISTORY_MAX, Prop, Refusal, WitnessAnswer, WitnessBeat,
};
use duolog_failover::{Message, Now, Question, Reply, State};
use duolog_wal::{Chain, Cursor, HistoryEntry, Lsn, NodeId, Time, View, ViewNum};

use crate::packet::PAYLOAD_MAX;

/// Bytes before a message that number it.
pub const NUMBER_LEN: usize = 8;
/// Most bytes of a message.
pub const MESSAGE_MAX: usize = PAYLOAD_MAX - NUMBER_LEN;
/// First byte of a payload that is no message of the machine but a word for the daemon.
pub(crate) const WORD: u8 = 0xff;
/// Most bytes of a word.
pub const WORD_MAX: usize = MESSAGE_MAX - 1;
/// Most bytes of a witness's reply: a question leaves room for it.
pub const REPLY_MAX: usize = 96;

/// What travels in datagrams.
pub trait Wire: Sized {
    /// As bytes, at most [`MESSAGE_MAX`].
    fn encode(&self) -> Vec<u8>;
    /// From all of `bytes`; `None` when they are nothing of the kind.
    fn decode(bytes: &[u8]) -> Option<Self>;
}

macro_rules! messages {
    ($($message:ident),*) => {$(
        impl Wire for $message {
            fn encode(&self) -> Vec<u8> {
                let mut out = Vec::new();
                self.put(&mut out);
                assert!(out.len() <= MESSAGE_MAX, "a message of {} bytes", out.len());
                out
            }
            fn decode(bytes: &[u8]) -> Option<Self> {
                let mut rest = bytes;
                let read = Self::read(&mut rest)?;
                rest.is_empty().then_some(read)
            }
        }
    )*};
}
messages!(Message, Question, Reply);

/// A value that knows its bytes.
trait Field: Sized {
    /// Appends them.
    fn put(&self, out: &mut Vec<u8>);
    /// Takes them from the front.
    fn read(from: &mut &[u8]) -> Option<Self>;
}

macro_rules! integers {
    ($($integer:ty),*) => {$(
        impl Field for $integer {
            fn put(&self, out: &mut Vec<u8>) {
                out.extend(self.to_le_bytes());
            }
            fn read(from: &mut &[u8]) -> Option<Self> {
                let (head, rest) = from.split_first_chunk()?;
                *from = rest;
                Some(Self::from_le_bytes(*head))
            }
        }
    )*};
}
integers!(u8, u32, u64, u128);

macro_rules! numbers {
    ($($number:ident),*) => {$(
        impl Field for $number {
            fn put(&self, out: &mut Vec<u8>) {
                self.0.put(out);
            }
            fn read(from: &mut &[u8]) -> Option<Self> {
                Field::read(from).map(Self)
            }
        }
    )*};
}
numbers!(Lsn, Chain, Time, ViewNum, Now);

macro_rules! fields {
    ($kind:ident: $($field:ident),*) => {
        impl Field for $kind {
            fn put(&self, out: &mut Vec<u8>) {
                $(self.$field.put(out);)*
            }
            fn read(from: &mut &[u8]) -> Option<Self> {
                Some(Self { $($field: Field::read(from)?),* })
            }
        }
    };
}
fields!(Cursor: lsn, chain, time);
fields!(HistoryEntry: num, origin, start);
fields!(Prop: view, base, incarnation, end);
fields!(Gone: incarnation, at);
fields!(WitnessBeat: incarnation, sent, conf, lease, failover_ms);
fields!(Ask: view, base, nonce, failover_ms);
fields!(WitnessAnswer: witness, reg, incarnation, sent, lease);
fields!(Beat:
    incarnation, sent, conf, pend, hi, lease, serves, follows, state, stopped, end, durable,
    committed, complete, history, frozen, won, failover, maintenance_ms
);

/// One byte for each variant without fields.
macro_rules! bytes {
    ($kind:ident: $($byte:literal $value:pat => $made:expr),*) => {
        impl Field for $kind {
            fn put(&self, out: &mut Vec<u8>) {
                out.push(match self { $($value => $byte),* });
            }
            fn read(from: &mut &[u8]) -> Option<Self> {
                match u8::read(from)? {
                    $($byte => Some($made),)*
                    _ => None,
                }
            }
        }
    };
}
bytes!(bool: 0 false => false, 1 true => true);
bytes!(NodeId: 1 Self::Node1 => Self::Node1, 2 Self::Node2 => Self::Node2);
bytes!(State:
    0 Self::Stop => Self::Stop,
    1 Self::Wait => Self::Wait,
    2 Self::Prim => Self::Prim,
    3 Self::Second => Self::Second,
    4 Self::Alone => Self::Alone
);
bytes!(Refusal:
    1 Self::OtherWitness => Self::OtherWitness,
    2 Self::Lease => Self::Lease,
    3 Self::Newer => Self::Newer
);

/// A byte that says which variant, then its fields.
macro_rules! variants {
    ($kind:ident: $($byte:literal $variant:ident $(($inner:ident))? $({$($field:ident),*})?),* $(,)?) => {
        impl Field for $kind {
            fn put(&self, out: &mut Vec<u8>) {
                match self {
                    $(Self::$variant $(($inner))? $({$($field),*})? => {
                        out.push($byte);
                        $($inner.put(out);)?
                        $($($field.put(out);)*)?
                    })*
                }
            }
            fn read(from: &mut &[u8]) -> Option<Self> {
                Some(match u8::read(from)? {
                    $($byte => {
                        $(let $inner = Field::read(from)?;)?
                        $($(let $field = Field::read(from)?;)*)?
                        Self::$variant $(($inner))? $({$($field),*})?
                    })*
                    _ => return None,
                })
            }
        }
    };
}
variants!(Message:
    1 Beat(beat),
    2 Answer { incarnation, sent },
    3 Prop(prop),
    4 Accepted { view, durable },
    5 Go { view },
    6 Gone(gone),
);
variants!(Question:
    1 Beat(beat),
    2 Ask(ask),
    3 Learn { view },
    4 Gone(gone),
);
variants!(Reply:
    1 Beat(answer),
    2 Grant { view, nonce },
    3 Refuse { why, witness, reg, nonce },
);

impl Field for View {
    fn put(&self, out: &mut Vec<u8>) {
        out.extend(self.to_bytes());
    }
    fn read(from: &mut &[u8]) -> Option<Self> {
        let (head, rest) = from.split_first_chunk()?;
        *from = rest;
        Self::from_bytes(head)
    }
}

impl<T: Field> Field for Option<T> {
    fn put(&self, out: &mut Vec<u8>) {
        self.is_some().put(out);
        if let Some(value) = self {
            value.put(out);
        }
    }
    fn read(from: &mut &[u8]) -> Option<Self> {
        if bool::read(from)? { T::read(from).map(Some) } else { Some(None) }
    }
}

impl Field for Vec<HistoryEntry> {
    fn put(&self, out: &mut Vec<u8>) {
        // Whoever makes a heartbeat keeps to it; the newest are what matters.
        let newest = &self[self.len().saturating_sub(HISTORY_MAX)..];
        out.push(u8::try_from(newest.len()).expect("at most HISTORY_MAX"));
        for entry in newest {
            entry.put(out);
        }
    }
    fn read(from: &mut &[u8]) -> Option<Self> {
        let len = usize::from(u8::read(from)?);
        (len <= HISTORY_MAX).then(|| (0..len).map(|_| Field::read(from)).collect())?
    }
}

#[cfg(test)]
mod tests;
