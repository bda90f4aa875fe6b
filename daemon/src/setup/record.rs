//! What a set-up has decided, in a file beside the configuration, and the names of all its files.
//!
//! The record is the first file of a set-up: from then on the directory belongs to that pair, and
//! a repeated command goes on from there. The configuration is the last one. Every file is there
//! whole or not at all, and none is ever overwritten but the configuration, which grows by the
//! other node when that joins.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use duolog_engine::disk::{self, DirDisk};
use serde::{Deserialize, Serialize};

use std::os::unix::fs::PermissionsExt;

/// The configuration's name.
pub(super) const CONFIG: &str = "duolog.toml";
/// The record's name.
pub(super) const RECORD: &str = "setup.toml";
/// The lock that the disk module makes.
const LOCK: &str = "lock";
/// The authority's certificate and key.
pub(crate) const CA: [&str; 2] = ["ca.crt", "ca.key"];
/// The key that both nodes share.
pub(super) const PAIR_KEY: &str = "pair.key";
/// The key that this node and the witness share.
pub(super) const WITNESS_KEY: &str = "witness.key";
/// The token that `duolog metrics token` makes, where the configuration names no other.
const METRICS_TOKEN: &str = "metrics.token";
/// What the witness's configuration needs of the pair.
pub(super) const WITNESS_PAIR: &str = "witness-pair.toml";

const HEAD: &str =
    "# What `duolog init` or `duolog join` decided here. Written by them, and read when one is
# repeated; settings are in duolog.toml.
";

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    /// The pair's id.
    pub cluster: String,
    /// The pair's name, for people.
    pub name: String,
    /// 1 or 2.
    pub node: u8,
    /// This node's addresses: the link's, then further paths of heartbeats, at the link's port.
    pub addresses: Vec<SocketAddr>,
    /// Where the node keeps its log.
    pub state_dir: PathBuf,
    /// Where the node is asked.
    pub control_socket: PathBuf,
    /// The witness.
    pub witness: Option<SocketAddr>,
    /// The clients' addresses with their prefixes; node2 gets them with the settings.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub virtual_ips: Vec<String>,
    /// Where the SQL server's programs are, if that was said.
    pub programs: Option<PathBuf>,
    /// The replicated directories.
    pub directories: Vec<Replicated>,
}

/// A replicated directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Replicated {
    /// Where the SQL server sees it.
    pub path: PathBuf,
    /// Its engine's preset.
    pub preset: String,
}

impl Record {
    /// The record in that directory, if there is one.
    ///
    /// # Errors
    /// It cannot be read, or is none.
    pub(super) fn load(etc: &Path) -> anyhow::Result<Option<Self>> {
        let Some(text) = read(etc, RECORD)? else { return Ok(None) };
        let path = etc.join(RECORD);
        toml::from_str(&text).map(Some).with_context(|| {
            format!(
                "{} is no record of a set-up; bring back the file as it was, or set up in another \
                 --etc",
                path.display()
            )
        })
    }

    /// As its file's text.
    pub(super) fn text(&self) -> anyhow::Result<String> {
        Ok(format!("{HEAD}{}", toml::to_string(self).context("cannot write the record")?))
    }

    /// The certificate's and the key's file of this node.
    pub(super) fn identity(&self) -> [String; 2] {
        [format!("node{}.crt", self.node), format!("node{}.key", self.node)]
    }

    /// What the witness's copy of a node's key is called.
    pub(super) fn witness_key(&self, node: u8) -> String {
        format!("{}-node{node}.key", self.name)
    }

    /// All files that a set-up makes in `etc`, in the order in which they are made.
    pub(super) fn files(&self) -> Vec<String> {
        let [certificate, key] = self.identity();
        let mut files = [RECORD, CA[1], CA[0], PAIR_KEY].map(String::from).to_vec();
        files.extend([key, certificate]);
        if self.witness.is_some() && self.node == 1 {
            files.extend([1, 2].map(|node| self.witness_key(node)));
            files.push(WITNESS_PAIR.into());
        }
        if self.witness.is_some() {
            files.push(WITNESS_KEY.into());
        }
        files.push(CONFIG.into());
        files
    }
}

