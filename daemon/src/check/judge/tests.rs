//! Good facts, and each kind of bad ones beside them.

use super::*;
use crate::check::facts::{
    Address, Between, Fuse, Name, Place, Port, Route, Server, Setting, Settings, Skew, SyncTime,
    User,
};

fn facts(node: u8) -> Facts {
    let ip = |node: u8| [10, 0, 0, node].into();
    let name = |node: u8| Name {
        node,
        name: Some(format!("db{node}")),
        address: Some(ip(node)),
        forward: Ok(vec![ip(node)]),
        reverse: Ok(format!("db{node}.example.org")),
    };
    let place = |what: &str| Place {
        what: what.into(),
        path: "/srv".into(),
        system: Ok(("xfs".into(), 50 << 30, 100 << 30)),
        no_attributes: None,
    };
    Facts {
        node,
        version: "1.0".into(),
        host: format!("db{node}"),
        machine: "x86_64".into(),
        libc: Some("glibc 2.41".into()),
        names: vec![name(1), name(2)],
        route: Some(Route { to: ip(3 - node), by: Some(("eth0".into(), true)) }),
        clock_kept: true,
        servers: vec![Server {
            program: "/usr/lib/postgresql/17/bin/postgres".into(),
            version: Ok("postgres (PostgreSQL) 17.6".into()),
            icu: Some("libicuuc.so.76.1".into()),
        }],
        users: vec![User { name: "postgres".into(), ids: Some((101, 104)) }],
        places: vec![place("log"), place("/srv/pg")],
        sync: Ok(SyncTime { median_us: 100 * u64::from(node), p99_us: 900, times: 100 }),
        commits: (node == 1).then_some(SyncTime { median_us: 400, p99_us: 900, times: 9 }),
        settings: vec![Settings {
            engine: "postgresql".into(),
            directory: "/srv/pg".into(),
            ..Settings::default()
        }],
        ports: Vec::new(),
        addresses: vec![Address {
            address: "10.0.0.9/24".into(),
            here: node == 1,
            holder: Ok(None),
        }],
        fuse: Fuse::default(),
        selinux_enforces: false,
        apparmor: Vec::new(),
        at_boot: vec!["duolog.service".into()],
        systemd: true,
        has_services: true,
    }
}

fn good() -> Gathered {
    let skew = Some(Skew { least_us: -200, most_us: 300 });
    Gathered {
        here: facts(1),
        other: Ok(Box::new(facts(2))),
        between: Between { skew, round_trip_us: Some(150) },
        runs: true,
    }
}

fn setting(engine: &str, name: &str, value: &str) -> impl Fn(&mut Gathered) {
    let (engine, name, value) = (engine.to_owned(), name.to_owned(), value.to_owned());
    move |gathered| {
        let settings = &mut gathered.here.settings[0];
        settings.engine = engine.clone();
        let from = "a file".to_owned();
        settings.found.push(Setting { name: name.clone(), value: value.clone(), from });
    }
}

#[test]
fn what_is_well_is_said_to_be() {
    let lines = judge(&good());
    let unwell: Vec<_> = lines.iter().filter(|line| line.verdict != Verdict::Ok).collect();
    assert!(unwell.is_empty(), "{unwell:#?}");
    assert!(lines.len() > 40, "{}", lines.len());
    // The slower of both ways, in either direction.
    let predicted = lines.iter().find(|line| line.item == "predicted commit latency").unwrap();
    assert!(
        predicted.text.contains("350 us with node1")
            && predicted.text.contains("250 us with node2")
    );
    // Of this computer alone nothing is said that two are needed for.
    let alone =
        Gathered { other: Err("not reached".into()), between: Between::default(), ..good() };
    assert!(judge(&alone).iter().all(|line| line.verdict == Verdict::Ok));
    assert!(judge(&alone).iter().all(|line| line.node == Some(1)));
}

type Spoil = Box<dyn Fn(&mut Gathered)>;

fn other(gathered: &mut Gathered) -> &mut Facts {
    gathered.other.as_deref_mut().unwrap()
}

