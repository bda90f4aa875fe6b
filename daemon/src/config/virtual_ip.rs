//! `[[virtual_ip]]`: the addresses that clients use.

use std::net::IpAddr;

use duolog_vip::VirtualIp;

use super::reader::{Faults, Section};
use super::values::{choice, required};

/// What happens when another computer answers for the address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Conflict {
    /// The SQL server is started without the address, which is asked for again and again.
    Serve,
    /// The start of this node fails.
    Stop,
    /// The address is taken all the same.
    Take,
}

/// An address that is where the node serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ClientAddress {
    /// The address with its prefix.
    pub address: VirtualIp,
    /// The network device that it belongs on; nothing: the one with an address beside it.
    pub device: Option<String>,
    /// What happens when another computer answers for it.
    pub conflict: Conflict,
}

/// The addresses of the clients. `own` are addresses that belong to a computer, with their keys.
pub(super) fn read_virtual_ips(
    faults: &mut Faults,
    root: &mut Section<'_>,
    own: &[(&str, IpAddr)],
) -> Option<Vec<ClientAddress>> {
    let mut whole = true;
    let mut read: Vec<ClientAddress> = Vec::new();
    for mut section in root.sections(faults, "virtual_ip") {
        let right = "write the address and the prefix of its subnet, such as \"10.0.0.9/24\"";
        let address = required(faults, &mut section, "address", right).and_then(|found| {
            found.read(faults, |text| {
                let parsed = text.parse::<VirtualIp>();
                let address = parsed.map_err(|error| (error.to_string(), right.into()))?;
                if read.iter().any(|other| other.address.ip() == address.ip()) {
                    let wrong = format!("{} is there twice", address.ip());
                    return Err((wrong, "leave one of them out".into()));
                }
                match own.iter().find(|(_, ip)| *ip == address.ip()) {
                    None => Ok(address),
                    Some((key, ip)) => Err((
                        format!("{ip} is the address of {key}, which stays where it is"),
                        "write an address that no computer has of its own".into(),
                    )),
                }
            })
        });
        let device = match section.string(faults, "device") {
            None => (!section.was_there("device")).then_some(None),
            Some(found) => found
                .read(faults, |name| {
                    // As the kernel has it (netdevice(7)): IFNAMSIZ with its NUL.
                    if (1..16).contains(&name.len()) && !name.contains(['/', ' ', '\0']) {
                        return Ok(Some(name));
                    }
                    let right = "write one that `ip link` shows, or leave the key out";
                    Err((format!("\"{name}\" cannot be a network device"), right.into()))
                })
                .map(|found| found.value),
        };
        let conflict = match section.string(faults, "conflict") {
            None => (!section.was_there("conflict")).then_some(Conflict::Serve),
            Some(found) => choice(
                faults,
                found,
                &[("serve", Conflict::Serve), ("stop", Conflict::Stop), ("take", Conflict::Take)],
            ),
        };
        section.finish(faults);
        match (address, device, conflict) {
            (Some(address), Some(device), Some(conflict)) => {
                read.push(ClientAddress { address: address.value, device, conflict });
            }
            _ => whole = false,
        }
    }
    whole.then_some(read)
}
