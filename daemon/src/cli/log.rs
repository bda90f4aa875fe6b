//! The command line of `duolog log`.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use duolog_wal::Lsn;

use crate::log::place::{self, Mark};

const PLACES: &str = "\
A position (LSN) is written as it is shown, 0/00001000, or as a plain number of bytes; a moment as
2026-11-22T18:00:00Z (RFC 3339) or as @1795370400000000000 (nanoseconds since 1970).";

/// `duolog log`.
#[derive(Args, Debug)]
#[command(after_help = PLACES)]
pub(crate) struct Log {
    /// What to do.
    #[command(subcommand)]
    pub verb: LogVerb,
}

/// What can be done with a log.
#[derive(Debug, Subcommand)]
pub(crate) enum LogVerb {
    /// List segments and branches: where each begins and ends.
    Ls(Ls),
    /// Check every byte; exit code 1 and the first bad place when something is damaged.
    Verify(Verify),
    /// Show the records, one a line.
    Print(Print),
    /// Copy a part of the log to a directory that reads alone.
    Export(Export),
    /// Bring a base copy to a position or a moment.
    Replay(Replay),
    /// Take a base copy from the node in service on this computer.
    Base(Base),
}

/// `duolog log ls`.
#[derive(Args, Debug)]
pub(crate) struct Ls {
    /// Directories with segments (such as a node's `state_dir`), or segments.
    #[arg(required = true, value_name = "DIR|FILE")]
    pub paths: Vec<PathBuf>,
    /// As one line of JSON.
    #[arg(long)]
    pub json: bool,
}

/// `duolog log verify`.
#[derive(Args, Debug)]
pub(crate) struct Verify {
    /// Directories with segments (such as a node's `state_dir`), or segments.
    #[arg(required = true, value_name = "DIR|FILE")]
    pub paths: Vec<PathBuf>,
    /// As one line of JSON.
    #[arg(long)]
    pub json: bool,
}

/// `duolog log print`.
#[derive(Args, Clone, Debug)]
pub(crate) struct Print {
    /// Directories with segments (such as a node's `state_dir`), or segments.
    #[arg(required = true, value_name = "DIR|FILE")]
    pub paths: Vec<PathBuf>,
    /// Of this branch, as `duolog branches` shows it, in the place of the log itself.
    #[arg(long, value_name = "NAME")]
    pub branch: Option<String>,
    /// The first record at or behind this position, or of this moment [default for a branch: where
    /// it leaves the log].
    #[arg(long, value_name = "LSN|TIME", value_parser = place::mark)]
    pub from: Option<Mark>,
    /// Up to this position, or to the end of this moment.
    #[arg(long, value_name = "LSN|TIME", value_parser = place::mark)]
    pub to: Option<Mark>,
    /// The data of writes and attributes too, in hexadecimal.
    #[arg(long)]
    pub data: bool,
    /// As JSON, one object a line.
    #[arg(long)]
    pub json: bool,
}

/// `duolog log export`.
#[derive(Args, Debug)]
pub(crate) struct Export {
    /// Directories with segments (such as a node's `state_dir`), or segments.
    #[arg(required = true, value_name = "DIR|FILE")]
    pub paths: Vec<PathBuf>,
    /// Of this branch, as `duolog branches` shows it, in the place of the log itself.
    #[arg(long, value_name = "NAME")]
    pub branch: Option<String>,
    /// Where the copy goes: a directory that is empty or not there yet.
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// The record that holds this position is the first; the first one there is otherwise.
    #[arg(long, value_name = "LSN", value_parser = place::lsn)]
    pub from: Option<Lsn>,
    /// The copy ends with the last record that ends at or before this position.
    #[arg(long, value_name = "LSN", value_parser = place::lsn)]
    pub to: Option<Lsn>,
    /// As one line of JSON.
    #[arg(long)]
    pub json: bool,
}

/// `duolog log replay`.
#[derive(Args, Debug)]
pub(crate) struct Replay {
    /// A base copy, as `duolog log base` makes it.
    pub base: PathBuf,
    /// Directories with segments (such as a node's `state_dir`), or segments.
    #[arg(long, required = true, num_args = 1.., value_name = "DIR|FILE")]
    pub segments: Vec<PathBuf>,
    /// Up to this position, or to the end of this moment [default: all there is].
    #[arg(long, value_name = "LSN|TIME", value_parser = place::mark)]
    pub until: Option<Mark>,
    /// Take away afterwards what Duolog notes on the files, and the manifest: nothing can be
    /// replayed any more.
    #[arg(long)]
    pub plain: bool,
    /// As one line of JSON.
    #[arg(long)]
    pub json: bool,
}

/// `duolog log base`.
#[derive(Args, Debug)]
pub(crate) struct Base {
    /// Where the copy goes: an absolute path that does not exist, outside of the replicated
    /// directories. The node writes it.
    pub dest: PathBuf,
    /// Where the node listens [default: /run/duolog/1.sock].
    #[arg(long, value_name = "PATH", conflicts_with = "config")]
    pub socket: Option<PathBuf>,
    /// The node's configuration, which names its socket.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// As one line of JSON.
    #[arg(long)]
    pub json: bool,
}
