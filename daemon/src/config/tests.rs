//! What the checks of a configuration promise.

use super::checkers::CheckKind;
use super::services::StopSignal;
use super::*;

const SAMPLE: &str = include_str!("../../../packaging/duolog.toml");

fn faults(text: &str) -> Vec<Fault> {
    Config::parse(text, Path::new("/etc/duolog")).unwrap_err()
}

/// The sample with one line replaced; the replaced text must be there.
fn with(from: &str, to: &str) -> String {
    assert!(SAMPLE.contains(from), "the sample has no {from}");
    SAMPLE.replacen(from, to, 1)
}

#[test]
fn the_sample_parses_to_what_it_says() {
    let config = Config::parse(SAMPLE, Path::new("/etc/duolog")).unwrap();
    assert_eq!(config.node, NodeId::Node1);
    assert_eq!(config.role, None);
    assert_eq!(config.certificate.unwrap(), Path::new("/etc/duolog/node1.crt"));
    let peer = config.peer.unwrap();
    assert_eq!((peer.compression, peer.mtu_bytes), (Compression::Adaptive, 1452));
    assert_eq!(config.directories[0].preset, Preset::Postgresql);
    assert_eq!(config.log.segment_bytes, 64 << 20);
    assert_eq!(config.paths[0].peer, "10.0.0.2:7533".parse().unwrap());
    let witness = config.witness.unwrap();
    assert_eq!((witness.id, witness.key), (Some(3), "/etc/duolog/witness1.key".into()));
    assert_eq!(config.pair.drop_address[1], "10.0.0.8");
    let [address] = &config.addresses[..] else { panic!("{:?}", config.addresses) };
    assert_eq!(address.address, "10.0.0.9/24".parse().unwrap());
    assert_eq!((address.device.as_deref(), address.conflict), (Some("eth0"), Conflict::Serve));
    let service = &config.services[0];
    assert_eq!((service.name.as_str(), service.foreground), ("postgresql", false));
    assert_eq!(service.user.as_deref(), Some("postgres"));
    let checker = &service.checkers[0];
    assert_eq!(checker.kind, CheckKind::Tcp { address: "10.0.0.1:5432".parse().unwrap() });
    assert_eq!((service.check.len(), checker.restarts), (6, Some(1)));
}

#[test]
fn https_needs_a_certificate_and_http_is_only_there_when_asked_for() {
    let base = Path::new("/etc/duolog");
    let web = |text: &str| Config::parse(text, base).unwrap().web;
    assert_eq!(web(SAMPLE).unwrap().http, None);
    assert_eq!(web(SAMPLE.split("[web]").next().unwrap()), None);
    let third = SAMPLE.replace("instance = 1", "instance = 3").replace("https = ", "# ");
    assert_eq!(web(&third).unwrap().https.port(), 9473);
    let alone = "[cluster]\nid = \"00000000000000000000000000000001\"\n[node]\nnumber = 1\n\
                 state_dir = \"/s\"\n[[directory]]\npath = \"/data\"\n[web]\n";
    let [fault] = &faults(alone)[..] else { panic!("{:?}", faults(alone)) };
    assert!(fault.to_string().contains("has no certificate"), "{fault}");
    let both = with("# http = \"127.0.0.1:9010\"", "http = \"0.0.0.0:9453\"");
    let [fault] = &faults(&both)[..] else { panic!("{:?}", faults(&both)) };
    assert!(fault.to_string().contains("is the address of https"), "{fault}");
}

