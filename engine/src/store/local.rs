//! Which files are kept on their node and never replicated.
//!
//! A rule is a path relative to the replicated directory. `*` and `?` stand for any bytes of one
//! name. A rule without `/` matches a name in any directory, one with `/` only that path, and
//! `dir/*` so means what is in `dir` and not `dir` itself. Everything below a match is local too.
//! The presets, with the reason of each line:
//!
//! | preset | rule | why |
//! | --- | --- | --- |
//! | `PostgreSQL` | `/postmaster.pid` | lock of a running server: on the other node it names a process that is not there |
//! | | `/postmaster.opts` | command line of the last start on this node |
//! | | `pgsql_tmp*` | spill files of one query, worthless after it |
//! | | `pg_internal.init*` | relation cache, rebuilt when missing |
//! | | `pg_stat_tmp/*` | statistics of a running server; a clean stop saves them elsewhere |
//! | | `pg_notify/*`, `pg_serial/*`, `pg_snapshots/*`, `pg_subtrans/*` | emptied or zeroed at each start |
//! | | `pg_dynshmem/*` | shared memory of a running server |
//! | `MariaDB` | `*.pid`, `*.sock`, `*.sock.lock` | process and socket of a running server |
//! | | `#sql-temptable-*`, `ibtmp*` | temporary tables, made anew at each start |
//! | `SQLite` | `*-shm` | index of the WAL in shared memory, rebuilt from the WAL |
//!
//! Not local though `pg_basebackup` skips them: unlogged relations and `pg_replslot`. After a
//! clean stop `PostgreSQL` needs both. `MariaDB`'s `aria_log*`, `ib_buffer_pool` and binary logs
//! are data.

use serde::{Deserialize, Serialize};

/// A ready list of rules for one SQL server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Preset {
    /// Everything is replicated.
    #[default]
    None,
    /// `PostgreSQL`.
    Postgresql,
    /// `MariaDB` and `MySQL`.
    Mariadb,
    /// `SQLite`.
    Sqlite,
}

impl Preset {
    /// The rules, as written in the table at the top.
    pub const fn rules(self) -> &'static [&'static str] {
        match self {
            Self::None => &[],
            Self::Postgresql => &[
                "/postmaster.pid",
                "/postmaster.opts",
                "pgsql_tmp*",
                "pg_internal.init*",
                "pg_stat_tmp/*",
                "pg_notify/*",
                "pg_serial/*",
                "pg_snapshots/*",
                "pg_subtrans/*",
                "pg_dynshmem/*",
            ],
            Self::Mariadb => &["*.pid", "*.sock", "*.sock.lock", "#sql-temptable-*", "ibtmp*"],
            Self::Sqlite => &["*-shm"],
        }
    }
}

/// The rules of one replicated directory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LocalRules {
    rules: Vec<Rule>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Rule {
    /// A name in any directory.
    Name(Vec<u8>),
    /// The names from the root on.
    Path(Vec<Vec<u8>>),
}

/// Why a rule cannot be one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RuleError {
    /// There is no name in it, or one is empty, `.` or `..`.
    #[error("`{rule}` is no path below the replicated directory")]
    NoPath {
        /// The rule.
        rule: String,
    },
}

impl LocalRules {
    /// The rules of a preset, and own ones.
    ///
    /// # Errors
    /// A rule leads out of the directory, or names nothing in it.
    pub fn new(preset: Preset, own: &[String]) -> Result<Self, RuleError> {
        let all = preset.rules().iter().copied().chain(own.iter().map(String::as_str));
        let rules = all.map(Rule::parse).collect::<Result<_, _>>()?;
        Ok(Self { rules })
    }

    /// Whether `name` in the directory at `parent` (names joined by `/`, empty for the root) is
    /// local by itself; a caller that comes from the top also knows of every directory above.
    pub fn matches(&self, parent: &[u8], name: &[u8]) -> bool {
        self.rules.iter().any(|rule| match rule {
            Rule::Name(pattern) => glob(pattern, name),
            Rule::Path(patterns) => {
                let above = parent.split(|byte| *byte == b'/').filter(|part| !part.is_empty());
                let names = above.chain([name]);
                names.clone().count() == patterns.len()
                    && names.zip(patterns).all(|(name, pattern)| glob(pattern, name))
            }
        })
    }

    /// Whether there is no rule at all.
    pub const fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }
}

impl Rule {
    fn parse(rule: &str) -> Result<Self, RuleError> {
        let inner = rule.strip_prefix('/').unwrap_or(rule);
        let parts: Vec<Vec<u8>> = inner.split('/').map(|part| part.as_bytes().to_vec()).collect();
        if parts.iter().any(|part| matches!(&part[..], b"" | b"." | b"..")) {
            return Err(RuleError::NoPath { rule: rule.to_owned() });
        }
        Ok(if rule.contains('/') { Self::Path(parts) } else { Self::Name(parts.concat()) })
    }
}

/// Whether `name` is what `pattern` describes: `*` any bytes, `?` any one.
fn glob(pattern: &[u8], name: &[u8]) -> bool {
    let (mut at, mut in_name) = (0, 0);
    let mut back: Option<(usize, usize)> = None;
    while in_name < name.len() {
        match pattern.get(at) {
            Some(b'*') => {
                back = Some((at, in_name));
                at += 1;
            }
            Some(byte) if *byte == b'?' || *byte == name[in_name] => {
                at += 1;
                in_name += 1;
            }
            // The last star takes one byte more.
            _ => match &mut back {
                Some((star, taken)) => {
                    *taken += 1;
                    (at, in_name) = (*star + 1, *taken);
                }
                None => return false,
            },
        }
    }
    pattern[at..].iter().all(|byte| *byte == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_what_they_describe() {
        for (pattern, name, is) in [
            ("a*c", "abbc", true),
            ("a*c", "abbd", false),
            ("*-shm", "db-shm", true),
            ("*-shm", "db-shm2", false),
            ("?", "", false),
            ("*", "", true),
            ("a*b*c", "axbxbxc", true),
            ("pg_internal.init*", "pg_internal.init.123", true),
        ] {
            assert_eq!(glob(pattern.as_bytes(), name.as_bytes()), is, "{pattern} and {name}");
        }
    }

    #[test]
    fn the_contents_are_local_and_the_directory_is_not() {
        let rules = LocalRules::new(Preset::Postgresql, &[]).unwrap();
        assert!(rules.matches(b"pg_stat_tmp", b"global.stat"));
        assert!(!rules.matches(b"", b"pg_stat_tmp"));
        assert!(!rules.matches(b"base/pg_stat_tmp", b"x"));
        assert!(
            rules.matches(b"", b"postmaster.pid") && !rules.matches(b"base", b"postmaster.pid")
        );
        assert!(rules.matches(b"base/5", b"pgsql_tmp") && rules.matches(b"base", b"pgsql_tmp"));
        assert!(!rules.matches(b"pg_replslot", b"standby"));
    }

    #[test]
    fn a_rule_that_leads_out_is_refused() {
        for rule in ["", "/", "../x", "a//b", "a/.", "a/"] {
            assert!(LocalRules::new(Preset::None, &[rule.to_owned()]).is_err(), "{rule}");
        }
    }
}
