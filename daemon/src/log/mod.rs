//! `duolog log`: looking at a log and recovering from it, on its segments alone.
//!
//! Nothing here needs a configuration or a node, `base` aside, and nothing here changes a segment.
//! One file a verb; `chain` follows records through `segments`, `show` puts them into words.

mod base;
mod chain;
mod export;
mod ls;
pub(crate) mod place;
mod print;
mod replay;
mod segments;
mod show;
mod verify;

use std::io::{self, Write};

use serde::Serialize;

use crate::cli::LogVerb;

/// Whether what was asked for was achieved.
pub(crate) fn run(verb: &LogVerb) -> anyhow::Result<bool> {
    match verb {
        LogVerb::Ls(options) => ls::run(options)?,
        LogVerb::Verify(options) => return verify::run(options),
        LogVerb::Print(options) => print::run(options)?,
        LogVerb::Export(options) => export::run(options)?,
        LogVerb::Replay(options) => replay::run(options)?,
        LogVerb::Base(options) => base::run(options)?,
    }
    Ok(true)
}

/// Prints one line of JSON.
fn say(answer: &impl Serialize) -> anyhow::Result<()> {
    println!("{}", serde_json::to_string(answer)?);
    Ok(())
}

/// Writes what may be long; a reader who has seen enough, as `head` has, is no error.
fn show(write: impl FnOnce(&mut dyn Write) -> anyhow::Result<()>) -> anyhow::Result<()> {
    let mut out = io::BufWriter::new(io::stdout().lock());
    let written = write(&mut out).and_then(|()| Ok(out.flush()?));
    match written {
        Err(error) if is_broken_pipe(&error) => {
            // What is left in the buffer has no reader any more.
            drop(out.into_parts());
            Ok(())
        }
        written => written,
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let error = error.downcast_ref::<io::Error>();
    error.is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}
