//! The configuration as a set-up writes it: what it knows, and nothing that has a default.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::Path;

use anyhow::{Context, bail};
use duolog_transport::Fingerprint;
use toml::{Table, Value};

use super::checks::HEARTBEAT_PORT;
use super::record::{PAIR_KEY, Record, WITNESS_KEY};
use crate::config::web::HTTPS_PORT;
use crate::config::{Config, INSTANCES_MAX, LINK_PORT};

/// Tables that each node has its own of.
const OWN: [&str; 7] = ["cluster", "node", "peer", "path", "witness", "directory", "web"];

/// A text as TOML writes it.
fn quoted(text: &dyn ToString) -> String {
    Value::String(text.to_string()).to_string()
}

/// What a node is, and what it replicates.
pub(super) fn node(record: &Record) -> String {
    let [certificate, key] = record.identity();
    let mut text = format!(
        "# Duolog: node{number} of pair {name}. packaging/duolog.toml explains every key.\n\n\
         [cluster]\nid = \"{cluster}\"\n\n\
         [node]\nnumber = {number}\nstate_dir = {state}\ncontrol_socket = {socket}\n\
         listen = \"{listen}\"\ncertificate = \"{certificate}\"\nkey = \"{key}\"\n\
         pair_key = \"{PAIR_KEY}\"\n\n[web]\nhttps = \"0.0.0.0:{https}\"\n",
        number = record.node,
        name = record.name,
        cluster = record.cluster,
        state = quoted(&record.state_dir.display()),
        socket = quoted(&record.control_socket.display()),
        listen = record.addresses[0],
        https = https_port(record.addresses[0].port()),
    );
    for directory in &record.directories {
        let path = quoted(&directory.path.display());
        let preset = quoted(&directory.preset);
        write!(text, "\n[[directory]]\npath = {path}\npreset = {preset}\n")
            .expect("a text takes everything");
    }
    text
}

/// The clients' addresses.
pub(super) fn virtual_ips(record: &Record) -> String {
    let mut text = String::new();
    for address in &record.virtual_ips {
        let address = quoted(address);
        write!(text, "\n[[virtual_ip]]\naddress = {address}\n").expect("a text takes everything");
    }
    text
}

/// The HTTPS port beside a link's: that of the same instance, the first one's where it is nobody's.
fn https_port(link: u16) -> u16 {
    let after = link.checked_sub(LINK_PORT).filter(|after| u64::from(*after) < INSTANCES_MAX);
    HTTPS_PORT + 10 * after.unwrap_or(0)
}

/// A service for each engine whose programs are known.
pub(super) fn services(record: &Record) -> String {
    let mut text = String::new();
    for preset in ["postgresql", "mariadb"] {
        let mut of = record.directories.iter().filter(|it| it.preset == preset);
        let Some(first) = of.next() else { continue };
        write!(text, "\n[[service]]\npreset = \"{preset}\"\n").expect("a text takes everything");
        // A service finds the only directory of its preset, wherever that is on either node.
        if of.next().is_some() {
            writeln!(text, "data = {}", quoted(&first.path.display()))
                .expect("a text takes everything");
        }
        if let Some(programs) = &record.programs {
            writeln!(text, "programs = {}", quoted(&programs.display()))
                .expect("a text takes everything");
        }
    }
    text
}

/// The other node and the ways to it.
pub(super) fn peer(record: &Record, to: &[SocketAddr], fingerprint: Fingerprint) -> String {
    let mut text = format!("\n[peer]\naddress = \"{}\"\nfingerprint = \"{fingerprint}\"\n", to[0]);
    let beat =
        |address: &SocketAddr| SocketAddr::new(address.ip(), address.port() + HEARTBEAT_PORT);
    for (own, other) in record.addresses.iter().zip(to) {
        let (own, other) = (beat(own), beat(other));
        write!(text, "\n[[path]]\nlocal = \"{own}\"\npeer = \"{other}\"\n")
            .expect("a text takes everything");
    }
    if let Some(witness) = record.witness {
        write!(text, "\n[witness]\naddress = \"{witness}\"\nkey = \"{WITNESS_KEY}\"\n")
            .expect("a text takes everything");
    }
    text
}

/// What both nodes have alike in a configuration: services, addresses, timers, sizes.
pub(super) fn shared(config: &str) -> anyhow::Result<String> {
    let mut table: Table = config.parse().context("the configuration is no TOML")?;
    for own in OWN {
        table.remove(own);
    }
    let text = toml::to_string(&table).context("the settings cannot be written")?;
    Ok(if text.is_empty() { text } else { format!("\n{text}") })
}

/// Refuses a text that a node would refuse.
pub(super) fn check(text: &str, etc: &Path) -> anyhow::Result<Config> {
    match Config::parse(text, etc) {
        Ok(config) => Ok(config),
        Err(faults) => {
            let faults: Vec<_> = faults.iter().map(|fault| format!("\n  {fault}")).collect();
            bail!(
                "these options give no configuration that a node would run with:{}",
                faults.concat()
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use super::https_port;

    #[test]
    fn each_instance_has_its_own_https_port() {
        assert_eq!([7433, 7434, 7531].map(https_port), [9453, 9463, 10433]);
        assert_eq!([80, 7532, 65535].map(https_port), [9453; 3]);
    }
}
