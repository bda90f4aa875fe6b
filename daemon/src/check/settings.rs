//! What the configuration files of a SQL server say, as far as it can be read from files: those that
//! are included are followed, and what could not be read is named. Settings of a session, a user or
//! a database are in no file.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use super::facts::{Setting, Settings};

/// Longest file that is read, in bytes.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// Most files that are read, whoever includes whom.
const FILES_MAX: usize = 200;

/// What `PostgreSQL` must be told, or not be told.
const POSTGRESQL: [&str; 4] =
    ["fsync", "synchronous_commit", "full_page_writes", "recovery_init_sync_method"];
/// The same of `MariaDB`.
const MARIADB: [&str; 5] = [
    "innodb_flush_log_at_trx_commit",
    "innodb_flush_method",
    "innodb_doublewrite",
    "sync_binlog",
    "log_bin",
];

/// Reads one configuration with all that it includes.
struct Reader {
    read: usize,
    out: Settings,
}

impl Reader {
    fn new(engine: &str, directory: &Path) -> Self {
        let out = Settings {
            engine: engine.into(),
            directory: directory.to_owned(),
            ..Settings::default()
        };
        Self { read: 0, out }
    }

    fn text(&mut self, path: &Path, must: bool) -> Option<String> {
        self.read += 1;
        if self.read > FILES_MAX {
            if self.read == FILES_MAX + 1 {
                self.out.unknown.push(format!("more than {FILES_MAX} files are included"));
            }
            return None;
        }
        let mut text = Vec::new();
        let read =
            File::open(path).and_then(|file| file.take(FILE_BYTES_MAX + 1).read_to_end(&mut text));
        match read {
            Ok(_) if text.len() as u64 <= FILE_BYTES_MAX => {
                Some(String::from_utf8_lossy(&text).into_owned())
            }
            Ok(_) => {
                self.out.unknown.push(format!("{} is too long to be read", path.display()));
                None
            }
            Err(error) => {
                if must || error.kind() != std::io::ErrorKind::NotFound {
                    self.out.unknown.push(format!("{}: {error}", path.display()));
                }
                None
            }
        }
    }

    fn found(&mut self, known: &[&str], name: &str, value: &str, from: &str) {
        if known.contains(&name) {
            let (name, value) = (name.to_owned(), value.to_owned());
            self.out.found.push(Setting { name, value, from: from.to_owned() });
        }
    }

    /// The files in a directory with that end, by name.
    fn below(&mut self, directory: &Path, end: &str) -> Vec<PathBuf> {
        let entries = match std::fs::read_dir(directory) {
            Ok(entries) => entries,
            Err(error) => {
                self.out.unknown.push(format!("{}: {error}", directory.display()));
                return Vec::new();
            }
        };
        let mut paths: Vec<_> = entries
            .filter_map(|entry| Some(entry.ok()?.path()))
            .filter(|path| path.extension().is_some_and(|it| it == end))
            .filter(|path| path.file_name().is_none_or(|it| it.as_encoded_bytes()[0] != b'.'))
            .take(FILES_MAX + 1)
            .collect();
        paths.sort();
        paths
    }

    fn postgresql_file(&mut self, path: &Path, must: bool) {
        let Some(text) = self.text(path, must) else { return };
        let base = path.parent().unwrap_or(Path::new("/")).to_owned();
        for line in text.lines() {
            let Some((name, value)) = postgresql_line(line) else { continue };
            match name.as_str() {
                "include" => self.postgresql_file(&base.join(value), true),
                "include_if_exists" => self.postgresql_file(&base.join(value), false),
                "include_dir" => {
                    for path in self.below(&base.join(value), "conf") {
                        self.postgresql_file(&path, true);
                    }
                }
                _ => self.found(&POSTGRESQL, &name, &value, &path.display().to_string()),
            }
        }
    }

    fn mariadb_file(&mut self, path: &Path, must: bool) {
        let Some(text) = self.text(path, must) else { return };
        let base = path.parent().unwrap_or(Path::new("/")).to_owned();
        let mut ours = false;
        for line in text.lines().map(str::trim) {
            if let Some(file) = line.strip_prefix("!includedir") {
                for path in self.below(&base.join(file.trim()), "cnf") {
                    self.mariadb_file(&path, true);
                }
            } else if let Some(file) = line.strip_prefix("!include") {
                self.mariadb_file(&base.join(file.trim()), true);
            } else if let Some(group) = line.strip_prefix('[') {
                ours = is_of_the_server(group.trim_end_matches(']').trim());
            } else if let Some((name, value)) = mariadb_line(line).filter(|_| ours) {
                self.found(&MARIADB, &name, &value, &path.display().to_string());
            }
        }
    }
}