/// An operator who leaves a key out gets what the sample file calls the default.
#[test]
fn the_sample_shows_the_defaults() {
    let optional = ["control_socket", "listen", "compression", "mtu_bytes", "segment_bytes"]
        .into_iter()
        .chain(["checkpoint_bytes", "unacknowledged_max_bytes", "recovery_window_bytes"])
        .chain(["profile", "heartbeat_ms", "peer_lost_ms", "stall_ms", "fence_ms", "failover_ms"])
        .chain(["disk_stall_ms"])
        .chain(["stop_services_ms", "auto_rejoin", "start_at_boot", "split_brain"])
        .chain(["retention_bytes", "resync_bytes_per_s", "verify_every_s", "verify_bytes_per_s"])
        .chain(["conflict", "foreground", "stop_signal", "start_seconds", "stop_seconds"])
        .chain(["process", "restarts", "restart_window_seconds", "instance"])
        .chain(["interval_ms", "timeout_ms", "failures"])
        .chain([
            "dir",
            "file_bytes",
            "files",
            "level",
            "https",
            "metrics_credentials",
            "change_commands",
        ]);
    let mut short = SAMPLE.to_owned();
    for key in optional {
        let line = short.lines().find(|line| line.starts_with(&format!("{key} = "))).unwrap();
        short = short.replacen(&format!("{line}\n"), "", 1);
    }
    let base = Path::new("/etc/duolog");
    assert_eq!(Config::parse(&short, base).unwrap(), Config::parse(SAMPLE, base).unwrap());
}

