//! The last word of a node whose services are gone: said by whoever fenced them, after the
//! daemon with its thread and session ended.
//!
//! A session of its own, so whoever hears it knows that the one before is over. Said again until
//! it was taken, or until the time is up: that the path was tried and answered is not enough, as
//! a message that came before its sender was known is lost. The witness is told first: the other
//! node asks it as soon as it knows, and would ask in vain while the witness still counts on this
//! node.

use duolog_failover::message::Gone;
use duolog_failover::{Message, Now, Question};
use rustix::event::{PollFd, PollFlags, poll};

use crate::beat::{BeatConfig, BeatError, Ends, Path, milliseconds};
use crate::clock::now;
use crate::wire::Wire;

/// How long an answer is waited for before the same is said again, and how long the other node is
/// not told because the witness has not answered.
const AGAIN_MS: u64 = 50;

/// Who has heard it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Told {
    /// The other node.
    pub peer: bool,
    /// The witness; `true` where there is none.
    pub witness: bool,
}

/// Tells peer and witness that nothing of that incarnation serves any more, for at most
/// `limit_ms`. From ports of its own: those of the daemon may still be taken.
///
/// # Errors
/// [`BeatError`] when nothing can be said at all.
pub fn tell_gone(config: &BeatConfig, gone: Gone, limit_ms: u64) -> Result<Told, BeatError> {
    let mut config = config.clone();
    for Path { local, .. } in &mut config.paths {
        local.set_port(0);
    }
    let mut ends = Ends::new(&config)?;
    let (message, question) = (Message::Gone(gone).encode(), Question::Gone(gone).encode());
    let start = now();
    let mut said: [Option<Now>; 2] = [None; 2];
    loop {
        let at = now();
        let (peer, witness) = ends.delivered();
        let told = Told { peer, witness };
        if told == (Told { peer: true, witness: true }) || at.since(start) >= limit_ms {
            return Ok(told);
        }
        ends.open(at);
        let due = |said: Option<Now>| said.is_none_or(|said| at.since(said) >= AGAIN_MS);
        let may_ask = witness || at.since(start) >= AGAIN_MS;
        if !witness && due(said[0]) {
            said[0] = Some(at);
            ends.say(true, &question, at);
        }
        if !peer && may_ask && due(said[1]) {
            said[1] = Some(at);
            ends.say(false, &message, at);
        }
        let sockets = ends.sockets();
        let mut wanted: Vec<_> =
            sockets.iter().map(|socket| PollFd::new(&**socket, PollFlags::IN)).collect();
        if let Err(error) = poll(&mut wanted, Some(&milliseconds(AGAIN_MS / 5))) {
            tracing::debug!(%error, "waiting for answers");
        }
        ends.receive(now(), &mut Vec::new());
    }
}
