//! What the control socket answers of the settings of the pair.

use std::sync::Arc;

use tokio::sync::mpsc;

use super::{ChangeError, Document, Documents, Name};
use crate::actions::WHO_MAX;
use crate::control::{Answer, Reply};

/// A version, or the one that counts.
pub(crate) fn answer_show(documents: &Documents, version: Option<u64>, node: Option<u8>) -> Answer {
    if documents.in_file() {
        return Answer::Refused(ChangeError::InFile.to_string());
    }
    let history = documents.history();
    let Some(version) = version else {
        return Answer::Settings(history.last().cloned().map(Box::new));
    };
    find(&history, version, node).map_or_else(
        || Answer::Refused(format!("there is no version {version}; see duolog config history")),
        |document| Answer::Settings(Some(Box::new(document.clone()))),
    )
}

/// The version of that number; of several the one that was not set aside, unless a node is named.
pub(super) fn find(history: &[Document], version: u64, node: Option<u8>) -> Option<&Document> {
    let wanted = |document: &&Document| {
        document.stamp.version == version && node.is_none_or(|node| document.stamp.node == node)
    };
    let mut found = history.iter().rev().filter(wanted);
    let first = found.clone().find(|document| document.stamp.aside_for.is_none());
    first.or_else(|| found.next())
}

/// All that are kept.
pub(crate) fn answer_history(documents: &Documents) -> Answer {
    if documents.in_file() {
        return Answer::Refused(ChangeError::InFile.to_string());
    }
    let stamps = documents.history().into_iter().map(|document| document.stamp);
    Answer::SettingsHistory(stamps.collect())
}

/// Begins a change on a thread of its own, because the other node is asked.
pub(crate) fn answer_change(
    documents: Arc<Documents>,
    base: Option<Name>,
    text: String,
    who: &str,
    here: bool,
) -> Reply {
    // It travels, and is shown in a line.
    let mut who = who.replace(char::is_control, " ");
    who.truncate(who.floor_char_boundary(WHO_MAX));
    let (say, answers) = mpsc::channel(1);
    let begun = std::thread::Builder::new().name("duolog-settings".into()).spawn(move || {
        let answer = match documents.change(base.as_ref(), text, who.into(), here) {
            Ok(changed) => Answer::SettingsChanged(Box::new(changed)),
            Err(ChangeError::Faulty(faults)) => Answer::SettingsFaulty(faults),
            Err(error) => Answer::Refused(error.to_string()),
        };
        // Whoever asked may have gone away; what was changed stays so.
        say.blocking_send(answer).ok();
    });
    match begun {
        Ok(_) => Reply::Later(answers),
        Err(error) => {
            Reply::At(Answer::Refused(format!("no thread can be started for it: {error}")))
        }
    }
}
