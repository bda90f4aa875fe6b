//! Setting a pair up: what can be asked for.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use clap::Args;
use duolog_vip::VirtualIp;

use crate::setup::Code;

const PORT: u16 = 7433;
/// Heartbeats have a port 100 above.
const PORT_MAX: u16 = u16::MAX - 100;

/// `duolog init`.
#[derive(Args, Debug)]
pub(crate) struct Init {
    /// What people call the pair: letters, digits, "-" and "_".
    #[arg(long, required_unless_present = "code")]
    pub name: Option<String>,
    /// A data directory of the SQL server, once for each; the server may go on running.
    #[arg(long, value_name = "DIR", required_unless_present = "code")]
    pub dir: Vec<PathBuf>,
    /// This computer's address for the other one; UDP and TCP port 7433 unless one is given.
    #[arg(long, value_name = "IP[:PORT]", value_parser = address, required_unless_present = "code")]
    pub address: Option<SocketAddr>,
    /// Its address on a further network, for heartbeats; once for each.
    #[arg(long, value_name = "IP[:PORT]", value_parser = address)]
    pub also_address: Vec<SocketAddr>,
    /// The witness's address and port [default: no witness].
    #[arg(long, value_name = "IP:PORT")]
    pub witness: Option<SocketAddr>,
    /// An address of the clients, in a subnet that this computer has an address in; once for each.
    #[arg(long, value_name = "IP/PREFIX")]
    pub virtual_ip: Vec<VirtualIp>,
    /// "postgresql", "mariadb", "sqlite" or "none", once for all or once for each directory
    /// [default: by what is in it].
    #[arg(long, value_name = "ENGINE", value_parser = ["postgresql", "mariadb", "sqlite", "none"])]
    pub preset: Vec<String>,
    /// Where the SQL server's programs are, if not where Debian has them.
    #[arg(long, value_name = "DIR")]
    pub programs: Option<PathBuf>,
    /// For the log, on a disk that syncs fast.
    #[arg(long, value_name = "DIR", default_value = "/var/lib/duolog/1")]
    pub state_dir: PathBuf,
    /// Where commands ask the node.
    #[arg(long, value_name = "PATH", default_value = "/run/duolog/1.sock")]
    pub socket: PathBuf,
    /// For the configuration and the keys.
    #[arg(long, value_name = "DIR", default_value = "/etc/duolog")]
    pub etc: PathBuf,
    /// What the first administrator of the console is called.
    #[arg(long, value_name = "NAME", default_value = "admin")]
    pub admin: String,
    /// Where the administrator's password stands; - for standard input [default: it is typed; where
    /// there is no terminal there is no user].
    #[arg(long, value_name = "FILE|-")]
    pub admin_password_file: Option<PathBuf>,
    /// Give a new code, for a pair that is prepared.
    #[arg(long, conflicts_with_all = ["name", "dir", "address", "also_address", "witness", "virtual_ip", "preset", "programs", "admin_password_file"])]
    pub code: bool,
}

/// `duolog join`.
#[derive(Args, Debug)]
pub(crate) struct Join {
    /// What `duolog init` printed.
    #[arg(value_name = "CODE@IP[:PORT]", value_parser = target)]
    pub target: Target,
    /// This computer's address for the other one; UDP port 7433 unless one is given.
    #[arg(long, value_name = "IP[:PORT]", value_parser = address)]
    pub address: SocketAddr,
    /// Its address on a further network, for heartbeats; in the order of the first computer's.
    #[arg(long, value_name = "IP[:PORT]", value_parser = address)]
    pub also_address: Vec<SocketAddr>,
    /// A directory for the copy, once for each [default: the paths of the first computer].
    #[arg(long, value_name = "DIR")]
    pub dir: Vec<PathBuf>,
    /// Delete what is in this directory now instead of moving it aside. It is gone afterwards.
    #[arg(long, value_name = "DIR")]
    pub delete_old_data: Vec<PathBuf>,
    /// For the log, on a disk that syncs fast.
    #[arg(long, value_name = "DIR", default_value = "/var/lib/duolog/1")]
    pub state_dir: PathBuf,
    /// Where commands ask the node.
    #[arg(long, value_name = "PATH", default_value = "/run/duolog/1.sock")]
    pub socket: PathBuf,
    /// For the configuration and the keys.
    #[arg(long, value_name = "DIR", default_value = "/etc/duolog")]
    pub etc: PathBuf,
}

/// `duolog leave`.
#[derive(Args, Debug)]
pub(crate) struct Leave {
    /// Which node.
    #[command(flatten)]
    pub node: super::OfConfig,
    /// Also remove the keys, certificates and the configuration that init or join made.
    #[arg(long)]
    pub remove_cluster: bool,
}

/// Who is joined, and with what.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    /// The code.
    pub code: Code,
    /// The first computer.
    pub address: SocketAddr,
}

fn address(text: &str) -> Result<SocketAddr, String> {
    let address = match text.parse::<IpAddr>() {
        Ok(ip) => SocketAddr::new(ip, PORT),
        Err(_) => text.parse().map_err(
            |_| "write an IP address, such as 10.0.0.1 or 10.0.0.1:7433; names are not resolved",
        )?,
    };
    if address.ip().is_unspecified() || address.ip().is_multicast() {
        return Err("write the address that the other computer reaches this one at".into());
    }
    if !(1..=PORT_MAX).contains(&address.port()) {
        return Err(format!("write a port from 1 to {PORT_MAX}: heartbeats use one 100 above"));
    }
    Ok(address)
}

/// Also of a test.
pub(crate) fn target(text: &str) -> Result<Target, String> {
    let Some((code, at)) = text.rsplit_once('@') else {
        return Err("write CODE@ADDRESS, as duolog init printed it".into());
    };
    let code = code.parse().map_err(|error: crate::setup::CodeError| error.to_string())?;
    Ok(Target { code, address: address(at)? })
}
