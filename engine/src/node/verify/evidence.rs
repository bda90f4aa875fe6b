//! What a verification found different, kept on both nodes: a folder for each pass in the state
//! directory, the same name on either.
//!
//! ```text
//! evidence/
//!   verify-PASS/              PASS: where the pass' first mark stands in the log, in hexadecimal
//!     report.json             on the node that verified: what differs, where, both hashes
//!     AT-ID-OFFSET.bytes      what this node had in that range when its apply came to AT
//!     AT-ID.names             the same of names and attributes, in words
//! ```
//! Bounded: [`BYTES_MAX`] of a pass, and the newest [`PASSES_MAX`] passes. Nothing rests on it, so it
//! is not synced, and what cannot be written is left out and said in the log.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use duolog_wal::{FileId, Lsn};

use crate::store::Look;

/// Bytes that are kept of one pass on each node.
pub const BYTES_MAX: u64 = 64 << 20;
/// Passes that are kept.
pub const PASSES_MAX: usize = 8;
const FOLDER: &str = "evidence";
const PREFIX: &str = "verify-";

/// The folder of a pass, below the state directory.
pub(super) fn folder(pass: Lsn) -> String {
    format!("{FOLDER}/{PREFIX}{:016x}", pass.0)
}

/// What this node has, to be kept.
pub(super) enum Piece<'a> {
    Bytes { offset: u64, bytes: &'a [u8] },
    Names(Option<&'a Look>),
    Report(&'a [u8]),
}

/// Keeps a piece of what was found at `at`.
///
/// # Errors
/// What the file system says; `StorageFull` also when the pass has taken all that it may.
pub(super) fn keep(
    state_dir: &Path,
    pass: Lsn,
    at: Lsn,
    id: FileId,
    piece: &Piece<'_>,
) -> io::Result<()> {
    let folder = state_dir.join(folder(pass));
    if !folder.exists() {
        make(state_dir, &folder)?;
    }
    let (name, bytes) = match piece {
        Piece::Bytes { offset, bytes } => {
            (format!("{:016x}-{}-{offset}.bytes", at.0, id.0), bytes.to_vec())
        }
        Piece::Names(look) => (format!("{:016x}-{}.names", at.0, id.0), words(*look).into_bytes()),
        Piece::Report(text) => ("report.json".to_owned(), text.to_vec()),
    };
    if !matches!(piece, Piece::Report(_)) {
        let taken: u64 = fs::read_dir(&folder)?
            .map(|entry| Ok(entry?.metadata()?.len()))
            .sum::<io::Result<u64>>()?;
        if taken + bytes.len() as u64 > BYTES_MAX {
            return Err(io::ErrorKind::StorageFull.into());
        }
    }
    fs::write(folder.join(name), bytes)
}

/// Makes the folder of a pass and removes those of the oldest passes.
fn make(state_dir: &Path, folder: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    let mut passes: Vec<PathBuf> = Vec::new();
    for entry in fs::read_dir(state_dir.join(FOLDER))? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with(PREFIX) {
            passes.push(entry.path());
        }
    }
    // Positions only grow, and have as many digits.
    passes.sort();
    for old in passes.iter().rev().skip(PASSES_MAX).filter(|old| *old != folder) {
        fs::remove_dir_all(old)?;
    }
    Ok(())
}

fn words(look: Option<&Look>) -> String {
    let Some(look) = look else { return "no such file\n".into() };
    let mut out = String::new();
    let hex = |bytes: &[u8]| {
        bytes.iter().fold(String::new(), |mut text, byte| {
            write!(text, "{byte:02x}").expect(IN_MEMORY);
            text
        })
    };
    for flaw in &look.flaws {
        writeln!(out, "others: {flaw}").expect(IN_MEMORY);
    }
    if let Some(facts) = &look.facts {
        let time = facts.mtime;
        writeln!(out, "mode: {:o}\nuid: {}\ngid: {}", facts.mode, facts.uid, facts.gid)
            .expect(IN_MEMORY);
        writeln!(out, "device: {}\nsize: {}", facts.device, facts.size).expect(IN_MEMORY);
        writeln!(out, "mtime: {}.{:09}", time.seconds, time.nanos).expect(IN_MEMORY);
        if !facts.target.is_empty() {
            writeln!(out, "target: {}", facts.target.escape_ascii()).expect(IN_MEMORY);
        }
        for (parent, name) in &facts.links {
            writeln!(out, "name: {} in {}", name.escape_ascii(), parent.0).expect(IN_MEMORY);
        }
        for (name, value) in &facts.xattrs {
            writeln!(out, "attribute: {} {}", name.escape_ascii(), hex(value)).expect(IN_MEMORY);
        }
    }
    for (name, id) in &look.inside {
        writeln!(out, "inside: {} {}", name.escape_ascii(), id.0).expect(IN_MEMORY);
    }
    out
}

/// Why writing to a string does not fail.
const IN_MEMORY: &str = "a string grows as needed";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn evidence_is_bounded_in_bytes_and_in_passes() {
        let at = tempfile::tempdir().unwrap();
        let big = vec![7; usize::try_from(BYTES_MAX / 2).unwrap()];
        let put = |pass, offset, bytes: &[u8]| {
            let piece = Piece::Bytes { offset, bytes };
            keep(at.path(), Lsn(pass), Lsn(pass + 1), FileId(1024), &piece)
        };
        put(1, 0, &big).unwrap();
        put(1, 1, &big).unwrap();
        let full = put(1, 2, b"x").unwrap_err();
        assert_eq!(full.kind(), io::ErrorKind::StorageFull);
        for pass in 2..=PASSES_MAX as u64 + 1 {
            put(pass, 0, b"x").unwrap();
        }
        assert!(!at.path().join(folder(Lsn(1))).exists(), "the oldest pass goes");
        assert!(at.path().join(folder(Lsn(2))).exists());
    }
}
