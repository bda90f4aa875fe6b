//! `duolog snapshot`: one ZIP of a new dump, the last dumps and the last configurations.
//!
//! ```text
//!  snapshot.json                    which pair and node, when, and what is missing
//!  nodeN/dumps/TIME/...             as they are in the state directory
//!  nodeN/configurations/TIME.toml
//! ```
//! The node here asks the other one for its part. Where they are not connected it is named as missing,
//! with what to do: a snapshot is made there, and `--other FILE` takes it in.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{self, Read, Seek as _};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipArchive, ZipWriter};

use super::{
    KEPT, Out, PART, collect, configurations, dumps, forget, name, other, take, there, unnamed,
};
use crate::cli;
use crate::config::Config;
use crate::logs;

/// Says what is in it.
const ABOUT: &str = "snapshot.json";
/// Most bytes of another snapshot, as they are packed, and most files in it.
pub(super) const OTHER_BYTES_MAX: u64 = 1 << 30;
pub(super) const OTHER_FILES_MAX: usize = 10_000;
/// Most bytes of what another snapshot says about itself.
const ABOUT_BYTES_MAX: u64 = 1 << 20;

#[derive(Debug, Serialize, Deserialize)]
struct About {
    cluster: String,
    node: u8,
    time: String,
    version: String,
    missing: Vec<String>,
}

/// A ZIP as an [`Out`], below a folder of its own.
struct Zip<'a> {
    zip: &'a mut ZipWriter<File>,
    folder: String,
}

impl Out for Zip<'_> {
    fn add(&mut self, name: &str, from: &mut dyn Read) -> io::Result<()> {
        let how = SimpleFileOptions::default();
        let how = how.compression_method(CompressionMethod::Deflated).unix_permissions(0o600);
        self.zip.start_file(format!("{}{name}", self.folder), how)?;
        io::copy(from, self.zip)?;
        Ok(())
    }
}

/// Makes one; a file that is there already is never written over.
pub(crate) fn snapshot(options: &cli::Snapshot) -> anyhow::Result<()> {
    let file = &options.node.config;
    let config = Config::load(file)?;
    let to = &options.to;
    for missing in snapshot_to(&config, file, options.other.as_deref(), to)? {
        eprintln!("not in it: {missing}");
    }
    println!("{}", to.display());
    Ok(())
}

/// The same of a node whose configuration was read from `file`, in a file that has no name and is read
/// from its beginning; and what is missing in it.
///
/// # Errors
/// It cannot be written.
pub(crate) fn unnamed_snapshot(
    config: &Config,
    file: &Path,
) -> anyhow::Result<(File, Vec<String>)> {
    let mut zip = ZipWriter::new(unnamed(&config.state_dir)?);
    let missing = fill(config, file, None, &mut zip)?;
    let mut whole = zip.finish().context("cannot write a snapshot; is there room?")?;
    whole.rewind()?;
    Ok((whole, missing))
}

/// The same into the file `to`; returns what is missing in it.
fn snapshot_to(
    config: &Config,
    file: &Path,
    other: Option<&Path>,
    to: &Path,
) -> anyhow::Result<Vec<String>> {
    let part = to.with_added_extension(PART);
    if fs::symlink_metadata(to).is_ok() {
        bail!("{} is there already; name another file", to.display());
    }
    let failed = || format!("cannot write {}; is its directory there, and room?", part.display());
    // One that was interrupted; and nothing that somebody else puts there is followed.
    fs::remove_file(&part).ok();
    let file_of_it = File::options().write(true).create_new(true).mode(0o600).open(&part);
    let mut zip = ZipWriter::new(file_of_it.with_context(failed)?);
    let made = fill(config, file, other, &mut zip);
    let made = made.and_then(|missing| {
        zip.finish().with_context(failed)?;
        super::rename(&part, to).with_context(failed)?;
        Ok(missing)
    });
    if made.is_err() {
        // Nobody takes half of one for a whole one by its name.
        fs::remove_file(&part).ok();
    }
    made
}

fn fill(
    config: &Config,
    file: &Path,
    other: Option<&Path>,
    zip: &mut ZipWriter<File>,
) -> anyhow::Result<Vec<String>> {
    let node = config.node.number();
    let mut missing = Vec::new();
    let own = &mut Zip { zip, folder: format!("node{node}/") };
    own_part(config, file, own, &mut missing)?;
    match (other, &config.peer) {
        (Some(other), _) => add_other(config, other, zip, &mut missing)
            .with_context(|| format!("cannot take in {}", other.display()))?,
        (None, None) => {}
        (None, Some(_)) => {
            let peer = config.node.peer().number();
            let mut folder = Zip { zip, folder: format!("node{peer}/") };
            match other::ask(config, &mut folder) {
                Ok(lacks) => {
                    missing.extend(lacks.into_iter().map(|why| format!("on node{peer}: {why}")));
                }
                Err(error) => missing.push(format!(
                    "node{peer}: {error:#}; run duolog snapshot there, copy its file here, and \
                     name it with --other"
                )),
            }
        }
    }
    let about = About {
        cluster: config.cluster.to_string(),
        node,
        time: logs::now(),
        version: env!("CARGO_PKG_VERSION").into(),
        missing,
    };
    let text = serde_json::to_vec_pretty(&about)?;
    Zip { zip, folder: String::new() }.add(ABOUT, &mut text.as_slice())?;
    Ok(about.missing)
}