#[test]
fn every_fault_is_reported_at_once_with_its_line() {
    let text = "\
[cluster]
id = \"12\"
[node]
number = 3
role = \"primary\"
state_dir = \"relative\"
lissen = \"0.0.0.0:7433\"
[peer]
address = \"node2.example:7433\"
fingerprint = \"sha256:00\"
mtu_bytes = 9000
[[directory]]
path = \"/data\"
preset = \"oracle\"
local = [\"../up\"]
[log]
segment_bytes = \"64 MiB\"
[[path]]
local = \"0.0.0.0\"
[witness]
address = \"10.0.0.3:7432\"
id = \"3\"
key = \"k\"
[gateway]
address = \"router\"
[pair]
profile = \"quick\"
auto_rejoin = \"yes\"
stall_ms = 5
[[service]]
name = \"a/b\"
start = [\"sleep\", \"1\"]
stop = []
[[service]]
foreground = false
";
    let found = faults(text);
    let lines: Vec<_> = found.iter().map(|fault| (fault.line, fault.key.as_str())).collect();
    let expected = [
        (2, "cluster.id"),
        (3, "node.certificate"),
        (3, "node.key"),
        (4, "node.number"),
        (5, "node.role"),
        (6, "node.state_dir"),
        (7, "node.lissen"),
        (9, "peer.address"),
        (10, "peer.fingerprint"),
        (11, "peer.mtu_bytes"),
        (14, "directory.preset"),
        (15, "directory.local"),
        (17, "log.segment_bytes"),
        (18, "path.peer"),
        (19, "path.local"),
        (22, "witness.id"),
        (25, "gateway.address"),
        (27, "pair.profile"),
        (28, "pair.auto_rejoin"),
        (29, "pair.stall_ms"),
        (30, "service.stop"),
        (31, "service.name"),
        (32, "service.start"),
        (34, "service.name"),
        (34, "service.start"),
        (34, "service.foreground"),
    ];
    assert_eq!(lines, expected, "{found:#?}");
    assert!(found[6].right.contains("\"listen\""), "{}", found[6]);
}

#[test]
fn a_syntax_error_is_named_with_its_line() {
    let found = faults(&with("number = 1", "number = "));
    let line = SAMPLE.lines().position(|line| line.starts_with("number = 1")).unwrap() + 1;
    assert_eq!(found[0].line, line, "{found:#?}");
}

#[test]
fn an_empty_file_says_all_that_is_missing() {
    let keys: Vec<_> = faults("").into_iter().map(|fault| fault.key).collect();
    assert_eq!(keys, ["cluster", "node", "directory"]);
}

#[test]
fn a_second_without_a_peer_is_refused() {
    let start = SAMPLE.find("\n[peer]").unwrap();
    let end = SAMPLE.find("\n[[directory]]").unwrap();
    let alone = format!("{}{}", &SAMPLE[..start], &SAMPLE[end..]);
    assert!(Config::parse(&alone, Path::new("/")).unwrap().peer.is_none());
    let found = faults(&alone.replacen("# role = \"prim\"", "role = \"second\"", 1));
    assert_eq!(found.len(), 1, "{found:#?}");
    assert_eq!(found[0].key, "node.role");

    let found = faults(&format!("{alone}\n[gateway]\naddress = \"10.0.0.254\"\n"));
    assert_eq!(found[0].to_string().split(';').next(), Some("gateway: is there, and no [peer]"));
}

/// Else the SQL server could still run where the other node believes that it does not.
#[test]
fn a_primary_that_is_fenced_too_late_is_refused_when_the_file_is_read() {
    for (from, to, key) in [
        ("fence_ms = 3000", "fence_ms = 3600", "pair.failover_ms"),
        ("stop_services_ms = 1500", "stop_services_ms = 2000", "pair.failover_ms"),
        ("failover_ms = 5000", "failover_ms = 4500", "pair.failover_ms"),
        ("peer_lost_ms = 2000", "peer_lost_ms = 3000", "pair.fence_ms"),
        ("heartbeat_ms = 1000", "heartbeat_ms = 1001", "pair.peer_lost_ms"),
    ] {
        let found = faults(&with(&format!("\n{from}"), &format!("\n{to}")));
        assert_eq!(found.len(), 1, "{found:#?}");
        assert_eq!(found[0].key, key);
    }
    let found = &faults(&with("\nfence_ms = 3000", "\nfence_ms = 3600"))[0];
    assert_eq!(
        found.wrong,
        "fence_ms (3600) and stop_services_ms (1500) are 5100 ms together, and failover_ms is \
         5000: the SQL server could still run here when the other node takes over"
    );
    assert!(found.right.starts_with("write failover_ms = 5611 or more"), "{found}");
}

/// What the sample says of the timers that are left out.
#[test]
fn timers_that_are_left_out_come_from_the_profile_and_the_witness() {
    let start = SAMPLE.find("\n[witness]").unwrap();
    let end = SAMPLE.find("\n[[service]]").unwrap();
    let timers = |tables: &str| {
        let text = format!("{}\n{tables}{}", &SAMPLE[..start], &SAMPLE[end..]);
        let pair = Config::parse(&text, Path::new("/")).unwrap().pair;
        let Pair { heartbeat_ms, peer_lost_ms, stall_ms, fence_ms, failover_ms, .. } = pair;
        [heartbeat_ms, peer_lost_ms, stall_ms, fence_ms, failover_ms, pair.stop_services_ms]
    };
    let witness = "[witness]\naddress = \"10.0.0.3:7432\"\nkey = \"k\"\n";
    assert_eq!(timers(""), [1000, 2000, 5000, 20_000, 30_000, 7500]);
    assert_eq!(timers(witness), [1000, 2000, 5000, 3000, 5000, 1500]);
    let fast = "[pair]\nprofile = \"fast\"\n";
    assert_eq!(timers(fast), [100, 300, 1000, 500, 1000, 375]);
    assert_eq!(timers(&format!("{witness}{fast}fence_ms = 600\n"))[3..], [600, 1000, 300]);
    let disk_stall = |keys: &str| {
        let text = format!("{}\n{fast}{keys}{}", &SAMPLE[..start], &SAMPLE[end..]);
        Config::parse(&text, Path::new("/")).map(|config| config.pair.disk_stall_ms)
    };
    assert_eq!(disk_stall("").unwrap(), 30_000);
    assert_eq!(disk_stall("stall_ms = 60000\n").unwrap(), 60_000);
    let error = disk_stall("stall_ms = 5000\ndisk_stall_ms = 30\n").unwrap_err();
    let error = format!("{error:?}");
    assert!(error.contains("30 is less than stall_ms, which is 5000"), "{error}");
}

/// Several pairs on the same two computers.
#[test]
fn an_instance_has_ports_and_a_socket_of_its_own() {
    let start = SAMPLE.find("\n[[path]]").unwrap();
    let end = SAMPLE.find("\n[witness]").unwrap();
    let text = format!("{}{}", &SAMPLE[..start], &SAMPLE[end..])
        .replacen("instance = 1", "instance = 3", 1)
        .replacen("control_socket = \"/run/duolog/1.sock\"\n", "", 1)
        .replacen("listen = \"0.0.0.0:7433\"\n", "", 1);
    let config = Config::parse(&text, Path::new("/")).unwrap();
    assert_eq!(config.listen, "0.0.0.0:7435".parse().unwrap());
    assert_eq!(config.paths[0].local, "0.0.0.0:7535".parse().unwrap());
    assert_eq!(config.control_socket, Path::new("/run/duolog/3.sock"));
    let listed = faults(&with("instance = 1", "instance = 100"));
    assert_eq!(listed[0].key, "node.instance");
    // The ports of the hundredth would be those of the heartbeats of the first.
    let taken = faults(&with("10.0.0.1:7533", "10.0.0.1:7433"));
    assert!(taken[0].wrong.contains("taken by the link ([node] listen"), "{taken:?}");
}

#[test]
fn heartbeats_without_a_path_go_beside_the_link() {
    let start = SAMPLE.find("\n[[path]]").unwrap();
    let end = SAMPLE.find("\n[witness]").unwrap();
    let text = format!("{}{}", &SAMPLE[..start], &SAMPLE[end..]);
    let paths = Config::parse(&text, Path::new("/")).unwrap().paths;
    let (local, peer) = ("0.0.0.0:7533".parse().unwrap(), "10.0.0.2:7533".parse().unwrap());
    assert_eq!(paths, [HeartbeatPath { local, peer }]);
    let found = faults(&text.replacen("0.0.0.0:7433", "0.0.0.0:65500", 1));
    assert_eq!(found[0].key, "path", "{found:#?}");
    let twice =
        with("[witness]", "[[path]]\nlocal = \"10.0.0.1:7533\"\npeer = \"[::1]:1\"\n[witness]");
    let keys: Vec<_> = faults(&twice).into_iter().map(|fault| fault.key).collect();
    assert_eq!(keys, ["path.local", "path.peer"]);
}

/// With a role the pair decides nothing, so there is nothing to keep secret between the nodes.
#[test]
fn the_key_of_the_pair_is_asked_for_unless_there_is_a_role() {
    let without = with("pair_key = \"pair.key\"\n", "");
    assert_eq!(faults(&without)[0].key, "node.pair_key");
    let fixed = without.replacen("# role = \"prim\"", "role = \"prim\"", 1);
    assert!(Config::parse(&fixed, Path::new("/")).unwrap().pair_key.is_none());
}

#[test]
fn a_service_that_goes_to_the_background_needs_a_command_that_ends_it() {
    let start = SAMPLE.find("stop = [").unwrap();
    let end = start + SAMPLE[start..].find('\n').unwrap() + 1;
    let without = format!("{}{}", &SAMPLE[..start], &SAMPLE[end..]);
    assert_eq!(faults(&without)[0].key, "service.foreground");
    let itself = without.replacen("foreground = false\n", "", 1);
    let service = &Config::parse(&itself, Path::new("/")).unwrap().services[0];
    assert!(service.foreground && service.stop.is_empty());
    let two = faults(&format!("{SAMPLE}\n[[service]]\nname = \"postgresql\"\nstart = [\"/a\"]\n"));
    assert!(two[0].wrong.contains("two called"), "{two:#?}");
}

/// The sample with one service and nothing else that could be missing.
fn with_service(tables: &str) -> String {
    let start = SAMPLE.find("\n[[service]]").unwrap();
    let end = SAMPLE.find("\n[[directory]]").unwrap();
    format!("{}\n{tables}{}", &SAMPLE[..start], &SAMPLE[end..])
}

fn service(tables: &str) -> Service {
    Config::parse(&with_service(tables), Path::new("/")).unwrap().services.remove(0)
}

#[test]
fn the_example_of_four_services_is_one() {
    let text = include_str!("../../../packaging/sqlserver.toml");
    let config = Config::parse(text, Path::new("/")).unwrap();
    let names: Vec<_> = config.services.iter().map(|service| service.name.as_str()).collect();
    assert_eq!(names, ["sqlserver", "management", "events", "log"]);
    assert!(config.services.iter().all(|service| !service.checkers.is_empty()));
}

#[test]
fn a_preset_fills_what_is_not_written() {
    let filled = service("[[service]]\npreset = \"postgresql\"\n");
    assert_eq!(filled.name, "postgresql");
    let start = "/usr/lib/postgresql/15/bin/postgres -D /var/lib/postgresql/15/main -p 5432 -c \
                 config_file=/etc/postgresql/15/main/postgresql.conf";
    assert_eq!(filled.start.join(" "), start);
    assert!(filled.foreground && filled.stop.is_empty() && filled.process);
    assert_eq!((filled.stop_signal, filled.stop_seconds), (StopSignal::Int, 60));
    assert_eq!(filled.user.as_deref(), Some("postgres"));
    assert_eq!(filled.check[0], "/usr/lib/postgresql/15/bin/pg_isready");
    let [checker] = &filled.checkers[..] else { panic!("{filled:?}") };
    let CheckKind::Sql { command } = &checker.kind else { panic!("{checker:?}") };
    assert_eq!(command.last().unwrap(), "SELECT 1");

    let own = service(
        "[[service]]\nname = \"db\"\npreset = \"mariadb\"\ndata = \"/srv/maria\"\nport = 3307\n\
         user = \"dba\"\nstop = [\"/bin/end\"]\nstop_seconds = 5\ncheck = [\"/bin/check\"]\n\
         [[service.checker]]\nkind = \"sql\"\nquery = \"SELECT 2\"\nfailures = 3\n\
         [[service.checker]]\nkind = \"http\"\naddress = \"127.0.0.1:80\"\npath = \"/up\"\n",
    );
    assert_eq!(own.start[0], "/usr/sbin/mariadbd");
    assert!(own.start.contains(&"--datadir=/srv/maria".into()), "{:?}", own.start);
    assert!(own.start.contains(&"--port=3307".into()) && own.foreground);
    assert_eq!((own.user.as_deref(), own.stop_seconds), (Some("dba"), 5));
    assert_eq!((own.stop[0].as_str(), own.check[0].as_str()), ("/bin/end", "/bin/check"));
    let CheckKind::Sql { command } = &own.checkers[0].kind else { panic!("{own:?}") };
    assert_eq!((command.last().unwrap().as_str(), own.checkers[0].failures), ("SELECT 2", 3));
    let (address, path) = ("127.0.0.1:80".parse().unwrap(), "/up".into());
    assert_eq!(own.checkers[1].kind, CheckKind::Http { address, path, status: 200 });

    let none = service("[[service]]\nname = \"a\"\nstart = [\"/a\"]\nrestarts = 0\n");
    assert_eq!((none.checkers.len(), none.check.len(), none.restarts), (0, 0, 0));
}

#[test]
fn a_unit_of_systemd_is_a_service_and_a_preset_says_how_it_is_looked_at() {
    let unit = service("[[service]]\nname = \"shop\"\nunit = \"shop@a-1\\\\x2d.service\"\n");
    assert_eq!((unit.name.as_str(), unit.start.len()), ("shop", 0));
    assert_eq!(unit, Service { name: "shop".into(), ..Service::of_unit("shop@a-1\\x2d.service") });
    let text = "[[service]]\npreset = \"postgresql\"\nunit = \"postgresql@15-main.service\"\n";
    let filled = service(text);
    assert_eq!(filled.name, "postgresql");
    assert_eq!(filled.unit.as_deref(), Some("postgresql@15-main.service"));
    assert_eq!((filled.user.as_deref(), filled.checkers.len()), (Some("postgres"), 1));
    assert_eq!(filled.check[0], "/usr/lib/postgresql/15/bin/pg_isready");
}

#[test]
fn what_is_no_unit_that_runs_is_refused() {
    let said = |rest: &str| {
        let faults = faults(&with_service(&format!("[[service]]\nname = \"a\"\n{rest}")));
        faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
    };
    for (unit, why) in [
        ("postgresql", "does not end in .service"),
        ("a.socket", "does not end in .service"),
        ("a/b.service", "cannot be the name of a unit"),
        (".service", "cannot be the name of a unit"),
        ("postgresql@.service", "is a template"),
        ("-a.service", "is a template"),
        ("duolog@2.service", "is Duolog itself"),
        ("duolog.service", "is Duolog itself"),
    ] {
        let said = said(&format!("unit = \"{unit}\"\n"));
        assert!(said.contains("service.unit") && said.contains(why), "{said}");
    }
    for other in
        ["start = [\"/a\"]", "stop = [\"/a\"]", "stop_signal = \"INT\"", "foreground = true"]
    {
        let said = said(&format!("unit = \"a.service\"\n{other}\n"));
        assert!(said.contains("is written beside unit"), "{said}");
    }
    let twice = "unit = \"a.service\"\n[[service]]\nname = \"b\"\nunit = \"a.service\"\n";
    assert!(said(twice).contains("\"a.service\" is two services"));
}

#[test]
fn every_fault_of_a_service_and_its_checkers_is_reported_at_once() {
    let text = with_service(
        "[[service]]\npreset = \"oracle\"\nprocess = 1\nrestarts = 2000\ncheck = [\"pg_isready\"]\n\
         [[service]]\npreset = \"mariadb\"\n\
         [[service]]\nname = \"p\"\npreset = \"postgresql\"\ndata = \"/srv/pg\"\n\
         [[service]]\nname = \"x\"\nstart = [\"/x\"]\n\
         [[service.checker]]\nkind = \"ping\"\n\
         [[service.checker]]\nkind = \"sql\"\n\
         [[service.checker]]\nkind = \"tcp\"\naddress = \"localhost:1\"\n\
         [[service.checker]]\nkind = \"http\"\npath = \"up\"\nstatus = 7\n\
         [[service.checker]]\nkind = \"command\"\nfailures = 0\n\
         [[service.checker]]\nkind = \"tcp\"\naddress = \"[::1]:1\"\npath = \"/\"\n",
    );
    let first = text[..text.find("[[service]]").unwrap()].lines().count();
    let found = faults(&text);
    let lines: Vec<_> =
        found.iter().map(|fault| (fault.line - first, fault.key.as_str())).collect();
    let expected = [
        (2, "service.preset"),
        (3, "service.process"),
        (4, "service.restarts"),
        (5, "service.check"),
        (7, "service.data"),
        (10, "service.programs"),
        (16, "service.checker.kind"),
        (17, "service.checker.kind"),
        (21, "service.checker.address"),
        (22, "service.checker.address"),
        (24, "service.checker.path"),
        (25, "service.checker.status"),
        (26, "service.checker.command"),
        (28, "service.checker.failures"),
        (32, "service.checker.path"),
    ];
    assert_eq!(lines, expected, "{found:#?}");
    assert!(found[7].right.contains("preset"), "{}", found[7]);
}

#[test]
fn a_log_inside_of_what_it_replicates_is_refused() {
    let found = faults(&with("/var/lib/duolog/1", "/var/lib/postgresql/15/main/duolog"));
    assert_eq!(found[0].key, "directory.path", "{found:#?}");
    let twice = format!("{SAMPLE}\n[[directory]]\npath = \"/var/lib/postgresql/15/main/pg_wal\"\n");
    assert!(faults(&twice)[0].wrong.contains("overlap"));
}

#[test]
fn an_address_that_belongs_to_a_computer_does_not_move() {
    let listed = |address: &str| {
        let text = with("address = \"10.0.0.9/24\"", &format!("address = \"{address}\""));
        let faults = faults(&text);
        faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
    };
    for (address, said) in [
        ("10.0.0.1/24", "10.0.0.1 is the address of [[path]] local, which stays where it is"),
        ("10.0.0.2/24", "the address of [peer]"),
        ("10.0.0.9", "write the length of its subnet behind it"),
        ("10.0.0.255/24", "the broadcast address of its subnet"),
    ] {
        let listed = listed(address);
        assert!(listed.contains("virtual_ip.address") && listed.contains(said), "{listed}");
    }
    let twice = "conflict = \"serve\"\n[[virtual_ip]]\naddress = \"10.0.0.9/16\"\n";
    let listed = faults(&with("conflict = \"serve\"\n", twice));
    assert!(listed[0].to_string().contains("10.0.0.9 is there twice"), "{listed:?}");
    let device = faults(&with("device = \"eth0\"", "device = \"no such/device\""));
    assert!(device[0].to_string().contains("cannot be a network device"), "{device:?}");
}
