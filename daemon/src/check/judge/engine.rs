//! SQL servers: their versions, and settings that would void the promises.

use super::{At, Group::SqlServer, Line, both};
use crate::check::facts::{Gathered, Setting, Settings};

pub(super) fn servers(gathered: &Gathered) -> Vec<Line> {
    let at = At(SqlServer, "version", None);
    let mut lines = Vec::new();
    for server in &gathered.here.servers {
        let name = server.program.file_name().unwrap_or_default();
        let there = gathered
            .other
            .as_ref()
            .ok()
            .map(|other| other.servers.iter().find(|it| it.program.file_name() == Some(name)));
        lines.push(match (&server.version, there) {
            (Err(error), _) => at.warning(
                format!("{} could not be asked: {error}", server.program.display()),
                "ask it with --version on both computers, and compare",
            ),
            (Ok(version), None) => at.ok(version.clone()),
            (Ok(_), Some(None)) => at.failed(
                format!("the other node has no {}", name.display()),
                "install the same packages on both computers",
            ),
            (Ok(one), Some(Some(other))) => match &other.version {
                Ok(other) if one == other => at.ok(format!("{one} on both")),
                Ok(other) => at.failed(
                    format!("here {one}, on the other node {other}"),
                    "install the same version on both: after a takeover the other one opens the \
                     same files",
                ),
                Err(error) => at.warning(
                    format!("the other node's could not be asked: {error}"),
                    "ask it with --version on both computers, and compare",
                ),
            },
        });
    }
    lines
}

/// A setting that matters: its name, the default, whether a value keeps the promises, what to do.
struct Rule {
    name: &'static str,
    default: &'static str,
    is_well: fn(&str) -> bool,
    mend: &'static str,
}

fn on(value: &str) -> bool {
    // As PostgreSQL reads a switch: any beginning that is not ambiguous.
    let value = value.to_ascii_lowercase();
    let begins = |word: &str| !value.is_empty() && word.starts_with(&value);
    value == "1" || value == "on" || begins("true") || begins("yes")
}

const POSTGRESQL: [Rule; 3] = [
    Rule {
        name: "fsync",
        default: "on",
        is_well: on,
        mend: "write fsync = on: without it nothing says when a commit is to be on both disks",
    },
    Rule {
        name: "synchronous_commit",
        default: "on",
        is_well: |value| {
            !matches!(value.to_ascii_lowercase().as_str(), "off" | "false" | "no" | "0")
        },
        mend: "write synchronous_commit = on: without it a commit is answered before it is on any disk",
    },
    Rule {
        name: "recovery_init_sync_method",
        default: "fsync",
        is_well: |value| value.eq_ignore_ascii_case("fsync"),
        mend: "write recovery_init_sync_method = fsync: the kernel does not pass syncfs on to FUSE",
    },
];

const MARIADB: [Rule; 2] = [
    Rule {
        name: "innodb_flush_log_at_trx_commit",
        default: "1",
        is_well: |value| matches!(value, "1" | "3"),
        mend: "write innodb_flush_log_at_trx_commit = 1: otherwise a commit is answered before it is \
               on any disk",
    },
    Rule {
        name: "innodb_flush_method",
        default: "O_DIRECT or fsync",
        is_well: |value| {
            !matches!(
                value.to_ascii_lowercase().as_str(),
                "nosync" | "littlesync" | "o_direct_no_fsync"
            )
        },
        mend: "write innodb_flush_method = fsync, or leave it out: what is not synced is not on both",
    },
];

const BINLOG: Rule = Rule {
    name: "sync_binlog",
    default: "0",
    is_well: |value| value == "1",
    mend: "write sync_binlog = 1 while log_bin is on: otherwise the binary log lacks commits after a \
           crash",
};

/// What a server does against torn pages, which a replicated directory has none of.
struct Shield {
    name: &'static str,
    /// Whether a value switches it off; it is on by default.
    is_off: fn(&str) -> bool,
    /// How to switch it on again.
    on_again: &'static str,
}

const FULL_PAGE_WRITES: Shield = Shield {
    name: "full_page_writes",
    is_off: |value| !on(value),
    on_again: "full_page_writes = on",
};

const DOUBLEWRITE: Shield = Shield {
    name: "innodb_doublewrite",
    // `DETECT_ONLY` of MySQL keeps which pages were written, and not the pages.
    is_off: |value| is_off(value) || value.eq_ignore_ascii_case("detect_only"),
    on_again: "innodb_doublewrite = ON",
};