/// What a snapshot holds of this node: a new dump, the last ones, the last configurations. What
/// cannot be had is named in `missing`.
///
/// # Errors
/// `out` takes no more.
pub(super) fn own_part(
    config: &Config,
    file: &Path,
    out: &mut impl Out,
    missing: &mut Vec<String>,
) -> anyhow::Result<()> {
    if let Err(error) = take(config, file) {
        missing.push(format!("a new dump in the state directory: {error:#}"));
        // It is what a snapshot is made for: without a place of its own it goes right into it.
        let lacks = collect::collect(config, file, &mut Below { out, folder: "dumps/now/" })?;
        missing.extend(lacks);
    }
    for dump in there(&dumps(config)).unwrap_or_default() {
        if dump.extension().is_some_and(|end| end == PART) {
            continue;
        }
        let name = name(&dump);
        if let Err(error) = add_all(&dump, &format!("dumps/{name}"), out) {
            missing.push(format!("node{}/dumps/{name}: {error:#}", config.node.number()));
        }
    }
    for path in configurations::kept(config).unwrap_or_default() {
        let name = format!("configurations/{}", name(&path));
        out.add(&name, &mut File::open(&path)?).with_context(|| path.display().to_string())?;
    }
    forget(&dumps(config), KEPT).unwrap_or_else(|error| missing.push(format!("{error:#}")));
    Ok(())
}

/// A folder of an [`Out`].
struct Below<'a, O> {
    out: &'a mut O,
    folder: &'a str,
}

impl<O: Out> Out for Below<'_, O> {
    fn add(&mut self, name: &str, from: &mut dyn Read) -> io::Result<()> {
        self.out.add(&format!("{}{name}", self.folder), from)
    }
}

/// A directory with all that is in it.
fn add_all(path: &Path, name_in_zip: &str, out: &mut impl Out) -> anyhow::Result<()> {
    for entry in there(path)? {
        let name = format!("{name_in_zip}/{}", name(&entry));
        if entry.is_dir() {
            add_all(&entry, &name, out)?;
        } else {
            out.add(&name, &mut File::open(&entry)?)?;
        }
    }
    Ok(())
}

/// What the other node's snapshot holds of that node, as it is packed.
fn add_other(
    config: &Config,
    path: &Path,
    zip: &mut ZipWriter<File>,
    missing: &mut Vec<String>,
) -> anyhow::Result<()> {
    let file = File::open(path)?;
    if file.metadata()?.len() > OTHER_BYTES_MAX {
        bail!("it is larger than any snapshot");
    }
    let mut other = ZipArchive::new(file).context("it is no snapshot")?;
    let mut text = Vec::new();
    let about = other.by_name(ABOUT).context("it is no snapshot")?;
    about.take(ABOUT_BYTES_MAX).read_to_end(&mut text)?;
    let about: About = serde_json::from_slice(&text).context("it is no snapshot")?;
    let peer = config.node.peer().number();
    if (about.cluster.as_str(), about.node) != (config.cluster.to_string().as_str(), peer) {
        bail!(
            "it is of node{} of pair {}, not of node{peer} of this one",
            about.node,
            about.cluster
        );
    }
    if other.len() > OTHER_FILES_MAX {
        bail!("it holds more files than any snapshot");
    }
    let (folder, mut taken) = (format!("node{peer}/"), HashSet::new());
    for at in 0..other.len() {
        let entry = other.by_index_raw(at)?;
        let name = entry.name()?.into_owned();
        // A name that leads elsewhere is for whoever unpacks it by mistake.
        let inside = entry.enclosed_name().is_some() && name.starts_with(&folder);
        if inside && !entry.is_dir() && taken.insert(name) {
            zip.raw_copy_file(entry)?;
        }
    }
    // What it lacks of its own node; that it lacks this one is mended here.
    let of_ours = format!("node{}: ", config.node.number());
    let lacks = about.missing.into_iter().filter(|why| !why.starts_with(&of_ours));
    missing.extend(lacks.map(|why| format!("on node{peer}: {why}")));
    Ok(())
}
