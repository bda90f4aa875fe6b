//! `duolog certs`: the certificates of a node, and those of its users.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::OfConfig;
use super::users::roles;
use crate::users::Role;

/// `duolog certs`.
#[derive(Args, Debug)]
pub(crate) struct Certs {
    /// What to do.
    #[command(subcommand)]
    pub verb: CertsVerb,
}

/// What can be done with certificates.
#[derive(Debug, Subcommand)]
pub(crate) enum CertsVerb {
    /// Show whose they are, their fingerprints and until when they are good. The node need not run.
    Show(OfConfig),
    /// Make a new certificate for this node, which takes it while it runs.
    Renew(RenewCertificate),
    /// Make a certificate for a user, as NAME.p12, and add the user where there is none of that name.
    User(UserCertificate),
    /// Revoke the certificates of a user, one certificate, or the key of the other node.
    Revoke(RevokeCertificate),
}

/// `duolog certs renew`.
#[derive(Args, Debug)]
pub(crate) struct RenewCertificate {
    /// Which node.
    #[command(flatten)]
    pub node: OfConfig,
    /// With a new key, which both nodes agree on first; the old one counts no more.
    #[arg(long)]
    pub new_key: bool,
    /// For how many days it is good.
    #[arg(long, value_name = "DAYS", default_value_t = 825, value_parser = clap::value_parser!(u16).range(1..=3650))]
    pub days: u16,
    /// One more name or address, by which people ask; once for each.
    #[arg(long, value_name = "NAME|IP")]
    pub also_name: Vec<String>,
}

/// `duolog certs user`.
#[derive(Args, Debug)]
pub(crate) struct UserCertificate {
    /// Whose.
    pub name: String,
    /// What the user may do, where there is none of that name yet.
    #[arg(long, value_parser = roles())]
    pub role: Option<Role>,
    /// Which node; it runs, and has the key of the pair's authority.
    #[command(flatten)]
    pub node: OfConfig,
    /// Where NAME.p12 and duolog-ca.crt go.
    #[arg(long, value_name = "DIR", default_value = ".")]
    pub out: PathBuf,
    /// Where the password of NAME.p12 stands, 6 to 32 characters; - for standard input
    /// [default: it is typed].
    #[arg(long, value_name = "FILE|-")]
    pub password_file: Option<PathBuf>,
    /// For how many days it is good.
    #[arg(long, value_name = "DAYS", default_value_t = 825, value_parser = clap::value_parser!(u16).range(1..=3650))]
    pub days: u16,
    /// Also where the other node does not answer, or cannot take it; it takes the change over when it can.
    #[arg(long)]
    pub here: bool,
}

/// `duolog certs revoke`.
#[derive(Args, Debug)]
pub(crate) struct RevokeCertificate {
    /// A user, all of whose certificates are revoked, or the serial number of one.
    #[arg(value_name = "NAME|SERIAL", required_unless_present = "other_node")]
    pub what: Option<String>,
    /// The key of the other node, which was stolen: this node talks to it no more.
    #[arg(long, conflicts_with = "what")]
    pub other_node: bool,
    /// It is meant: there is no redundancy until the other node has joined anew.
    #[arg(long)]
    pub yes: bool,
    /// Which node.
    #[command(flatten)]
    pub node: OfConfig,
    /// Also where the other node does not answer, or cannot take it; it takes the change over when it can.
    #[arg(long)]
    pub here: bool,
}
