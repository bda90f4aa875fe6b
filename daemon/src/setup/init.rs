//! `duolog init`: the first computer of a pair.
//!
//! Everything is checked, then the files are written, then the second computer is waited for. The
//! SQL server is left alone: it goes on until its directory is adopted, which the output explains.

use std::io::IsTerminal;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use duolog_beat::Secret;
use duolog_engine::store::{self, LocalRules, adopt};
use duolog_transport::{Authority, Identity, new_key};

use super::checks::{self, Facts};
use super::record::{
    self, CA, CONFIG, Etc, PAIR_KEY, Record, Replicated, WITNESS_KEY, WITNESS_PAIR,
};
use super::text;
use super::wait::{LIFETIME, Waiting};
use crate::cli::Init;
use crate::config::{Config, Settled};
use crate::document;
use crate::keygen::new_cluster;
use crate::users;

/// The first computer, whose files are all there.
#[derive(Debug)]
pub(super) struct Ready {
    /// Where they are.
    pub etc: PathBuf,
    /// What was decided.
    pub record: Record,
    /// Its certificate.
    pub identity: Identity,
    /// Its configuration.
    pub config: Config,
}

impl Ready {
    /// Reads them.
    pub(super) fn read(etc: &Path) -> anyhow::Result<Self> {
        let Some(record) = Record::load(etc)? else {
            bail!(
                "{} holds no set-up that `duolog init` made; run `duolog init` with --name, --dir \
                 and --address first, or give the right --etc",
                etc.display()
            );
        };
        if record.node != 1 {
            bail!(
                "this computer is node{} of pair {}, and codes are given by node1: run \
                 `duolog init --code` there",
                record.node,
                record.name
            );
        }
        if let Some(missing) = record.files().iter().find(|name| !etc.join(name).exists()) {
            bail!(
                "{} is missing in {}; if `duolog init` was interrupted, repeat it as it was, else \
                 bring that file back",
                missing,
                etc.display()
            );
        }
        let [certificate, key] = record.identity().map(|name| etc.join(name));
        let identity = Identity::load(&certificate, &key).context("this node's identity")?;
        let config = Config::load(&etc.join(CONFIG))?;
        Ok(Self { etc: etc.to_owned(), record, identity, config })
    }
}

/// `duolog init`.
pub(crate) fn run(options: &Init) -> anyhow::Result<()> {
    let facts = Facts::here()?;
    let ready = if options.code {
        Ready::read(&options.etc)?
    } else {
        let admin = administrator(options)?;
        prepare(options, &facts, admin.as_deref())?
    };
    let (record, ready_etc) = (ready.record.clone(), ready.etc.clone());
    let config = ready_etc.join(CONFIG);
    if ready.config.peer.is_some() && !options.code {
        println!("pair {} is set up already, and node2 is known; nothing was done", record.name);
        return Ok(());
    }
    if !options.code {
        println!("pair {} is prepared in {}", record.name, options.etc.display());
        if record.witness.is_some() {
            let keys = [1, 2].map(|node| record.witness_key(node));
            println!(
                "witness     copy {}, {} and {WITNESS_PAIR} from {} to its computer, beside its \
                 configuration, which the last one is appended to; restart it",
                keys[0],
                keys[1],
                options.etc.display()
            );
        }
        match ready.config.people.users.as_slice() {
            [] => println!(
                "users       none: nobody can use the console; once both nodes run, duolog users add \
                 NAME --role administrator"
            ),
            [admin, ..] => println!("users       {}, {}", admin.name, admin.role),
        }
        let in_document = matches!(ready.config.settled, Settled::Document(_));
        if ready.config.services.is_empty() && in_document {
            println!(
                "services    none: once both nodes run, add a [[service]] for the SQL server with \
                 `duolog config edit`, and restart them (docs/services.md)"
            );
        } else if ready.config.services.is_empty() {
            println!(
                "services    none: add a [[service]] for the SQL server to {} before node2 joins, \
                 then give a code with `duolog init --code` (docs/services.md)",
                config.display()
            );
        }
    }
    let waiting = Waiting::begin(ready, facts, LIFETIME)?;
    println!("fingerprint {}", waiting.fingerprint());
    println!("code        {}", waiting.code());
    println!(
        "Within 15 minutes, on the second computer:\n  duolog join {}@{} --address ITS-ADDRESS{}",
        waiting.code(),
        record.addresses[0],
        " --also-address ITS-NEXT".repeat(record.addresses.len() - 1)
    );
    let joined = waiting.run(|sentence| println!("{sentence}"))?;
    let (config, directory) = (config.display(), record.directories[0].path.display());
    println!(
        "node2 has joined from {joined}. The SQL server went on all the while. Now:\n\
         1. on node2: start it, as `duolog join` has said there\n\
         2. here, which is the one interruption: stop the SQL server, see that nothing starts it\n\
         \x20  but duolog any more, then\n\
         \x20    duolog adopt --config {config}    ({directory} stays where clients expect it)\n\
         \x20    duolog run --config {config}      (starts it again, if it has a [[service]])\n\
         3. duolog status --config {config} shows the first copy and how long it takes; the SQL\n\
         \x20  server serves meanwhile.\n\
         A node that runs already reads its new configuration when it is restarted."
    );
    if record.witness.is_some() {
        let keys = [1, 2].map(|node| record.witness_key(node)).join(" and ");
        println!("Once the witness has {keys}, delete those two in {}.", ready_etc.display());
    }
    Ok(())
}