/// A line of `postgresql.conf`: a name and a value.
fn postgresql_line(line: &str) -> Option<(String, String)> {
    let line = line.trim();
    let end = line.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == '.'));
    let (name, rest) = line.split_at(end?);
    if name.is_empty() {
        return None;
    }
    let rest = rest.trim_start();
    let rest = rest.strip_prefix('=').unwrap_or(rest).trim_start();
    let value = match rest.strip_prefix('\'') {
        Some(quoted) => {
            let (mut value, mut chars) = (String::new(), quoted.chars().peekable());
            while let Some(c) = chars.next() {
                match c {
                    '\'' if chars.peek() == Some(&'\'') => value.extend(chars.next()),
                    '\'' => break,
                    '\\' => value.extend(chars.next()),
                    c => value.push(c),
                }
            }
            value
        }
        None => rest.split(['#', ' ', '\t']).next().unwrap_or_default().to_owned(),
    };
    Some((name.to_ascii_lowercase(), value))
}

/// Whether the server reads that group of an option file; groups of versions count too, as it is not
/// known which version will run.
fn is_of_the_server(group: &str) -> bool {
    let group = group.to_ascii_lowercase();
    let name = group.split('-').next().unwrap_or_default();
    let names = ["mysqld", "server", "mariadb", "mariadbd", "galera"];
    names.contains(&name) && !group.starts_with("mariadb-client") && !group.contains("dump")
}

/// A line of an option file; a name without a value means that it is on.
fn mariadb_line(line: &str) -> Option<(String, String)> {
    if line.is_empty() || line.starts_with(['#', ';']) {
        return None;
    }
    let (name, value) = line.split_once('=').unwrap_or((line, "1"));
    let name = name.trim().to_ascii_lowercase().replace('-', "_");
    let name = name.strip_prefix("loose_").unwrap_or(&name).to_owned();
    if let Some(name) = switched_off(&name) {
        return Some((name.to_owned(), "OFF".to_owned()));
    }
    let value = value.trim();
    let value = match value.chars().next() {
        Some(quote @ ('"' | '\'')) => value[1..].split(quote).next().unwrap_or_default(),
        _ => value.split(" #").next().unwrap_or_default().trim_end(),
    };
    Some((name, value.to_owned()))
}

/// What a name of `MariaDB` switches off: `skip-innodb-doublewrite` is `innodb_doublewrite=OFF`.
fn switched_off(name: &str) -> Option<&str> {
    let name = name.strip_prefix("skip_").or_else(|| name.strip_prefix("disable_"))?;
    MARIADB.contains(&name).then_some(name)
}

/// What `PostgreSQL` in `data`, known as `directory` and started by `command`, goes by.
pub(super) fn postgresql(directory: &Path, data: &Path, command: &[String]) -> Settings {
    let mut reader = Reader::new("postgresql", directory);
    let of_command = command_settings(command);
    let elsewhere = of_command.iter().find(|(name, _)| name == "config_file");
    // The server knows it by the path that it is mounted at, which shows nothing where it does not
    // serve.
    let own = |path: &str| match Path::new(path).strip_prefix(directory) {
        Ok(below) => data.join(below),
        Err(_) => data.join(path),
    };
    let file = elsewhere.map_or_else(|| data.join("postgresql.conf"), |(_, path)| own(path));
    reader.postgresql_file(&file, true);
    reader.postgresql_file(&data.join("postgresql.auto.conf"), false);
    for (name, value) in of_command {
        reader.found(&POSTGRESQL, &name, &value, "the start command");
    }
    reader.out
}

/// What `MariaDB` known as `directory` and started by `command` goes by.
pub(super) fn mariadb(directory: &Path, data: &Path, command: &[String]) -> Settings {
    let mut reader = Reader::new("mariadb", directory);
    let of_command = command_settings(command);
    let of = |wanted: &str| of_command.iter().find(|(name, _)| name == wanted);
    if let Some((_, file)) = of("defaults_file") {
        reader.mariadb_file(Path::new(file), true);
    } else if !command.iter().any(|word| word == "--no-defaults") {
        reader.mariadb_file(Path::new("/etc/my.cnf"), false);
        reader.mariadb_file(Path::new("/etc/mysql/my.cnf"), false);
        reader.mariadb_file(&data.join("my.cnf"), false);
        if let Some((_, file)) = of("defaults_extra_file") {
            reader.mariadb_file(Path::new(file), true);
        }
    }
    for (name, value) in &of_command {
        reader.found(&MARIADB, name, value, "the start command");
    }
    reader.out
}