/// The text of a file there, if the file is.
pub(super) fn read(etc: &Path, name: &str) -> anyhow::Result<Option<String>> {
    let path = etc.join(name);
    match std::fs::read_to_string(&path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| {
            format!("cannot read {}; check the path and its permissions", path.display())
        }),
    }
}

/// Files of any set-up that are there, the record aside.
fn found(etc: &Path) -> Vec<&'static str> {
    let mut names =
        vec![CONFIG, CA[0], CA[1], PAIR_KEY, "node1.crt", "node1.key", "node2.crt", "node2.key"];
    names.retain(|name| etc.join(name).exists());
    names
}

/// Refuses a directory with files of a set-up by hand, which must not be overwritten.
pub(super) fn refuse_foreign(etc: &Path) -> anyhow::Result<()> {
    let found = found(etc);
    if !found.is_empty() {
        bail!(
            "{} holds {} of another set-up, and nothing is overwritten; move those away, or take \
             another --etc",
            etc.display(),
            found.join(", ")
        );
    }
    Ok(())
}

/// The directory of the files, to write in; nobody else writes in it meanwhile.
#[derive(Debug)]
pub(crate) struct Etc {
    path: PathBuf,
    disk: DirDisk,
}

impl Etc {
    /// Makes the directory if it is not there.
    pub(crate) fn open(path: &Path) -> anyhow::Result<Self> {
        std::fs::create_dir_all(path)
            .with_context(|| format!("cannot make the directory {}", path.display()))?;
        let disk = DirDisk::open(path).with_context(|| {
            format!("cannot write in {}; is another set-up running there?", path.display())
        })?;
        Ok(Self { path: path.to_owned(), disk })
    }

    /// The text of that file: what is there, else what `make` says, written whole and for good.
    /// Everybody may read it only if `public`.
    pub(super) fn keep(
        &self,
        name: &str,
        public: bool,
        make: impl FnOnce() -> anyhow::Result<String>,
    ) -> anyhow::Result<String> {
        if let Some(text) = read(&self.path, name)? {
            return Ok(text);
        }
        let text = make()?;
        self.replace(name, public, &text)?;
        Ok(text)
    }

    /// Writes a file, in place of what was there.
    pub(crate) fn replace(&self, name: &str, public: bool, text: &str) -> anyhow::Result<()> {
        let path = self.path.join(name);
        let failed = || {
            format!("cannot write {}; mend the disk or make room, and repeat this", path.display())
        };
        disk::replace(&self.disk, name, text.as_bytes()).with_context(failed)?;
        if public {
            let mode = std::fs::Permissions::from_mode(0o644);
            std::fs::set_permissions(&path, mode).with_context(failed)?;
        }
        Ok(())
    }
}

/// Removes everything that a set-up made in `etc` of the pair with that id, and `etc` itself if
/// nothing else is in it. The configuration goes last, so that this can be repeated.
pub(super) fn remove(etc: &Path, cluster: &str) -> anyhow::Result<()> {
    let mut files = match Record::load(etc)? {
        Some(record) if record.cluster == cluster => record.files(),
        // An earlier call was interrupted before its last step.
        None if found(etc) == [CONFIG] => Vec::new(),
        Some(record) => bail!(
            "{} belongs to pair {} and not to {cluster}; nothing was removed",
            etc.display(),
            record.name
        ),
        None => bail!(
            "{} holds no {RECORD}: this node was set up by hand, and its files are removed by hand",
            etc.display()
        ),
    };
    files.retain(|name| name != RECORD && name != CONFIG);
    files.extend([METRICS_TOKEN, RECORD, LOCK, CONFIG].map(String::from));
    // What a renewal made, whole or interrupted.
    let renewed =
        [1, 2].map(|node| [format!("node{node}.link.crt"), format!("node{node}.next.key")]);
    files.splice(0..0, renewed.into_iter().flatten());
    for name in files {
        let path = etc.join(&name);
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("cannot remove {}", path.display()));
            }
            _ => {}
        }
    }
    // What is not the set-up's stays, and its directory with it.
    std::fs::remove_dir(etc).ok();
    Ok(())
}