/// The first administrator as the settings have him; nothing where nobody can be asked, and where
/// the pair is prepared already.
pub(super) fn administrator(options: &Init) -> anyhow::Result<Option<String>> {
    let file = options.admin_password_file.as_deref();
    let asked = file.is_some() || std::io::stdin().is_terminal();
    if !asked || options.etc.join(CONFIG).exists() {
        return Ok(None);
    }
    let name = &options.admin;
    users::fit_name(name)?;
    let password =
        users::ask_password(&format!("Password of the administrator {name} of the console"), file)?;
    let hash = users::hash(name, &password)?;
    Ok(Some(users::add("", name, users::Role::Administrator, Some(&hash))?))
}

/// Checks everything, then writes the files that are not there yet. With an administrator all
/// settings of the pair stand in its document, else in the configuration.
pub(super) fn prepare(options: &Init, facts: &Facts, admin: Option<&str>) -> anyhow::Result<Ready> {
    let etc = &options.etc;
    let wanted = wanted(options)?;
    let known = Record::load(etc)?;
    if let Some(known) = &known {
        let same = Record { cluster: known.cluster.clone(), ..wanted.clone() } == *known;
        if known.node != 1 || known.name != wanted.name {
            bail!(
                "{} belongs to node{} of pair {}; take another --etc and --state-dir, or \
                 `duolog leave --remove-cluster` first",
                etc.display(),
                known.node,
                known.name
            );
        }
        if !same {
            bail!(
                "pair {} was begun in {} with other options; repeat them as they were ({} has \
                 them), or remove that directory's files to begin anew",
                known.name,
                etc.display(),
                record::RECORD
            );
        }
        if etc.join(CONFIG).exists() {
            return Ready::read(etc);
        }
    } else {
        record::refuse_foreign(etc)?;
    }
    let record = match known {
        Some(known) => known,
        None => Record { cluster: new_cluster()?.to_string(), ..wanted },
    };
    let node = text::node(&record);
    let mut pairs = text::virtual_ips(&record) + &text::services(&record);
    if text::check(&(node.clone() + &pairs), etc).is_err() {
        // Where the server's programs are is not known; `run` says what to add.
        pairs = text::virtual_ips(&record);
    }
    let checked = text::check(&(node.clone() + &pairs + admin.unwrap_or_default()), etc)?;
    refuse_what_cannot_be(&record, etc, facts)?;
    let config = match admin {
        None => node + &pairs,
        Some(admin) => {
            document::begin(&checked, format!("{pairs}\n{admin}").trim_start().to_owned())?;
            node
        }
    };
    write(&record, &Etc::open(etc)?, &config)?;
    Ready::read(etc)
}

