//! A process that commits rows to a `SQLite` database and keeps a journal of what it was promised,
//! until its standard input ends, or the database fails it.
//!
//! ```text
//! sqlite-writer DATABASE DELETE|WAL JOURNAL WRITER
//! ```

#![expect(clippy::unwrap_used, reason = "a test says what is wrong by panicking")]

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use duolog_tests::journal::Journal;
use duolog_tests::sqlite::{Mode, write};

fn main() {
    let arguments: Vec<_> = std::env::args().collect();
    let [_, database, mode, journal, writer] = &arguments[..] else {
        panic!("sqlite-writer DATABASE DELETE|WAL JOURNAL WRITER");
    };
    let stop = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&stop);
    std::thread::spawn(move || {
        // Nothing is ever written to it; whatever ends it, the parent wants no more.
        std::io::copy(&mut std::io::stdin(), &mut std::io::sink()).ok();
        told.store(true, Ordering::Relaxed);
    });
    let journal = Journal::open(Path::new(journal));
    let mode = Mode::named(mode).unwrap();
    let asked = || stop.load(Ordering::Relaxed);
    if let Err(error) = write(Path::new(database), mode, &journal, writer.parse().unwrap(), asked) {
        eprintln!("writer {writer}: {error}");
        std::process::exit(1);
    }
}
