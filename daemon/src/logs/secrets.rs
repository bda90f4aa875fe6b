//! Takes secrets out of what is written down for people: arguments of commands, what they typed,
//! a configuration. What stands in a key file is never read, so only its path can be here.
//!
//! It errs on the side of hiding. What it cannot know: a secret in plain words, such as a typed
//! reason that is one.

use std::sync::LazyLock;

use regex::{Captures, Regex};

/// What stands in place of a secret.
const HIDDEN: &str = "[hidden]";

fn regex(text: &str) -> Regex {
    Regex::new(text).expect("it is a constant, and a test uses it")
}

/// What a name holds that says that its value is a secret.
const NAMES: &str = "(?:password|passwd|passphrase|pwd|secret|token|api_?-?key|private_?-?key)";

/// `password = value`, `--password=value`, `PGPASSWORD=value`, `"token": "value"`.
static ASSIGNED: LazyLock<Regex> = LazyLock::new(|| {
    regex(&format!(
        r#"(?is)([\w-]*{NAMES}[\w-]*["']?\s*[=:]\s*)("""(?:.*?""""{{0,2}}|.*\z)|'''(?:.*?''''{{0,2}}|.*\z)|"(?:[^"\\]|\\.)*"|'[^']*'|[^\s,;&"'\]]+)"#
    ))
});
/// `--password value`, also as two texts of a list.
static FOLLOWED: LazyLock<Regex> = LazyLock::new(|| {
    regex(&format!(
        r#"(?i)(--?[\w-]*{NAMES}[\w-]*(?:"\s*,\s*|'\s*,\s*|\s+))("(?:[^"\\]|\\.)*"|'[^']*'|[^\s"',\]]+)"#
    ))
});
/// `scheme://user:value@host`.
static ADDRESS: LazyLock<Regex> = LazyLock::new(|| regex(r#"(://[^\s/:@"']*:)([^\s/@"']+)(@)"#));
/// A key in PEM.
static PEM: LazyLock<Regex> = LazyLock::new(|| {
    regex(r"(?s)-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\z)")
});
/// A key as hex digits; a fingerprint says what it is and is none.
static DIGITS: LazyLock<Regex> = LazyLock::new(|| regex(r"(sha256:)?\b([0-9a-fA-F]{64,})\b"));

/// The text without the secrets that can be told.
pub(crate) fn hide(text: &str) -> String {
    let value = |found: &Captures<'_>| {
        let quote = match found[2].chars().next() {
            Some(quote @ ('"' | '\'')) => quote.to_string(),
            _ => String::new(),
        };
        format!("{}{quote}{HIDDEN}{quote}", &found[1])
    };
    let text = PEM.replace_all(text, HIDDEN);
    let text = ASSIGNED.replace_all(&text, value);
    let text = FOLLOWED.replace_all(&text, value);
    let text = ADDRESS.replace_all(&text, format!("${{1}}{HIDDEN}${{3}}"));
    let digits = |found: &Captures<'_>| match found.get(1) {
        Some(_) => found[0].to_owned(),
        None => HIDDEN.to_owned(),
    };
    DIGITS.replace_all(&text, digits).into_owned()
}

/// The arguments of a command without the secrets that can be told.
pub(crate) fn hide_words<S: AsRef<str>>(words: &[S]) -> Vec<String> {
    static NAMED: LazyLock<Regex> =
        LazyLock::new(|| regex(&format!(r"(?i)^--?[\w-]*{NAMES}[\w-]*$")));
    let client = words.first().map(AsRef::as_ref).unwrap_or_default();
    let client = client.rsplit('/').next().unwrap_or_default();
    // The clients of MariaDB take it right behind -p.
    let glued = client.starts_with("mysql") || client.starts_with("mariadb");
    let mut found = Vec::new();
    let mut named = false;
    for word in words.iter().map(AsRef::as_ref) {
        found.push(if named {
            HIDDEN.to_owned()
        } else if glued && word.len() > 2 && word.starts_with("-p") {
            format!("-p{HIDDEN}")
        } else {
            hide(word)
        });
        named = NAMED.is_match(word);
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_secret_that_can_be_told_is_left() {
        let key = "0123456789abcdef".repeat(4);
        for (text, kept) in [
            ("password = \"s3cret\"", "password = \"[hidden]\""),
            ("admin_password='s3cret' x", "admin_password='[hidden]' x"),
            ("host=a password=s3cret dbname=b", "host=a password=[hidden] dbname=b"),
            ("PGPASSWORD=s3cret psql", "PGPASSWORD=[hidden] psql"),
            ("{\"token\": \"s3cret\"}", "{\"token\": \"[hidden]\"}"),
            ("[\"x\", \"--password\", \"s3cret\"]", "[\"x\", \"--password\", \"[hidden]\"]"),
            ("x --password s3cret y", "x --password [hidden] y"),
            ("postgres://me:s3cret@host/db", "postgres://me:[hidden]@host/db"),
            ("-----BEGIN PRIVATE KEY-----\ns3cret\n-----END PRIVATE KEY-----\nx", "[hidden]\nx"),
            ("-----BEGIN EC PRIVATE KEY-----\ns3cret", "[hidden]"),
        ] {
            assert_eq!(hide(text), kept);
        }
        assert_eq!(hide(&format!("key {key} end")), "key [hidden] end");
        for (words, kept) in [
            (["/usr/bin/x", "--password", "s3cret"], ["/usr/bin/x", "--password", "[hidden]"]),
            (["/usr/bin/mysql", "-ps3cret", "-u"], ["/usr/bin/mysql", "-p[hidden]", "-u"]),
            (["/usr/bin/x", "--token=s3cret", "y"], ["/usr/bin/x", "--token=[hidden]", "y"]),
        ] {
            assert_eq!(hide_words(&words), kept);
        }
    }

    /// A configuration that says nothing secret is not touched: paths of keys, fingerprints and
    /// ports are what is looked for in it.
    #[test]
    fn what_is_no_secret_is_left_as_it_is() {
        let sample = include_str!("../../../packaging/duolog.toml");
        assert_eq!(hide(sample), sample);
        let words = ["/usr/lib/postgresql/15/bin/postgres", "-D", "/data", "-p", "5432"];
        assert_eq!(hide_words(&words), words);
    }
}