/// What is to be switched on again before the server is started outside of a replicated directory.
pub(super) fn unshielded(settings: &Settings) -> Option<String> {
    let shield = match settings.engine.as_str() {
        "postgresql" => &FULL_PAGE_WRITES,
        "mariadb" => &DOUBLEWRITE,
        _ => return None,
    };
    let found = settings.found.iter().rfind(|it| it.name == shield.name);
    if found.is_none() && !settings.unknown.is_empty() {
        return Some(format!(
            "whether {} is off in {} is not known ({}). Before the server is started, see that there is {}: \
             a power cut may tear pages there from now on",
            shield.name,
            settings.directory.display(),
            settings.unknown.join("; "),
            shield.on_again
        ));
    }
    let Setting { value, from, .. } = found?;
    (shield.is_off)(value).then(|| {
        format!(
            "{} = {value} ({from}) is not safe in {} from now on: a power cut may tear pages there. \
             Before the server is started, write {}",
            shield.name,
            settings.directory.display(),
            shield.on_again
        )
    })
}

/// Both are well; who has it off is told where that is not so.
fn shielded(at: At, shield: &Shield, found: Option<&Setting>, settings: &Settings) -> Line {
    let (name, directory) = (shield.name, settings.directory.display());
    match found.filter(|it| (shield.is_off)(&it.value)) {
        Some(Setting { value, from, .. }) => at.ok(format!(
            "{directory}: {name} = {value} ({from}), which is safe in a replicated directory and not \
             outside of it: for duolog leave, a copy or a replica write {}",
            shield.on_again
        )),
        // What is not known is named beside it.
        None if found.is_none() && !settings.unknown.is_empty() => at.ok(format!(
            "{directory}: {name} may be on or off; in a replicated directory no page is torn, and \
             elsewhere it has to be on (docs/operate/torn-pages.md)"
        )),
        None => at.ok(format!(
            "{directory}: {name} is on; in a replicated directory it may be off, where no page is \
             torn (docs/operate/torn-pages.md)"
        )),
    }
}

/// What a switch of `MariaDB` is when it is off.
fn is_off(value: &str) -> bool {
    matches!(value.to_ascii_lowercase().as_str(), "0" | "off" | "false")
}

pub(super) fn settings(gathered: &Gathered) -> Vec<Line> {
    both(gathered)
        .flat_map(|facts| facts.settings.iter().flat_map(|it| of_server(facts.node, it)))
        .collect()
}

fn of_server(node: u8, settings: &Settings) -> Vec<Line> {
    let at = At(SqlServer, "settings", Some(node));
    let directory = settings.directory.display();
    let last = |name: &str| settings.found.iter().rfind(|it| it.name == name);
    let shielded = |shield: &Shield| shielded(at, shield, last(shield.name), settings);
    let mut lines: Vec<Line> = match settings.engine.as_str() {
        "postgresql" => {
            let rules = POSTGRESQL.iter().map(|rule| judged(at, rule, last(rule.name), settings));
            rules.chain([shielded(&FULL_PAGE_WRITES)]).collect()
        }
        "mariadb" => {
            let mut lines: Vec<_> =
                MARIADB.iter().map(|rule| judged(at, rule, last(rule.name), settings)).collect();
            if last("log_bin").is_some_and(|it| !is_off(&it.value)) {
                lines.push(judged(at, &BINLOG, last(BINLOG.name), settings));
            }
            lines.push(shielded(&DOUBLEWRITE));
            lines
        }
        _ => vec![at.ok(format!(
            "{directory}: each program that opens the database must keep PRAGMA synchronous at \
             FULL (the default) or EXTRA; that is in no file"
        ))],
    };
    for unknown in &settings.unknown {
        lines.push(at.warning(
            format!("{directory}: not known: {unknown}"),
            "see that the file is there and can be read, and look into it for what is checked here",
        ));
    }
    lines
}

fn judged(at: At, rule: &Rule, found: Option<&Setting>, settings: &Settings) -> Line {
    let directory = settings.directory.display();
    let name = rule.name;
    match found {
        None if (rule.is_well)(rule.default) || rule.default.contains(' ') => {
            at.ok(format!("{directory}: {name} is not set, so {}", rule.default))
        }
        None => {
            at.failed(format!("{directory}: {name} is not set, so {}", rule.default), rule.mend)
        }
        Some(Setting { value, from, .. }) => {
            let text = format!("{directory}: {name} = {value} ({from})");
            if (rule.is_well)(value) { at.ok(text) } else { at.failed(text, rule.mend) }
        }
    }
}
