//! The other node's part of a snapshot: sent there, taken in here. What comes is data of another
//! computer: names that lead elsewhere, or more than any snapshot holds, are refused. A file waits until
//! it is whole in a file of its own without a name, never in memory, so nothing of it stays behind.

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, Read, Seek as _, Write as _};
use std::path::{Component, Path};

use anyhow::{Context, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::snapshot::{OTHER_BYTES_MAX, OTHER_FILES_MAX, own_part};
use super::{Out, unnamed};
use crate::across::{PIECE_MAX, Sender};
use crate::config::Config;
use crate::control::{self, Answer, Question};

/// What has to stay free where the other node's part waits: it stands beside this node's log and state.
const LEFT_FREE_BYTES: u64 = 256 << 20;
/// The longest name of a file.
const NAME_BYTES_MAX: usize = 300;

impl Out for Sender<'_> {
    fn add(&mut self, name: &str, from: &mut dyn Read) -> io::Result<()> {
        self.name(name)?;
        let mut piece = vec![0; PIECE_MAX];
        loop {
            match from.read(&mut piece)? {
                0 => return Ok(()),
                read => self.data(&piece[..read])?,
            }
        }
    }
}

/// Sends this node's part of a snapshot; returns what is missing in it.
///
/// # Errors
/// The other node takes no more.
pub(crate) fn send_own(
    config: &Config,
    file: &Path,
    to: &mut Sender<'_>,
) -> anyhow::Result<Vec<String>> {
    let mut missing = Vec::new();
    own_part(config, file, to, &mut missing)?;
    Ok(missing)
}

/// Whether a file of that name belongs into the folder of the other node.
fn belongs(name: &str) -> bool {
    let normal = |part| matches!(part, Component::Normal(_));
    let inside = !name.is_empty() && Path::new(name).components().all(normal);
    inside && name.len() <= NAME_BYTES_MAX && !name.contains(['\\', '\0'])
}

/// Takes in files one after the other, whole ones.
struct Intake<'a, O> {
    out: &'a mut O,
    name: Option<String>,
    /// What came of the file so far.
    part: File,
    taken: u64,
    names: HashSet<String>,
}

impl<'a, O: Out> Intake<'a, O> {
    /// Files wait below `place`.
    ///
    /// # Errors
    /// As [`unnamed`].
    fn new(place: &Path, out: &'a mut O) -> anyhow::Result<Self> {
        let part = unnamed(place)?;
        Ok(Self { out, name: None, part, taken: 0, names: HashSet::new() })
    }

    fn take(&mut self, answer: &Answer) -> anyhow::Result<()> {
        match answer {
            Answer::File(name) => {
                self.end()?;
                let another = belongs(name) && self.names.insert(name.clone());
                if !another || self.names.len() > OTHER_FILES_MAX {
                    bail!("the other node sent a file that no snapshot has: {name:?}");
                }
                self.name = Some(name.clone());
            }
            Answer::Bytes(text) => {
                let bytes = STANDARD.decode(text).context("bytes that are none")?;
                self.taken += bytes.len() as u64;
                if self.taken > OTHER_BYTES_MAX || self.name.is_none() {
                    bail!("the other node sent more than any snapshot holds");
                }
                let room = rustix::fs::fstatvfs(&self.part)?;
                if room.f_bavail.saturating_mul(room.f_frsize) < LEFT_FREE_BYTES {
                    bail!("no room for the other node's part: 256 MiB stay free for this node");
                }
                self.part.write_all(&bytes).context("no room for the other node's part")?;
            }
            _ => {}
        }
        Ok(())
    }

    fn end(&mut self) -> anyhow::Result<()> {
        if let Some(name) = self.name.take() {
            self.part.rewind()?;
            self.out.add(&name, &mut self.part)?;
            self.part.set_len(0)?;
            self.part.rewind()?;
        }
        Ok(())
    }
}

