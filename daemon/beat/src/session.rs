//! Whether an authentic datagram is believed: made in this run of both ends, now, and taken for
//! the first time. Pure: no socket, no clock, and no randomness but the number it is given.
//!
//! Each end has a *session*, a random number made when it starts. A datagram is **fresh** when
//! 1. `to` is my session: whatever was recorded before I started is not;
//! 2. `echo` is a datagram that I sent at most `fresh_ms` ago: its sender had it in hand, so this
//!    one was made after that moment, and holding it back for longer makes it worthless;
//! 3. its sender's session is the one that I know, or its `echo` is newer than any that I took:
//!    a process echoes only what was sent to its own session, so one that started anew echoes
//!    what I sent since, the one before it what I sent earlier, and a session never comes back;
//! 4. its `sequence` was not taken before: late ones may come in another order, none twice.
//!
//! A question that is not fresh is answered with a *welcome*, which tells my session and a
//! sequence to echo; with those its sender proves itself by its next datagram. A welcome is as
//! short as datagrams are and claims nothing. It echoes a question that may have been on its way
//! since before its sender started, so it is never fresh itself: it only says where to send to.
//!
//! ```text
//! node, just started                      witness (or the other node)
//! beat    session=B to=0 seq=1  ------->  not fresh: to is not mine
//!         <-------  welcome session=W to=B seq=8 echo=1
//! beat    session=B to=W seq=2 echo=8 ->  fresh: B is known from now on
//!         <-------  answer  session=W to=B seq=9 echo=2     a lease from when seq=2 was sent
//! ```
//! Invariants: `floor` never falls; a session that was left is never taken from again; a sequence
//! is fresh once.

use duolog_wal::ClusterId;

use crate::keys::Keys;
use crate::packet::{self, HEADER_LEN, Kind, Packet, Party, TAG_LEN};

/// Bytes of a datagram without payload: the length of a welcome.
pub const BARE_LEN: usize = HEADER_LEN + TAG_LEN;

/// One end of what two parties say to each other, over however many paths.
#[derive(Debug)]
pub struct Session {
    cluster: ClusterId,
    here: Party,
    there: Party,
    keys: Keys,
    own: u64,
    fresh_ms: u64,
    /// When the newest of my datagrams were sent, and as what: that of sequence s stands at s
    /// modulo length.
    made: Vec<(u64, Kind)>,
    sent: u64,
    /// Whom I take from, and what of it I took.
    peer: Option<u64>,
    taken: Window,
    floor: u64,
    /// Whom I send to, and the newest that I have of it to echo.
    to: u64,
    echo: u64,
    /// The newest of mine that a welcome echoed.
    welcomed: u64,
}

/// What an authentic datagram is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// Made in this run of both ends, after `sent_ms`, and not seen before.
    Fresh {
        /// When the datagram that it echoes was sent.
        sent_ms: u64,
        /// Whether its sender is one that started anew, or the first.
        began: bool,
    },
    /// A welcome: what is sent from now on can be fresh there. Says nothing else.
    Welcomed,
    /// Proves nothing about now. Deserves a welcome if it asks for an answer.
    Unproved,
    /// Taken before, or of a process that is known to be gone. Deserves nothing.
    Repeated,
}

impl Session {
    /// `own` is random and never zero, `remembered` the number of datagrams whose sending time is
    /// kept: what echoes an older one is not fresh.
    ///
    /// # Panics
    /// When `own` or `remembered` is zero.
    pub fn new(
        cluster: ClusterId,
        [here, there]: [Party; 2],
        keys: Keys,
        own: u64,
        fresh_ms: u64,
        remembered: usize,
    ) -> Self {
        assert!(own != 0 && remembered > 0, "zero stands for a session that is not known");
        Self {
            cluster,
            here,
            there,
            keys,
            own,
            fresh_ms,
            made: vec![(0, Kind::Beat); remembered],
            sent: 0,
            peer: None,
            taken: Window::default(),
            floor: 0,
            to: 0,
            echo: 0,
            welcomed: 0,
        }
    }

