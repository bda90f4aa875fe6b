//! A password from where nobody sees it: a terminal that shows nothing, or a file. Never from the
//! command line, which every process of the computer can read.

use std::fs;
use std::io::{self, BufRead, IsTerminal, Read, Write};
use std::path::Path;

use anyhow::{Context, bail};
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};

/// Longest file of a password that is read, in bytes.
const FILE_MAX: u64 = 4096;

/// The password for `what`: from `file` ("-": standard input), else typed twice.
///
/// # Errors
/// There is neither a file nor a terminal; the two that were typed differ.
pub(crate) fn ask(what: &str, file: Option<&Path>) -> anyhow::Result<String> {
    if let Some(file) = file {
        return from_file(file);
    }
    if !io::stdin().is_terminal() {
        bail!(
            "there is no terminal to type {what} at; give it with --password-file FILE, or - for \
             standard input"
        );
    }
    let first = without_echo(&format!("{what}: "))?;
    if without_echo(&format!("{what}, once more: "))? != first {
        bail!("the two differ; nothing was changed");
    }
    Ok(first)
}

fn from_file(file: &Path) -> anyhow::Result<String> {
    let failed = || format!("cannot read the password from {}", file.display());
    let mut text = String::new();
    if file == Path::new("-") {
        io::stdin().lock().take(FILE_MAX).read_to_string(&mut text).with_context(failed)?;
    } else {
        let file = fs::File::open(file).with_context(failed)?;
        file.take(FILE_MAX).read_to_string(&mut text).with_context(failed)?;
    }
    let line = text.strip_suffix('\n').unwrap_or(&text);
    Ok(line.strip_suffix('\r').unwrap_or(line).to_owned())
}

fn without_echo(prompt: &str) -> anyhow::Result<String> {
    eprint!("{prompt}");
    io::stderr().flush()?;
    let _silence = Silence::begin()?;
    let mut line = String::new();
    io::stdin().lock().read_line(&mut line)?;
    eprintln!();
    Ok(line.trim_end_matches(['\n', '\r']).to_owned())
}

/// The terminal shows nothing as long as this is there.
struct Silence(Termios);

impl Silence {
    fn begin() -> io::Result<Self> {
        let before = tcgetattr(io::stdin())?;
        let mut silent = before.clone();
        silent.local_modes.remove(LocalModes::ECHO);
        tcsetattr(io::stdin(), OptionalActions::Flush, &silent)?;
        Ok(Self(before))
    }
}

impl Drop for Silence {
    fn drop(&mut self) {
        // The terminal went away, and nobody sees it any more.
        tcsetattr(io::stdin(), OptionalActions::Now, &self.0).ok();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_feed_at_the_end_of_a_file_is_not_of_the_password() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("password");
        for (text, password) in [("a b \n", "a b "), ("a\r\n", "a"), ("a", "a"), ("a\n\n", "a\n")] {
            fs::write(&file, text).unwrap();
            assert_eq!(ask("it", Some(&file)).unwrap(), password);
        }
        fs::remove_file(&file).unwrap();
        assert!(ask("it", Some(&file)).unwrap_err().to_string().contains("cannot read"));
    }
}
