//! Words that nobody between the nodes is to read: what is said of the settings of the pair.

use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD_NO_PAD as BASE64;
use duolog_beat::Seal;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{Answer, Ask, OtherNode, Words};
use crate::document::said::{Asked, Said, Ways};

impl Words {
    /// Seals with this what nobody else is to read.
    pub(crate) fn seal_with(&self, seal: Seal) {
        if self.seal.set(seal).is_err() {
            unreachable!("a node lives once");
        }
    }

    /// Seals something; nothing when that cannot be done now.
    pub(super) fn close(&self, what: &impl Serialize) -> Option<String> {
        let text = serde_json::to_vec(what).ok()?;
        self.seal.get()?.close(&text).ok().map(|sealed| BASE64.encode(sealed))
    }

    /// What [`Words::close`] sealed at the other node.
    pub(super) fn open<T: DeserializeOwned>(&self, sealed: &str) -> Option<T> {
        let text = self.seal.get()?.open(&BASE64.decode(sealed).ok()?)?;
        serde_json::from_slice(&text).ok()
    }
}

impl Ways for OtherNode {
    fn ask(&self, what: Asked, patience: Duration) -> Option<Said> {
        let sealed = self.words.close(&what)?;
        match self.words.ask(Ask::Settings(sealed), patience)? {
            Answer::Settings(said) => self.words.open(&said),
            _ => None,
        }
    }
}
