//! Gathers the facts of this computer. Changes nothing but for files without a name, which try what a
//! file system can do and how long it takes.

use std::fs;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use duolog_engine::store::{self, LocalRules};
use rustix::fs::XattrFlags;

use super::facts::{Facts, Fuse, Name, Place, Server, SyncTime, User};
use super::{network, settings};
use crate::config::{Config, Preset, Service};
use crate::services;
use crate::setup::nearest;

/// How often a sync is measured, and how long that may take in all.
const SYNCS: usize = 100;
const SYNC_TIME: Duration = Duration::from_secs(3);
/// Bytes of one write: a page of a database.
const SYNC_BYTES: usize = 8 << 10;
/// The part of the file that is written over and over.
const SYNC_FILE_BYTES: usize = 1 << 20;
/// Longest program that is searched for the names of its libraries.
const PROGRAM_BYTES_MAX: u64 = 256 << 20;
/// Programs that answer `--version` and do nothing else then.
const SERVERS: [&str; 3] = ["postgres", "mariadbd", "mysqld"];

/// What a node is asked for beside itself.
pub(crate) struct Wanted {
    /// The other node's name.
    pub other_host: Option<String>,
    /// The node runs, and so its ports are its own.
    pub runs: bool,
}

/// Runs a program with arguments, and gives what it prints; nothing where that is not possible now.
pub(crate) type RunProgram<'a> = &'a dyn Fn(&Path, &str) -> Result<String, String>;

/// All facts of this computer. Takes some seconds at most, more where a disk hangs.
pub(crate) fn gather(config: &Config, wanted: &Wanted, run: RunProgram<'_>) -> Facts {
    let uname = rustix::system::uname();
    let host = uname.nodename().to_string_lossy().into_owned();
    let peer = config.peer.as_ref().map(|peer| peer.address);
    let own = peer.and_then(network::own_address);
    let mut names: Vec<Name> = Vec::new();
    if let Some(peer) = peer {
        let (here, there) = (config.node.number(), config.node.peer().number());
        names.push(network::name(here, Some(host.clone()), own));
        names.push(network::name(there, wanted.other_host.clone(), Some(peer.ip())));
    }
    Facts {
        node: config.node.number(),
        version: env!("CARGO_PKG_VERSION").into(),
        machine: uname.machine().to_string_lossy().into_owned(),
        libc: libc_version(),
        names,
        route: peer.and_then(|peer| network::route(peer.ip()).ok()),
        clock_kept: clock_kept(),
        servers: servers(config, run),
        users: users(config),
        places: places(config),
        sync: sync_time(&config.state_dir).map_err(|error| error.to_string()),
        commits: None,
        settings: engine_settings(config),
        ports: if wanted.runs { Vec::new() } else { network::ports(config) },
        addresses: config.addresses.iter().map(network::address).collect(),
        fuse: fuse(),
        selinux_enforces: fs::read("/sys/fs/selinux/enforce").is_ok_and(|text| text == b"1"),
        apparmor: apparmor(),
        at_boot: at_boot(Path::new("/"), &config.services),
        systemd: Path::new("/run/systemd/system").is_dir(),
        has_services: !config.services.is_empty(),
        host,
    }
}

/// Of the C library that programs of this computer use, which need not be the one of this program.
fn libc_version() -> Option<String> {
    let machine = rustix::system::uname().machine().to_string_lossy().into_owned();
    let places = [
        format!("/lib/{machine}-linux-gnu/libc.so.6"),
        "/lib64/libc.so.6".into(),
        "/usr/lib/libc.so.6".into(),
        format!("/lib/ld-musl-{machine}.so.1"),
    ];
    let bytes = places.iter().find_map(|path| fs::read(path).ok())?;
    let after = |mark: &[u8]| {
        let at = bytes.windows(mark.len()).position(|it| it == mark)? + mark.len();
        let rest = &bytes[at..bytes.len().min(at + 40)];
        let end = rest.iter().position(|byte| !(byte.is_ascii_digit() || *byte == b'.'))?;
        let text = std::str::from_utf8(&rest[..end]).ok()?.trim_matches('.');
        (!text.is_empty()).then(|| text.to_owned())
    };
    after(b"stable release version ").map(|version| format!("glibc {version}"))
}