/// Each with what is spoilt, the line that says so, and how bad that is.
fn spoilt() -> Vec<(&'static str, &'static str, Verdict, Spoil)> {
    use Verdict::{Failed, Warning};
    vec![
        (
            "name",
            "name to address",
            Warning,
            Box::new(|it| it.here.names[1].forward = Err("?".into())),
        ),
        (
            "another",
            "name to address",
            Warning,
            Box::new(|it| it.here.names[0].forward = Ok(vec![])),
        ),
        (
            "no name",
            "address to name",
            Warning,
            Box::new(|it| other(it).names[0].reverse = Err("?".into())),
        ),
        (
            "other name",
            "address to name",
            Warning,
            Box::new(|it| it.here.names[0].reverse = Ok("x".into())),
        ),
        (
            "gateway",
            "same subnet",
            Failed,
            Box::new(|it| {
                it.here.route.as_mut().unwrap().by = Some(("eth0".into(), false));
            }),
        ),
        (
            "no route",
            "same subnet",
            Failed,
            Box::new(|it| it.here.route.as_mut().unwrap().by = None),
        ),
        ("no clock", "clock synchronised", Warning, Box::new(|it| other(it).clock_kept = false)),
        (
            "late",
            "clock skew",
            Warning,
            Box::new(|it| {
                it.between.skew = Some(Skew { least_us: -700_000, most_us: -600_000 });
            }),
        ),
        (
            "early",
            "clock skew",
            Failed,
            Box::new(|it| {
                it.between.skew = Some(Skew { least_us: 60_000_000, most_us: 61_000_000 });
            }),
        ),
        ("far", "round trip", Warning, Box::new(|it| it.between.round_trip_us = Some(30_000))),
        (
            "port",
            "ports",
            Failed,
            Box::new(|it| {
                it.here.ports.push(Port {
                    what: "link".into(),
                    address: "10.0.0.1:7433".parse().unwrap(),
                    error: Some("in use".into()),
                });
            }),
        ),
        (
            "stranger",
            "virtual IP",
            Failed,
            Box::new(|it| {
                let address = &mut it.here.addresses[0];
                (address.here, address.holder) = (false, Ok(Some("02:00:00:00:00:09".into())));
            }),
        ),
        ("twice", "virtual IP", Failed, Box::new(|it| other(it).addresses[0].here = true)),
        (
            "unasked",
            "virtual IP",
            Warning,
            Box::new(|it| {
                let address = &mut it.here.addresses[0];
                (address.here, address.holder) = (false, Err("no device".into()));
            }),
        ),
        ("older", "duolog", Warning, Box::new(|it| other(it).version = "0.9".into())),
        ("machine", "architecture", Failed, Box::new(|it| other(it).machine = "aarch64".into())),
        ("libc", "C library", Failed, Box::new(|it| other(it).libc = Some("glibc 2.36".into()))),
        ("no libc", "C library", Warning, Box::new(|it| other(it).libc = None)),
        ("icu", "ICU library", Failed, Box::new(|it| other(it).servers[0].icu = Some("x".into()))),
        ("ids", "user of services", Failed, Box::new(|it| other(it).users[0].ids = Some((1, 1)))),
        ("nobody", "user of services", Failed, Box::new(|it| other(it).users[0].ids = None)),
        ("fuse", "FUSE", Failed, Box::new(|it| it.here.fuse.unusable = Some("no".into()))),
        (
            "limit",
            "FUSE time-outs",
            Failed,
            Box::new(|it| {
                other(it).fuse.timeouts.push("fs.fuse.max_request_timeout".into());
            }),
        ),
        ("selinux", "SELinux", Warning, Box::new(|it| it.here.selinux_enforces = true)),
        ("apparmor", "AppArmor", Warning, Box::new(|it| it.here.apparmor.push("mysqld".into()))),
        (
            "twofold",
            "start at boot",
            Failed,
            Box::new(|it| {
                it.here.at_boot.push("postgresql.service".into());
            }),
        ),
        ("not ours", "start at boot", Warning, Box::new(|it| other(it).at_boot.clear())),
        (
            "full",
            "room",
            Failed,
            Box::new(|it| {
                it.here.places[0].system = Ok(("xfs".into(), 500 << 20, 20 << 30));
            }),
        ),
        (
            "tight",
            "room",
            Warning,
            Box::new(|it| {
                other(it).places[1].system = Ok(("xfs".into(), 5 << 30, 100 << 30));
            }),
        ),
        ("unknown", "room", Warning, Box::new(|it| it.here.places[0].system = Err("?".into()))),
        (
            "plain",
            "extended attributes",
            Failed,
            Box::new(|it| {
                it.here.places[1].no_attributes = Some("not supported".into());
            }),
        ),
        (
            "memory",
            "file system",
            Failed,
            Box::new(|it| {
                it.here.places[0].system = Ok(("tmpfs".into(), 50 << 30, 100 << 30));
            }),
        ),
        (
            "network",
            "file system",
            Warning,
            Box::new(|it| {
                it.here.places[0].system = Ok(("nfs".into(), 50 << 30, 100 << 30));
            }),
        ),
        (
            "unlike",
            "file system",
            Warning,
            Box::new(|it| {
                it.here.places[1].system = Ok(("ext4".into(), 50 << 30, 100 << 30));
            }),
        ),
        (
            "slow",
            "fsync of the log",
            Warning,
            Box::new(|it| {
                it.here.sync = Ok(SyncTime { median_us: 30_000, p99_us: 40_000, times: 100 });
            }),
        ),
        (
            "slow commits",
            "measured commit latency",
            Warning,
            Box::new(|it| it.here.commits.as_mut().unwrap().median_us = 60_000),
        ),
        ("unmeasured", "fsync of the log", Failed, Box::new(|it| it.here.sync = Err("?".into()))),
        (
            "release",
            "version",
            Failed,
            Box::new(|it| other(it).servers[0].version = Ok("16".into())),
        ),
        ("missing", "version", Failed, Box::new(|it| other(it).servers.clear())),
        ("silent", "version", Warning, Box::new(|it| it.here.servers[0].version = Err("?".into()))),
        ("fsync", "settings", Failed, Box::new(setting("postgresql", "fsync", "off"))),
        ("fsync n", "settings", Failed, Box::new(setting("postgresql", "fsync", "n"))),
        (
            "commit",
            "settings",
            Failed,
            Box::new(setting("postgresql", "synchronous_commit", "OFF")),
        ),
        (
            "syncfs",
            "settings",
            Failed,
            Box::new(setting("postgresql", "recovery_init_sync_method", "syncfs")),
        ),
        (
            "flush",
            "settings",
            Failed,
            Box::new(setting("mariadb", "innodb_flush_log_at_trx_commit", "2")),
        ),
        (
            "method",
            "settings",
            Failed,
            Box::new(setting("mariadb", "innodb_flush_method", "O_DIRECT_NO_FSYNC")),
        ),
        ("binlog", "settings", Failed, Box::new(setting("mariadb", "log_bin", "mysql-bin"))),
        (
            "unread",
            "settings",
            Warning,
            Box::new(|it| it.here.settings[0].unknown.push("?".into())),
        ),
    ]
}

