//! The files that tell systemd how the units of this node run. They are below `/run`: gone after a reboot.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::slice::whose;

/// Where units and drop-ins are that are gone after a reboot.
pub(super) const FILES: &str = "/run/systemd/system";

/// Writes what systemd has to know, and takes away what it had to know of units that are services no
/// more; whether anything changed.
pub(super) fn write_files(
    place: &Path,
    slice: &str,
    state_dir: &Path,
    units: &[String],
) -> Result<bool, (PathBuf, io::Error)> {
    let instance = slice.trim_end_matches(".slice");
    // The last one of a unit's, wherever it is: they are read in the order of their names.
    let name = format!("zzz-{instance}.conf");
    let drop_in = |unit: &str| place.join(format!("{unit}.d")).join(&name);
    let mut changed = write(&place.join(slice), &SLICE.replace("WHOSE", &whose(state_dir)))?;
    for (number, unit) in units.iter().enumerate() {
        let text = DROP_IN.replace("SLICE", slice).replace("ORDER\n", &order(&units[..number]));
        changed |= write(&drop_in(unit), &text)?;
    }
    for entry in fs::read_dir(place).into_iter().flatten().flatten() {
        let file = entry.path().join(&name);
        let wanted = units.iter().any(|unit| drop_in(unit) == file);
        if !wanted && file.exists() {
            fs::remove_file(&file).map_err(|error| (file.clone(), error))?;
            // Somebody else may have one there.
            fs::remove_dir(entry.path()).ok();
            changed = true;
        }
    }
    Ok(changed)
}

/// What has systemd end a unit before those that were started before it, where it ends one of them by itself:
/// at a shutdown it does so with a unit that requires a disk (`RequiresMountsFor=`).
fn order(before: &[String]) -> String {
    let names = before.join(" ");
    if names.is_empty() { names } else { format!("After={names}\nPartOf={names}\n") }
}

/// Writes a file that only its owner may change, whatever the mask of this process: systemd runs what
/// stands there as root.
fn write(path: &Path, text: &str) -> Result<bool, (PathBuf, io::Error)> {
    if fs::read_to_string(path).is_ok_and(|there| there == text) {
        return Ok(false);
    }
    let written = || {
        let directory = path.parent().unwrap_or(Path::new("/"));
        fs::DirBuilder::new().recursive(true).mode(0o755).create(directory)?;
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file =
            fs::OpenOptions::new().write(true).create_new(true).mode(0o644).open(path)?;
        file.write_all(text.as_bytes())
    };
    written().map_err(|error| (path.to_owned(), error))?;
    Ok(true)
}

/// Nothing stops it but its own end: the group that keeps units out would go with it. At a shutdown the
/// node ends its services in order.
const SLICE: &str = "\
# Written by Duolog, and gone after a reboot: where the units run that are its services.
WHOSE
[Unit]
Description=Units that Duolog starts
Documentation=man:duolog(1)
DefaultDependencies=no
IgnoreOnIsolate=yes
RefuseManualStop=yes
";

/// The times are those of `[[service]]`, and whether it is started again is Duolog's to decide. A group
/// may be taken from under systemd: so that it waits for none to be empty, it ends the unit's process
/// alone, and Duolog whoever is left.
const DROP_IN: &str = "\
# Written by Duolog, and gone after a reboot: it starts and ends this unit, which is a service of a
# pair. Where the node does not serve the unit cannot be started: it fails at step CGROUP.
[Unit]
DefaultDependencies=no
IgnoreOnIsolate=yes
StartLimitIntervalSec=0
ORDER

[Service]
Slice=SLICE
Restart=no
KillMode=process
RemainAfterExit=no
TimeoutStartSec=infinity
TimeoutStopSec=infinity
FileDescriptorStoreMax=0
";

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn files_are_written_once_and_those_of_other_units_go() {
        let place = tempfile::tempdir().unwrap();
        let at = |name: &str| place.path().join(name);
        let write = |units: &[&str]| {
            let units: Vec<_> = units.iter().map(|unit| String::from(*unit)).collect();
            write_files(place.path(), "duolog1.slice", Path::new("/state"), &units).unwrap()
        };
        fs::create_dir(at("a.service.d")).unwrap();
        fs::write(at("a.service.d/own.conf"), "").unwrap();
        rustix::process::umask(rustix::fs::Mode::empty());
        assert!(write(&["a.service", "b@1.service"]));
        let mode = |name: &str| fs::metadata(at(name)).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode("b@1.service.d"), mode("duolog1.slice")), (0o755, 0o644));
        assert_eq!(mode("b@1.service.d/zzz-duolog1.conf"), 0o644);
        let text = fs::read_to_string(at("b@1.service.d/zzz-duolog1.conf")).unwrap();
        assert!(text.contains("\nSlice=duolog1.slice\n"), "{text}");
        assert!(text.contains("\nAfter=a.service\nPartOf=a.service\n"), "{text}");
        let text = fs::read_to_string(at("a.service.d/zzz-duolog1.conf")).unwrap();
        assert!(text.contains("=0\n\n[Service]") && !text.contains("After="), "{text}");
        assert!(!write(&["a.service", "b@1.service"]), "nothing changed");
        fs::create_dir(at("c.service.d")).unwrap();
        fs::write(at("c.service.d/zzz-duolog2.conf"), "of another node").unwrap();
        assert!(write(&[]));
        assert!(at("a.service.d/own.conf").exists() && !at("b@1.service.d").exists());
        assert!(!at("a.service.d/zzz-duolog1.conf").exists());
        assert!(at("c.service.d/zzz-duolog2.conf").exists());
    }
}
