//! Certificates and users of a pair that runs: renewed without stopping it, revoked, refused. Needs
//! root, /dev/fuse, curl and openssl.

#![expect(clippy::unwrap_used, reason = "a test says what is wrong by panicking")]

mod two_nodes;

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use duolog_transport::{Authority, new_key};
use two_nodes::*;

/// A pair with an authority, a document and HTTPS at both nodes.
struct Site {
    pair: Pair,
    ports: [u16; 2],
    authority: Authority,
}

fn run(program: &str, arguments: &[&str]) -> Output {
    Command::new(program).args(arguments).output().unwrap()
}

impl Site {
    fn new() -> Self {
        let pair = Pair::new();
        let at = pair.one.home.parent().unwrap().to_owned();
        let key = new_key().unwrap();
        let authority = Authority::new("shop", &key).unwrap();
        fs::write(at.join("ca.crt"), authority.certificate().unwrap()).unwrap();
        fs::write(at.join("ca.key"), &key).unwrap();
        let ports = [&pair.one, &pair.two].map(|node| {
            node.done(&["config", "import"]);
            let https = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
            let text = fs::read_to_string(node.config()).unwrap();
            fs::write(node.config(), format!("{text}\n[web]\nhttps = \"{https}\"\n")).unwrap();
            https.port()
        });
        let mut site = Self { pair, ports, authority };
        site.pair.start();
        // Each has imported its own; they meet, and one of the two counts.
        let begun = Instant::now();
        let version = |node: &Node| node.done(&["config", "show", "--json"]);
        while version(&site.pair.one) != version(&site.pair.two) {
            assert!(begun.elapsed() < BOUND, "they have not met");
            pause();
        }
        site
    }

    fn at(&self, name: &str) -> PathBuf {
        self.pair.one.home.with_file_name(name)
    }

    /// Asks a node's /metrics as who trusts the authority; what curl says, and the HTTP code.
    fn ask(&self, node: usize, more: &[&str]) -> (String, String) {
        let name = ["one", "two"][node];
        let port = self.ports[node];
        let resolve = format!("{name}:{port}:127.0.0.1");
        let url = format!("https://{name}:{port}/metrics");
        let ca = self.at("ca.crt");
        let mut arguments =
            vec!["-sS", "-m", "20", "--cacert", ca.to_str().unwrap(), "--resolve", &resolve];
        arguments.extend(["-w", "\n%{http_code}"]);
        arguments.extend(more);
        arguments.push(&url);
        let output = run("curl", &arguments);
        let text = said(&output);
        let code = String::from_utf8_lossy(&output.stdout).lines().last().unwrap_or("").to_owned();
        (code, text)
    }

    /// Asks with a certificate and its key in files of that name.
    fn with(&self, node: usize, name: &str) -> (String, String) {
        let [certificate, key] = ["crt", "key"].map(|end| self.at(&format!("{name}.{end}")));
        let [certificate, key] = [certificate.to_str().unwrap(), key.to_str().unwrap()];
        self.ask(node, &["--cert", certificate, "--key", key])
    }

    /// Makes files of a certificate of that authority for a user.
    fn user(&self, authority: &Authority, file: &str, name: &str, until_s: i64) {
        let key = new_key().unwrap();
        let certificate = authority.issue_user(name, "metrics", &key, until_s).unwrap();
        fs::write(self.at(&format!("{file}.crt")), certificate).unwrap();
        fs::write(self.at(&format!("{file}.key")), key).unwrap();
    }
}

fn now_s() -> i64 {
    i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()).unwrap()
}

fn shows(node: &Node, what: &str) -> String {
    let text = node.done(&["certs", "show"]);
    let line = text.lines().find(|line| line.trim().starts_with(what)).unwrap();
    line.split_whitespace().nth(1).unwrap().to_owned()
}

