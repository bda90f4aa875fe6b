//! Heartbeats and the machine's messages, to and from the other node and the witness.

use std::sync::mpsc::Sender;
use std::sync::{Arc, OnceLock};

use anyhow::Context;
use duolog_beat::{Beat, BeatConfig, Heard, Path, PathStatus, Secret, WitnessAt};
use duolog_failover::{Event, Message, Question};

use super::Input;
use super::peer::Bond;
use crate::actions::words::{Answering, Words};
use crate::config::Config;

/// Says and hears; silent where there is no other node.
#[derive(Debug, Default)]
pub(super) struct Post {
    beat: OnceLock<Beat>,
}

impl Post {
    /// Begins to hear; what is heard goes to `say`, words to `words`.
    pub(super) fn start(
        &self,
        config: &Config,
        bond: &Arc<Bond>,
        say: &Sender<Input>,
        words: &Arc<Words>,
        answering: &Arc<dyn Answering>,
    ) -> anyhow::Result<()> {
        let Some(settings) = beat_config(config)? else { return Ok(()) };
        words.seal_with(settings.secret.seal(config.cluster));
        let (bond, say) = (bond.clone(), say.clone());
        let (words, answering) = (words.clone(), answering.clone());
        let beat = Beat::start(&settings, move |heard| {
            let inputs = match heard {
                Heard::Peer(message) => {
                    let lives = match &message {
                        Message::Beat(beat) => {
                            bond.set_peer_whole(beat.complete);
                            Some(Input::PeerLives { incarnation: beat.incarnation })
                        }
                        _ => None,
                    };
                    [lives, Some(Input::Event(Event::Peer(message)))]
                }
                Heard::Word(word) => {
                    words.hear(&word, &answering);
                    [None, None]
                }
                Heard::Witness(reply) => [None, Some(Input::Event(Event::Witness(reply)))],
                Heard::Path { status, .. } => {
                    let (local, remote) = (status.local, status.remote);
                    if status.up {
                        tracing::info!(%local, %remote, "a path is up");
                    } else {
                        let trouble = status.trouble.unwrap_or_default();
                        tracing::warn!(%local, %remote, trouble, "a path is down");
                    }
                    [None, None]
                }
            };
            for input in inputs.into_iter().flatten() {
                // The driver ends before its post does, and then nobody wants to know.
                say.send(input).ok();
            }
        })?;
        if self.beat.set(beat).is_err() {
            unreachable!("a node begins to hear once");
        }
        Ok(())
    }

    /// Sends a word to the other node; may be lost.
    pub(super) fn word(&self, word: &[u8]) {
        if let Some(beat) = self.beat.get() {
            beat.word_to_peer(word);
        }
    }

    pub(super) fn to_peer(&self, message: &Message) {
        if let Some(beat) = self.beat.get() {
            beat.to_peer(message);
        }
    }

    pub(super) fn to_witness(&self, question: &Question) {
        if let Some(beat) = self.beat.get() {
            beat.to_witness(question);
        }
    }

    /// How each path stands, in the order of the configuration, the witness's last.
    pub(super) fn paths(&self) -> Vec<PathStatus> {
        self.beat.get().map(Beat::paths).unwrap_or_default()
    }
}

/// What heartbeats need; nothing where there is no other node.
pub(crate) fn beat_config(config: &Config) -> anyhow::Result<Option<BeatConfig>> {
    let (Some(_), Some(key)) = (&config.peer, &config.pair_key) else { return Ok(None) };
    let secret = |path: &std::path::Path| {
        Secret::read(path).with_context(|| format!("cannot use the key {}", path.display()))
    };
    let witness = match &config.witness {
        Some(witness) => {
            Some(WitnessAt { address: witness.address, secret: secret(&witness.key)? })
        }
        None => None,
    };
    let paths = config.paths.iter().map(|path| Path { local: path.local, peer: path.peer });
    Ok(Some(BeatConfig {
        cluster: config.cluster,
        node: config.node,
        secret: secret(key)?,
        paths: paths.collect(),
        witness,
        heartbeat_ms: config.pair.heartbeat_ms,
        path_lost_ms: config.pair.peer_lost_ms,
    }))
}
