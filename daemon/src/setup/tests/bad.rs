//! Bad input for `duolog init`: each gives a message with cause and remedy, and changes nothing.

use std::fmt::Write as _;
use std::net::{TcpListener, UdpSocket};

use super::*;
use crate::setup::record::RECORD;

/// What is held while a case runs.
pub(super) type Held = Box<dyn std::any::Any>;

pub(super) fn nothing() -> Held {
    Box::new(())
}

/// A case of `duolog init`: how the site and the options are spoilt, and what has to be said.
type BadInit = (&'static str, fn(&Site, &mut Init) -> Held, &'static [&'static str]);

const INITS: &[BadInit] = &[
    (
        "a directory that is missing",
        |site, init| {
            init.dir = vec![site.at(1).join("nothing")];
            nothing()
        },
        &["nothing does not exist"],
    ),
    (
        "a link to a directory",
        |site, init| {
            let link = site.at(1).join("link");
            std::os::unix::fs::symlink(site.at(1), &link).unwrap();
            init.dir = vec![link.join("")];
            nothing()
        },
        &["a link to one is not either: name the directory"],
    ),
    (
        "a file in place of a directory",
        |site, init| {
            init.dir = vec![site.data(1).join("base/1")];
            nothing()
        },
        &["is not a directory", "name the directory"],
    ),
    (
        "a link that leads out",
        |site, _| {
            std::os::unix::fs::symlink(site.at(2), site.data(1).join("tablespace")).unwrap();
            nothing()
        },
        &["leads to", "add that directory"],
    ),
    (
        "directories inside of each other",
        |site, init| {
            init.dir.push(site.data(1).join("base"));
            nothing()
        },
        &["overlap", "name each directory once"],
    ),
    (
        "a relative directory",
        |_, init| {
            init.dir = vec!["data".into()];
            nothing()
        },
        &["is not an absolute path", "begins with \"/\""],
    ),
    (
        "a log inside of what it logs",
        |site, init| {
            init.state_dir = site.data(1).join("log");
            nothing()
        },
        &["overlap", "keep the log outside"],
    ),
    (
        "a directory that is adopted already",
        |site, _| {
            fs::create_dir(site.at(1).join(".data.duolog")).unwrap();
            nothing()
        },
        &["is adopted already"],
    ),
    (
        "an etc that cannot be written",
        |_, init| {
            init.etc = "/proc/duolog".into();
            nothing()
        },
        &["cannot write in /proc", "name another directory"],
    ),
    (
        "a state directory below a file",
        |site, init| {
            init.state_dir = site.data(1).parent().unwrap().join("data/base/1/x");
            init.dir = vec![site.at(2)];
            nothing()
        },
        &["cannot write in", "name another directory"],
    ),
    (
        "files of a set-up by hand",
        |site, _| {
            fs::create_dir(site.etc(1)).unwrap();
            fs::write(site.etc(1).join(CONFIG), "mine").unwrap();
            nothing()
        },
        &["duolog.toml of another set-up", "move those away"],
    ),
    (
        "files of another pair",
        |site, init| {
            site.prepared();
            init.name = Some("other".into());
            nothing()
        },
        &["belongs to node1 of pair shop", "another --etc"],
    ),
    (
        "a repetition with other options",
        |site, init| {
            site.prepared();
            init.state_dir = site.at(1).join("elsewhere");
            nothing()
        },
        &["with other options", "repeat them as they were"],
    ),
    (
        "a record that is damaged",
        |site, _| {
            site.prepared();
            fs::write(site.etc(1).join(RECORD), "node = 7").unwrap();
            nothing()
        },
        &["is no record of a set-up", "bring back"],
    ),
    (
        "a file that went away",
        |site, _| {
            site.prepared();
            fs::remove_file(site.etc(1).join(PAIR_KEY)).unwrap();
            nothing()
        },
        &["pair.key is missing", "bring that file back"],
    ),
    (
        "another set-up at this moment",
        |site, _| {
            fs::create_dir(site.etc(1)).unwrap();
            Box::new(duolog_engine::disk::DirDisk::open(&site.etc(1)).unwrap())
        },
        &["is another set-up running there?"],
    ),
    (
        "an address of another computer",
        |_, init| {
            init.address = Some("192.0.2.1:7433".parse().unwrap());
            nothing()
        },
        &["192.0.2.1 is no address of this computer", "ip address"],
    ),
    (
        "a virtual IP of another subnet",
        |_, init| {
            init.virtual_ip = vec!["203.0.113.9/24".parse().unwrap()];
            nothing()
        },
        &["203.0.113.9/24 is in no subnet of this computer", "`ip address` shows"],
    ),
    (
        "a virtual IP that a computer has",
        |_, init| {
            init.address = Some(SocketAddr::from(([10, 0, 0, 9], 7433)));
            init.virtual_ip = vec!["10.0.0.9/24".parse().unwrap()];
            nothing()
        },
        &["10.0.0.9 is the address of", "no computer has of its own"],
    ),
    (
        "a TCP port that is taken",
        |site, _| Box::new(TcpListener::bind(site.address(1)).unwrap()),
        &["TCP port 7433", "is taken", "give another port"],
    ),
    (
        "a UDP port that is taken",
        |site, _| Box::new(UdpSocket::bind(site.address(1)).unwrap()),
        &["UDP port 7433", "is taken", "give another port"],
    ),
    (
        "a heartbeat port that is taken",
        |site, _| Box::new(UdpSocket::bind((site.address(1).ip(), 7533)).unwrap()),
        &["UDP port 7533", "is taken"],
    ),
    (
        "the log of another node",
        |site, _| {
            fs::create_dir(site.at(1).join("state")).unwrap();
            fs::write(site.at(1).join("state/control"), "").unwrap();
            nothing()
        },
        &["holds the log of a node", "another --state-dir"],
    ),
    (
        "a name that is none",
        |_, init| {
            init.name = Some("two words".into());
            nothing()
        },
        &["cannot name a pair", "letters, digits"],
    ),
    (
        "presets for some directories only",
        |site, init| {
            init.dir.push(site.at(2));
            init.dir.push(site.at(2));
            init.preset = vec!["none".into(), "sqlite".into()];
            nothing()
        },
        &["once for each --dir"],
    ),
];

/// What is wrong with how a case ended: all of it, and nothing where it ended well.
pub(super) fn faults<T>(
    what: &str,
    ended: anyhow::Result<T>,
    said: &[&str],
    changed: bool,
) -> String {
    let mut wrong = String::new();
    match ended.map_err(|error| format!("{error:#}")) {
        Ok(_) => writeln!(wrong, "{what}: it was taken").unwrap(),
        Err(error) => {
            for part in said.iter().filter(|part| !error.contains(**part)) {
                writeln!(wrong, "{what}: it does not say \"{part}\": {error}").unwrap();
            }
        }
    }
    if changed {
        writeln!(wrong, "{what}: something was changed").unwrap();
    }
    wrong
}

#[test]
fn a_bad_init_says_what_to_do_and_changes_nothing() {
    let mut wrong = String::new();
    for (what, spoil, said) in INITS {
        let site = Site::new();
        let mut options = site.init();
        let held = spoil(&site, &mut options);
        let before = tree(site.home.path());
        let ended = prepare(&options, &facts("one"), None);
        let changed = tree(site.home.path()) != before;
        wrong.push_str(&faults(what, ended, said, changed));
        drop(held);
    }
    assert!(wrong.is_empty(), "{wrong}");
}

/// The clients' address of another computer is that one's, also where it is in a subnet of this one.
#[test]
fn a_virtual_ip_that_another_computer_has_is_refused_and_nothing_is_changed() {
    let site = Site::new();
    let mut options = site.init();
    options.virtual_ip = vec!["10.0.0.9/1".parse().unwrap()];
    let mut facts = facts("one");
    facts.unused = |address| {
        let holder = duolog_vip::Mac([2, 0, 0, 0, 0, 9]);
        Err(duolog_vip::VipError::InUse { address, device: "eth0".into(), holder })
    };
    let before = tree(site.home.path());
    let ended = prepare(&options, &facts, None);
    let changed = tree(site.home.path()) != before;
    let said = ["02:00:00:00:00:09", "or this pair another virtual IP"];
    assert_eq!(faults("a virtual IP of another computer", ended, &said, changed), "");
}

/// A file system without extended attributes, on either computer.
#[test]
fn a_file_system_without_extended_attributes_is_named() {
    use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
    let site = Site::new();
    let (code, _waiting) = wait(site.prepared(), LIFE);
    let place = site.at(2).join("ramfs");
    fs::create_dir(&place).unwrap();
    // Whoever may not mount has no such file system at hand either.
    if mount("none", &place, "ramfs", MountFlags::empty(), None).is_err() {
        return;
    }
    fs::create_dir(place.join("data")).unwrap();
    let mut options = site.init();
    options.etc = site.at(2).join("other");
    options.dir = vec![place.join("data")];
    let init = prepare(&options, &facts("one"), None).map(drop);
    let mut options = site.join(&code);
    options.dir = vec![place.join("data")];
    let join = join(&options, &facts("two")).map(drop);
    unmount(&place, UnmountFlags::DETACH).unwrap();
    for error in [init, join] {
        let error = format!("{:#}", error.unwrap_err());
        assert!(error.contains("no extended attributes: use ext4 or XFS"), "{error}");
    }
    assert!(!site.etc(2).exists() && !site.at(2).join("other").exists());
}

#[test]
fn a_code_is_given_by_the_first_computer_alone() {
    let site = Site::new();
    let said = |node| format!("{:#}", Ready::read(&site.etc(node)).unwrap_err());
    assert!(said(1).contains("run `duolog init` with --name"), "{}", said(1));
    let (code, waiting) = wait(site.prepared(), LIFE);
    joined(&site.join(&code));
    waiting.join().unwrap().unwrap();
    assert!(said(2).contains("run `duolog init --code` there"), "{}", said(2));
    fs::remove_file(site.etc(1).join("ca.key")).unwrap();
    assert!(said(1).contains("ca.key is missing"), "{}", said(1));
}