/// Settings on a command line: `-c name=value` and `--name=value`, also within one word, as `pg_ctl -o` has
/// them.
fn command_settings(command: &[String]) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let parts = |word: &String| {
        if word.starts_with("-c ") || word.starts_with("-F ") {
            word.split_ascii_whitespace().map(str::to_owned).collect()
        } else {
            vec![word.clone()]
        }
    };
    let words: Vec<String> = command.iter().skip(1).flat_map(parts).collect();
    let mut words = words.iter().map(String::as_str);
    while let Some(word) = words.next() {
        let setting = match word {
            "-c" => words.next(),
            // `postgres -F`.
            "-F" => Some("fsync=off"),
            word => word.strip_prefix("--").or_else(|| word.strip_prefix("-c")),
        };
        let Some(setting) = setting else { continue };
        let spelt = |name: &str| name.to_ascii_lowercase().replace('-', "_");
        if let Some((name, value)) = setting.split_once('=') {
            found.push((spelt(name), value.to_owned()));
        } else {
            let off = switched_off(&spelt(setting)).map(|name| (name.to_owned(), "OFF".to_owned()));
            found.extend(off);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn values(settings: &Settings) -> Vec<(&str, &str)> {
        settings.found.iter().map(|it| (it.name.as_str(), it.value.as_str())).collect()
    }

    #[test]
    fn includes_of_postgresql_are_followed_and_what_is_missing_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let data = directory.path();
        fs::create_dir(data.join("conf.d")).unwrap();
        let text = "# fsync = off\nFsync = on # as it should be\ninclude_dir 'conf.d'\n\
                    include 'missing.conf'\ninclude_if_exists = 'neither.conf'\n\
                    port = 5432\nsynchronous_commit='remote''x'\n";
        fs::write(data.join("postgresql.conf"), text).unwrap();
        fs::write(data.join("conf.d/b.conf"), "fsync off\n").unwrap();
        fs::write(data.join("conf.d/a.conf"), "full_page_writes = 'off'\n").unwrap();
        fs::write(data.join("conf.d/c.txt"), "fsync = never\n").unwrap();
        fs::write(data.join("postgresql.auto.conf"), "fsync = 'true'\n").unwrap();
        let command = ["postgres", "-D", "/x", "-c", "recovery_init_sync_method=syncfs", "-F"];
        let command = command.map(String::from);
        let settings = postgresql(Path::new("/pg"), data, &command);
        let expected = [
            ("fsync", "on"),
            ("full_page_writes", "off"),
            ("fsync", "off"),
            ("synchronous_commit", "remote'x"),
            ("fsync", "true"),
            ("recovery_init_sync_method", "syncfs"),
            ("fsync", "off"),
        ];
        assert_eq!(values(&settings), expected);
        assert_eq!(settings.unknown.len(), 1, "{:?}", settings.unknown);
        assert!(settings.unknown[0].contains("missing.conf"));
    }

    /// A file that includes itself ends all the same.
    #[test]
    fn circles_of_files_end() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("postgresql.conf"), "include 'postgresql.conf'\n").unwrap();
        let settings = postgresql(Path::new("/pg"), directory.path(), &[]);
        assert!(settings.unknown[0].contains("files are included"), "{:?}", settings.unknown);
        // Elsewhere, and by the path that the server knows.
        let command = ["postgres", "-c", "config_file=/pg/other.conf"].map(String::from);
        fs::write(directory.path().join("other.conf"), "fsync=off\n").unwrap();
        let settings = postgresql(Path::new("/pg"), directory.path(), &command);
        assert_eq!(values(&settings), [("fsync", "off")]);
    }

    /// Both are how the packages' own examples and manuals write it.
    #[test]
    fn what_is_switched_off_or_stands_in_one_word_is_seen() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("pg.conf"), "full_page_writes = off\n").unwrap();
        let command =
            ["pg_ctl", "start", "-D", "/pg", "-o", "-c config_file=/pg/pg.conf -c fsync=on"];
        let settings = postgresql(Path::new("/pg"), directory.path(), &command.map(String::from));
        assert_eq!(values(&settings), [("full_page_writes", "off"), ("fsync", "on")]);
        let file = directory.path().join("my.cnf");
        fs::write(&file, "[mysqld]\nskip-innodb_doublewrite\nskip-name-resolve\n").unwrap();
        let file = format!("--defaults-file={}", file.display());
        let command = ["mariadbd".to_owned(), file, "--skip-log-bin".to_owned()];
        let settings = mariadb(Path::new("/my"), directory.path(), &command);
        assert_eq!(values(&settings), [("innodb_doublewrite", "OFF"), ("log_bin", "OFF")]);
    }

    #[test]
    fn groups_of_clients_do_not_count_for_the_server_of_mariadb() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("my.cnf");
        fs::create_dir(directory.path().join("conf.d")).unwrap();
        let text = "[client]\nsync-binlog=7\n[mysqld]\ninnodb-flush-log-at-trx-commit = 2\n\
                    log-bin\n; sync_binlog=9\n!includedir conf.d\n";
        fs::write(&file, text).unwrap();
        fs::write(directory.path().join("conf.d/x.cnf"), "[mariadb-10.11]\nsync_binlog=\"1\"\n")
            .unwrap();
        let command = ["mariadbd".to_owned(), format!("--defaults-file={}", file.display())];
        let settings = mariadb(Path::new("/my"), directory.path(), &command);
        let expected =
            [("innodb_flush_log_at_trx_commit", "2"), ("log_bin", "1"), ("sync_binlog", "1")];
        assert_eq!(values(&settings), expected);
    }
}
