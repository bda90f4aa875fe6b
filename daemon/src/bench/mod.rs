//! `duolog bench`: what a directory, the log alone, the link alone and each stage of a commit take on
//! this computer, for people who measure. Makes files of its own and removes them; touches nothing else.

mod anatomy;
mod block;
mod ends;
mod link;
mod log;
mod measure;
mod mount;
mod pair;

use crate::cli::Bench;

/// Measures what was asked for and prints it.
pub(crate) fn run(what: &Bench) -> anyhow::Result<()> {
    match what {
        Bench::Mount(options) => mount::run(options)?.print(options.load.json),
        Bench::Log(options) => log::run(options)?.print(options.load.json),
        Bench::Anatomy(options) => anatomy::run(options)?.print(options.load.json),
        Bench::Link(options) => link::run(options)?.print(options.load.json),
    }
}
