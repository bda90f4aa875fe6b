//! Both ends of a set-up in one process, each in a directory of its own and with an address of the
//! loopback network that no other test has.

mod bad;
mod bad_join;
mod repeated;

use std::collections::BTreeMap;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU8, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use super::checks::Facts;
use super::init::{Ready, prepare};
use super::join::{Joined, join};
use super::old::Old;
use super::record::{CA, CONFIG, PAIR_KEY, WITNESS_KEY};
use super::wait::Waiting;
use crate::cli::setup::target;
use crate::cli::{Init, Join};
use crate::config::Config;

pub(super) const LIFE: Duration = Duration::from_mins(2);
/// Small segments: a log is written full when it begins.
const LOG: &str = "\n[log]\nsegment_bytes = 4194304\n";

/// Two computers.
pub(super) struct Site {
    home: tempfile::TempDir,
    number: u8,
}

impl Site {
    pub(super) fn new() -> Self {
        static NUMBER: AtomicU8 = AtomicU8::new(1);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let site = Self { home: tempfile::tempdir().unwrap(), number };
        fs::create_dir_all(site.at(1).join("data/base")).unwrap();
        fs::write(site.at(1).join("data/base/1"), "a table").unwrap();
        fs::create_dir(site.at(2)).unwrap();
        site
    }

    fn at(&self, node: u8) -> PathBuf {
        self.home.path().join(format!("node{node}"))
    }

    pub(super) fn etc(&self, node: u8) -> PathBuf {
        self.at(node).join("etc")
    }

    fn data(&self, node: u8) -> PathBuf {
        self.at(node).join("data")
    }

    pub(super) fn address(&self, node: u8) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::new(127, 88, self.number, node), 7433))
    }

    fn init(&self) -> Init {
        let home = self.at(1);
        Init {
            admin: "admin".into(),
            admin_password_file: None,
            name: Some("shop".into()),
            dir: vec![self.data(1)],
            address: Some(self.address(1)),
            also_address: Vec::new(),
            witness: None,
            virtual_ip: Vec::new(),
            preset: Vec::new(),
            programs: None,
            state_dir: home.join("state"),
            socket: home.join("sock"),
            etc: self.etc(1),
            code: false,
        }
    }

    /// With small segments from now on.
    pub(super) fn prepared(&self) -> Ready {
        prepared(&self.init())
    }

    pub(super) fn join(&self, code: &str) -> Join {
        let home = self.at(2);
        Join {
            target: target(&format!("{code}@{}", self.address(1))).unwrap(),
            address: self.address(2),
            also_address: Vec::new(),
            dir: vec![self.data(2)],
            delete_old_data: Vec::new(),
            state_dir: home.join("state"),
            socket: home.join("sock"),
            etc: self.etc(2),
        }
    }

    fn text(&self, node: u8, name: &str) -> String {
        fs::read_to_string(self.etc(node).join(name)).unwrap()
    }

    pub(super) fn config(&self, node: u8) -> Config {
        Config::load(&self.etc(node).join(CONFIG)).unwrap()
    }
}

fn prepared(options: &Init) -> Ready {
    let ready = prepare(options, &facts("one"), None).unwrap();
    let file = options.etc.join(CONFIG);
    let text = fs::read_to_string(&file).unwrap();
    if !text.contains(LOG) {
        fs::write(&file, text + LOG).unwrap();
    }
    ready
}

pub(super) fn facts(computer: &str) -> Facts {
    let unused = |_| Ok(());
    Facts { version: "1.2.3".into(), computer: computer.into(), clock_us: || 0, unused }
}

/// What a computer says while it waits, and at the end.
pub(super) type Ending = JoinHandle<anyhow::Result<SocketAddr>>;

/// The first computer waits; its code.
pub(super) fn wait(ready: Ready, life: Duration) -> (String, Ending) {
    let waiting = Waiting::begin(ready, facts("one"), life).unwrap();
    let code = waiting.code().to_string();
    (code, std::thread::spawn(move || waiting.run(|_| {})))
}

pub(super) fn joined(options: &Join) -> Joined {
    join(options, &facts("two")).unwrap()
}

/// Every file below `path`, with what is in it.
fn tree(path: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let (mut files, mut open) = (BTreeMap::new(), vec![path.to_owned()]);
    while let Some(path) = open.pop() {
        let meta = path.symlink_metadata().unwrap();
        if meta.is_dir() {
            open.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
            files.insert(path, Vec::new());
        } else if meta.is_file() {
            files.insert(path.clone(), fs::read(path).unwrap());
        } else {
            files.insert(path, Vec::new());
        }
    }
    files
}

