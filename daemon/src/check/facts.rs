//! What one computer tells of itself for a check: facts, and no judgement of them. Crosses the link as
//! JSON, so every list has a bound and nothing in it is secret.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// All of them, of one node.
#[expect(clippy::struct_excessive_bools, reason = "facts, each of its own")]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Facts {
    /// 1 or 2.
    pub node: u8,
    /// Version of duolog.
    pub version: String,
    /// Name of the computer.
    pub host: String,
    /// Architecture, as the kernel names it.
    pub machine: String,
    /// Version of the C library that is installed.
    pub libc: Option<String>,
    /// Names, as they are resolved here.
    pub names: Vec<Name>,
    /// How the other node is reached from here.
    pub route: Option<Route>,
    /// Whether something keeps the clock.
    pub clock_kept: bool,
    /// Programs of SQL servers.
    pub servers: Vec<Server>,
    /// Users of services.
    pub users: Vec<User>,
    /// Where log and data are.
    pub places: Vec<Place>,
    /// How long the disk of the log takes to sync; or why that is not known.
    pub sync: Result<SyncTime, String>,
    /// How long commits waited that came while it was looked; nothing where none came, or the node
    /// does not serve.
    pub commits: Option<SyncTime>,
    /// Settings of SQL servers.
    pub settings: Vec<Settings>,
    /// Ports that could not be taken, where the node does not run.
    pub ports: Vec<Port>,
    /// The clients' addresses.
    pub addresses: Vec<Address>,
    /// FUSE and the kernel.
    pub fuse: Fuse,
    /// `SELinux` is there, and enforces.
    pub selinux_enforces: bool,
    /// Profiles of `AppArmor` about SQL servers.
    pub apparmor: Vec<String>,
    /// Units of systemd that are started at boot: of duolog and of SQL servers.
    pub at_boot: Vec<String>,
    /// There is systemd.
    pub systemd: bool,
    /// The configuration has services.
    pub has_services: bool,
}

/// A name of a node.
#[expect(clippy::struct_field_names, reason = "the name of a name is its text")]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Name {
    /// Whose it is.
    pub node: u8,
    /// The name, which may be unknown.
    pub name: Option<String>,
    /// The address that the pair uses for that node.
    pub address: Option<IpAddr>,
    /// What the name means; or why that is not known.
    pub forward: Result<Vec<IpAddr>, String>,
    /// What the address is called; or why that is not known.
    pub reverse: Result<String, String>,
}

/// How the other node is reached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Route {
    /// Where it is.
    pub to: IpAddr,
    /// The device, and whether it is reached without a gateway; nothing where there is no route.
    pub by: Option<(String, bool)>,
}

/// The program of a SQL server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Server {
    /// Where it is.
    pub program: PathBuf,
    /// What it says about itself; or why that is not known.
    pub version: Result<String, String>,
    /// The ICU library that it uses, if any.
    pub icu: Option<String>,
}

/// A user as whom services run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct User {
    /// Its name.
    pub name: String,
    /// Numbers of user and group, if there is such a user.
    pub ids: Option<(u32, u32)>,
}

/// A place on a file system.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Place {
    /// "log", or the replicated directory.
    pub what: String,
    /// The directory that was looked at.
    pub path: PathBuf,
    /// Kind of file system, and bytes: free ones, and all; or why that is not known.
    pub system: Result<(String, u64, u64), String>,
    /// Why a file there takes no extended attribute, if so.
    pub no_attributes: Option<String>,
}

/// How long something takes that is done for a commit: a write of 8 KiB with its sync, or all of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SyncTime {
    /// In microseconds.
    pub median_us: u64,
    /// In microseconds.
    pub p99_us: u64,
    /// How often it was measured.
    pub times: usize,
}

impl SyncTime {
    /// Of times that are sorted; nothing where there are none.
    pub(super) fn of(sorted_us: &[u64]) -> Option<Self> {
        let last = sorted_us.len().checked_sub(1)?;
        let part = |hundredths: usize| sorted_us[last * hundredths / 100];
        Some(Self { median_us: part(50), p99_us: part(99), times: sorted_us.len() })
    }
}

/// What was found in the configuration of a SQL server.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Settings {
    /// "postgresql", "mariadb" or "sqlite".
    pub engine: String,
    /// The replicated directory.
    pub directory: PathBuf,
    /// Settings that matter, each with its value and where it is from; the last one counts.
    pub found: Vec<Setting>,
    /// What could not be read, with the reason.
    pub unknown: Vec<String>,
}

/// A setting.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Setting {
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: String,
    /// The file, or the command line.
    pub from: String,
}

/// A port that is wanted and could not be taken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Port {
    /// What for.
    pub what: String,
    /// Where.
    pub address: SocketAddr,
    /// Why not.
    pub error: Option<String>,
}

/// An address of the clients.
#[expect(clippy::struct_field_names, reason = "the address of an address is its text")]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Address {
    /// With its prefix.
    pub address: String,
    /// It is on this computer.
    pub here: bool,
    /// The hardware address of who answers for it, if somebody else does; or why nobody could be
    /// asked.
    pub holder: Result<Option<String>, String>,
}

/// FUSE.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Fuse {
    /// Why it cannot be used, if so.
    pub unusable: Option<String>,
    /// Time-outs of the kernel that are not zero.
    pub timeouts: Vec<String>,
}

/// Times that two clocks may differ by: the other one's minus this one's, in microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Skew {
    /// At least.
    pub least_us: i64,
    /// At most.
    pub most_us: i64,
}

/// What two nodes know of each other.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Between {
    /// How far their clocks are apart.
    pub skew: Option<Skew>,
    /// The shortest of some round trips over the link, in microseconds.
    pub round_trip_us: Option<u64>,
}

/// Everything that a check judges.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Gathered {
    /// Of this node.
    pub here: Facts,
    /// Of the other one; or why there are none.
    pub other: Result<Box<Facts>, String>,
    /// Between them.
    pub between: Between,
    /// The node runs.
    pub runs: bool,
}
