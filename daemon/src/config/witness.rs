//! The configuration of a witness: a TOML file of its own, checked whole like a node's.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use duolog_wal::ClusterId;

use super::node::read_cluster_id;
use super::reader::{Fault, Faults, Section};
use super::values::{absolute, address, required};
use super::{ConfigError, parse, read_file};

/// More pairs than one process is meant for.
const PAIRS_MAX: usize = 10_000;

/// Everything that a witness is told.
#[derive(Clone, Debug)]
pub(crate) struct WitnessConfig {
    /// Where it listens (UDP).
    pub listen: SocketAddr,
    /// Where it keeps a file for each pair.
    pub state_dir: PathBuf,
    /// The pairs that it serves.
    pub pairs: Vec<WitnessPair>,
}

/// A pair as its witness knows it.
#[derive(Clone, Debug)]
pub(crate) struct WitnessPair {
    /// The pair.
    pub cluster: ClusterId,
    /// Files with the keys that it shares with node1 and with node2.
    pub keys: [PathBuf; 2],
}

impl WitnessConfig {
    /// Reads and checks the file. Paths of keys are relative to it.
    ///
    /// # Errors
    /// [`ConfigError::Unreadable`], or [`ConfigError::Faulty`] with every fault.
    pub(crate) fn load(path: &Path) -> Result<Self, ConfigError> {
        let text = read_file(path)?;
        let base = path.parent().unwrap_or(Path::new(""));
        Self::parse(&text, base)
            .map_err(|faults| ConfigError::Faulty { path: path.to_owned(), faults })
    }

    fn parse(text: &str, base: &Path) -> Result<Self, Vec<Fault>> {
        parse(text, "packaging/witness.toml", |faults, mut root| {
            let listen = match root.string(faults, "listen") {
                None => Some(SocketAddr::from(([0, 0, 0, 0], 7432))),
                Some(text) => address(faults, text, "0.0.0.0:7432"),
            };
            let right = "name the directory for what must not be forgotten of each pair";
            let state_dir = required(faults, &mut root, "state_dir", right)
                .and_then(|path| absolute(faults, path))
                .map(|path| path.value);
            let pairs = read_pairs(faults, &mut root, base);
            root.finish(faults);
            Some(Self { listen: listen?, state_dir: state_dir?, pairs: pairs? })
        })
    }
}

fn read_pairs(
    faults: &mut Faults,
    root: &mut Section<'_>,
    base: &Path,
) -> Option<Vec<WitnessPair>> {
    let sections = root.sections(faults, "pair");
    if sections.is_empty() && !root.was_there("pair") {
        root.missing(faults, "pair", "add [[pair]] with cluster, node1_key and node2_key");
    }
    if sections.len() > PAIRS_MAX {
        let right = format!("serve at most {PAIRS_MAX} with one witness");
        faults.add(0, "pair", format!("there are {}", sections.len()), right);
        return None;
    }
    let (mut pairs, mut known, mut whole) = (Vec::new(), BTreeSet::new(), true);
    for section in sections {
        let line = section.line();
        let Some(pair) = read_pair(faults, section, base) else {
            whole = false;
            continue;
        };
        if !known.insert(pair.cluster) {
            let wrong = format!("{} was there before", pair.cluster);
            faults.add(line, "pair.cluster", wrong, "write each pair once");
            whole = false;
        }
        pairs.push(pair);
    }
    (whole && !pairs.is_empty()).then_some(pairs)
}

fn read_pair(faults: &mut Faults, mut section: Section<'_>, base: &Path) -> Option<WitnessPair> {
    let line = section.line();
    let cluster = read_cluster_id(faults, &mut section, "cluster");
    let mut key = |key: &'static str| {
        let right = "name the file with the key that this node and the witness share";
        required(faults, &mut section, key, right).map(|file| base.join(file.value))
    };
    let keys = [key("node1_key"), key("node2_key")];
    if matches!(&keys, [Some(one), Some(two)] if one == two) {
        let right = "make a key for each node: duolog keygen --pair-key FILE";
        faults.add(line, "pair.node2_key", "is the file of node1_key", right);
    }
    section.finish(faults);
    let [one, two] = keys;
    Some(WitnessPair { cluster: cluster?, keys: [one?, two?] })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAMPLE: &str = include_str!("../../../packaging/witness.toml");

    fn parsed(text: &str) -> Result<WitnessConfig, Vec<Fault>> {
        WitnessConfig::parse(text, Path::new("/etc/duolog"))
    }

    #[test]
    fn the_sample_shows_every_key_and_the_defaults() {
        let config = parsed(SAMPLE).unwrap();
        assert_eq!(config.pairs.len(), 1);
        assert_eq!(config.pairs[0].cluster, ClusterId(1));
        let keys = ["/etc/duolog/pair1-node1.key", "/etc/duolog/pair1-node2.key"];
        assert_eq!(config.pairs[0].keys, keys.map(PathBuf::from));
        let without: String = SAMPLE
            .lines()
            .filter(|line| !line.starts_with("listen"))
            .collect::<Vec<_>>()
            .join("\n");
        assert_ne!(without.len(), SAMPLE.trim_end().len());
        assert_eq!(parsed(&without).unwrap().listen, config.listen);
    }

    #[test]
    fn every_fault_is_named_with_its_line() {
        let pair = "[[pair]]\ncluster = \"00000000000000000000000000000007\"\n";
        let keys = "node1_key = \"a\"\nnode2_key = \"b\"\n";
        let faults = |text: &str| {
            let faults = parsed(text).unwrap_err();
            faults.into_iter().map(|fault| (fault.line, fault.key)).collect::<Vec<_>>()
        };
        let fault = |line: usize, key: &str| (line, key.to_owned());
        assert_eq!(faults("state_dir = \"/s\"\n"), [fault(0, "pair")]);
        assert_eq!(faults(&format!("{pair}{keys}")), [fault(0, "state_dir")]);
        let text = format!("state_dir = \"/s\"\n{pair}node1_key = \"a\"\nnode2_key = \"a\"\n");
        assert_eq!(faults(&text), [fault(2, "pair.node2_key")]);
        let text = format!("state_dir = \"/s\"\n{pair}{keys}{pair}{keys}");
        assert_eq!(faults(&text), [fault(6, "pair.cluster")]);
        let text = format!("state_dir = \"s\"\nlisten = \"x\"\n{pair}{keys}key = 1\n");
        assert_eq!(
            faults(&text),
            [fault(1, "state_dir"), fault(2, "listen"), fault(7, "pair.key")]
        );
    }
}