    /// Takes bytes apart if the other end made them for this one; whoever it was that sent them.
    pub fn authentic<'a>(&self, bytes: &'a [u8]) -> Option<Packet<'a>> {
        let packet = Packet::decode(bytes).ok()?;
        // The key says the same, and for sure: this spares its work.
        let ours = packet.cluster == self.cluster && packet.from == self.there;
        (ours && packet::is_authentic(bytes, &self.keys.receive)).then_some(packet)
    }

    /// Judges an authentic datagram, and remembers it when it is fresh.
    pub fn take(&mut self, packet: &Packet<'_>, now_ms: u64) -> Taken {
        if packet.to != self.own {
            return Taken::Unproved;
        }
        let Some((sent_ms, _)) = self.made(packet.echo) else { return Taken::Unproved };
        if now_ms.saturating_sub(sent_ms) > self.fresh_ms {
            return Taken::Unproved;
        }
        if packet.kind == Kind::Welcome {
            if packet.echo <= self.welcomed {
                return Taken::Repeated;
            }
            self.welcomed = packet.echo;
            self.send_to(packet);
            return Taken::Welcomed;
        }
        let began = self.peer != Some(packet.session);
        if began && packet.echo <= self.floor {
            return Taken::Repeated;
        }
        if began {
            self.taken = Window::default();
            self.peer = Some(packet.session);
        }
        if !self.taken.take(packet.sequence) {
            return Taken::Repeated;
        }
        self.floor = self.floor.max(packet.echo);
        self.send_to(packet);
        Taken::Fresh { sent_ms, began }
    }

    /// A datagram of my own accord, padded to `least` bytes.
    pub fn make(&mut self, kind: Kind, payload: &[u8], least: usize, now_ms: u64) -> Vec<u8> {
        self.encode(kind, self.to, self.echo, payload, least, now_ms)
    }

    /// The answer to `question`, which came as `room` bytes; none when it would be longer.
    pub fn answer(
        &mut self,
        kind: Kind,
        question: &Packet<'_>,
        room: usize,
        payload: &[u8],
        now_ms: u64,
    ) -> Option<Vec<u8>> {
        if BARE_LEN + payload.len() > room {
            return None;
        }
        Some(self.encode(kind, question.session, question.sequence, payload, 0, now_ms))
    }

    /// What a question that is not fresh gets.
    pub fn welcome(&mut self, question: &Packet<'_>, now_ms: u64) -> Vec<u8> {
        self.encode(Kind::Welcome, question.session, question.sequence, &[], 0, now_ms)
    }

    /// Whether something fresh ever came.
    pub const fn is_known(&self) -> bool {
        self.peer.is_some()
    }

    fn send_to(&mut self, packet: &Packet<'_>) {
        let newer = self.to == packet.session && self.echo > packet.sequence;
        if !newer {
            (self.to, self.echo) = (packet.session, packet.sequence);
        }
    }

    fn encode(
        &mut self,
        kind: Kind,
        to: u64,
        echo: u64,
        payload: &[u8],
        least: usize,
        now_ms: u64,
    ) -> Vec<u8> {
        self.sent += 1;
        let at = self.place(self.sent);
        self.made[at] = (now_ms, kind);
        let (session, sequence) = (self.own, self.sent);
        let (from, cluster) = (self.here, self.cluster);
        Packet { kind, from, cluster, session, to, sequence, echo, payload }
            .encode(least, &self.keys.send)
    }

    /// When my datagram of that sequence was sent, and as what; `None` for one that never was, or
    /// is forgotten.
    pub fn made(&self, sequence: u64) -> Option<(u64, Kind)> {
        let kept = self.made.len() as u64;
        let known = (1..=self.sent).contains(&sequence) && self.sent - sequence < kept;
        known.then(|| self.made[self.place(sequence)])
    }

    fn place(&self, sequence: u64) -> usize {
        let kept = self.made.len() as u64;
        usize::try_from(sequence % kept).expect("less than a length")
    }
}

/// Numbers that rise from 1, each taken once; one that is far behind the newest is not taken.
#[derive(Clone, Copy, Debug, Default)]
pub struct Window {
    newest: u64,
    /// Bit n: number `newest - n` was taken.
    before: [u64; WINDOW / 64],
}

/// How far behind the newest a number may be.
pub const WINDOW: usize = 256;

impl Window {
    /// Whether it is taken now, for the first time.
    pub fn take(&mut self, number: u64) -> bool {
        if number > self.newest {
            self.shift(number - self.newest);
            self.newest = number;
            self.before[0] |= 1;
            return true;
        }
        let behind = usize::try_from(self.newest - number).unwrap_or(usize::MAX);
        if number == 0 || behind >= WINDOW {
            return false;
        }
        let (word, bit) = (behind / 64, 1 << (behind % 64));
        let new = self.before[word] & bit == 0;
        self.before[word] |= bit;
        new
    }

    fn shift(&mut self, by: u64) {
        let by = usize::try_from(by).unwrap_or(usize::MAX);
        let (words, bits) = (by / 64, by % 64);
        for at in (0..self.before.len()).rev() {
            let from = |at: Option<usize>| at.map_or(0, |at| self.before[at]);
            let low = from(at.checked_sub(words));
            let carry = from(at.checked_sub(words.saturating_add(1)));
            self.before[at] = if bits == 0 { low } else { low << bits | carry >> (64 - bits) };
        }
    }
}

#[cfg(test)]
mod tests;
