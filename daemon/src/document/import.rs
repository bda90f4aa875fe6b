//! `duolog config import`: the settings of the pair, moved from a node's file into version 1 of their
//! document. The node does not run meanwhile, because a process goes by what it read at its start.
//!
//! The version is durable before the file changes: whoever is interrupted between has both, which
//! the next start says, and importing again goes on. The file as it was stays beside it.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use toml_edit::DocumentMut;

use super::{Document, keep, open, versions};
use crate::act::who;
use crate::config::shared::TABLES;
use crate::config::{Config, Settled, Shared};
use crate::control::{self, AskError};
use crate::pair::wall_ms;

/// Moves them.
pub(super) fn run(file: &Path) -> anyhow::Result<()> {
    let config = Config::load_own(file)?;
    if config.settled != Settled::InFile {
        bail!("{} holds no settings of the pair; there is nothing to move", file.display());
    }
    if !matches!(control::status(&config.control_socket), Err(AskError::NotRunning { .. })) {
        bail!("the node runs; stop it, move its settings, and start it again");
    }
    let text = fs::read_to_string(file)?;
    let (own, shared) = split(&text)?;
    // Nothing may be lost or read in another way than before.
    let base = file.parent().unwrap_or(Path::new(""));
    let as_before = Shared::parse(&shared, &config.around())
        .is_ok_and(|shared| shared == config.shared())
        && Config::parse(&own, base).is_ok_and(|config| config.settled == Settled::Nowhere);
    if !as_before {
        bail!(
            "the settings of the pair cannot be taken out of {} as they stand there; write [pair], \
             [[virtual_ip]] and [[service]] as tables of their own, with nothing between their lines",
            file.display()
        );
    }
    let directory = config.documents();
    match versions(&directory)?.pop() {
        None => {
            let document = Document::new(1, config.node.number(), wall_ms(), who(), shared);
            keep(&open(&directory)?, &document).context("cannot keep the settings")?;
        }
        Some(there) => {
            let same = Shared::parse(&there.text, &config.around());
            if same.ok() != Some(config.shared()) {
                bail!(
                    "there is a document already ({}), and it is another one; take the tables out \
                     of {} by hand (duolog config show prints what counts)",
                    there.stamp.title(),
                    file.display()
                );
            }
        }
    }
    let before = rewrite(file, &text, &own)?;
    println!(
        "the settings of the pair are in their document now (duolog config show); {} holds the rest, \
         and {} what it held before",
        file.display(),
        before.display()
    );
    Ok(())
}

/// The text of a node's file without the settings of the pair, and those.
fn split(text: &str) -> anyhow::Result<(String, String)> {
    let mut own: DocumentMut = text.parse()?;
    let mut shared = DocumentMut::new();
    for table in TABLES {
        if let Some(item) = own.remove(table) {
            shared.insert(table, item);
        }
    }
    let shared = shared.to_string();
    Ok((own.to_string(), shared.trim_start_matches('\n').to_owned()))
}

/// Puts another text into a file, whole or not at all; where the one before is kept.
fn rewrite(file: &Path, before: &str, text: &str) -> anyhow::Result<PathBuf> {
    let mut kept = file.as_os_str().to_owned();
    kept.push(".before-document");
    let kept = PathBuf::from(kept);
    put(&kept, before, file)?;
    put(file, text, file)?;
    Ok(kept)
}

/// Writes a file with the permissions of another one.
fn put(path: &Path, text: &str, like: &Path) -> anyhow::Result<()> {
    let failed = || format!("cannot write {}", path.display());
    let directory = match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    let mut new = tempfile::NamedTempFile::new_in(directory).with_context(failed)?;
    new.write_all(text.as_bytes()).with_context(failed)?;
    fs::set_permissions(new.path(), fs::metadata(like)?.permissions()).with_context(failed)?;
    rustix::fs::fsync(new.as_file()).with_context(failed)?;
    new.persist(path).with_context(failed)?;
    rustix::fs::fsync(&fs::File::open(directory)?).with_context(failed)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAMPLE: &str = include_str!("../../../packaging/duolog.toml");

    /// Comments go with what they are about.
    #[test]
    fn the_sample_comes_apart_and_nothing_is_lost() {
        let (own, shared) = split(SAMPLE).unwrap();
        let base = Path::new("/etc/duolog");
        let (whole, own) =
            (Config::parse(SAMPLE, base).unwrap(), Config::parse(&own, base).unwrap());
        assert_eq!(own.settled, Settled::Nowhere);
        assert_eq!(Shared::parse(&shared, &own.around()).unwrap(), whole.shared());
        assert_eq!((own.directories, own.paths), (whole.directories, whole.paths));
        for comment in
            ["# Whether a node that failed takes part again", "# What starts it: the path"]
        {
            assert!(shared.contains(comment), "{shared}");
        }
        let first = shared.find("[[service]]").unwrap();
        assert!(shared.find("[[service.checker]]").unwrap() > first);
    }

    #[test]
    fn an_import_that_was_interrupted_goes_on() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("node.toml");
        let state = dir.path().join("state");
        let socket = dir.path().join("no.sock");
        let text = SAMPLE
            .replace("/var/lib/duolog/1", state.to_str().unwrap())
            .replace("/run/duolog/1.sock", socket.to_str().unwrap());
        fs::write(&file, &text).unwrap();
        let before = Config::load(&file).unwrap();
        assert_eq!(before.settled, Settled::InFile);
        run(&file).unwrap();
        let after = Config::load(&file).unwrap();
        assert!(matches!(&after.settled, Settled::Document(stamp) if stamp.version == 1));
        assert_eq!(after.shared(), before.shared());
        // As it is when the file was not written any more.
        fs::write(&file, &text).unwrap();
        let both = Config::load(&file).unwrap_err().to_string();
        assert!(both.contains("pair: stands here, and the settings of the pair are in"), "{both}");
        assert!(both.contains("service: ") && both.contains("take the table out"), "{both}");
        run(&file).unwrap();
        assert_eq!(Config::load(&file).unwrap().shared(), before.shared());
        let kept = fs::read_to_string(dir.path().join("node.toml.before-document")).unwrap();
        assert_eq!(kept, text);
        let nothing = run(&file).unwrap_err().to_string();
        assert!(nothing.contains("nothing to move"), "{nothing}");
    }
}
