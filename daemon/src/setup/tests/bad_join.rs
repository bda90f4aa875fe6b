//! Bad input for `duolog join`: each gives a message with cause and remedy, and changes nothing on
//! either computer.

use std::net::UdpSocket;

use super::*;
use crate::setup::record::RECORD;
use crate::setup::tests::bad::{Held, faults, nothing};

/// The second computer, and what it says of itself.
struct Second {
    join: Join,
    facts: Facts,
}

/// A case of `duolog join`, with a first computer that waits for it.
type BadJoin = (&'static str, fn(&Site, &mut Second) -> Held, &'static [&'static str]);

const JOINS: &[BadJoin] = &[
    (
        "both on one computer",
        |_, second| {
            second.facts.computer = "one".into();
            nothing()
        },
        &["the same computer", "on the other one"],
    ),
    (
        "unequal versions",
        |_, second| {
            second.facts.version = "1.3.0".into();
            nothing()
        },
        &["duolog 1.2.3, there 1.3.0", "install the same version"],
    ),
    (
        "more addresses than the first one has",
        |site, second| {
            let further = SocketAddr::from((Ipv4Addr::new(127, 90, site.number, 2), 7433));
            second.join.also_address = vec![further];
            nothing()
        },
        &["1 address(es)", "as often as here"],
    ),
    (
        "the address of the first computer",
        |site, second| {
            second.join.address = SocketAddr::new(site.address(1).ip(), 8433);
            second.join.also_address = vec![];
            nothing()
        },
        &["an address of this one", "give its own"],
    ),
    (
        "an address that is not this computer's",
        |_, second| {
            second.join.address = "192.0.2.1:7433".parse().unwrap();
            nothing()
        },
        &["no address of this computer", "ip address"],
    ),
    (
        "more directories than the first one has",
        |site, second| {
            second.join.dir.push(site.at(2).join("more"));
            nothing()
        },
        &["1 directories are replicated here and 2 named there", "in the same order"],
    ),
    (
        "a directory whose parent is missing",
        |site, second| {
            second.join.dir = vec![site.at(2).join("nothing/data")];
            nothing()
        },
        &["nothing does not exist", "make it first"],
    ),
    (
        "a link to a directory",
        |site, second| {
            let link = site.at(2).join("link");
            std::os::unix::fs::symlink(site.at(2), &link).unwrap();
            second.join.dir = vec![link.join("")];
            nothing()
        },
        &["a link to one is not either: name the directory"],
    ),
    (
        "a file in place of a directory",
        |site, _| {
            fs::write(site.data(2), "").unwrap();
            nothing()
        },
        &["is not a directory", "name the directory"],
    ),
    (
        "an old directory that is in use",
        |site, _| {
            fs::create_dir(site.data(2)).unwrap();
            Box::new(fs::File::create(site.data(2).join("table")).unwrap())
        },
        &["is in use", "stop the SQL server first"],
    ),
    (
        "a deletion of what is not the pair's",
        |site, second| {
            second.join.delete_old_data = vec![site.at(2)];
            nothing()
        },
        &["names none of the pair's directories", "type the path"],
    ),
    (
        "a log inside of what it logs",
        |site, second| {
            second.join.state_dir = site.data(2).join("log");
            nothing()
        },
        &["overlap", "keep the log outside"],
    ),
    (
        "a wrong code",
        |site, second| {
            second.join = Join { target: site.join(&wrong()).target, ..site.join(&wrong()) };
            nothing()
        },
        &["look at the code again", "2 tries are left"],
    ),
    (
        "nobody who waits",
        |site, second| {
            second.join.target.address = SocketAddr::new(site.address(1).ip(), 9);
            nothing()
        },
        &["no `duolog init` waits there", "cannot connect", "duolog init --code"],
    ),
    (
        "files of a set-up by hand",
        |site, _| {
            fs::create_dir(site.etc(2)).unwrap();
            fs::write(site.etc(2).join("node2.key"), "mine").unwrap();
            nothing()
        },
        &["node2.key of another set-up", "move those away"],
    ),
    (
        "the files of another pair",
        |site, _| {
            let mut other = site.init();
            other.etc = site.etc(2);
            other.address = Some(site.address(3));
            let record = prepare(&other, &facts("one"), None).unwrap().record.text().unwrap();
            fs::remove_dir_all(site.etc(2)).unwrap();
            fs::create_dir(site.etc(2)).unwrap();
            fs::write(site.etc(2).join(RECORD), record.replace("node = 1", "node = 2")).unwrap();
            nothing()
        },
        &["belongs to node2 of pair shop", "the code is of pair shop", "another --etc"],
    ),
    (
        "join on the first computer of a pair",
        |site, _| {
            let mut other = site.init();
            other.etc = site.etc(2);
            other.address = Some(site.address(3));
            prepare(&other, &facts("one"), None).unwrap();
            nothing()
        },
        &["this computer is node1 of pair shop", "on the other one"],
    ),
    (
        "the log of another node",
        |site, _| {
            fs::create_dir(site.at(2).join("state")).unwrap();
            fs::write(site.at(2).join("state/control"), "").unwrap();
            nothing()
        },
        &["holds the log of a node", "another --state-dir"],
    ),
    (
        "a heartbeat port that is taken",
        |site, _| Box::new(UdpSocket::bind((site.address(2).ip(), 7533)).unwrap()),
        &["UDP port 7533", "is taken"],
    ),
    (
        "an etc that cannot be written",
        |_, second| {
            second.join.etc = "/proc/duolog".into();
            nothing()
        },
        &["cannot write in /proc", "name another directory"],
    ),
];

fn wrong() -> String {
    crate::setup::Code::generate().unwrap().to_string()
}

#[test]
fn a_bad_join_says_what_to_do_and_changes_nothing() {
    let mut wrong_ones = String::new();
    for (what, spoil, said) in JOINS {
        let site = Site::new();
        // It goes on waiting until this process ends.
        let (code, _waiting) = wait(site.prepared(), LIFE);
        let mut second = Second { join: site.join(&code), facts: facts("two") };
        let held = spoil(&site, &mut second);
        let before = tree(site.home.path());
        let ended = join(&second.join, &second.facts);
        let changed = tree(site.home.path()) != before;
        wrong_ones.push_str(&faults(what, ended, said, changed));
        drop(held);
    }
    assert!(wrong_ones.is_empty(), "{wrong_ones}");
}

#[test]
fn a_code_is_void_after_three_wrong_ones() {
    let site = Site::new();
    let (code, waiting) = wait(site.prepared(), LIFE);
    let before = tree(site.home.path());
    for left in ["2 tries", "1 tries", "void now; run `duolog init --code`"] {
        let error = format!("{:#}", join(&site.join(&wrong()), &facts("two")).unwrap_err());
        assert!(error.contains(left), "{error}");
    }
    let ended = format!("{:#}", waiting.join().unwrap().unwrap_err());
    assert!(ended.contains("the code is void; run `duolog init --code`"), "{ended}");
    let error = format!("{:#}", join(&site.join(&code), &facts("two")).unwrap_err());
    assert!(error.contains("no `duolog init` waits there"), "{error}");
    assert_eq!(tree(site.home.path()), before);
}

#[test]
fn a_code_expires() {
    let site = Site::new();
    let ready = site.prepared();
    let before = tree(site.home.path());
    let (code, waiting) = wait(ready, Duration::from_millis(1));
    let ended = format!("{:#}", waiting.join().unwrap().unwrap_err());
    assert!(ended.contains("has expired; run `duolog init --code`"), "{ended}");
    let error = format!("{:#}", join(&site.join(&code), &facts("two")).unwrap_err());
    assert!(error.contains("its code has expired or was used"), "{error}");
    assert_eq!(tree(site.home.path()), before);
}

/// Who has the code gets in once; who has another certificate than node2 does not get in later.
#[test]
fn a_pair_has_one_second_computer() {
    let site = Site::new();
    let (code, waiting) = wait(site.prepared(), LIFE);
    joined(&site.join(&code));
    waiting.join().unwrap().unwrap();
    let again = site.join(&code);
    assert!(joined(&again).already, "a join that was done is done again");
    // Once more, with a code of its own, on a third computer.
    let (code, _waiting) = wait(Ready::read(&site.etc(1)).unwrap(), LIFE);
    let mut third = site.join(&code);
    let home = site.home.path().join("node3");
    fs::create_dir(&home).unwrap();
    third.address = site.address(3);
    third.dir = vec![home.join("data")];
    (third.etc, third.state_dir) = (home.join("etc"), home.join("state"));
    let before = tree(site.home.path());
    let error = format!("{:#}", join(&third, &facts("three")).unwrap_err());
    assert!(error.contains("is another computer already"), "{error}");
    assert!(error.contains("remove [peer]"), "{error}");
    assert_eq!(tree(site.home.path()), before);
    assert_eq!(prepare(&site.init(), &facts("one"), None).unwrap().record.name, "shop");
    assert_eq!(tree(site.home.path()), before, "an init that was done is done again");
}

#[test]
fn a_code_or_an_address_that_is_none_is_refused_before_anybody_is_asked() {
    let code = wrong();
    let other = if code.ends_with('7') { "8" } else { "7" };
    for (text, said) in [
        (code.clone(), "CODE@ADDRESS"),
        (format!("{}{other}@10.0.0.1", &code[..34]), "mistyped"),
        (format!("{}@10.0.0.1", &code[1..]), "29 characters"),
        (format!("{}U@10.0.0.1", &code[..34]), "is in no code"),
        (format!("{code}@node1"), "names are not resolved"),
        (format!("{code}@0.0.0.0"), "reaches this one"),
        (format!("{code}@10.0.0.1:65500"), "heartbeats use one 100 above"),
    ] {
        let error = target(&text).unwrap_err();
        assert!(error.contains(said), "{text}: {error}");
    }
}
