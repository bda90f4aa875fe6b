//! What both computers tell each other once each knows that the other one has the code.
//!
//! ```text
//! second                                              first
//! hello: who it is, what it wants ───────────────────>  looks whether that can be
//!        <──────────────────────────  offer, or refused
//! looks, writes everything but its configuration
//! done: its certificate's fingerprint ───────────────>  writes it into its configuration
//!        <───────────────────────────────────── welcome
//! writes its configuration
//! ```
//!
//! JSON. The version is read before all else, so that any two versions can refuse each other.

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::{Context, bail};
use duolog_transport::enrol::Channel;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::document::Document;

/// What every version says in its first message.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Version {
    /// Of the program.
    pub version: String,
}

/// The second computer.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Hello {
    /// See [`Version`].
    pub version: String,
    /// See [`super::checks::Facts`].
    pub computer: String,
    /// Its clock, in microseconds since 1970.
    pub now_us: i64,
    /// Its addresses.
    pub addresses: Vec<SocketAddr>,
    /// How many directories it names; 0: it takes the first one's paths.
    pub directories: usize,
    /// Of its certificate, if an earlier try has made it.
    pub fingerprint: Option<String>,
}

/// What the first computer answers.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Answer {
    /// It cannot be.
    Refused(String),
    /// What the second one needs.
    Offer(Box<Offer>),
    /// The second one is known now.
    Welcome,
}

/// Everything that the second computer has to have of the pair.
#[derive(Serialize, Deserialize)]
pub(super) struct Offer {
    /// The pair's id.
    pub cluster: String,
    /// The pair's name.
    pub name: String,
    /// The first one's addresses.
    pub addresses: Vec<SocketAddr>,
    /// The authority's certificate and key (PEM).
    pub ca: [String; 2],
    /// The key that both nodes share (hex).
    pub pair_key: String,
    /// The witness, and the key that the second one shares with it (hex).
    pub witness: Option<(SocketAddr, String)>,
    /// The directories, and how many bytes they take.
    pub directories: Vec<OfferedDirectory>,
    /// Settings that both have alike (TOML).
    pub settings: String,
    /// The document of the pair, where the settings stand in one.
    #[serde(default)]
    pub document: Option<Document>,
    /// How far the second one's clock is ahead, in microseconds.
    pub skew_us: i64,
}

/// Shows whose it is; no secret appears in a log.
impl std::fmt::Debug for Offer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Offer").field("name", &self.name).finish_non_exhaustive()
    }
}

/// One of them.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct OfferedDirectory {
    /// Its path on the first computer.
    pub path: PathBuf,
    /// Its engine's preset.
    pub preset: String,
    /// How much it holds.
    pub bytes: u64,
}

/// The second computer has written what it was offered.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Done {
    /// Of the certificate that the authority signed for it.
    pub fingerprint: String,
}

/// Sends one of them.
pub(super) fn send(channel: &mut Channel, message: &impl Serialize) -> anyhow::Result<()> {
    let bytes = serde_json::to_vec(message).context("a message cannot be written")?;
    channel.send(&bytes).context("the other computer takes nothing more in; repeat `duolog join`")
}

/// Takes apart what was received.
pub(super) fn read<T: DeserializeOwned>(bytes: &[u8]) -> anyhow::Result<T> {
    serde_json::from_slice(bytes).context(
        "the other computer says what this version does not know; install the same on both",
    )
}

/// Waits for the next one.
pub(super) fn receive<T: DeserializeOwned>(channel: &mut Channel) -> anyhow::Result<T> {
    let bytes = channel.receive().context(
        "the other computer says nothing more, its command was perhaps ended; repeat \
         `duolog join`",
    )?;
    read(&bytes)
}

/// The next answer, if it is no refusal.
pub(super) fn answer(channel: &mut Channel) -> anyhow::Result<Answer> {
    match receive(channel)? {
        Answer::Refused(why) => bail!("the first computer refuses: {why}"),
        answer => Ok(answer),
    }
}
