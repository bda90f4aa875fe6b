//! What keeps a unit of systemd from being a service, by what systemd says of it.

use std::io;
use std::path::PathBuf;

use super::systemctl::Properties;

/// Why a unit is no service, or not here and now.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UnitFault {
    /// There is none of that name.
    #[error("systemd has no {unit}; install what brings it, or mend [[service]] unit")]
    Missing {
        /// The unit.
        unit: String,
    },
    /// It is masked, or its file has faults.
    #[error("{unit} cannot be used: systemd says it is {state}; see systemctl status {unit}")]
    NotLoaded {
        /// The unit.
        unit: String,
        /// What systemd calls it.
        state: String,
    },
    /// It would run elsewhere.
    #[error(
        "{unit} runs in {slice} and not in {wanted}, where Duolog ends it; a drop-in of its own sets Slice=: \
         take that out"
    )]
    Slice {
        /// The unit.
        unit: String,
        /// Where it would run.
        slice: String,
        /// Where it should.
        wanted: String,
    },
    /// systemd would start it again by itself.
    #[error(
        "systemd starts {unit} again by itself (Restart={restart}), past Duolog; a drop-in of its own sets \
         that: take it out"
    )]
    Restart {
        /// The unit.
        unit: String,
        /// When it would.
        restart: String,
    },
    /// systemd would wait for a group that a fence took away.
    #[error(
        "systemd ends {unit} by KillMode={mode}, past Duolog; a drop-in of its own sets that: take it out"
    )]
    KillMode {
        /// The unit.
        unit: String,
        /// How it would.
        mode: String,
    },
    /// It does not run on.
    #[error(
        "{unit} is of Type=oneshot, which does not run on; name the unit that is the server, such as \
         postgresql@15-main.service in the place of postgresql.service"
    )]
    Oneshot {
        /// The unit.
        unit: String,
    },
    /// Its processes would leave its group.
    #[error(
        "{unit} opens a session (PAMName={name}), whose processes run where Duolog does not end them; set \
         PAMName= in a drop-in, or write what it runs as start = [...]"
    )]
    Session {
        /// The unit.
        unit: String,
        /// The service of PAM.
        name: String,
    },
    /// It would see what others see that began before the mount.
    #[error(
        "{unit} shares the view of the file system of {with} (JoinsNamespaceOf=), which may have begun \
         before the mount; take that out of the unit"
    )]
    Joins {
        /// The unit.
        unit: String,
        /// The other one.
        with: String,
    },
    /// Something else starts it.
    #[error(
        "{by} starts {unit} too; see that nothing but duolog does: systemctl disable --now {by}"
    )]
    StartedBy {
        /// The unit.
        unit: String,
        /// What starts it.
        by: String,
    },
    /// It would wait for this node, which waits for it.
    #[error(
        "{unit} is ordered after {after}, which waits until this node serves, and that waits for {unit}; take \
         After={after} out of the unit: Duolog starts it once the directory is mounted"
    )]
    After {
        /// The unit.
        unit: String,
        /// What it waits for.
        after: String,
    },
    /// It runs, and this node did not start it.
    #[error(
        "{unit} runs already, in {group}, and this node did not start it; end it (systemctl stop {unit}), and \
         see that nothing but duolog starts it (systemctl disable {unit})"
    )]
    RunsElsewhere {
        /// The unit.
        unit: String,
        /// Its control group.
        group: String,
    },
    /// It says that it runs, and nobody does.
    #[error("{unit} was started and no process of it runs; see journalctl -u {unit}")]
    Nobody {
        /// The unit.
        unit: String,
    },
    /// It would work past the log.
    #[error(
        "{process} of {unit} does not see the replicated directory {}, and would write past the log: the \
         unit has a view of the file system of its own (MountFlags=, RootDirectory=, TemporaryFileSystem= \
         and the like); take that out of the unit", path.display()
    )]
    DoesNotSee {
        /// The unit.
        unit: String,
        /// Its process.
        process: String,
        /// The directory.
        path: PathBuf,
    },
    /// The node's own unit hides the mount.
    #[error(
        "systemd does not see the replicated directory {}, because duolog itself has a view of the file \
         system of its own; take the settings that give it one out of its unit", path.display()
    )]
    SystemdDoesNotSee {
        /// The directory.
        path: PathBuf,
    },
    /// It does not answer.
    #[error("systemd cannot be asked: {0}")]
    Systemd(io::Error),
}

