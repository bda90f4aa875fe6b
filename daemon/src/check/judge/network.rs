//! Names, routes, ports, addresses and clocks.

use super::{At, Group::Network, Line, both};
use crate::check::facts::{Gathered, Name};

/// Clocks may be apart by so much before somebody should know, and before it fails.
const SKEW_WARNING_US: i64 = 500_000;
const SKEW_FAILED_US: i64 = 10_000_000;

pub(super) fn names(gathered: &Gathered) -> Vec<Line> {
    let mut lines = Vec::new();
    for facts in both(gathered) {
        let known =
            facts.names.iter().filter(|name| name.name.is_some() || name.node == facts.node);
        for name in known {
            lines.push(forward(facts.node, name));
            lines.push(reverse(facts.node, name));
        }
    }
    lines
}

const NAMES: &str = "write both names with their addresses into DNS, or into /etc/hosts on both \
                     computers: Duolog itself goes by addresses, but clients, certificates and people do not";

fn forward(at: u8, name: &Name) -> Line {
    let place = At(Network, "name to address", Some(at));
    let called = name.name.as_deref().unwrap_or("?");
    match (&name.forward, name.address) {
        (Err(error), _) => place.warning(format!("{called} does not resolve: {error}"), NAMES),
        (Ok(found), Some(address)) if !found.contains(&address) => {
            let found: Vec<_> = found.iter().map(ToString::to_string).collect();
            let text = format!("{called} is {}, and the pair uses {address}", found.join(", "));
            place.warning(text, NAMES)
        }
        (Ok(_), address) => {
            let address = address.map_or_else(|| "some address".into(), |it| it.to_string());
            place.ok(format!("{called} is {address}"))
        }
    }
}

fn reverse(at: u8, name: &Name) -> Line {
    let place = At(Network, "address to name", Some(at));
    let address = name.address.map_or_else(|| "?".into(), |address| address.to_string());
    let first = |name: &str| name.split('.').next().unwrap_or_default().to_ascii_lowercase();
    match (&name.reverse, &name.name) {
        (Err(error), _) => place.warning(format!("{address}: {error}"), NAMES),
        (Ok(found), Some(wanted)) if first(found) != first(wanted) => {
            place.warning(format!("{address} is called {found}, and not {wanted}"), NAMES)
        }
        (Ok(found), _) => place.ok(format!("{address} is {found}")),
    }
}

pub(super) fn subnet(gathered: &Gathered) -> Vec<Line> {
    let routes = both(gathered).filter_map(|facts| Some((facts, facts.route.as_ref()?)));
    let judged = routes.map(|(facts, route)| {
        let place = At(Network, "same subnet", Some(facts.node));
        let to = route.to;
        match &route.by {
            Some((device, true)) => place.ok(format!("{to} is reached directly on {device}")),
            Some((device, false)) if facts.addresses.is_empty() => place.warning(
                format!("{to} is reached through a gateway, on {device}"),
                "a virtual IP needs both nodes in one subnet; without one this is only slower",
            ),
            Some((device, false)) => place.failed(
                format!("{to} is reached through a gateway, on {device}"),
                "put both nodes into one subnet: the virtual IP must be usable on either",
            ),
            None => place.failed(
                format!("there is no route to {to}"),
                "give this computer an address in the subnet of the other one (`ip address`)",
            ),
        }
    });
    judged.collect()
}

pub(super) fn clocks(gathered: &Gathered) -> Vec<Line> {
    let mut lines = Vec::new();
    for facts in both(gathered) {
        let place = At(Network, "clock synchronised", Some(facts.node));
        lines.push(if facts.clock_kept {
            place.ok("the kernel's clock is kept")
        } else {
            place.warning(
                "nothing keeps the kernel's clock",
                "run chrony or systemd-timesyncd on both computers: after a takeover the time of \
                 the SQL server would jump",
            )
        });
    }
    let Some(skew) = gathered.between.skew else { return lines };
    let place = At(Network, "clock skew", None);
    let ms = |us: i64| us.unsigned_abs().div_ceil(1000);
    // What is sure: zero where the interval holds it.
    let least =
        if skew.least_us > 0 { skew.least_us } else { skew.most_us.min(0).saturating_neg() };
    let most = skew.least_us.saturating_abs().max(skew.most_us.saturating_abs());
    let text = format!("{} to {} ms apart", ms(least), ms(most));
    let mend = "set both clocks by one source (chrony, systemd-timesyncd)";
    lines.push(match least {
        SKEW_FAILED_US.. => place.failed(text, mend),
        SKEW_WARNING_US.. => place.warning(text, mend),
        _ => place.ok(text),
    });
    lines
}

pub(super) fn round_trip(gathered: &Gathered) -> Vec<Line> {
    let Some(us) = gathered.between.round_trip_us else { return Vec::new() };
    let place = At(Network, "round trip", None);
    vec![match us {
        20_000.. => place.warning(
            format!("{us} us: every commit waits for it"),
            "bring the nodes closer together, or put the link on a network of its own",
        ),
        _ => place.ok(format!("{us} us")),
    }]
}

pub(super) fn ports(gathered: &Gathered) -> Vec<Line> {
    let mut lines = Vec::new();
    for facts in both(gathered) {
        for port in &facts.ports {
            let place = At(Network, "ports", Some(facts.node));
            let what = format!("UDP {} for the {}", port.address, port.what);
            lines.push(match &port.error {
                None => place.ok(format!("{what} is free")),
                Some(error) => place.failed(
                    format!("{what} cannot be taken: {error}"),
                    "end what listens there (`ss -lnup`), or write another port or an address of \
                     this computer into its configuration and the other one's",
                ),
            });
        }
    }
    if gathered.runs {
        lines.push(At(Network, "ports", None).ok("held by the nodes that run"));
    }
    lines
}

pub(super) fn addresses(gathered: &Gathered) -> Vec<Line> {
    let judged = gathered.here.addresses.iter().map(|here| {
        let place = At(Network, "virtual IP", None);
        let address = &here.address;
        let there = gathered
            .other
            .as_ref()
            .ok()
            .and_then(|other| other.addresses.iter().find(|there| there.address == *address));
        let (node, peer) = (gathered.here.node, 3 - gathered.here.node);
        match (here.here, there.is_some_and(|there| there.here)) {
            (true, true) => place.failed(
                format!("{address} is on both nodes"),
                "take it away on the node that does not serve (`ip address del`), and see what put \
                 it there",
            ),
            (true, false) => place.ok(format!("{address} is on node{node}")),
            (false, true) => place.ok(format!("{address} is on node{peer}")),
            (false, false) => match &here.holder {
                Ok(None) => place.ok(format!("{address} is free")),
                Ok(Some(mac)) if gathered.other.is_err() => place.warning(
                    format!("{address} is used by the computer with hardware address {mac}"),
                    "see that this is the other node (`ip link` there); if not, give one of them \
                     another address",
                ),
                Ok(Some(mac)) => place.failed(
                    format!("{address} is used by the computer with hardware address {mac}"),
                    "give that computer another address, or this pair another virtual IP",
                ),
                Err(error) => place.warning(
                    format!("nobody could be asked for {address}: {error}"),
                    "run duolog check as root, and see that the device is there and up",
                ),
            },
        }
    });
    judged.collect()
}
