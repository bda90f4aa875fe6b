//! The console of two real nodes: each answers for both, and what is done at one is asked, decided and
//! recorded at the other.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;

use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{
    ClientConfig, ClientConnection, RootCertStore, StreamOwned, version::TLS13,
};

use super::*;

pub(super) const PASSWORD: &str = "correct horse";

/// Somebody with a browser at one node's console, over HTTP in clear.
pub(super) struct Visitor {
    at: SocketAddr,
    cookie: String,
    csrf: String,
}

fn request(method: &str, path: &str, headers: &str, body: &str) -> String {
    format!(
        "{method} {path} HTTP/1.1\r\nHost: node\r\nConnection: close\r\nContent-Type: \
         application/json\r\nContent-Length: {}\r\n{headers}\r\n{body}",
        body.len()
    )
}

/// The status, the head and the body of an answer that ends with its connection.
fn read(stream: &mut impl Read) -> (u16, String, Vec<u8>) {
    let mut answer = Vec::new();
    // The end may come without a word of farewell.
    stream.read_to_end(&mut answer).ok();
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n").expect("a head");
    let head = String::from_utf8(answer[..end].to_vec()).unwrap();
    let mut body = answer[end + 4..].to_vec();
    if head.to_lowercase().contains("transfer-encoding: chunked") {
        body = unchunked(&body);
    }
    (head[9..12].parse().unwrap(), head, body)
}

fn unchunked(mut body: &[u8]) -> Vec<u8> {
    let mut whole = Vec::new();
    loop {
        let end = body.windows(2).position(|two| two == b"\r\n").expect("a size");
        let size = std::str::from_utf8(&body[..end]).unwrap();
        let size = usize::from_str_radix(size, 16).unwrap();
        if size == 0 {
            return whole;
        }
        whole.extend(&body[end + 2..end + 2 + size]);
        body = &body[end + 4 + size..];
    }
}

fn connect(at: SocketAddr) -> TcpStream {
    let stream = within("the console listens", || TcpStream::connect(at).ok());
    stream.set_read_timeout(Some(BOUND)).unwrap();
    stream
}

impl Visitor {
    pub(super) fn log_in(at: SocketAddr, name: &str) -> Self {
        let body = serde_json::json!({ "name": name, "password": PASSWORD }).to_string();
        let mut stream = connect(at);
        stream.write_all(request("POST", "/api/v1/login", "", &body).as_bytes()).unwrap();
        let (status, head, body) = read(&mut stream);
        assert_eq!(status, 200, "{head}\n{}", String::from_utf8_lossy(&body));
        let cookie = head.lines().find_map(|line| line.strip_prefix("set-cookie: ")).unwrap();
        let session: Value = serde_json::from_slice(&body).unwrap();
        Self {
            at,
            cookie: cookie.split(';').next().unwrap().into(),
            csrf: session["csrf"].as_str().unwrap().into(),
        }
    }

    pub(super) fn ask(&self, method: &str, path: &str, body: &str) -> (u16, Vec<u8>) {
        let headers = format!("Cookie: {}\r\nDuolog-Csrf: {}\r\n", self.cookie, self.csrf);
        let mut stream = connect(self.at);
        let path = format!("/api/v1/{path}");
        stream.write_all(request(method, &path, &headers, body).as_bytes()).unwrap();
        let (status, _, body) = read(&mut stream);
        (status, body)
    }

    pub(super) fn get(&self, path: &str) -> Value {
        let (status, body) = self.ask("GET", path, "");
        assert_eq!(status, 200, "{path}: {}", String::from_utf8_lossy(&body));
        serde_json::from_slice(&body).unwrap()
    }

    /// Has something done, and waits for what comes of it.
    fn acts(&self, on: &str, action: &Value) -> Value {
        let body = serde_json::json!({ "on": on, "action": action }).to_string();
        let (status, answer) = self.ask("POST", "actions", &body);
        assert_eq!(status, 202, "{}", String::from_utf8_lossy(&answer));
        let begun: Value = serde_json::from_slice(&answer).unwrap();
        within("the action ends", || {
            let record = self.get(&format!("actions/{}", begun["id"]));
            (record["stage"] != "under_way").then_some(record)
        })
    }
}

