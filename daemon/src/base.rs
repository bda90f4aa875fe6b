//! Base copies on the node's side: what is refused, and the thread that copies and tells how far
//! it came. The copying itself is the engine's.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use duolog_engine::node::Node;
use tokio::sync::mpsc;

use crate::config::Config;
use crate::control::{Answer, BaseTaken, Reply};

/// Answers on their way to who asked; how far it came is left out when more wait.
const WAITING: usize = 4;

/// One at a time, whatever becomes of it.
#[derive(Debug)]
pub(crate) struct Turn(Arc<AtomicBool>);

impl Turn {
    /// Takes the turn, unless somebody has it; until it is dropped.
    pub(crate) fn take(copying: &Arc<AtomicBool>) -> Option<Self> {
        (!copying.swap(true, Ordering::AcqRel)).then(|| Self(copying.clone()))
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

/// What a base copy is taken of.
#[derive(Debug)]
pub(crate) struct Origin {
    /// The node, once it is open.
    pub node: Option<Arc<Node>>,
    /// Its configuration.
    pub config: Config,
    /// Somebody takes one.
    pub copying: Arc<AtomicBool>,
}

impl Origin {
    /// Begins to take a base copy. Who asked may go away: the copy is made all the same.
    pub(crate) fn take_base(self, dest: PathBuf) -> Reply {
        let (say, answers) = mpsc::channel(WAITING);
        let thread = std::thread::Builder::new().name("duolog-base".into()).spawn(move || {
            let last = self.copy(&dest, &say).unwrap_or_else(Answer::Refused);
            if say.blocking_send(last).is_err() {
                tracing::info!(dest = %dest.display(), "who asked for the base copy went away");
            }
        });
        match thread {
            Ok(_) => Reply::Later(answers),
            Err(error) => Reply::At(Answer::Refused(format!("cannot start a thread: {error}"))),
        }
    }

    fn copy(&self, dest: &Path, say: &mpsc::Sender<Answer>) -> Result<Answer, String> {
        let Some(node) = &self.node else {
            return Err("the node still recovers its log; ask again when it is ready".into());
        };
        check(&self.config, dest)?;
        let Some(_turn) = Turn::take(&self.copying) else {
            return Err("another base copy is being taken; wait for it".into());
        };
        tracing::info!(dest = %dest.display(), "taking a base copy");
        let mut on_bytes = |done, total| {
            // Left out when the one who asked is slower than the copy.
            say.try_send(Answer::Progress { done, total }).ok();
        };
        let report = node.copy_base(dest, &mut on_bytes).map_err(|error| {
            tracing::warn!(%error, "the base copy failed");
            format!("{:#}", anyhow::Error::new(error))
        })?;
        tracing::info!(from = %report.from, consistent_from = %report.consistent_from, "took a base copy");
        Ok(Answer::Base(BaseTaken {
            from: report.from.0,
            consistent_from: report.consistent_from.0,
            files: report.files,
            bytes: report.bytes,
            state_dir: self.config.state_dir.clone(),
            recovery_window_bytes: self.config.log.recovery_window_bytes,
        }))
    }
}

/// Refuses a destination that the copy would be a part of.
fn check(config: &Config, dest: &Path) -> Result<(), String> {
    let shown = dest.display();
    let parent = match dest.parent() {
        Some(parent) if dest.is_absolute() => parent,
        _ => return Err(format!("{shown} is no absolute path")),
    };
    let parent = parent
        .canonicalize()
        .map_err(|error| format!("the directory of {shown} cannot be used: {error}"))?;
    for directory in &config.directories {
        let own = &directory.path;
        let hidden = own.file_name().map(|name| {
            let mut hidden = std::ffi::OsString::from(".");
            hidden.push(name);
            hidden.push(".duolog");
            own.with_file_name(hidden)
        });
        let within = [Some(own.clone()), hidden]
            .into_iter()
            .flatten()
            .any(|inner| parent.starts_with(inner.canonicalize().unwrap_or(inner)));
        if within {
            let own = own.display();
            return Err(format!(
                "{shown} is part of what is copied; name a place outside of {own}"
            ));
        }
    }
    Ok(())
}
