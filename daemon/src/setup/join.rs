//! `duolog join`: the second computer of a pair.
//!
//! Everything is checked before anything is written, with what the first computer tells. Then the
//! files are written, the first computer learns of this one, the configuration follows, and at
//! last the old directories make room. Repeated, it goes on where it was; once the configuration
//! is there the first computer is not asked again.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use duolog_engine::node;
use duolog_transport::enrol::{Channel, EnrolError};
use duolog_transport::{Authority, Identity, new_key};

use super::checks::{self, Facts};
use super::exchange::{self, Answer, Done, Hello, Offer};
use super::init::{names, place, without_slash};
use super::old::{self, Old};
use super::record::{self, CA, CONFIG, Etc, PAIR_KEY, Record, Replicated, WITNESS_KEY};
use super::text;
use super::wait::{NEW_CODE, skew};
use crate::cli::Join;
use crate::config::Config;
use crate::document;
use crate::shell::node_config;

/// What joining came to.
#[derive(Debug)]
pub(super) struct Joined {
    /// What was decided.
    pub record: Record,
    /// Old directories, and what became of them.
    pub old: Vec<(PathBuf, Old)>,
    /// All of it was done before.
    pub already: bool,
    /// What people should know.
    pub notes: Vec<String>,
}

/// `duolog join`.
pub(crate) fn run(options: &Join) -> anyhow::Result<()> {
    let joined = join(options, &Facts::here()?)?;
    let (name, config) = (&joined.record.name, options.etc.join(CONFIG));
    let config = config.display();
    if joined.already {
        println!("this computer is node2 of pair {name} already; nothing was done");
        return Ok(());
    }
    for note in &joined.notes {
        println!("note: {note}");
    }
    for (path, old) in &joined.old {
        match old {
            Old::Nothing => {}
            Old::Aside(to) => println!(
                "{} was moved to {}; it is not needed any more once the copy is whole",
                path.display(),
                to.display()
            ),
            Old::Delete => println!("what was in {} is deleted, as asked", path.display()),
        }
    }
    println!(
        "This computer is node2 of pair {name}. Now:\n\
         1. here: see that nothing starts a SQL server on these directories but duolog, then\n\
         \x20    duolog run --config {config}\n\
         2. on node1, as its output says: stop the SQL server, duolog adopt, duolog run\n\
         3. duolog status --config {config} shows the first copy and how long it takes"
    );
    Ok(())
}

/// The same without words.
pub(super) fn join(options: &Join, facts: &Facts) -> anyhow::Result<Joined> {
    let etc = &options.etc;
    let known = Record::load(etc)?;
    match &known {
        Some(known) if known.node != 2 => bail!(
            "this computer is node{} of pair {}; run `duolog join` on the other one, or take \
             another --etc and --state-dir for another pair",
            known.node,
            known.name
        ),
        Some(known) if etc.join(CONFIG).exists() => return finish(options, known.clone()),
        Some(_) => {}
        None => record::refuse_foreign(etc)?,
    }
    let own = addresses(options);
    checks::writable(etc)?;
    checks::writable(&options.state_dir)?;
    if options.state_dir.join("control").exists() {
        bail!(
            "{} holds the log of a node; name another --state-dir, or run `duolog leave` with that \
             node's configuration",
            options.state_dir.display()
        );
    }
    checks::room_for_a_log(&options.state_dir)?;
    checks::fuse()?;
    checks::addresses(&own)?;

    let here = Identity::generate("duolog-join")?;
    let first = options.target.address;
    let mut channel = Channel::join(own[0].ip(), first, &here, options.target.code.secret())
        .map_err(explained)?;
    exchange::send(
        &mut channel,
        &Hello {
            version: facts.version.clone(),
            computer: facts.computer.clone(),
            now_us: (facts.clock_us)(),
            addresses: own.clone(),
            directories: options.dir.len(),
            fingerprint: identity_there(etc)?.map(|it| it.fingerprint().to_string()),
        },
    )?;
    let Answer::Offer(offer) = exchange::answer(&mut channel)? else {
        bail!("the first computer answers out of turn; install the same version on both");
    };
    let record = accepted(options, &own, &offer, known.as_ref())?;
    let config = text::node(&record)
        + &text::peer(&record, &offer.addresses, channel.peer())
        + &offer.settings;
    let checked = text::check(&config, etc)?;
    let bytes: Vec<_> = offer.directories.iter().map(|directory| directory.bytes).collect();
    let old = plan(options, &record, &bytes)?;
    let notes = notes(&record, &offer);

    let files = Etc::open(etc)?;
    let identity = write(&record, &files, &offer)?;
    exchange::send(&mut channel, &Done { fingerprint: identity.fingerprint().to_string() })?;
    let Answer::Welcome = exchange::answer(&mut channel)? else {
        bail!("the first computer answers out of turn; install the same version on both");
    };
    if let Some(document) = &offer.document {
        document::put_first(&checked, document)?;
    }
    files.keep(CONFIG, true, || Ok(config))?;
    drop(files);
    make_room(etc, &old)?;
    Ok(Joined { record, old, already: false, notes })
}

/// The configuration is there: what is left needs no first computer.
fn finish(options: &Join, record: Record) -> anyhow::Result<Joined> {
    let old = plan(options, &record, &vec![0; record.directories.len()])?;
    let already = make_room(&options.etc, &old)?;
    Ok(Joined { record, old, already, notes: Vec::new() })
}

fn addresses(options: &Join) -> Vec<SocketAddr> {
    std::iter::once(options.address).chain(options.also_address.iter().copied()).collect()
}