/// Asks the node here for the part of the other one; returns what is missing in that.
///
/// # Errors
/// It cannot be had whole: the node does not run, or does not reach the other one.
pub(super) fn ask(config: &Config, out: &mut impl Out) -> anyhow::Result<Vec<String>> {
    let mut intake = Intake::new(&config.state_dir, out)?;
    let mut failed = None;
    let mut on_way = |answer: &Answer| {
        if failed.is_none() {
            failed = intake.take(answer).err();
        }
    };
    let told = control::ask(&config.control_socket, &Question::OtherSupport, &mut on_way)?;
    if let Some(failed) = failed {
        return Err(failed);
    }
    intake.end()?;
    match told {
        Answer::Told { missing } => Ok(missing),
        _ => bail!("the node here answered another question; use the duolog that it runs with"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Kept(Vec<(String, usize)>);

    impl Out for Kept {
        fn add(&mut self, name: &str, from: &mut dyn Read) -> io::Result<()> {
            let mut bytes = Vec::new();
            from.read_to_end(&mut bytes)?;
            self.0.push((name.into(), bytes.len()));
            Ok(())
        }
    }

    /// How long each file is.
    #[derive(Default)]
    struct Count(Vec<u64>);

    impl Out for Count {
        fn add(&mut self, _: &str, from: &mut dyn Read) -> io::Result<()> {
            self.0.push(io::copy(from, &mut io::sink())?);
            Ok(())
        }
    }

    /// Peak of this process's memory, in bytes.
    fn peak() -> u64 {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        line.trim().strip_suffix(" kB").unwrap().parse::<u64>().unwrap() * 1024
    }

    /// A log of the other node may be long, and this one has commits to hold.
    #[test]
    fn a_file_of_the_other_node_takes_no_memory_and_leaves_nothing() {
        const BYTES: usize = 256 << 20;
        let place = tempfile::tempdir().unwrap();
        let mut kept = Count::default();
        let mut intake = Intake::new(place.path(), &mut kept).unwrap();
        let piece = Answer::Bytes(STANDARD.encode(vec![7; PIECE_MAX]));
        let before = peak();
        for name in ["logs/module.log", "logs/application.log"] {
            intake.take(&Answer::File(name.into())).unwrap();
            for _ in 0..BYTES / PIECE_MAX / 2 {
                intake.take(&piece).unwrap();
            }
        }
        intake.end().unwrap();
        let grown = peak() - before;
        assert!(grown < BYTES as u64 / 8, "{grown} bytes of memory for {BYTES}");
        assert_eq!(kept.0, [BYTES as u64 / 2; 2]);
        assert_eq!(std::fs::read_dir(place.path()).unwrap().count(), 0, "a file stays behind");
    }

    #[test]
    fn where_the_state_directory_takes_nothing_the_file_waits_elsewhere() {
        let mut kept = Kept::default();
        let mut intake = Intake::new(Path::new("/proc/none"), &mut kept).unwrap();
        intake.take(&Answer::File("one".into())).unwrap();
        intake.take(&Answer::Bytes(STANDARD.encode([1, 2]))).unwrap();
        intake.end().unwrap();
        assert_eq!(kept.0, [("one".to_owned(), 2)]);
    }

    fn taken(answers: &[Answer]) -> anyhow::Result<Vec<(String, usize)>> {
        let mut kept = Kept::default();
        let place = tempfile::tempdir().unwrap();
        let mut intake = Intake::new(place.path(), &mut kept)?;
        answers.iter().try_for_each(|answer| intake.take(answer))?;
        intake.end()?;
        Ok(kept.0)
    }

    #[test]
    fn files_are_taken_in_whole_and_names_that_lead_elsewhere_are_refused() {
        let file = |name: &str| Answer::File(name.into());
        let bytes = |len| Answer::Bytes(STANDARD.encode(vec![7; len]));
        let two = [file("dumps/1/about.json"), bytes(3), bytes(4), file("empty")];
        let whole = [("dumps/1/about.json".to_owned(), 7), ("empty".to_owned(), 0)];
        assert_eq!(taken(&two).unwrap(), whole);
        for name in ["", "/etc/passwd", "../x", "a/../../x", "a\\b", &"x".repeat(301), "./x"] {
            assert!(taken(&[file(name)]).is_err(), "{name}");
        }
        assert!(taken(&[file("twice"), file("twice")]).is_err());
        assert!(taken(&[bytes(1)]).is_err(), "bytes of no file");
        assert!(taken(&[file("x"), Answer::Bytes("?".into())]).is_err());
    }
}
