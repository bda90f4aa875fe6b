//! The other node's part of a snapshot: sent there, taken in here. What comes is data of another
//! computer: names that lead elsewhere, or more than any snapshot holds, are refused.

use std::collections::HashSet;
use std::io::{self, Read};
use std::path::{Component, Path};

use anyhow::{Context, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::Out;
use super::snapshot::{OTHER_BYTES_MAX, OTHER_FILES_MAX, own_part};
use crate::across::{PIECE_MAX, Sender};
use crate::config::Config;
use crate::control::{self, Answer, Question};

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
    bytes: Vec<u8>,
    taken: u64,
    names: HashSet<String>,
}

impl<O: Out> Intake<'_, O> {
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
                self.bytes.extend(bytes);
            }
            _ => {}
        }
        Ok(())
    }

    fn end(&mut self) -> anyhow::Result<()> {
        if let Some(name) = self.name.take() {
            self.out.add(&name, &mut std::mem::take(&mut self.bytes).as_slice())?;
        }
        Ok(())
    }
}

/// Asks the node here for the part of the other one; returns what is missing in that.
///
/// # Errors
/// It cannot be had whole: the node does not run, or does not reach the other one.
pub(super) fn ask(config: &Config, out: &mut impl Out) -> anyhow::Result<Vec<String>> {
    let mut intake = Intake { out, name: None, bytes: Vec::new(), taken: 0, names: HashSet::new() };
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

    fn taken(answers: &[Answer]) -> anyhow::Result<Vec<(String, usize)>> {
        let mut kept = Kept::default();
        let (bytes, names) = (Vec::new(), HashSet::new());
        let mut intake = Intake { out: &mut kept, name: None, bytes, taken: 0, names };
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