/// Same processes, another certificate, then another key at each node; what is written meanwhile is
/// on both, and a restart finds its way.
#[test]
fn certificates_and_keys_are_renewed_while_the_pair_serves() {
    let mut site = Site::new();
    let starts = |site: &Site| {
        [&site.pair.one, &site.pair.two].map(|node| node.status().unwrap()["incarnation"].clone())
    };
    let before = starts(&site);
    assert_eq!(site.ask(0, &[]).0, "000", "the first certificate is signed by itself");
    for index in [0, 1] {
        let node = [&site.pair.one, &site.pair.two][index];
        let key = shows(node, "key");
        let said = node.done(&["certs", "renew", "--days", "90"]);
        assert!(said.contains("the node shows it from now on"), "{said}");
        assert_eq!(shows(node, "key"), key);
        assert_eq!(site.ask(index, &[]).0, "401", "{}", site.ask(index, &[]).1);
    }
    assert_eq!(starts(&site), before);
    // The next connection goes by what was pinned at the beginning.
    for node in [&mut site.pair.one, &mut site.pair.two] {
        node.lose();
    }
    site.pair.start();
    let before = starts(&site);
    for index in [0, 1] {
        let node = [&site.pair.one, &site.pair.two][index];
        let key = shows(node, "key");
        let said = node.done(&["certs", "renew", "--new-key"]);
        assert!(said.contains("the old one counts no more"), "{said}");
        assert_ne!(shows(node, "key"), key);
        assert_eq!(site.ask(index, &[]).0, "401");
        fs::write(site.pair.one.data().join(format!("row{index}")), key).unwrap();
        site.pair.one.reaches("PRIM");
        site.pair.two.reaches("SECOND");
    }
    assert_eq!(starts(&site), before);
    let text = site.pair.two.done(&["config", "show"]);
    assert_eq!(text.matches("[[pin]]").count(), 2, "{text}");
    assert_eq!(text.matches("[[revoked]]").count(), 2, "{text}");

    // Both at once: whoever has the old keys would not be let in.
    for node in [&mut site.pair.one, &mut site.pair.two] {
        node.lose();
    }
    site.pair.start();
    // A command that was interrupted is repeated.
    let one = &site.pair.one;
    let next = one.home.with_extension("next.key");
    fs::write(&next, new_key().unwrap()).unwrap();
    fs::set_permissions(&next, fs::Permissions::from_mode(0o600)).unwrap();
    let key = shows(one, "key");
    one.done(&["certs", "renew"]);
    assert_ne!(shows(one, "key"), key);
    assert!(!next.exists());
    site.pair.two.reaches("SECOND");
}

#[test]
fn users_are_of_both_nodes_and_what_is_revoked_is_out_at_once() {
    let site = Site::new();
    let (one, two) = (&site.pair.one, &site.pair.two);
    for node in [one, two] {
        node.done(&["certs", "renew"]);
    }
    let password = site.at("password");
    fs::write(&password, "correct horse\n").unwrap();
    let file = password.to_str().unwrap();
    let add = ["users", "add", "anna", "--role", "operator", "--password-file", file];
    assert!(one.done(&add).contains("counts on both nodes\ntakes effect at once: user"));
    let again = one.refused(&add);
    assert!(again.contains("there is a user called anna already"), "{again}");
    let shown = two.done(&["config", "show"]);
    assert!(shown.contains("password = \"[set]\"") && !shown.contains("argon2"), "{shown}");
    assert!(two.done(&["config", "show", "--secrets"]).contains("$argon2id$"));
    let listed = two.done(&["users", "list"]);
    assert!(listed.starts_with("anna                 operator       password"), "{listed}");
    let logged = one.done(&["logs", "--commands"]);
    assert!(logged.contains("users add") && logged.contains("anna"), "{logged}");
    assert!(!logged.contains("argon2") && !logged.contains("horse"), "{logged}");

    let out = site.at("");
    let make = |name: &str, more: &[&str]| {
        let mut words = vec!["certs", "user", name, "--password-file", file];
        words.extend(["--out", out.to_str().unwrap()]);
        words.extend(more);
        two.done(&words)
    };
    make("ben", &["--role", "metrics"]);
    let p12 = site.at("ben.p12");
    assert_eq!(fs::metadata(&p12).unwrap().permissions().mode() & 0o777, 0o600);
    let p12 = p12.to_str().unwrap();
    for (end, what) in [("crt", "-nokeys"), ("key", "-nocerts")] {
        let to = site.at(&format!("ben.{end}"));
        let arguments =
            ["pkcs12", "-in", p12, "-nodes", what, "-passin", "pass:correct horse", "-out"];
        let output = Command::new("openssl").args(arguments).arg(&to).output().unwrap();
        assert!(output.status.success(), "{}", said(&output));
    }
    let wrong = run("openssl", &["pkcs12", "-in", p12, "-nodes", "-passin", "pass:wrong"]);
    assert!(!wrong.status.success());
    for node in [0, 1] {
        let (code, text) = site.with(node, "ben");
        assert_eq!(code, "200", "{text}");
        assert!(text.contains("duolog_state"), "{text}");
        assert_eq!(site.ask(node, &["-u", "anna:correct horse"]).0, "401", "no passwords here");
    }

    for (name, pair) in [("foreign", "other"), ("forged", "shop")] {
        let stranger = Authority::new(pair, &new_key().unwrap()).unwrap();
        site.user(&stranger, name, "ben", now_s() + 1000);
    }
    site.user(&site.authority, "expired", "ben", now_s() - 10);
    site.user(&site.authority, "nobody", "carl", now_s() + 1000);
    for (name, code, why) in [
        ("foreign", "000", "unknown ca"),
        ("forged", "000", "decrypt error"),
        ("expired", "000", "expired"),
        ("nobody", "401", "its user was removed"),
    ] {
        let (found, text) = site.with(0, name);
        assert_eq!(found, code, "{name}: {text}");
        assert!(text.to_lowercase().contains(why), "{name}: {text}");
    }

    one.done(&["certs", "revoke", "ben"]);
    for node in [0, 1] {
        let (code, text) = site.with(node, "ben");
        assert!(code == "401" && text.contains("was revoked"), "{text}");
    }
    let nothing = one.refused(&["certs", "revoke", "ben"]);
    assert!(nothing.contains("no certificate that counts"), "{nothing}");
    fs::remove_file(site.at("ben.p12")).unwrap();
    make("ben", &[]);
    one.done(&["users", "remove", "ben"]);
    assert_eq!(two.done(&["config", "show"]).matches("[[revoked]]").count(), 2);

    // But for the document itself, which only its owner reads, hashes are nowhere.
    one.done(&["dump"]);
    let state = one.home.join("state");
    assert!(state.join("dumps").exists());
    let all = run("grep", &["-rl", "argon2id", state.to_str().unwrap()]);
    let found = String::from_utf8_lossy(&all.stdout).into_owned();
    let document = state.join("document");
    assert!(found.lines().count() > 0, "{found}");
    for file in found.lines() {
        assert!(file.starts_with(document.to_str().unwrap()), "{file}");
        assert_eq!(fs::metadata(file).unwrap().permissions().mode() & 0o077, 0, "{file}");
    }
}

