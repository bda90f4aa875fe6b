//! The last word to the others, of whoever fenced this node.

use std::io;

use duolog_beat::{BeatConfig, tell_gone};
use duolog_failover::Now;
use duolog_failover::message::Gone;

use super::post::beat_config;
use crate::config::Config;
use crate::guardian::Farewell;

/// How long the others may take to answer it.
const LIMIT_MS: u64 = 2_000;

/// Says that an incarnation serves no more, as the daemon would have.
#[derive(Debug)]
pub(crate) struct LastWord {
    beat: BeatConfig,
}

impl LastWord {
    /// Reads what it takes; nothing where there is no other node.
    pub(crate) fn new(config: &Config) -> anyhow::Result<Option<Self>> {
        Ok(beat_config(config)?.map(|beat| Self { beat }))
    }
}

impl Farewell for LastWord {
    fn say(&self, incarnation: u64, ended_ms: u64) -> io::Result<()> {
        let gone = Gone { incarnation, at: Now(ended_ms) };
        let told = tell_gone(&self.beat, gone, LIMIT_MS).map_err(io::Error::other)?;
        if !told.peer {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "the other node did not answer"));
        }
        Ok(())
    }
}
