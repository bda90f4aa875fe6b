//! What one party says to another and hears from it: a [`Session`] with messages numbered, so
//! that copies of one that came over several paths are delivered once. Pure but for the number
//! that its session begins with.

use std::collections::VecDeque;

use duolog_wal::ClusterId;

use crate::keys::{KeyError, Secret, random};
use crate::packet::{Kind, Party};
use crate::session::{Session, Taken, Window};
use crate::wire::NUMBER_LEN;

/// Datagrams whose sending time is remembered.
const REMEMBERED: usize = 1024;
/// Messages that are said again once the other end knows us.
const RECENT: usize = 4;

/// One end.
#[derive(Debug)]
pub(crate) struct Channel {
    session: Session,
    /// Questions are at least that long.
    least: usize,
    /// Number of my last message, and those of the other end.
    said: u64,
    heard: Window,
    recent: VecDeque<(u64, Vec<u8>)>,
    /// A welcome was followed already in this interval.
    greeted: bool,
}

/// What comes of a datagram.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Incoming {
    /// Goes back to where it came from.
    pub reply: Option<Vec<u8>>,
    /// A message, or the reply in an answer, for the first time.
    pub payload: Option<Vec<u8>>,
    /// A question of mine of that moment was answered.
    pub answered_ms: Option<u64>,
    /// What was answered was a message: the other end has taken it.
    pub delivered: bool,
    /// The other end knows me now: say again what it could not believe.
    pub again: bool,
}

impl Channel {
    pub(crate) fn new(
        cluster: ClusterId,
        ends: [Party; 2],
        secret: &Secret,
        fresh_ms: u64,
        least: usize,
    ) -> Result<Self, KeyError> {
        let keys = secret.keys(cluster, ends[0], ends[1]);
        // Zero stands for "not known".
        let own = u64::from_le_bytes(random()?).max(1);
        Ok(Self {
            session: Session::new(cluster, ends, keys, own, fresh_ms, REMEMBERED),
            least,
            said: 0,
            heard: Window::default(),
            recent: VecDeque::new(),
            greeted: false,
        })
    }

    /// Takes in what came; `None` when it is nobody's or was seen before.
    pub(crate) fn take(&mut self, bytes: &[u8], now_ms: u64) -> Option<Incoming> {
        let packet = self.session.authentic(bytes)?;
        let mut incoming = Incoming::default();
        match self.session.take(&packet, now_ms) {
            Taken::Unproved if packet.kind.is_question() => {
                incoming.reply = Some(self.session.welcome(&packet, now_ms));
            }
            Taken::Unproved | Taken::Repeated => return None,
            Taken::Welcomed => incoming.again = !std::mem::replace(&mut self.greeted, true),
            Taken::Fresh { sent_ms, began } => {
                if began {
                    self.heard = Window::default();
                }
                match packet.kind {
                    Kind::Answer => {
                        incoming.answered_ms = Some(sent_ms);
                        let made = self.session.made(packet.echo);
                        incoming.delivered = made.is_some_and(|(_, kind)| kind == Kind::Message);
                        incoming.payload =
                            Some(packet.payload.to_vec()).filter(|payload| !payload.is_empty());
                    }
                    Kind::Message => {
                        let (number, message) = packet.payload.split_first_chunk::<NUMBER_LEN>()?;
                        let first = self.heard.take(u64::from_le_bytes(*number));
                        incoming.payload = first.then(|| message.to_vec());
                    }
                    Kind::Beat | Kind::Welcome => {}
                }
                if packet.kind.is_question() {
                    let room = bytes.len();
                    incoming.reply = self.session.answer(Kind::Answer, &packet, room, &[], now_ms);
                }
            }
        }
        Some(incoming)
    }

    /// Begins a message: each path gets a datagram of its own for it, from [`Channel::copy`].
    pub(crate) fn message(&mut self, message: &[u8], now_ms: u64) -> Vec<u8> {
        self.said += 1;
        let numbered = [&self.said.to_le_bytes()[..], message].concat();
        if self.recent.len() == RECENT {
            self.recent.pop_front();
        }
        self.recent.push_back((now_ms, numbered.clone()));
        numbered
    }

    /// A datagram with that numbered message.
    pub(crate) fn copy(&mut self, numbered: &[u8], now_ms: u64) -> Vec<u8> {
        self.session.make(Kind::Message, numbered, self.least, now_ms)
    }

    /// A datagram that asks whether the path goes there and back.
    pub(crate) fn beat(&mut self, now_ms: u64) -> Vec<u8> {
        self.session.make(Kind::Beat, &[], self.least, now_ms)
    }

    /// An interval begins: the next welcome is followed at once.
    pub(crate) const fn next_interval(&mut self) {
        self.greeted = false;
    }

    /// Messages of the last `within_ms`, numbered.
    pub(crate) fn recent(&self, now_ms: u64, within_ms: u64) -> Vec<Vec<u8>> {
        let young = |said_ms: u64| now_ms.saturating_sub(said_ms) <= within_ms;
        self.recent.iter().filter(|(at, _)| young(*at)).map(|(_, bytes)| bytes.clone()).collect()
    }
}
