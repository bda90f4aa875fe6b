//! Users, and certificates that say so, for tests.

use std::path::Path;
use std::sync::Arc;

use super::Users;
use crate::config::Config;
use crate::document::{Documents, Other};

/// Those of a node whose file ends with `tables`.
pub(crate) fn of_text(directory: &Path, tables: &str) -> Users {
    Users::new(documents(directory, tables))
}

/// The document of a node whose file ends with `tables`.
pub(crate) fn documents(directory: &Path, tables: &str) -> Arc<Documents> {
    let text = format!(
        "[cluster]\nid = \"00000000000000000000000000000001\"\n[node]\nnumber = 1\n\
         state_dir = {:?}\n[[directory]]\npath = \"/data\"\n{tables}",
        directory.join("state")
    );
    let file = directory.join("node.toml");
    std::fs::write(&file, text).unwrap();
    Arc::new(Documents::load(&Config::load(&file).unwrap(), Other::Nobody))
}

/// A certificate (DER) of a user of that name.
pub(crate) fn certificate(name: &str) -> Vec<u8> {
    let key = duolog_transport::new_key().unwrap();
    let authority = duolog_transport::Authority::new("shop", &key).unwrap();
    let pem = authority.issue_user(name, "administrator", &key, 4_000_000_000).unwrap();
    der(&pem)
}

/// What a certificate's PEM holds.
pub(crate) fn der(pem: &str) -> Vec<u8> {
    x509_parser::pem::parse_x509_pem(pem.as_bytes()).unwrap().1.contents
}
