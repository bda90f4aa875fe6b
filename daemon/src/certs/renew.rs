//! `duolog certs renew`: a new certificate for a node that runs, which takes it without a restart.
//! Interrupted at any step, it is repeated.
//!
//! Over the same key nobody is asked: on the link the certificate goes on that the other node has
//! pinned. A new key comes in steps, so that the nodes know each other at each of them:
//!
//! 1. the new key is written beside the old one;
//! 2. the document pins both, so that the other node takes either;
//! 3. certificate and key are replaced, and the node reads them again;
//! 4. the document pins the new key alone and revokes the old one: a link that was begun with it
//!    ends, and begins with the new one.

use std::net::IpAddr;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, bail};
use duolog_transport::{Authority, Fingerprint, Identity, new_key};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::keys::Files;
use super::{DAY_S, now_s};
use crate::cli::{AskNode, Making, RenewCertificate};
use crate::config::{Config, Shared};
use crate::control::{self, Answer, AskError, Question};
use crate::document;
use crate::setup::{CA, Etc};
use crate::users;

/// The directory of a file and its name.
fn place(path: &Path) -> anyhow::Result<(&Path, &str)> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    let name = path.file_name().and_then(|name| name.to_str());
    let name = name.with_context(|| format!("{} names no file", path.display()))?;
    Ok((directory.unwrap_or(Path::new(".")), name))
}

/// Writes a file of the set-up, whole or not at all.
fn put(path: &Path, public: bool, text: &str) -> anyhow::Result<()> {
    let (directory, name) = place(path)?;
    Etc::open(directory)?.replace(name, public, text)
}

/// The authority of the pair, whose key stands beside the node's certificate.
pub(super) fn authority(config: &Config) -> anyhow::Result<(Authority, String)> {
    let files = Files::of(config)?;
    let [certificate, key] = CA.map(|name| files.certificate.with_file_name(name));
    let read = |path: &Path| {
        std::fs::read_to_string(path).with_context(|| {
            format!(
                "cannot read {}: the pair's authority is made by duolog init, and a pair whose keys \
                 were made by duolog keygen has none",
                path.display()
            )
        })
    };
    let (certificate, key) = (read(&certificate)?, read(&key)?);
    let (_, pem) = x509_parser::pem::parse_x509_pem(certificate.as_bytes())?;
    let (_, parsed) = X509Certificate::from_der(&pem.contents)?;
    let pair = parsed.subject().iter_organization().next().and_then(|pair| pair.as_str().ok());
    let pair = pair.context("the authority's certificate names no pair; bring ca.crt back")?;
    Ok((Authority::new(pair, &key)?, certificate))
}

/// By which names a certificate goes, the one that people see first.
fn names(pem: &str) -> anyhow::Result<Vec<String>> {
    let (_, pem) = x509_parser::pem::parse_x509_pem(pem.as_bytes())?;
    let (_, parsed) = X509Certificate::from_der(&pem.contents)?;
    let found = parsed.subject_alternative_name()?.context("the certificate has no names")?;
    let names = found.value.general_names.iter().filter_map(|name| match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        GeneralName::IPAddress(bytes) => match bytes.len() {
            4 => <[u8; 4]>::try_from(*bytes).ok().map(|it| IpAddr::from(it).to_string()),
            _ => <[u8; 16]>::try_from(*bytes).ok().map(|it| IpAddr::from(it).to_string()),
        },
        _ => None,
    });
    Ok(names.collect())
}

/// `duolog certs renew`.
pub(super) fn run(options: &RenewCertificate) -> anyhow::Result<ExitCode> {
    let config = Config::load_own(&options.node.config)?;
    let files = Files::of(&config)?;
    let (authority, _) = authority(&config)?;
    let present = files.identity()?;
    let mut names = names(present.certificate_pem())?;
    for name in &options.also_name {
        if !names.contains(name) {
            names.push(name.clone());
        }
    }
    let until_s = now_s() + i64::from(options.days) * DAY_S;
    if options.new_key || files.next_key().exists() {
        new_key_for(options, &config, &files, &|key| {
            Ok(authority.issue_until(&names, key, until_s)?)
        })?;
        return Ok(ExitCode::SUCCESS);
    }
    let new = authority.issue_until(&names, present.key_pem(), until_s)?;
    if !files.link().exists() {
        put(&files.link(), true, present.certificate_pem())?;
    }
    put(&files.certificate, true, &new)?;
    told(&files, taken(&config)?);
    Ok(ExitCode::SUCCESS)
}