/// Who has node2's key is not talked to, though it has everything else, too.
#[test]
fn a_revoked_node_is_talked_to_no_more_and_the_other_one_goes_on() {
    let site = Site::new();
    let (one, two) = (&site.pair.one, &site.pair.two);
    let asked = one.refused(&["certs", "revoke", "--other-node"]);
    assert!(asked.contains("ends the redundancy") && asked.contains("--yes"), "{asked}");
    let said = one.done(&["certs", "revoke", "--other-node", "--yes"]);
    assert!(said.contains("duolog leave --remove-cluster"), "{said}");
    let begun = Instant::now();
    while !one.words().contains("was revoked here: it has to leave and join anew") {
        assert!(begun.elapsed() < BOUND, "{}", one.words());
        pause();
    }
    // A commit waits for the other node no longer than for one that does not acknowledge.
    let row = format!("of={}", one.data().join("row").display());
    let written = run("dd", &["if=/dev/zero", &row, "bs=512", "count=1", "conv=fsync"]);
    assert!(written.status.success(), "{written:?}");
    one.reaches("ALONE");
    assert_ne!(two.status().unwrap()["data_sync"], "uptodate");
    // Words between heartbeats still come, and change nothing here: neither users nor the revocation.
    let evil = ["users", "add", "evil", "--role", "administrator", "--no-password"];
    two.refused(&evil);
    two.done(&[&evil[..], &["--here"]].concat());
    let stop = two.refused(&["stop", "--yes", "--node", "other"]);
    assert!(stop.contains("was revoked there"), "{stop}");
    let begun = Instant::now();
    // Longer than from one look of the nodes at each other to the next.
    while begun.elapsed().as_secs() < 12 {
        let text = one.done(&["config", "show"]);
        assert!(text.contains("[[revoked]]") && !text.contains("evil"), "{text}");
        pause();
    }
    one.reaches("ALONE");
}

/// Who has the key cannot prevent that it is revoked: its node is not asked.
#[test]
fn a_node_that_takes_no_settings_is_revoked_all_the_same() {
    let mut site = Site::new();
    site.pair.two.lose();
    fs::remove_dir_all(site.pair.two.home.join("state/document")).unwrap();
    let config = site.pair.two.config();
    let before = config.with_added_extension("before-document");
    fs::copy(before, config).unwrap();
    site.pair.two.start();
    site.pair.two.reaches("SECOND");
    let one = &site.pair.one;
    one.done(&["certs", "revoke", "--other-node", "--yes"]);
    assert!(one.done(&["config", "show"]).contains("[[revoked]]"));
}