/// What an earlier try has made.
fn identity_there(etc: &Path) -> anyhow::Result<Option<Identity>> {
    let [certificate, key] = ["node2.crt", "node2.key"].map(|name| etc.join(name));
    if !certificate.exists() {
        return Ok(None);
    }
    Ok(Some(Identity::load(&certificate, &key)?))
}

/// What was offered, as this computer takes it.
fn accepted(
    options: &Join,
    own: &[SocketAddr],
    offer: &Offer,
    known: Option<&Record>,
) -> anyhow::Result<Record> {
    let directories = offer.directories.iter().enumerate().map(|(at, offered)| Replicated {
        path: without_slash(options.dir.get(at).unwrap_or(&offered.path)),
        preset: offered.preset.clone(),
    });
    let record = Record {
        cluster: offer.cluster.clone(),
        name: offer.name.clone(),
        node: 2,
        addresses: own.to_vec(),
        state_dir: options.state_dir.clone(),
        control_socket: options.socket.clone(),
        witness: offer.witness.as_ref().map(|(address, _)| *address),
        virtual_ips: Vec::new(),
        programs: None,
        directories: directories.collect(),
    };
    match known {
        Some(known) if known.cluster != record.cluster => bail!(
            "{} belongs to node2 of pair {}, and the code is of pair {}; take another --etc and \
             --state-dir, or `duolog leave --remove-cluster` first",
            options.etc.display(),
            known.name,
            record.name
        ),
        Some(known) if *known != record => bail!(
            "joining pair {} was begun in {} with other options; repeat them as they were ({} has \
             them), or remove that directory's files to begin anew",
            known.name,
            options.etc.display(),
            record::RECORD
        ),
        _ => Ok(record),
    }
}

fn plan(options: &Join, record: &Record, bytes: &[u64]) -> anyhow::Result<Vec<(PathBuf, Old)>> {
    let is_one = |path: &PathBuf| record.directories.iter().any(|it| it.path == *path);
    if let Some(other) = options.delete_old_data.iter().find(|path| !is_one(path)) {
        bail!(
            "--delete-old-data {} names none of the pair's directories; type the path as the pair \
             has it",
            other.display()
        );
    }
    let time = jiff::Zoned::now().strftime("%Y%m%d-%H%M%S").to_string();
    let directories = record.directories.iter().zip(bytes);
    directories
        .map(|(directory, bytes)| {
            let path = &directory.path;
            let delete = options.delete_old_data.contains(path);
            Ok((path.clone(), old::plan(&place(path)?, *bytes, delete, &time)?))
        })
        .collect()
}

fn notes(record: &Record, offer: &Offer) -> Vec<String> {
    let mut notes = Vec::from_iter(skew(offer.skew_us));
    for (own, offered) in record.directories.iter().zip(&offer.directories) {
        if own.path != offered.path {
            notes.push(format!(
                "{} is {} on node1; a SQL server that knows its own path, or has links between \
                 directories, needs the same on both",
                own.path.display(),
                offered.path.display()
            ));
        }
    }
    notes
}

/// In the order of [`Record::files`], but for the configuration; what is there is kept.
fn write(record: &Record, etc: &Etc, offer: &Offer) -> anyhow::Result<Identity> {
    etc.keep(record::RECORD, false, || record.text())?;
    let [ca, ca_key] = &offer.ca;
    etc.keep(CA[1], false, || Ok(ca_key.clone()))?;
    etc.keep(CA[0], true, || Ok(ca.clone()))?;
    etc.keep(PAIR_KEY, false, || Ok(format!("{}\n", offer.pair_key)))?;
    let authority = Authority::new(&record.name, ca_key)?;
    let [certificate, key] = record.identity();
    let key = etc.keep(&key, false, || Ok(new_key()?))?;
    let issued = || Ok(authority.issue(&names(record), &key)?);
    let certificate = etc.keep(&certificate, true, issued)?;
    if let Some((_, secret)) = &offer.witness {
        etc.keep(WITNESS_KEY, false, || Ok(format!("{secret}\n")))?;
    }
    Ok(Identity::from_pem(&certificate, &key)?)
}

/// Old directories out of the way, and empty ones adopted. Says whether all was done before.
fn make_room(etc: &Path, old: &[(PathBuf, Old)]) -> anyhow::Result<bool> {
    let config = Config::load(&etc.join(CONFIG))?;
    for (path, old) in old {
        old::carry_out(path, old)?;
    }
    let adopted = node::adopt(&node_config(&config)?)
        .context("the directories are not adopted yet; mend that, and repeat this command")?;
    Ok(adopted.already)
}

/// What a person can do about it.
fn explained(error: EnrolError) -> anyhow::Error {
    let remedy = match &error {
        EnrolError::Connect { .. } => format!(
            "no `duolog init` waits there: its code has expired or was used, or a firewall is \
             between; see that TCP and UDP get through, and {NEW_CODE}"
        ),
        EnrolError::Wrong { left: 0 } => format!("the code is void now; {NEW_CODE}"),
        EnrolError::Wrong { .. } => "look at the code again: it is that of another init".into(),
        EnrolError::Expired => NEW_CODE.into(),
        EnrolError::Impostor => format!(
            "nothing was sent to it; see that the address is that of the first computer, that \
             nobody stands between, and {NEW_CODE}"
        ),
        _ => format!("see that a `duolog init` of this version waits there, and {NEW_CODE}"),
    };
    anyhow::Error::new(error).context(remedy)
}