fn told(files: &Files, taken: bool) {
    let how =
        if taken { "the node shows it from now on" } else { "the node takes it when it starts" };
    println!("{} is new; {how}", files.certificate.display());
}

/// The node reads its files again, if it runs.
fn taken(config: &Config) -> anyhow::Result<bool> {
    match control::ask(&config.control_socket, &Question::ReadCertificates, &mut |_| {}) {
        Ok(Answer::CertificatesRead { .. }) => Ok(true),
        Err(AskError::NotRunning { .. }) => Ok(false),
        Ok(_) => bail!("the node answered another question; restart it, or upgrade it"),
        Err(error) => Err(error).context(
            "the files are new, and the node did not read them; mend that, and repeat the command",
        ),
    }
}

fn new_key_for(
    options: &RenewCertificate,
    config: &Config,
    files: &Files,
    issue: &dyn Fn(&str) -> anyhow::Result<String>,
) -> anyhow::Result<()> {
    let node = config.node.number();
    let making = Making {
        here: false,
        node: AskNode { socket: None, config: Some(options.node.config.clone()) },
    };
    let pin = |pins: &[Fingerprint], revoked: &[Fingerprint]| -> anyhow::Result<()> {
        let base = document::fetch(&making.node)?;
        let text = base.map_or_else(String::new, |document| document.text);
        if users::pin(&text, node, pins, revoked)? == text {
            return Ok(());
        }
        let words = vec!["certs renew".into(), "--new-key".into()];
        let code = document::change(&making, words, |text| users::pin(text, node, pins, revoked))?;
        if code != ExitCode::SUCCESS {
            bail!("the other node does not know the new key; mend that, and repeat the command");
        }
        Ok(())
    };
    let present = files.identity()?;
    if !files.next_key().exists() && !is_begun(&making, node, &present)? {
        put(&files.next_key(), false, &new_key()?)?;
    }
    if files.next_key().exists() {
        let next = std::fs::read_to_string(files.next_key())?;
        let certificate = issue(&next)?;
        let new = Identity::from_pem(&certificate, &next)?.key_fingerprint()?;
        let old = present.key_fingerprint()?;
        if old != new {
            pin(&[old, new], &[]).context(
                "the new key is not taken yet, and the old one goes on; repeat the command",
            )?;
            put(&files.certificate, true, &certificate)?;
        }
        // From here on the certificate fits the next key alone.
        match std::fs::remove_file(files.link()) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
            _ => {}
        }
        put(&files.key, false, &next)?;
        std::fs::remove_file(files.next_key())?;
    }
    let ran = taken(config)?;
    let new = files.identity()?.key_fingerprint()?;
    let old: Vec<_> = pins(&making, node)?.into_iter().filter(|pin| *pin != new).collect();
    pin(&[new], &old)?;
    told(files, ran);
    println!("key {new}; the old one counts no more");
    Ok(())
}

fn pins(making: &Making, node: u8) -> anyhow::Result<Vec<Fingerprint>> {
    let text = document::fetch(&making.node)?.map_or_else(String::new, |document| document.text);
    let people = Shared::people(&text).unwrap_or_default();
    Ok(people.pins.iter().filter(|(of, _)| *of == node).map(|(_, key)| *key).collect())
}

/// Whether a new key has taken its place and the old one is still pinned.
fn is_begun(making: &Making, node: u8, present: &Identity) -> anyhow::Result<bool> {
    let (pins, present) = (pins(making, node)?, present.key_fingerprint()?);
    Ok(pins.len() > 1 && pins.contains(&present))
}