impl UnitFault {
    /// Whether what Duolog's own drop-in says does not count: systemd may not have read it yet.
    pub(super) fn is_of_drop_in(&self) -> bool {
        matches!(self, Self::Slice { .. } | Self::Restart { .. } | Self::KillMode { .. })
    }
}

/// Whether a unit may be a service in that slice.
pub(super) fn judge(unit: &str, found: &Properties, slice: &str) -> Result<(), UnitFault> {
    let (unit, wanted) = (unit.to_owned(), slice.to_owned());
    let get = |key: &str| found.get(key).to_owned();
    match found.get("LoadState") {
        "loaded" => {}
        "not-found" => return Err(UnitFault::Missing { unit }),
        _ => return Err(UnitFault::NotLoaded { unit, state: get("LoadState") }),
    }
    if found.get("Type") == "oneshot" {
        return Err(UnitFault::Oneshot { unit });
    }
    if found.get("Slice") != slice {
        return Err(UnitFault::Slice { unit, slice: get("Slice"), wanted });
    }
    if found.get("Restart") != "no" {
        return Err(UnitFault::Restart { unit, restart: get("Restart") });
    }
    if found.get("KillMode") != "process" {
        return Err(UnitFault::KillMode { unit, mode: get("KillMode") });
    }
    if !found.get("PAMName").is_empty() {
        return Err(UnitFault::Session { unit, name: get("PAMName") });
    }
    if !found.get("JoinsNamespaceOf").is_empty() {
        return Err(UnitFault::Joins { unit, with: get("JoinsNamespaceOf") });
    }
    // `duolog.service` is activating until its services run, and so is what wants it at boot.
    let waits = |other: &&str| {
        matches!(*other, "duolog.service" | "multi-user.target" | "graphical.target")
            || (other.starts_with("duolog@") && other.ends_with(".service"))
    };
    if let Some(after) = found.get("After").split_ascii_whitespace().find(waits) {
        return Err(UnitFault::After { unit, after: after.to_owned() });
    }
    match found.get("UpheldBy") {
        "" => Ok(()),
        by => Err(UnitFault::StartedBy { unit, by: by.to_owned() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "LoadState=loaded\nType=notify\nSlice=duolog1.slice\nRestart=no\n\
                        KillMode=process\nPAMName=\n";

    #[test]
    fn what_keeps_a_unit_from_being_a_service_is_named() {
        let judged = |text: &str| judge("a.service", &Properties::parse(text), "duolog1.slice");
        judged(GOOD).unwrap();
        judged(&format!("{GOOD}After=duolog1.slice network.target duolog-witness.service\n"))
            .unwrap();
        for (from, to, says) in [
            ("loaded", "not-found", "systemd has no a.service"),
            ("loaded", "masked", "it is masked"),
            ("=notify", "=oneshot", "Type=oneshot"),
            ("=duolog1.slice", "=system.slice", "runs in system.slice and not in duolog1.slice"),
            ("Restart=no", "Restart=always", "Restart=always"),
            ("=process", "=mixed", "ends a.service by KillMode=mixed"),
            ("PAMName=", "PAMName=login", "PAMName=login"),
            ("PAMName=", "JoinsNamespaceOf=b.service", "b.service (JoinsNamespaceOf=)"),
            ("PAMName=", "After=network.target duolog@2.service", "ordered after duolog@2.service"),
            ("PAMName=", "UpheldBy=multi-user.target", "multi-user.target starts a.service too"),
        ] {
            let error = judged(&GOOD.replace(from, to)).unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        }
    }
}
