//! The certificates of a node: how long they are good for, and who is told before they end.
//!
//! Between nodes the fingerprint decides and dates are never looked at: a pair goes on with a
//! certificate that has ended. Whoever meets a node by its name over HTTPS does look, so the end is
//! an alarm 30, 7 and 1 days before it. Nothing here refuses anybody.

mod keys;
mod renew;
mod show;
mod user;

use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::PoisonError;

use anyhow::Context;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::alarms;
use crate::config::Config;
use crate::logs;
use crate::pair::wall_ms;

pub(crate) use keys::Keys;
pub(crate) use show::run;

/// So many days before the end of a certificate somebody is told, and told again.
const STEPS_DAYS: [i64; 3] = [30, 7, 1];
const DAY_S: i64 = 86_400;

/// The certificates of a node that are there, by what they are.
pub(crate) fn files(config: &Config) -> Vec<(&'static str, PathBuf)> {
    let Some(own) = &config.certificate else { return Vec::new() };
    // Where set-up puts it; a pair that was made by hand has none.
    let authority = own.with_file_name("ca.crt");
    let mut files = vec![("node", own.clone())];
    if authority.exists() {
        files.push(("ca", authority));
    }
    files
}

/// The certificate (DER) of the pair's authority, where the pair has one.
///
/// # Errors
/// It is there and cannot be read.
pub(crate) fn authority(config: &Config) -> anyhow::Result<Option<Vec<u8>>> {
    let Some((_, path)) = files(config).into_iter().find(|(what, _)| *what == "ca") else {
        return Ok(None);
    };
    let failed = || format!("cannot read {}; bring it back from the other node", path.display());
    let text = std::fs::read(&path).with_context(failed)?;
    let (_, pem) = x509_parser::pem::parse_x509_pem(&text).with_context(failed)?;
    Ok(Some(pem.contents))
}