#[test]
fn each_bad_fact_has_a_line_that_says_what_to_do() {
    for (name, item, verdict, spoil) in spoilt() {
        let mut gathered = good();
        spoil(&mut gathered);
        let lines = judge(&gathered);
        let worst = lines.iter().map(|line| line.verdict).max();
        assert_eq!(worst, Some(verdict), "{name}: {lines:#?}");
        let unwell: Vec<_> = lines.iter().filter(|line| line.verdict != Verdict::Ok).collect();
        assert!(unwell.iter().all(|line| line.item == item), "{name}: {unwell:#?}");
        assert!(unwell.iter().all(|line| line.mend.is_some()), "{name}: {unwell:#?}");
    }
}

/// Values that keep the promises, however they are written.
#[test]
fn good_values_are_well_however_they_are_written() {
    for (engine, name, value) in [
        ("postgresql", "fsync", "TRUE"),
        ("postgresql", "fsync", "y"),
        ("postgresql", "synchronous_commit", "remote_apply"),
        ("postgresql", "synchronous_commit", "local"),
        ("mariadb", "innodb_flush_log_at_trx_commit", "3"),
        ("postgresql", "full_page_writes", "off"),
        ("postgresql", "full_page_writes", "on"),
        ("mariadb", "innodb_doublewrite", "0"),
        ("mariadb", "log_bin", "OFF"),
        ("sqlite", "fsync", "off"),
    ] {
        let mut gathered = good();
        setting(engine, name, value)(&mut gathered);
        let lines = judge(&gathered);
        assert!(
            lines.iter().all(|line| line.verdict == Verdict::Ok),
            "{name} = {value}: {lines:#?}"
        );
    }
    // The last one counts.
    let mut gathered = good();
    setting("postgresql", "fsync", "off")(&mut gathered);
    setting("postgresql", "fsync", "on")(&mut gathered);
    assert!(judge(&gathered).iter().all(|line| line.verdict == Verdict::Ok));
}

/// Safe here, and who takes the directory elsewhere is told.
#[test]
fn a_server_without_a_shield_against_torn_pages_is_told_where_it_needs_one() {
    for (engine, name, value, off) in [
        ("postgresql", "full_page_writes", "no", true),
        ("postgresql", "full_page_writes", "on", false),
        ("postgresql", "fsync", "on", false),
        ("mariadb", "innodb_doublewrite", "OFF", true),
        ("mariadb", "innodb_doublewrite", "1", false),
        ("sqlite", "full_page_writes", "off", false),
    ] {
        let mut gathered = good();
        setting(engine, name, value)(&mut gathered);
        let lines = judge(&gathered);
        let told = |text: &str| lines.iter().any(|line| line.text.contains(text));
        assert_eq!(told("not outside of it"), off, "{name} = {value}: {lines:#?}");
        let said = gathered.here.settings.iter().find_map(unshielded);
        assert_eq!(said.is_some(), off, "{name} = {value}: {said:?}");
        assert!(said.is_none_or(|said| said.contains("is not safe in") && said.contains(name)));
    }
}