#[test]
fn two_computers_become_a_pair_with_nothing_but_a_code() {
    let site = Site::new();
    let mut options = site.init();
    options.witness = Some("10.0.0.3:7432".parse().unwrap());
    options.also_address = vec![SocketAddr::from((Ipv4Addr::new(127, 89, site.number, 1), 7433))];
    let (code, waiting) = wait(prepared(&options), LIFE);
    // The database that was there on the second computer.
    fs::create_dir(site.data(2)).unwrap();
    fs::write(site.data(2).join("old"), "kept").unwrap();
    let mut second = site.join(&code);
    second.also_address = vec![SocketAddr::from((Ipv4Addr::new(127, 89, site.number, 2), 7433))];
    let came = join(&second, &Facts { clock_us: || 90_000_000, ..facts("two") }).unwrap();
    assert_eq!(waiting.join().unwrap().unwrap(), site.address(2));

    assert!(!came.already);
    assert!(came.notes.iter().any(|note| note.contains("90 s ahead")), "{:?}", came.notes);
    let [(_, Old::Aside(aside))] = &came.old[..] else { panic!("{:?}", came.old) };
    assert_eq!(fs::read(aside.join("old")).unwrap(), b"kept");
    assert!(fs::read_dir(site.data(2)).unwrap().next().is_none());
    assert!(site.at(2).join(".data.duolog/data").is_dir());
    // The first one's directory is as it was, until it is adopted.
    assert_eq!(fs::read(site.data(1).join("base/1")).unwrap(), b"a table");
    assert!(!site.at(1).join(".data.duolog").exists());

    let [one, two] = [1, 2].map(|node| site.config(node));
    assert_eq!(one.cluster, two.cluster);
    assert_eq!(one.log.segment_bytes, 4 << 20);
    assert_eq!(two.log.segment_bytes, one.log.segment_bytes);
    for (node, own, other) in [(1, &one, &two), (2, &two, &one)] {
        let identity = duolog_transport::Identity::load(
            own.certificate.as_ref().unwrap(),
            own.key.as_ref().unwrap(),
        );
        let peer = other.peer.as_ref().unwrap();
        assert!(peer.fingerprint.matches(&identity.unwrap().fingerprint()));
        assert_eq!(peer.address, own.listen);
        assert_eq!(own.paths.len(), 2);
        assert_eq!(own.paths[1].local, other.paths[1].peer);
        assert_eq!(own.witness.as_ref().unwrap().address, "10.0.0.3:7432".parse().unwrap());
        for name in [PAIR_KEY, CA[1], WITNESS_KEY, &format!("node{node}.key")] {
            let mode = fs::metadata(site.etc(node).join(name)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{name}");
        }
        for (path, bytes) in tree(&site.etc(node)) {
            let text = String::from_utf8_lossy(&bytes);
            assert!(!text.contains(&code[..5]), "the code is in {}", path.display());
        }
    }
    assert_eq!(site.text(1, PAIR_KEY), site.text(2, PAIR_KEY));
    assert_eq!(site.text(1, CA[0]), site.text(2, CA[0]));
    // A key of its own for each node, and both for the witness.
    assert_eq!(site.text(1, WITNESS_KEY), site.text(1, "shop-node1.key"));
    assert_eq!(site.text(2, WITNESS_KEY), site.text(1, "shop-node2.key"));
    assert_ne!(site.text(1, WITNESS_KEY), site.text(2, WITNESS_KEY));
    let state = site.at(1).join("witness");
    let witness =
        format!("state_dir = \"{}\"\n{}", state.display(), site.text(1, "witness-pair.toml"));
    fs::write(site.etc(1).join("witness.toml"), witness).unwrap();
    let witness = crate::config::WitnessConfig::load(&site.etc(1).join("witness.toml")).unwrap();
    assert_eq!(witness.pairs[0].cluster, one.cluster);
    assert_eq!(witness.pairs[0].keys[1], site.etc(1).join("shop-node2.key"));
}

#[test]
fn an_old_directory_is_deleted_only_when_its_path_was_typed() {
    let site = Site::new();
    let (code, waiting) = wait(site.prepared(), LIFE);
    fs::create_dir(site.data(2)).unwrap();
    fs::write(site.data(2).join("old"), "gone").unwrap();
    let mut options = site.join(&code);
    options.delete_old_data = vec![site.data(2)];
    let came = joined(&options);
    waiting.join().unwrap().unwrap();
    assert_eq!(came.old, [(site.data(2), Old::Delete)]);
    let beside: Vec<_> =
        fs::read_dir(site.at(2)).unwrap().map(|it| it.unwrap().file_name()).collect();
    assert!(!beside.iter().any(|name| name.to_string_lossy().contains("before-duolog")));
    assert!(!site.at(2).join(".data.duolog-deleting").exists());
    assert!(!tree(&site.at(2)).keys().any(|path| path.ends_with("old")));
}

/// After leaving, with everything taken away, a pair can be set up anew in the same places.
#[test]
fn a_cluster_that_was_left_leaves_nothing_but_the_data() {
    let site = Site::new();
    let (code, waiting) = wait(site.prepared(), LIFE);
    joined(&site.join(&code));
    waiting.join().unwrap().unwrap();
    let leave = |remove_cluster| {
        super::leave(&crate::cli::Leave {
            node: crate::cli::OfConfig { config: site.etc(2).join(CONFIG) },
            remove_cluster,
        })
    };
    leave(false).unwrap();
    assert!(site.etc(2).join(CONFIG).exists());
    let foreign = site.etc(2).join("mine");
    fs::write(&foreign, "mine").unwrap();
    leave(true).unwrap();
    assert_eq!(tree(&site.etc(2)).len(), 2, "{:?}", tree(&site.etc(2)).keys());
    assert_eq!(fs::read(&foreign).unwrap(), b"mine");
    assert!(site.data(2).is_dir() && !site.at(2).join(".data.duolog").exists());
    fs::remove_file(foreign).unwrap();
    let error = leave(true).unwrap_err().to_string();
    assert!(error.contains("cannot read the configuration"), "{error}");
}

/// The SQL server becomes a service of both nodes, each with the directory that it has.
#[test]
fn a_server_that_is_recognised_becomes_a_service_of_both() {
    let site = Site::new();
    fs::write(site.data(1).join("PG_VERSION"), "15").unwrap();
    let mut options = site.init();
    options.programs = Some("/opt/pg/bin".into());
    // Loopback addresses are beside it, in the half of all addresses that both are in.
    let clients = "10.0.0.9/1";
    options.virtual_ip = vec![clients.parse().unwrap()];
    let (code, waiting) = wait(prepared(&options), LIFE);
    joined(&site.join(&code));
    waiting.join().unwrap().unwrap();
    for node in [1, 2] {
        let config = site.config(node);
        assert_eq!(config.directories[0].preset.name(), "postgresql");
        let start = config.services[0].start.join(" ");
        let wanted = format!("/opt/pg/bin/postgres -D {}", site.data(node).display());
        assert!(start.starts_with(&wanted), "{start}");
        assert_eq!(config.addresses[0].address.to_string(), clients);
    }
    // Where nobody knows its programs, it is left to the operator.
    let other = Site::new();
    fs::write(other.data(1).join("PG_VERSION"), "15").unwrap();
    assert!(other.prepared().config.services.is_empty());
}

#[test]
fn an_old_directory_without_room_beside_it_needs_a_typed_deletion() {
    let site = Site::new();
    let place = super::init::place(&site.data(1)).unwrap();
    let plan = |delete| super::old::plan(&place, u64::MAX, delete, "now");
    let error = plan(false).unwrap_err().to_string();
    let typed = format!("--delete-old-data {}", site.data(1).display());
    assert!(error.contains(&typed) && error.contains("make room"), "{error}");
    assert_eq!(plan(true).unwrap(), Old::Delete);
    let new = super::init::place(&site.at(1).join("new")).unwrap();
    let error = super::old::plan(&new, u64::MAX, false, "now").unwrap_err().to_string();
    assert!(error.contains("make room"), "{error}");
}

/// An address beside one that this computer has.
fn clients_address() -> Option<String> {
    let socket = std::net::UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
    // Sends nothing: it asks which address would be used.
    socket.connect((Ipv4Addr::new(198, 51, 100, 1), 9)).ok()?;
    let std::net::IpAddr::V4(own) = socket.local_addr().ok()?.ip() else { return None };
    let [a, b, c, d] = own.octets();
    Some(format!("{a}.{b}.{c}.{}/24", if d == 200 { 201 } else { 200 }))
}

/// Then all that both have alike stands in the document, which the second one gets as it is.
#[test]
fn the_first_administrator_is_of_both_from_the_beginning() {
    let site = Site::new();
    let mut options = site.init();
    // In a subnet of this computer, if it has any beside its loopback.
    options.virtual_ip =
        clients_address().map(|address| address.parse().unwrap()).into_iter().collect();
    let file = site.at(1).join("password");
    fs::write(&file, "correct horse").unwrap();
    options.admin_password_file = Some(file);
    let admin = super::init::administrator(&options).unwrap().unwrap();
    prepare(&options, &facts("one"), Some(&admin)).unwrap();
    // Repeated, nobody is asked again.
    assert_eq!(super::init::administrator(&options).unwrap(), None);
    let config = site.etc(1).join(CONFIG);
    let text = fs::read_to_string(&config).unwrap();
    assert!(!text.contains("virtual_ip") && !text.contains("argon2"), "{text}");
    fs::write(&config, text + LOG).unwrap();
    let (code, waiting) = wait(Ready::read(&options.etc).unwrap(), LIFE);
    joined(&site.join(&code));
    waiting.join().unwrap().unwrap();
    let [one, two] = [1, 2].map(|node| site.config(node));
    assert_eq!(one.shared(), two.shared());
    assert_eq!(one.settled, two.settled);
    let [user] = two.people.users.as_slice() else { panic!("{:?}", two.people) };
    assert_eq!((&*user.name, user.role), ("admin", crate::users::Role::Administrator));
    assert!(user.password.is_some());
    assert_eq!(two.addresses.len(), options.virtual_ip.len());
    let options = crate::cli::Leave {
        node: crate::cli::OfConfig { config: site.etc(2).join(CONFIG) },
        remove_cluster: true,
    };
    super::leave(&options).unwrap();
    assert!(!two.documents().exists(), "hashes are left behind");
}