pub(super) fn both() -> ([SocketAddr; 2], [SocketAddr; 2], [String; 2]) {
    let free = || TcpListener::bind("127.0.0.1:0").unwrap();
    let held = [free(), free(), free(), free()];
    let at: Vec<_> = held.iter().map(|held| held.local_addr().unwrap()).collect();
    let web =
        |node: usize| format!("[web]\nhttps = \"{}\"\nhttp = \"{}\"\n", at[node], at[2 + node]);
    ([at[0], at[1]], [at[2], at[3]], [web(0), web(1)])
}

#[test]
fn each_node_answers_for_both_and_an_action_is_decided_and_recorded_where_it_is_done() {
    let (https, http, web) = both();
    let pair = Pair::with(PATIENT, Some(&web));
    let password = pair.path(1, "password");
    fs::write(&password, PASSWORD).unwrap();
    for (name, role) in [("ada", "administrator"), ("vic", "viewer")] {
        let file = password.to_str().unwrap();
        pair.adds_user(name, role, file);
    }
    // A user of the pair is one at both nodes.
    let [one, two] = http.map(|at| {
        within("the user is known", || {
            let body = serde_json::json!({ "name": "ada", "password": PASSWORD }).to_string();
            let mut stream = connect(at);
            stream.write_all(request("POST", "/api/v1/login", "", &body).as_bytes()).unwrap();
            (read(&mut stream).0 == 200).then(|| Visitor::log_in(at, "ada"))
        })
    });

    for (visitor, node) in [(&one, 1), (&two, 2)] {
        let cluster = within("both nodes are known", || {
            let cluster = visitor.get("cluster");
            cluster["nodes"][2 - node]["status"].is_object().then_some(cluster)
        });
        assert_eq!(cluster["asked"], node);
        for (at, state) in [(0, "PRIM"), (1, "SECOND")] {
            let known = &cluster["nodes"][at];
            assert_eq!(
                (&known["node"], &known["here"]),
                (&(at + 1).into(), &(at + 1 == node).into())
            );
            assert_eq!((&known["state"], &known["reached"]), (&state.into(), &true.into()));
            assert_eq!(known["status"]["state"], state);
            assert!(known["age_ms"].as_u64().unwrap() < 3000, "{known}");
            assert_eq!(known["switches"]["failover"], true);
        }
        let other = 3 - node;
        let information = visitor.get(&format!("nodes/{other}/information"));
        assert_eq!(information["node"], other);
        let text = information["configuration"].as_str().unwrap();
        assert!(text.contains(&format!("number = {other}")), "{text}");
        assert_eq!(information["certificates"][0]["what"], "node");
        let history = within("there is history", || {
            let history = visitor.get(&format!("nodes/{other}/history"));
            (history["samples"].as_array().unwrap().len() > 1).then_some(history)
        });
        assert_eq!((&history["node"], &history["step_s"]), (&other.into(), &1.into()));
        let lines = visitor.get(&format!("nodes/{other}/logs/module?lines=20"));
        let lines = lines["lines"].as_array().unwrap();
        assert!(!lines.is_empty() && lines.iter().all(|line| line["node"] == other), "{lines:?}");
        let resources = visitor.get(&format!("nodes/{other}/resources"));
        assert_eq!(resources["resources"][0]["name"], "node.state");
        for path in ["receipts", "branches"] {
            assert!(visitor.get(&format!("nodes/{other}/{path}")).is_array());
        }
    }
    let (_, settings) = one.ask("GET", "settings", "");
    let settings = String::from_utf8(settings).unwrap();
    assert!(settings.contains("ada") && !settings.contains("argon2"), "{settings}");
    let estimate = two.get("estimate");
    assert!(estimate["bytes"].is_u64(), "it is asked of the node that serves: {estimate}");

    users_are_changed_at_either_console(&pair, &one, &two, http);
    settings_are_checked_and_changed(&pair, &one, &two);

    // Whoever may only look may not stop a node, and nothing comes of it there.
    let vic = Visitor::log_in(http[0], "vic");
    let stop = r#"{"on":"node2","action":{"kind":"stop"}}"#;
    assert_eq!(vic.ask("POST", "actions", stop).0, 403);

    let stopped = one.acts("node2", &serde_json::json!({ "kind": "stop" }));
    assert_eq!(stopped["stage"], "done", "{stopped}");
    assert_eq!(stopped["outcomes"][0]["standing"]["state"], "STOP");
    pair.stands(2, "STOP");
    let by = |node: usize| {
        let lines = pair.log(node, "--commands");
        let line =
            lines.into_iter().find(|line| line["command"] == "stop" && line["step"] == "ended");
        let line = line.unwrap_or_else(|| panic!("node{node} has no record of it"));
        (line["by"]["user"].clone(), line["by"]["way"].as_str().unwrap().to_owned())
    };
    assert_eq!(by(1), ("ada".into(), "console 127.0.0.1".into()));
    assert_eq!(by(2), ("ada".into(), "console 127.0.0.1 of node1".into()));
    // The link is off, and how it stands is known all the same.
    let cluster = within("it is known to be stopped", || {
        let cluster = one.get("cluster");
        (cluster["nodes"][1]["state"] == "STOP").then_some(cluster)
    });
    assert_eq!(cluster["nodes"][1]["reached"], true);
    let (status, unreached) = one.ask("GET", "nodes/2/information", "");
    assert_eq!(status, 502, "{}", String::from_utf8_lossy(&unreached));
    let started = one.acts("node2", &serde_json::json!({ "kind": "start" }));
    assert_eq!(started["stage"], "done", "{started}");
    pair.stands(2, "SECOND");

    let swapped = two.acts("both", &serde_json::json!({ "kind": "swap" }));
    assert_eq!(swapped["stage"], "done", "{swapped}");
    pair.stands(2, "PRIM");
    pair.stands(1, "SECOND");
    let receipts = within("the link is back", || {
        let (status, body) = one.ask("GET", "nodes/2/receipts", "");
        (status == 200).then(|| serde_json::from_slice::<Value>(&body).unwrap())
    });
    let last = receipts.as_array().unwrap().last().unwrap();
    assert_eq!((&last["event"], &last["node"]), (&"promoted".into(), &2.into()));

    // One click: the ZIP of both nodes.
    let (status, zip) = one.ask("GET", "snapshot", "");
    assert_eq!(status, 200, "{}", String::from_utf8_lossy(&zip));
    let zip = zip::ZipArchive::new(std::io::Cursor::new(zip)).unwrap();
    for folder in ["node1/dumps/", "node2/dumps/"] {
        assert!(zip.file_names().any(|name| name.unwrap().starts_with(folder)), "{folder}");
    }

    encrypted(&pair, https[0]);
}