/// The kernel's clock is kept by something that knows the time.
fn clock_kept() -> bool {
    // SAFETY: plain numbers; all of them zero asks and changes nothing.
    let mut state: libc::timex = unsafe { std::mem::zeroed() };
    // SAFETY: the kernel writes into a struct of the right type.
    let said = unsafe { libc::adjtimex(&raw mut state) };
    said >= 0 && said != libc::TIME_ERROR && state.status & libc::STA_UNSYNC == 0
}

/// The programs of SQL servers that services start, or that are beside what they start.
fn programs(config: &Config) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = Vec::new();
    for service in &config.services {
        let Some(program) = service.start.first().map(Path::new) else { continue };
        let is_server =
            |path: &Path| path.file_name().is_some_and(|name| SERVERS.iter().any(|it| name == *it));
        let beside = SERVERS.iter().map(|name| program.with_file_name(name));
        let program = if is_server(program) {
            Some(program.to_owned())
        } else {
            let helps = ["pg_ctl", "mariadbd-safe", "mysqld_safe", "pg_ctlcluster"];
            let name = program.file_name().unwrap_or_default();
            helps
                .iter()
                .any(|it| name == *it)
                .then(|| beside.into_iter().find(|it| it.is_file()))
                .flatten()
        };
        found.extend(program.filter(|program| !found.contains(program)));
    }
    found
}

fn servers(config: &Config, run: RunProgram<'_>) -> Vec<Server> {
    let of = |program: PathBuf| Server {
        version: run(&program, "--version")
            .map(|said| said.lines().next().unwrap_or_default().trim().chars().take(200).collect()),
        icu: icu_of(&program),
        program,
    };
    programs(config).into_iter().map(of).collect()
}

/// The ICU library that a program names, as precisely as its file is called.
fn icu_of(program: &Path) -> Option<String> {
    if fs::metadata(program).ok()?.len() > PROGRAM_BYTES_MAX {
        return None;
    }
    let bytes = fs::read(program).ok()?;
    let mark = b"libicuuc.so.";
    let at = bytes.windows(mark.len()).position(|it| it == mark)?;
    let rest = &bytes[at..bytes.len().min(at + 40)];
    let end = rest.iter().position(|byte| *byte == 0)?;
    let name = std::str::from_utf8(&rest[..end]).ok()?;
    let machine = rustix::system::uname().machine().to_string_lossy().into_owned();
    let places = [format!("/usr/lib/{machine}-linux-gnu"), "/usr/lib64".into(), "/usr/lib".into()];
    let whole = places.iter().find_map(|place| fs::canonicalize(Path::new(place).join(name)).ok());
    let whole = whole.and_then(|path| Some(path.file_name()?.to_string_lossy().into_owned()));
    Some(whole.unwrap_or_else(|| name.to_owned()))
}

fn users(config: &Config) -> Vec<User> {
    let mut found: Vec<User> = Vec::new();
    for name in config.services.iter().filter_map(|service| service.user.clone()) {
        if found.iter().all(|user| user.name != name) {
            let ids = services::ids_of(&name).unwrap_or_default();
            found.push(User { name, ids });
        }
    }
    found
}

/// The directory that the parts of a replicated one are in, and where its files are really.
fn parts(path: &Path) -> Option<(PathBuf, PathBuf)> {
    let rules = LocalRules::new(store::Preset::None, &[]).ok()?;
    let directory = store::Directory::of(path, rules).ok()?;
    let around = directory.hidden().parent()?.to_owned();
    let data = if directory.data.is_dir() { directory.data } else { path.to_owned() };
    Some((around, data))
}