/// What the options ask for; the pair's id aside.
fn wanted(options: &Init) -> anyhow::Result<Record> {
    let (Some(name), Some(address)) = (&options.name, options.address) else {
        bail!("--name, --dir and --address are needed, or --code");
    };
    let plain = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte));
    if !plain || name.is_empty() || name.len() > 40 {
        bail!("\"{name}\" cannot name a pair: use 1 to 40 letters, digits, \"-\" and \"_\"");
    }
    if options.preset.len() > 1 && options.preset.len() != options.dir.len() {
        bail!("give --preset once, or once for each --dir, in the same order");
    }
    let directories = options.dir.iter().enumerate().map(|(at, path)| {
        let given = options.preset.get(at).or(options.preset.first());
        let preset = given.map_or_else(|| recognised(path).to_owned(), Clone::clone);
        Replicated { path: without_slash(path), preset }
    });
    let addresses = std::iter::once(address).chain(options.also_address.iter().copied());
    Ok(Record {
        cluster: String::new(),
        name: name.clone(),
        node: 1,
        addresses: addresses.collect(),
        state_dir: options.state_dir.clone(),
        control_socket: options.socket.clone(),
        witness: options.witness,
        virtual_ips: options.virtual_ip.iter().map(ToString::to_string).collect(),
        programs: options.programs.clone(),
        directories: directories.collect(),
    })
}

/// Without a slash at its end, which would hide that it is a link.
pub(super) fn without_slash(path: &Path) -> PathBuf {
    path.components().collect()
}

/// Whose data directory that is, by what every one of them has in it.
fn recognised(path: &Path) -> &'static str {
    match path {
        path if path.join("PG_VERSION").exists() => "postgresql",
        path if path.join("ibdata1").exists() => "mariadb",
        _ => "none",
    }
}

fn refuse_what_cannot_be(record: &Record, etc: &Path, facts: &Facts) -> anyhow::Result<()> {
    let all: Vec<_> = record.directories.iter().map(|it| it.path.clone()).collect();
    for path in &all {
        let place = place(path)?;
        adopt::examine(&place, &all)
            .with_context(|| format!("{} cannot be replicated as it is", path.display()))?;
    }
    checks::writable(etc)?;
    checks::writable(&record.state_dir)?;
    if record.state_dir.join("control").exists() {
        bail!(
            "{} holds the log of a node; name another --state-dir, or run `duolog leave` with that \
             node's configuration",
            record.state_dir.display()
        );
    }
    checks::room_for_a_log(&record.state_dir)?;
    checks::fuse()?;
    for clients in &record.virtual_ips {
        checks::clients(clients, &record.addresses, facts)?;
    }
    checks::addresses(&record.addresses)
}

/// Where the parts of a directory are.
pub(super) fn place(path: &Path) -> anyhow::Result<store::Directory> {
    let rules = LocalRules::new(store::Preset::None, &[]).context("no patterns")?;
    store::Directory::of(path, rules).with_context(|| format!("cannot look at {}", path.display()))
}

/// The names in the certificate of that node.
pub(super) fn names(record: &Record) -> Vec<String> {
    let addresses = record.addresses.iter().map(|address: &SocketAddr| address.ip().to_string());
    [format!("node{}", record.node), record.name.clone()].into_iter().chain(addresses).collect()
}

/// In the order of [`Record::files`]; what is there is kept.
fn write(record: &Record, etc: &Etc, config: &str) -> anyhow::Result<()> {
    etc.keep(record::RECORD, false, || record.text())?;
    let key = etc.keep(CA[1], false, || Ok(new_key()?))?;
    let authority = Authority::new(&record.name, &key)?;
    etc.keep(CA[0], true, || Ok(authority.certificate()?))?;
    let secret = || Ok(format!("{}\n", Secret::generate()?.to_hex()));
    etc.keep(PAIR_KEY, false, secret)?;
    let [certificate, key] = record.identity();
    let key = etc.keep(&key, false, || Ok(new_key()?))?;
    etc.keep(&certificate, true, || Ok(authority.issue(&names(record), &key)?))?;
    if record.witness.is_some() {
        let keys = [1, 2].map(|node| record.witness_key(node));
        let own = etc.keep(&keys[0], false, secret)?;
        etc.keep(&keys[1], false, secret)?;
        let (cluster, [one, two]) = (&record.cluster, keys);
        etc.keep(WITNESS_PAIR, true, || {
            Ok(format!(
                "\n# Pair {}.\n[[pair]]\ncluster = \"{cluster}\"\nnode1_key = \"{one}\"\n\
                 node2_key = \"{two}\"\n",
                record.name
            ))
        })?;
        etc.keep(WITNESS_KEY, false, || Ok(own))?;
    }
    etc.keep(CONFIG, true, || Ok(config.to_owned()))?;
    Ok(())
}