/// An administrator adds, changes, shuts out and removes a user, who is in or out at both nodes at once.
fn users_are_changed_at_either_console(
    pair: &Pair,
    one: &Visitor,
    two: &Visitor,
    http: [SocketAddr; 2],
) {
    let change = |visitor: &Visitor, method: &str, path: &str, body: &str, wanted: u16| {
        let (status, answer) = visitor.ask(method, path, body);
        let answer = String::from_utf8(answer).unwrap();
        assert_eq!(status, wanted, "{method} {path}: {answer}");
        answer
    };
    let ben = serde_json::json!({ "name": "ben", "role": "viewer", "password": PASSWORD });
    let ben = ben.to_string();
    let added = change(one, "POST", "users", &ben, 201);
    assert!(added.contains("\"both\":true") && !added.contains("argon2"), "{added}");
    change(one, "POST", "users", &ben, 409);
    change(one, "POST", "users", &ben.replace("ben", "b en"), 400);
    change(one, "POST", "users", &ben.replace("ben", "eve").replace(PASSWORD, "short"), 400);
    let told = two.get("users");
    let entry = serde_json::json!({ "name": "ben", "role": "viewer", "password": true,
        "certificates": 0, "enabled": true });
    assert!(told.as_array().unwrap().contains(&entry), "{told}");
    // Whoever is no administrator does not even see them.
    let there = Visitor::log_in(http[1], "ben");
    change(&there, "GET", "users", "", 403);
    change(&there, "DELETE", "users/ada", "", 403);
    change(two, "PATCH", "users/ben", r#"{"role":"operator"}"#, 200);
    assert!(there.get("estimate")["changed_only"].is_boolean());
    change(two, "PATCH", "users/ben", r#"{"enabled":false}"#, 200);
    within("it counts at once", || (there.ask("GET", "cluster", "").0 == 401).then_some(()));
    change(two, "PATCH", "users/nobody", r#"{"enabled":false}"#, 404);
    let body = serde_json::json!({ "name": "ben", "password": PASSWORD }).to_string();
    let log_in = |body: &str| {
        let mut stream = connect(http[0]);
        stream.write_all(request("POST", "/api/v1/login", "", body).as_bytes()).unwrap();
        read(&mut stream).0
    };
    assert_eq!(log_in(&body), 401, "disabled");
    change(one, "PATCH", "users/ben", r#"{"enabled":true}"#, 200);
    change(one, "PATCH", "users/ben", r#"{"password":"another horse"}"#, 200);
    assert_eq!(log_in(&body.replace(PASSWORD, "another horse")), 200);
    // Nobody is left who could take that back.
    for (method, body) in [("DELETE", ""), ("PATCH", r#"{"enabled":false}"#)] {
        let refused = change(one, method, "users/ada", body, 409);
        assert!(refused.contains("no administrator would be left"), "{refused}");
    }
    change(one, "DELETE", "users/ben", "", 200);
    assert_eq!(log_in(&body.replace(PASSWORD, "another horse")), 401);
    let lines = pair.log(2, "--commands");
    let of = |command: &str| {
        let found = lines.iter().find(|it| it["command"] == command && it["step"] == "ended");
        found.unwrap_or_else(|| panic!("{command} is not recorded: {lines:?}"))
    };
    let disabled = of("users disable");
    assert_eq!(disabled["by"]["user"], "ada");
    assert_eq!(disabled["arguments"], serde_json::json!(["ben"]));
    assert!(disabled["outcome"].as_str().unwrap().starts_with("done: version "), "{disabled}");
    let text = format!("{:?}{lines:?}", pair.log(1, "--commands"));
    assert!(!text.contains("another horse"), "a password is in the log");
}

/// The document as text: what is wrong is told before, and whoever was faster is not written over.
fn settings_are_checked_and_changed(pair: &Pair, one: &Visitor, two: &Visitor) {
    let ask = |visitor: &Visitor, method: &str, path: &str, draft: &Value, wanted: u16| {
        let (status, answer) = visitor.ask(method, path, &draft.to_string());
        let answer = String::from_utf8(answer).unwrap();
        assert_eq!(status, wanted, "{method} {path}: {answer}");
        serde_json::from_str::<Value>(&answer).unwrap()
    };
    let now = one.get("settings");
    let base = serde_json::json!({ "version": now["stamp"]["version"],
        "node": now["stamp"]["node"], "hash": now["stamp"]["hash"] });
    let text = now["text"].as_str().unwrap();
    let draft = |more: &str| {
        let text = text.replacen("retention_bytes", &format!("{more}\nretention_bytes"), 1);
        serde_json::json!({ "base": base, "text": text })
    };
    let wrong_line = text.lines().position(|line| line.starts_with("retention_bytes")).unwrap() + 1;
    let wrong = ask(one, "POST", "settings/check", &draft("auto_rejoin = 3"), 200);
    assert_eq!(wrong["faults"][0]["line"], wrong_line, "{wrong}");
    let refused = ask(one, "PUT", "settings", &draft("auto_rejoin = 3"), 400);
    assert!(refused["text"].as_str().unwrap().contains("auto_rejoin"), "{refused}");
    // What is run as root is no business of who has a password of the console.
    let told = draft("notify = [\"/bin/touch\", \"/tmp/root\"]");
    for (method, path) in [("POST", "settings/check"), ("PUT", "settings")] {
        let refused = ask(one, method, path, &told, 409);
        let text = refused["text"].as_str().unwrap();
        assert!(text.contains("pair.notify") && text.contains("duolog config edit"), "{text}");
    }
    assert!(!two.get("settings")["text"].as_str().unwrap().contains("/tmp/root"));
    let good = draft("verify_every_s = 7200");
    let right = ask(two, "POST", "settings/check", &good, 200);
    assert_eq!(right["faults"], serde_json::json!([]));
    assert_eq!(right["at_once"], serde_json::json!(["pair.verify_every_s"]), "{right}");
    assert_eq!(one.get("settings")["stamp"], now["stamp"], "a check changes nothing");
    let changed = ask(one, "PUT", "settings", &good, 200);
    assert_eq!((&changed["both"], &changed["stamp"]["who"]), (&true.into(), &"ada".into()));
    // Passwords were not shown, and are what they were.
    Visitor::log_in(two.at, "ada");
    let stale = ask(two, "PUT", "settings", &draft("verify_every_s = 3600"), 409);
    let version = changed["stamp"]["version"].to_string();
    assert!(stale["text"].as_str().unwrap().contains(&format!("version {version}")), "{stale}");
    assert!(two.get("settings")["text"].as_str().unwrap().contains("verify_every_s = 7200"));
    let edits = pair.log(1, "--commands");
    assert!(edits.iter().any(|it| it["command"] == "config edit" && it["by"]["user"] == "ada"));
}

/// Over HTTPS the same, with what makes a session safe.
fn encrypted(pair: &Pair, at: SocketAddr) {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(pair.path(1, "node.crt")).unwrap()).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(&[&TLS13])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from("node").unwrap();
    let tls = ClientConnection::new(Arc::new(config), name).unwrap();
    let mut stream = StreamOwned::new(tls, connect(at));
    let body = serde_json::json!({ "name": "ada", "password": PASSWORD }).to_string();
    stream.write_all(request("POST", "/api/v1/login", "", &body).as_bytes()).unwrap();
    let (status, head, _) = read(&mut stream);
    assert_eq!(status, 200, "{head}");
    assert!(head.contains("set-cookie: __Host-duolog-00000000-1=") && head.contains("; Secure"));
}

/// What is seen live at the node that survives: ALONE, without asking again.
#[test]
fn the_loss_of_the_primary_is_told_to_open_streams_at_once() {
    const QUICK: &str = "heartbeat_ms = 100\npeer_lost_ms = 300\nstall_ms = 1000\n\
                         fence_ms = 500\nstop_services_ms = 200\nfailover_ms = 1000\n";
    let (_, http, web) = both();
    let mut pair = Pair::with(QUICK, Some(&web));
    let password = pair.path(1, "password");
    fs::write(&password, PASSWORD).unwrap();
    let file = password.to_str().unwrap();
    pair.adds_user("vic", "viewer", file);
    let vic = within("the user is known", || {
        let known = done(&pair.duolog(2, &["users", "list"])).contains("vic");
        known.then(|| Visitor::log_in(http[1], "vic"))
    });
    let headers = format!("Cookie: {}\r\n", vic.cookie);
    let mut stream = connect(http[1]);
    stream.write_all(request("GET", "/api/v1/events", &headers, "").as_bytes()).unwrap();
    let mut lines = BufReader::new(stream).lines();
    let mut seen = |state: &str| loop {
        let line = lines.next().expect("the stream goes on").unwrap();
        let Some(data) = line.strip_prefix("data: {\"cluster\":") else { continue };
        let cluster: Value = serde_json::from_str(&format!("{{\"cluster\":{data}")).unwrap();
        if cluster["nodes"][1]["state"] == state {
            return cluster;
        }
    };
    seen("SECOND");
    for process in [pair.guardian(1), pair.daemon(1)] {
        kill_process(process, Signal::KILL).unwrap();
    }
    let alone =
        within("node2 takes over", || (pair.status(2)["state"] == "ALONE").then(Instant::now));
    seen("ALONE");
    let late = alone.elapsed();
    assert!(late < Duration::from_secs(2), "it was told {late:?} after it was so");
    pair.running[0].take().unwrap().wait().unwrap();
}