/// The days until each of them ends, of those that can be read; negative afterwards.
pub(crate) fn days_left(files: &[(&'static str, PathBuf)]) -> Vec<(&'static str, f64)> {
    let now = now_s();
    let left = files.iter().filter_map(|(what, path)| Some((*what, read(path).ok()?)));
    left.map(|(what, read)| (what, days(read.until_s - now))).collect()
}

#[expect(clippy::cast_precision_loss, reason = "seconds of a few thousand years are below 2^53")]
fn days(seconds: i64) -> f64 {
    seconds as f64 / DAY_S as f64
}

/// What people are told of a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Read {
    subject: String,
    issuer: String,
    serial: String,
    fingerprint: String,
    key: String,
    from_s: i64,
    until_s: i64,
}

fn read(path: &Path) -> anyhow::Result<Read> {
    let failed = || format!("cannot read the certificate {}", path.display());
    let text = std::fs::read(path).with_context(failed)?;
    let (_, pem) = x509_parser::pem::parse_x509_pem(&text).with_context(failed)?;
    let (_, certificate) = X509Certificate::from_der(&pem.contents).with_context(failed)?;
    Ok(Read {
        subject: certificate.subject().to_string(),
        issuer: certificate.issuer().to_string(),
        serial: certificate.raw_serial_as_string(),
        fingerprint: duolog_transport::Fingerprint::of(&pem.contents).to_string(),
        key: duolog_transport::Fingerprint::of_key(&pem.contents)
            .map_or_else(String::new, |key| key.to_string()),
        from_s: certificate.validity().not_before.timestamp(),
        until_s: certificate.validity().not_after.timestamp(),
    })
}

/// When a certificate ends, in seconds since 1970, and its fingerprint.
///
/// # Errors
/// It cannot be read.
pub(crate) fn told(path: &Path) -> anyhow::Result<(i64, String)> {
    let read = read(path)?;
    Ok((read.until_s, read.fingerprint))
}

/// How near the end is: the step that was passed last, in days; zero once it has ended.
fn step(left_s: i64) -> Option<i64> {
    if left_s <= 0 {
        return Some(0);
    }
    STEPS_DAYS.into_iter().rev().find(|days| left_s <= days * DAY_S)
}

/// What an operator is told of a certificate with so much time left.
fn alarm(what: &str, path: &Path, left_s: i64) -> Option<String> {
    let step = step(left_s)?;
    let path = path.display();
    let what = if what == "ca" { "the pair's authority" } else { "this node" };
    let end = match (step, left_s / DAY_S) {
        (0, _) => "has ended".into(),
        (_, 0) => "ends within a day".into(),
        (_, 1) => "ends in 1 day".into(),
        (_, days) => format!("ends in {days} days"),
    };
    Some(format!(
        "the certificate of {what}, {path}, {end}: the pair goes on, but tools that check dates \
         will refuse HTTPS; see docs/operate/certificates.md"
    ))
}

/// What was said last of each certificate, so that it is said once a step.
static SAID: Mutex<Vec<(&'static str, i64)>> = Mutex::new(Vec::new());

/// Looks at the dates; to be called now and then. Alarms stand in `status` as long as they are true,
/// and each step is said once in the module log.
pub(crate) fn look(files: &[(&'static str, PathBuf)]) {
    let now = now_s();
    let mut up = Vec::new();
    let mut said = SAID.lock().unwrap_or_else(PoisonError::into_inner);
    for (what, path) in files {
        let left_s = match read(path) {
            Ok(read) => read.until_s - now,
            Err(error) => {
                up.push(format!("{error:#}; bring the file back"));
                continue;
            }
        };
        if let (Some(text), Some(step)) = (alarm(what, path, left_s), step(left_s)) {
            if !said.contains(&(what, step)) {
                said.push((what, step));
                tracing::warn!(target: logs::STATE, "{text}");
            }
            up.push(text);
        }
    }
    alarms::are("certificates", up);
}

fn now_s() -> i64 {
    i64::try_from(wall_ms() / 1000).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn somebody_is_told_thirty_seven_and_one_days_before_the_end() {
        let cases =
            [(31, None), (30, Some(30)), (8, Some(30)), (7, Some(7)), (2, Some(7)), (1, Some(1))];
        for (days, told) in cases {
            assert_eq!(step(days * DAY_S), told, "{days}");
        }
        assert_eq!((step(0), step(-5 * DAY_S)), (Some(0), Some(0)));
        let text = |left| alarm("node", Path::new("/n.crt"), left).unwrap();
        assert!(text(20 * DAY_S + 5).contains("this node, /n.crt, ends in 20 days"));
        assert!(text(3600).contains("ends within a day"));
        assert!(text(-1).contains("has ended: the pair goes on"));
    }

    #[test]
    fn a_certificate_of_a_chosen_date_is_an_alarm_and_never_more() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("node.crt");
        let key = duolog_transport::new_key().unwrap();
        let authority = duolog_transport::Authority::new("shop", &key).unwrap();
        let until = |days: i64| {
            let end = now_s() + days * DAY_S + 60;
            let text = authority.issue_until(&["node1".into()], &key, end).unwrap();
            std::fs::write(&path, text).unwrap();
        };
        let files = [("node", path.clone())];
        let up = || {
            look(&files);
            alarms::up().into_iter().filter(|alarm| alarm.contains("node.crt")).collect::<Vec<_>>()
        };
        until(100);
        assert_eq!(up(), Vec::<String>::new());
        assert!((days_left(&files)[0].1 - 100.0).abs() < 0.1);
        until(6);
        assert!(up()[0].contains("ends in 6 days"), "{:?}", up());
        until(-3);
        assert!(up()[0].contains("has ended"), "{:?}", up());
        assert!(days_left(&files)[0].1 < -2.0);
        std::fs::write(&path, "junk").unwrap();
        assert!(up()[0].contains("cannot read the certificate"), "{:?}", up());
    }
}