fn places(config: &Config) -> Vec<Place> {
    let mut places = vec![place("log", &config.state_dir)];
    for directory in &config.directories {
        let around = parts(&directory.path).map(|(around, _)| around);
        let around = around.as_deref().unwrap_or(&directory.path);
        places.push(place(&directory.path.display().to_string(), around));
    }
    places
}

fn place(what: &str, path: &Path) -> Place {
    let path = nearest(path);
    let system = || {
        let kind = rustix::fs::statfs(path)?;
        let room = rustix::fs::statvfs(path)?;
        let bytes = |blocks: u64| blocks.saturating_mul(room.f_frsize);
        Ok::<_, io::Error>((kind_of(kind.f_type), bytes(room.f_bavail), bytes(room.f_blocks)))
    };
    let attributes = || {
        let file = tempfile::tempfile_in(path)?;
        // As root the marks are `trusted.` ones, of others `user.` ones.
        let name =
            if rustix::process::geteuid().is_root() { "trusted.duolog" } else { "user.duolog" };
        rustix::fs::fsetxattr(&file, name, b"check", XattrFlags::empty())?;
        Ok::<_, io::Error>(())
    };
    Place {
        what: what.into(),
        path: path.to_owned(),
        system: system().map_err(|error| error.to_string()),
        no_attributes: attributes().err().map(|error| error.to_string()),
    }
}

/// The name of a file system by its magic number.
fn kind_of(magic: i64) -> String {
    let known = [
        (0xef53, "ext4"),
        (0x5846_5342, "xfs"),
        (0x9123_683e, "btrfs"),
        (0x0102_1994, "tmpfs"),
        (0x6969, "nfs"),
        (0x794c_7630, "overlayfs"),
        (0x6573_5546, "fuse"),
        (0x2fc1_2fc1, "zfs"),
        (0xf2f5_2010, "f2fs"),
        (0xff53_4d42, "cifs"),
    ];
    let name = known.iter().find(|(number, _)| *number == magic);
    name.map_or_else(|| format!("{magic:#x}"), |(_, name)| (*name).into())
}

/// Writes pages over a file that is there already and syncs each, as the log does.
fn sync_time(state_dir: &Path) -> io::Result<SyncTime> {
    let file = tempfile::tempfile_in(nearest(state_dir))?;
    file.write_all_at(&vec![0; SYNC_FILE_BYTES], 0)?;
    rustix::fs::fsync(&file)?;
    let (page, begun) = ([7; SYNC_BYTES], Instant::now());
    let mut times = Vec::with_capacity(SYNCS);
    while times.len() < SYNCS && begun.elapsed() < SYNC_TIME {
        let at = Instant::now();
        let offset = times.len() * SYNC_BYTES % SYNC_FILE_BYTES;
        file.write_all_at(&page, offset as u64)?;
        rustix::fs::fdatasync(&file)?;
        times.push(u64::try_from(at.elapsed().as_micros()).unwrap_or(u64::MAX));
    }
    times.sort_unstable();
    SyncTime::of(&times).ok_or_else(|| io::ErrorKind::TimedOut.into())
}

pub(super) fn engine_settings(config: &Config) -> Vec<super::facts::Settings> {
    let read = |directory: &crate::config::Directory| {
        let (_, data) = parts(&directory.path)?;
        // The service that starts a server on this directory.
        let names = |word: &String| word.contains(&*directory.path.to_string_lossy());
        let command = config.services.iter().find(|it| it.start.iter().any(names));
        let command = command.map(|service| service.start.as_slice()).unwrap_or_default();
        match directory.preset {
            Preset::None => None,
            Preset::Postgresql => Some(settings::postgresql(&directory.path, &data, command)),
            Preset::Mariadb => Some(settings::mariadb(&directory.path, &data, command)),
            Preset::Sqlite => Some(super::facts::Settings {
                engine: "sqlite".into(),
                directory: directory.path.clone(),
                ..Default::default()
            }),
        }
    };
    config.directories.iter().filter_map(read).collect()
}

