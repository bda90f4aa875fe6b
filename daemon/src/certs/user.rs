//! `duolog certs user` and `duolog certs revoke`: certificates of people, and what counts no more.
//!
//! The files are made here and the key is kept nowhere else. The serial number stands in the document
//! before the file is handed out, so that each certificate can be revoked by its user's name.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, bail};
use duolog_transport::new_key;
use p12_keystore::{Certificate, KeyStore, KeyStoreEntry, PrivateKey, PrivateKeyChain};
use x509_parser::pem::parse_x509_pem;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::renew::authority;
use super::{DAY_S, now_s};
use crate::cli::{AskNode, Making, RevokeCertificate, UserCertificate};
use crate::config::{Config, Shared};
use crate::document;
use crate::users::{self, Role};

/// Shortest and longest password of a file, in characters: what every program that imports it takes.
const LENGTH: std::ops::RangeInclusive<usize> = 6..=32;

/// A password that no file can have.
#[derive(Debug, thiserror::Error)]
#[error(
    "the password of the file has {found} characters; take {} to {} of letters, digits and signs of \
     ASCII", LENGTH.start(), LENGTH.end()
)]
struct P12PasswordError {
    found: usize,
}

fn fit_password(password: &str) -> Result<(), P12PasswordError> {
    let found = password.chars().count();
    let plain = password.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic());
    if plain && LENGTH.contains(&found) { Ok(()) } else { Err(P12PasswordError { found }) }
}

fn der(pem: &str) -> anyhow::Result<Vec<u8>> {
    Ok(parse_x509_pem(pem.as_bytes())?.1.contents)
}

/// `duolog certs user`.
pub(super) fn run(options: &UserCertificate) -> anyhow::Result<ExitCode> {
    let name = &options.name;
    users::fit_name(name)?;
    let config = Config::load_own(&options.node.config)?;
    let (authority, root) = authority(&config)?;
    let file = options.out.join(format!("{name}.p12"));
    if file.exists() {
        bail!("{} exists, and is not overwritten; move it away, or give --out", file.display());
    }
    let making = making(&options.node.config, options.here);
    let text = document::fetch(&making.node)?.map_or_else(String::new, |document| document.text);
    let known = people(&text)?.named(name).map(|user| user.role);
    let role = role(name, known, options.role)?;
    let typed = users::ask_password(
        &format!("Password of {}", file.display()),
        options.password_file.as_deref(),
    )?;
    fit_password(&typed)?;
    let key = new_key()?;
    let until_s = now_s() + i64::from(options.days) * DAY_S;
    let certificate = authority.issue_user(name, role.name(), &key, until_s)?;
    let certificate = der(&certificate)?;
    let serial = {
        let (_, parsed) = X509Certificate::from_der(&certificate)?;
        let serial = users::serial(&parsed.raw_serial_as_string());
        serial.context("the certificate got no serial number; repeat the command")?
    };
    let bytes = p12(name, &key, &certificate, &der(&root)?, &typed)?;

    let words = vec!["certs user".into(), name.clone(), format!("--role={role}")];
    let code = document::change(&making, words, |text| {
        let text = match known {
            Some(_) => text.to_owned(),
            None => users::add(text, name, role, None)?,
        };
        users::made(&text, name, &serial)
    })?;
    if code != ExitCode::SUCCESS {
        return Ok(code);
    }
    new_file(&file, 0o600, &bytes)?;
    let trusted = options.out.join("duolog-ca.crt");
    if std::fs::read(&trusted).ok().as_deref() != Some(root.as_bytes()) {
        new_file(&trusted, 0o644, root.as_bytes())?;
    }
    println!("{}: the certificate of {name}, {role}; import it with its password", file.display());
    println!("{}: the pair's authority; import it as one for web sites", trusted.display());
    println!("serial {serial}; duolog certs revoke {name} revokes all of {name}'s");
    Ok(ExitCode::SUCCESS)
}

/// What the certificate says, and the document if it has no such user yet.
fn role(name: &str, known: Option<Role>, given: Option<Role>) -> anyhow::Result<Role> {
    match (known, given) {
        (Some(known), Some(given)) if known != given => bail!(
            "{name} is {known} in the settings, which decide; leave --role out, or first: duolog users \
             role {name} {given}"
        ),
        (Some(role), _) | (None, Some(role)) => Ok(role),
        (None, None) => bail!("there is no user {name}; say --role, and he is added"),
    }
}

fn p12(
    name: &str,
    key: &str,
    certificate: &[u8],
    root: &[u8],
    password: &str,
) -> anyhow::Result<Vec<u8>> {
    let key = parse_x509_pem(key.as_bytes())?.1.contents;
    let chain = [Certificate::from_der(certificate)?, Certificate::from_der(root)?];
    let chain = PrivateKeyChain::new(name, PrivateKey::from_der(&key)?, chain);
    let mut store = KeyStore::new();
    store.add_entry(name, KeyStoreEntry::PrivateKeyChain(chain));
    store.writer(password).write().context("cannot write the certificate as PKCS#12")
}

