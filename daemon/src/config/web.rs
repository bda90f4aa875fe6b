//! `[web]`: what people and their tools ask over HTTPS.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use super::reader::{Faults, Section};
use super::values::{address, switch};

/// Where the first instance listens for HTTPS; the others have the ports above it, ten apart.
pub(crate) const HTTPS_PORT: u16 = 9453;

/// Where a node is asked over HTTPS, and by whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Web {
    /// HTTPS.
    pub https: SocketAddr,
    /// HTTP in clear, only where it was asked for.
    pub http: Option<SocketAddr>,
    /// The file with the token of those who read metrics.
    pub metrics_credentials: PathBuf,
    /// Whether an administrator of the console may change what is run on this computer.
    pub change_commands: bool,
}

/// `has_certificate`: what HTTPS shows is there.
pub(super) fn read_web(
    faults: &mut Faults,
    mut section: Section<'_>,
    base: &Path,
    instance: u16,
    has_certificate: bool,
) -> Option<Web> {
    if !has_certificate {
        let right = "name certificate and key in [node]; duolog keygen makes both";
        faults.add(section.line(), "web", "is there, and this node has no certificate", right);
    }
    let https = match section.string(faults, "https") {
        None if section.was_there("https") => None,
        None => Some(SocketAddr::from(([0, 0, 0, 0], HTTPS_PORT + 10 * (instance - 1)))),
        Some(text) => address(faults, text, "0.0.0.0:9453"),
    };
    let http = match section.string(faults, "http") {
        None => (!section.was_there("http")).then_some(None),
        Some(text) => {
            let line = text.line;
            let http = address(faults, text, "127.0.0.1:9010");
            if http.is_some() && http == https {
                let right = "give HTTP a port of its own, such as 9010, or leave it out";
                faults.add(line, "web.http", "is the address of https", right);
            }
            http.map(Some)
        }
    };
    let metrics_credentials = match section.string(faults, "metrics_credentials") {
        None if section.was_there("metrics_credentials") => None,
        None => Some(base.join("metrics.token")),
        Some(found) => Some(base.join(found.value)),
    };
    let change_commands = switch(faults, &mut section, "change_commands", false);
    section.finish(faults);
    Some(Web {
        https: https?,
        http: http?,
        metrics_credentials: metrics_credentials?,
        change_commands: change_commands?,
    })
}
