//! The document of the pair: the settings that are equal on both nodes, as one TOML text with a
//! version.
//!
//! ```text
//!  duolog config set, edit, back ──> agree ──> store (here)     what changes at once: live
//!                                      │
//!                                      └── words ──> agree ──> store (the other node)
//! ```
//! Versions are totally ordered, by number and then by the node that made them, so that two nodes
//! that hold any two of them know which one counts. What a version replaced stays in the history.
//! Nothing here decides who serves: a node whose settings differ from the other one's is safe all
//! the same, see docs/decisions/one-document-for-the-pair.md.

mod agree;
mod answer;
mod changes;
mod command;
mod commands;
mod edit;
mod import;
mod meet;
mod refused;
pub(crate) mod said;
mod standing;
mod store;

use std::fmt::Write;

use duolog_console::api::records::SettingsVersion;
use duolog_console::api::status::SettingsFrom;
pub(crate) use duolog_console::api::status::Stamp;
use serde::{Deserialize, Serialize};

pub(crate) use agree::{Author, Changed, Documents, Live, Other};
pub(crate) use answer::{answer_change, answer_history, answer_show};
pub(crate) use changes::Changes;
pub(crate) use command::{change, fetch, run};
pub(crate) use refused::ChangeError;
#[cfg(test)]
pub(crate) use standing::example;
pub(crate) use standing::lines;
pub(crate) use store::{DocumentError, begin, current, place, put_first, versions};
use store::{keep, open, set_aside};

/// Where versions stand, below the state directory: of its own, because the log locks that one.
pub(crate) const DIRECTORY: &str = "document";
/// The longest text, in bytes: it crosses to the other node in small pieces.
pub(crate) const TEXT_MAX: usize = 32 * 1024;
/// The greatest number of a version: names of files sort as versions do up to it, and one more than
/// it can still be counted.
pub(crate) const VERSION_MAX: u64 = 99_999_999;
/// What the first line of a stored version begins with; the rest of it is its stamp.
const HEAD: &str = "# duolog settings of the pair, made by duolog config, not by hand: ";

/// What two nodes tell versions apart by; the greater one counts.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Name {
    /// Its number.
    pub version: u64,
    /// The node that made it.
    pub node: u8,
    /// The first 16 hex digits of the hash of its text.
    pub hash: String,
}

impl Name {
    /// That of the version with this stamp.
    pub(crate) fn of(stamp: &Stamp) -> Self {
        let hash = stamp.hash.get(..16).unwrap_or(&stamp.hash).to_owned();
        Self { version: stamp.version, node: stamp.node, hash }
    }
}

/// A version with its text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Document {
    /// What is known of it.
    pub stamp: Stamp,
    /// TOML, as people wrote it.
    pub text: String,
}

impl Document {
    /// A new version.
    pub(crate) fn new(version: u64, node: u8, at_ms: u64, who: String, text: String) -> Self {
        let hash = hash(&text);
        Self { stamp: Stamp { version, node, at_ms, who, hash, aside_for: None }, text }
    }

    /// What it is told apart by.
    pub(crate) fn name(&self) -> Name {
        Name::of(&self.stamp)
    }

    /// As it stands on disk: TOML, the stamp in a comment.
    fn encode(&self) -> Result<String, serde_json::Error> {
        Ok(format!("{HEAD}{}\n{}", serde_json::to_string(&self.stamp)?, self.text))
    }

    /// What [`Document::encode`] made; nothing when any of it is not as it was.
    fn decode(bytes: &[u8]) -> Option<Self> {
        let (head, text) = str::from_utf8(bytes).ok()?.split_once('\n')?;
        let stamp: Stamp = serde_json::from_str(head.strip_prefix(HEAD)?).ok()?;
        (hash(text) == stamp.hash).then(|| Self { stamp, text: text.to_owned() })
    }
}

/// A version as programs are told of it; nothing: there is none, and every setting has its default.
pub(crate) fn told(document: Option<Document>) -> SettingsVersion {
    match document {
        Some(Document { stamp, text }) => {
            SettingsVersion { from: SettingsFrom::Document, stamp: Some(stamp), text }
        }
        None => SettingsVersion { from: SettingsFrom::Nowhere, stamp: None, text: String::new() },
    }
}

/// SHA-256 of a text, in hex digits.
pub(crate) fn hash(text: &str) -> String {
    let digest = ring::digest::digest(&ring::digest::SHA256, text.as_bytes());
    digest.as_ref().iter().fold(String::new(), |mut hex, byte| {
        // Writing to a String does not fail.
        write!(hex, "{byte:02x}").ok();
        hex
    })
}

#[cfg(test)]
mod tests;