fn new_file(path: &Path, mode: u32, bytes: &[u8]) -> anyhow::Result<()> {
    let file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path);
    file.and_then(|mut file| file.write_all(bytes)).with_context(|| {
        format!("cannot write {}; an existing file is not overwritten: give --out", path.display())
    })
}

fn people(text: &str) -> anyhow::Result<crate::config::People> {
    Shared::people(text).map_err(|faults| {
        let first = faults.first().map(ToString::to_string).unwrap_or_default();
        anyhow::anyhow!("the settings have {} faults: {first}", faults.len())
    })
}

fn making(config: &Path, here: bool) -> Making {
    Making { here, node: AskNode { socket: None, config: Some(config.to_owned()) } }
}

/// `duolog certs revoke`.
pub(super) fn revoke(options: &RevokeCertificate) -> anyhow::Result<ExitCode> {
    let Some(what) = &options.what else { return revoke_node(options) };
    let making = making(&options.node.config, options.here);
    let text = document::fetch(&making.node)?.map_or_else(String::new, |document| document.text);
    let people = people(&text)?;
    let owner = |serial: &str| {
        let mut users = people.users.iter();
        let user = users.find(|user| user.certificates.iter().any(|it| it == serial));
        user.map_or_else(String::new, |user| user.name.clone())
    };
    let serials = match (people.named(what), users::serial(what)) {
        (Some(user), _) => user.certificates.clone(),
        (None, Some(serial)) => vec![serial],
        (None, None) => bail!(
            "{what} is neither a user nor the serial number of a certificate; duolog users list shows \
             both"
        ),
    };
    if serials.iter().all(|serial| people.is_revoked(serial)) {
        bail!("{what} has no certificate that counts; nothing was changed");
    }
    let words = vec!["certs revoke".into(), what.clone()];
    let code = document::change(&making, words, |text| {
        serials
            .iter()
            .try_fold(text.to_owned(), |text, serial| users::revoke(&text, serial, &owner(serial)))
    })?;
    if code == ExitCode::SUCCESS {
        println!("{} certificate(s) count no more", serials.len());
    }
    Ok(code)
}

/// The other node's key is not to be trusted any more. The other node is not asked: who has its key
/// must not be able to prevent it.
fn revoke_node(options: &RevokeCertificate) -> anyhow::Result<ExitCode> {
    let config = Config::load_own(&options.node.config)?;
    let Some(peer) = &config.peer else {
        bail!("this node has no [peer], so there is no key of another node to revoke");
    };
    let number = config.node.peer().number();
    if !options.yes {
        bail!(
            "that ends the redundancy until node{number} has left and joined anew; nothing was done: \
             add --yes if it is meant"
        );
    }
    let making = making(&options.node.config, true);
    let text = document::fetch(&making.node)?.map_or_else(String::new, |document| document.text);
    let pinned = people(&text)?.pins;
    let mut keys: Vec<_> =
        pinned.iter().filter(|(of, _)| *of == number).map(|(_, key)| *key).collect();
    keys.push(peer.fingerprint);
    let words = vec!["certs revoke".into(), "--other-node".into()];
    let code = document::change(&making, words, |text| users::pin(text, number, &[], &keys))?;
    if code == ExitCode::SUCCESS {
        println!(
            "this node talks to node{number} no more. To have it back: there, stop it and duolog leave \
             --remove-cluster; here, remove [peer], [[path]] and [witness] from {}, replace pair.key \
             if it was on the same disk, and duolog init --code; there, duolog join",
            options.node.config.display()
        );
    }
    Ok(code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_of_a_file_has_six_to_thirty_two_characters() {
        for (password, fits) in
            [("five5", false), ("sixsix", true), ("pässword", false), ("a\tb c d", false)]
        {
            assert_eq!(fit_password(password).is_ok(), fits, "{password}");
        }
        assert!(fit_password(&"x".repeat(32)).is_ok());
        let long = fit_password(&"x".repeat(33)).unwrap_err().to_string();
        assert!(long.contains("has 33 characters; take 6 to 32"), "{long}");
    }

    #[test]
    fn the_document_decides_a_role_that_it_knows() {
        assert_eq!(role("a", None, Some(Role::Viewer)).unwrap(), Role::Viewer);
        assert_eq!(role("a", Some(Role::Viewer), None).unwrap(), Role::Viewer);
        let differs = role("a", Some(Role::Viewer), Some(Role::Administrator)).unwrap_err();
        assert!(differs.to_string().contains("a is viewer in the settings, which decide"));
        assert!(role("a", None, None).unwrap_err().to_string().contains("say --role"));
    }
}
