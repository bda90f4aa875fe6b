//! The kinds of values that keys have, each with what would be right instead.

use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::{Component, Path, PathBuf};

use super::reader::{Faults, Found, Section};

pub(super) fn required(
    faults: &mut Faults,
    section: &mut Section<'_>,
    key: &'static str,
    right: &str,
) -> Option<Found<String>> {
    let found = section.string(faults, key);
    if found.is_none() && !section.was_there(key) {
        section.missing(faults, key, right);
    }
    found
}

pub(super) fn choice<T: Copy>(
    faults: &mut Faults,
    found: Found<String>,
    all: &[(&str, T)],
) -> Option<T> {
    let chosen = found.read(faults, |text| {
        let chosen = all.iter().find(|(name, _)| *name == text).map(|(_, value)| *value);
        let names: Vec<_> = all.iter().map(|(name, _)| format!("\"{name}\"")).collect();
        chosen.ok_or_else(|| {
            (format!("\"{text}\" is not known"), format!("write {}", names.join(" or ")))
        })
    });
    chosen.map(|chosen| chosen.value)
}

pub(super) fn absolute(faults: &mut Faults, found: Found<String>) -> Option<Found<PathBuf>> {
    found.read(faults, |text| {
        let path = Path::new(&text);
        let up = path.components().any(|part| part == Component::ParentDir);
        if path.is_absolute() && path.file_name().is_some() && !up {
            return Ok(path.components().collect());
        }
        let right = "write a path that begins with \"/\", without \"..\"";
        Err((format!("\"{text}\" is not an absolute path"), right.into()))
    })
}

pub(super) fn address(
    faults: &mut Faults,
    found: Found<String>,
    example: &str,
) -> Option<SocketAddr> {
    let address = found.read(faults, |text| match text.parse::<SocketAddr>() {
        Ok(address) if address.port() != 0 => Ok(address),
        _ => {
            let right = format!("such as \"{example}\"; names are not resolved");
            Err((format!("\"{text}\" is not an IP address with a port"), right))
        }
    });
    address.map(|address| address.value)
}

/// An IP address without a port.
pub(super) fn ip(faults: &mut Faults, found: Found<String>, example: &str) -> Option<IpAddr> {
    let address = found.read(faults, |text| {
        text.parse::<IpAddr>().map_err(|_| {
            let right = format!("such as \"{example}\"; names are not resolved");
            (format!("\"{text}\" is not an IP address"), right)
        })
    });
    address.map(|address| address.value)
}

/// A number that may be left out, else within `range`. Nothing after a fault.
pub(super) fn number(
    faults: &mut Faults,
    section: &mut Section<'_>,
    key: &'static str,
    default: u64,
    range: RangeInclusive<u64>,
) -> Option<u64> {
    let Some(found) = section.integer(faults, key) else {
        return (!section.was_there(key)).then_some(default);
    };
    let found = found.read(faults, |number| {
        if range.contains(&number) {
            return Ok(number);
        }
        let right = format!("write {} to {}", range.start(), range.end());
        Err((format!("{number} is out of range"), right))
    });
    found.map(|found| found.value)
}

/// A switch that may be left out. Nothing after a fault.
pub(super) fn switch(
    faults: &mut Faults,
    section: &mut Section<'_>,
    key: &'static str,
    default: bool,
) -> Option<bool> {
    match section.boolean(faults, key) {
        Some(found) => Some(found.value),
        None => (!section.was_there(key)).then_some(default),
    }
}

/// A command as its arguments, the first of which is the whole path of a program: nothing is
/// looked up, and no shell reads it. Empty when it was left out, nothing after a fault.
pub(super) fn command(
    faults: &mut Faults,
    section: &mut Section<'_>,
    key: &'static str,
) -> Option<Vec<String>> {
    let line = section.line();
    let Some(words) = section.strings(faults, key) else {
        return (!section.was_there(key)).then(Vec::new);
    };
    if words.is_empty() {
        let right = "write [\"/path/of/a/program\", \"argument\"], or leave it out";
        faults.add(line, section.key(key), "holds no command", right);
        return None;
    }
    let mut whole = true;
    let mut command = Vec::new();
    for (at, word) in words.into_iter().enumerate() {
        let word = word.read(faults, |word| match word {
            word if word.contains('\0') => {
                Err(("a word holds a NUL".into(), "no program can be given that".into()))
            }
            word if at == 0 && !Path::new(&word).is_absolute() => Err((
                format!("\"{word}\" is not the path of a program"),
                "write the whole path, such as \"/usr/bin/env\"; no shell reads this".into(),
            )),
            word => Ok(word),
        });
        match word {
            Some(word) => command.push(word.value),
            None => whole = false,
        }
    }
    whole.then_some(command)
}
