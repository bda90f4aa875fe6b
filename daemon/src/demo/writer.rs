//! The demo's writer, run as a process of its own (`duolog demo-writer`): the kill of node1 takes
//! its directory away under it, which may end it with an I/O error or by a signal.
//!
//! One commit a row and thread; each acknowledged commit stands in the journal before the
//! thread's next one begins. It writes until a commit fails.

use std::sync::Arc;
use std::thread;
use std::time::Instant;

use anyhow::Context;

use super::journal::Journal;
use super::rows::{Row, RowId};
use super::{postgresql, sqlite};
use crate::cli::{DemoWriter, Engine};

enum Connection {
    Sqlite(sqlite::Writer),
    Postgresql(Box<postgresql::Writer>),
}

impl Connection {
    fn open(options: &DemoWriter) -> anyhow::Result<Self> {
        Ok(match options.engine {
            Engine::Sqlite => Self::Sqlite(sqlite::Writer::connect(&options.target)?),
            Engine::Postgresql => {
                Self::Postgresql(Box::new(postgresql::Writer::connect(&options.target)?))
            }
        })
    }

    fn commit(&mut self, row: &Row) -> anyhow::Result<()> {
        match self {
            Self::Sqlite(writer) => writer.commit(row),
            Self::Postgresql(writer) => writer.commit(row),
        }
    }
}

/// `duolog demo-writer`. Returns once every thread has met its first failure, which is what the
/// demo expects.
pub(crate) fn run(options: &DemoWriter) -> anyhow::Result<()> {
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))
        .context("cannot bind the writer's life to the demo's")?;
    let journal = Arc::new(Journal::begin(&options.journal)?);
    let mut threads = Vec::new();
    for writer in 0..options.writers {
        let (mut connection, journal) = (Connection::open(options)?, journal.clone());
        let seed = options.seed;
        threads.push(thread::spawn(move || -> anyhow::Error {
            for number in 1.. {
                let row = Row::new(seed, RowId { writer, number });
                let begun = Instant::now();
                if let Err(error) = connection.commit(&row) {
                    return error.context(format!("row {number} of writer {writer}"));
                }
                if let Err(error) = journal.add(row.id, begun.elapsed()) {
                    return anyhow::Error::new(error).context("the journal");
                }
            }
            anyhow::anyhow!("every row number is used up")
        }));
    }
    for thread in threads {
        match thread.join() {
            Ok(ended) => eprintln!("not acknowledged: {ended:#}"),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }
    Ok(())
}