fn fuse() -> Fuse {
    let unusable = duolog_engine::fuse::usable()
        .err()
        .map(|error| format!("{:#}", anyhow::Error::from(error)));
    let names = ["default_request_timeout", "max_request_timeout"];
    let set = |name: &&str| {
        let text = fs::read_to_string(format!("/proc/sys/fs/fuse/{name}"));
        text.is_ok_and(|text| text.trim() != "0")
    };
    let timeouts = names.iter().filter(|name| set(name)).map(|name| format!("fs.fuse.{name}"));
    Fuse { unusable, timeouts: timeouts.collect() }
}

/// Profiles about SQL servers that are enforced.
fn apparmor() -> Vec<String> {
    let text = fs::read_to_string("/sys/kernel/security/apparmor/profiles").unwrap_or_default();
    let about = |line: &&str| SERVERS.iter().any(|name| line.contains(name));
    let enforced = text.lines().filter(|line| line.ends_with("(enforce)")).filter(about);
    enforced.map(str::to_owned).take(20).collect()
}

/// Units of duolog, of SQL servers and of services that something wants at boot; below `root`.
fn at_boot(root: &Path, services: &[Service]) -> Vec<String> {
    let about = ["duolog", "postgresql", "mariadb", "mysql"];
    let mut units = Vec::new();
    for place in ["etc/systemd/system", "usr/lib/systemd/system", "lib/systemd/system"] {
        for entry in fs::read_dir(root.join(place)).into_iter().flatten().flatten() {
            let path = entry.path();
            let wants = path.extension().is_some_and(|end| end == "wants" || end == "requires");
            if !wants {
                continue;
            }
            for unit in fs::read_dir(&path).into_iter().flatten().flatten() {
                let name = unit.file_name().to_string_lossy().into_owned();
                let service = services.iter().any(|it| it.unit.as_ref() == Some(&name));
                let ours = service || about.iter().any(|about| name.starts_with(about));
                // A unit that is masked is not started by whom it is wanted.
                let masked = root.join("etc/systemd/system").join(&name);
                let masked = fs::read_link(masked).is_ok_and(|to| to == Path::new("/dev/null"));
                if ours && !masked && !units.contains(&name) {
                    units.push(name);
                }
            }
        }
    }
    units.truncate(50);
    units.sort();
    units
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn what_is_wanted_at_boot_is_found_and_what_is_masked_is_not() {
        let root = tempfile::tempdir().unwrap();
        let system = root.path().join("etc/systemd/system");
        let wants = system.join("multi-user.target.wants");
        fs::create_dir_all(&wants).unwrap();
        let all = ["postgresql", "duolog", "cron", "mariadb", "shop"];
        for unit in all.map(|name| format!("{name}.service")) {
            symlink("/x", wants.join(unit)).unwrap();
        }
        symlink("/dev/null", system.join("mariadb.service")).unwrap();
        let found = at_boot(root.path(), &[]);
        assert_eq!(found, ["duolog.service", "postgresql.service"]);
        let found = at_boot(root.path(), &[Service::of_unit("shop.service")]);
        assert_eq!(found, ["duolog.service", "postgresql.service", "shop.service"]);
    }

    #[test]
    fn a_sync_and_a_file_system_are_measured_where_the_log_will_be() {
        let directory = tempfile::tempdir().unwrap();
        let later = directory.path().join("not/yet/there");
        let time = sync_time(&later).unwrap();
        assert!(time.times > 0 && time.median_us <= time.p99_us, "{time:?}");
        let place = place("log", &later);
        assert_eq!(place.path, directory.path());
        let (_, free, all) = place.system.unwrap();
        assert!(free > 0 && free <= all);
    }
}
