//! What can be asked of the settings of the pair.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::OfConfig;

/// `duolog config`.
#[derive(Args, Debug)]
pub(crate) struct Settings {
    /// What to do.
    #[command(subcommand)]
    pub verb: SettingsVerb,
}

/// What can be done with the settings of the pair.
#[derive(Debug, Subcommand)]
pub(crate) enum SettingsVerb {
    /// Print the settings that count, or an earlier version of them.
    Show(ShowSettings),
    /// Change one key on both nodes: pair.KEY, service.NAME.KEY or `virtual_ip.ADDRESS.KEY`.
    Set(SetKey),
    /// Change them in an editor (VISUAL or EDITOR), on both nodes.
    Edit(EditSettings),
    /// Check a file, of a node or of settings of the pair: every fault with its line. Exit code 1:
    /// it has some. Asks nobody.
    Check(CheckFile),
    /// List the versions that are kept: who made them, and when.
    History(SettingsHistory),
    /// Make the text of an earlier version the newest one, on both nodes.
    Back(BackTo),
    /// Move the settings of the pair out of a node's file into their document. The node must not
    /// run; do it on both.
    Import(OfConfig),
}

/// A node that is asked.
#[derive(Args, Clone, Debug)]
pub(crate) struct AskNode {
    /// Where the node on this computer listens [default: /run/duolog/1.sock].
    #[arg(long, value_name = "PATH", conflicts_with = "config")]
    pub socket: Option<PathBuf>,
    /// The configuration of the node on this computer, which names its socket.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

/// How a change is made.
#[derive(Args, Clone, Debug)]
pub(crate) struct Making {
    /// Also where the other node does not answer, or cannot take it; it takes the change over when it can.
    #[arg(long)]
    pub here: bool,
    /// Which node.
    #[command(flatten)]
    pub node: AskNode,
}

/// A version, as people write it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Wanted {
    /// Its number.
    pub version: u64,
    /// The node that made it, where there are two of that number.
    pub node: Option<u8>,
}

/// `duolog config show`.
#[derive(Args, Debug)]
pub(crate) struct ShowSettings {
    /// As one line of JSON.
    #[arg(long)]
    pub json: bool,
    /// An earlier version; N.1 or N.2 where both nodes made one of that number.
    #[arg(long, value_name = "N", value_parser = wanted)]
    pub version: Option<Wanted>,
    /// Also the hashes of passwords, which are not shown otherwise.
    #[arg(long)]
    pub secrets: bool,
    /// Which node; with its configuration it need not run.
    #[command(flatten)]
    pub node: AskNode,
}

/// `duolog config set`.
#[derive(Args, Debug)]
pub(crate) struct SetKey {
    /// Which, such as `pair.peer_lost_ms`.
    pub key: String,
    /// TOML, or a text without its quotes.
    #[arg(required_unless_present = "unset", allow_hyphen_values = true)]
    pub value: Option<String>,
    /// Take the key out: its default counts then.
    #[arg(long, conflicts_with = "value")]
    pub unset: bool,
    /// How.
    #[command(flatten)]
    pub making: Making,
}

/// `duolog config edit`.
#[derive(Args, Debug)]
pub(crate) struct EditSettings {
    /// How.
    #[command(flatten)]
    pub making: Making,
}

/// `duolog config check`.
#[derive(Args, Debug)]
pub(crate) struct CheckFile {
    /// The file; - for standard input.
    #[arg(value_name = "FILE|-")]
    pub file: PathBuf,
    /// Settings of the pair as this node would read them: with its directories, addresses and
    /// witness.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Settings of the pair as a node with a witness would read them, without naming one.
    #[arg(long, conflicts_with = "config")]
    pub witness: bool,
}

/// `duolog config history`.
#[derive(Args, Debug)]
pub(crate) struct SettingsHistory {
    /// As JSON, one line each.
    #[arg(long)]
    pub json: bool,
    /// Which node; with its configuration it need not run.
    #[command(flatten)]
    pub node: AskNode,
}

/// `duolog config back`.
#[derive(Args, Debug)]
pub(crate) struct BackTo {
    /// Which version; N.1 or N.2 where both nodes made one of that number.
    #[arg(value_name = "N", value_parser = wanted)]
    pub version: Wanted,
    /// How.
    #[command(flatten)]
    pub making: Making,
}

fn wanted(text: &str) -> Result<Wanted, String> {
    let (version, node) = match text.split_once('.') {
        None => (text, None),
        Some((version, "1")) => (version, Some(1)),
        Some((version, "2")) => (version, Some(2)),
        Some(_) => ("", None),
    };
    let version = version.parse();
    version
        .map(|version| Wanted { version, node })
        .map_err(|_| "write the number of a version, or N.1 or N.2".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_a_number_and_perhaps_a_node() {
        assert_eq!(wanted("12"), Ok(Wanted { version: 12, node: None }));
        assert_eq!(wanted("12.2"), Ok(Wanted { version: 12, node: Some(2) }));
        for text in ["", "x", "1.3", "1.", ".1", "-1"] {
            assert!(wanted(text).is_err(), "{text}");
        }
    }
}
