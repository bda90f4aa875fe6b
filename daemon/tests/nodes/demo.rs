//! The demo's pair stays for a look: both consoles are there, its password opens them, and nothing of it is
//! left once it is ended.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;

use super::metrics::ask;
use super::*;

/// Asks one console, over HTTPS, as whoever trusts the authority of the demo.
fn console(at: &Value, node: &str, request: &str) -> (u16, String, Value) {
    let https: SocketAddr =
        at[node].as_str().unwrap().strip_prefix("https://").unwrap().parse().unwrap();
    let authority = Path::new(at["authority"].as_str().unwrap());
    let answer = ask(https, authority, "127.0.0.1", request);
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{answer:?}"));
    let value = serde_json::from_str(body).unwrap_or(Value::Null);
    (head[9..12].parse().unwrap(), head.to_owned(), value)
}

fn log_in(at: &Value, node: &str, password: &str) -> (u16, String) {
    let body = serde_json::json!({ "name": at["user"], "password": password }).to_string();
    let (status, head, _) = console(
        at,
        node,
        &format!(
            "POST /api/v1/login HTTP/1.1\r\nHost: demo\r\nConnection: close\r\nContent-Type: \
             application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        ),
    );
    let cookie = head.lines().find_map(|line| line.strip_prefix("set-cookie: ")).unwrap_or("");
    (status, cookie.split(';').next().unwrap().to_owned())
}

#[test]
fn a_kept_demo_has_consoles_that_its_password_opens_until_it_is_ended() {
    let directory = tempfile::tempdir().unwrap();
    let mut child = duolog()
        .args(["demo", "--json", "--keep", "--seconds=1", "--writers=2", "--dir"])
        .arg(directory.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let said = child.stdout.take().unwrap();
    let demo = Running { child: Some(child) };
    let mut line = String::new();
    // The pair runs meanwhile: the line comes while the demo does not end.
    BufReader::new(said).read_line(&mut line).unwrap();
    let outcome: Value = serde_json::from_str(&line).unwrap_or_else(|e| panic!("{e}: {line:?}"));
    assert_eq!((&outcome["lost"], &outcome["split_brains"]), (&0.into(), &0.into()));
    let at = &outcome["console"];
    let password = at["password"].as_str().unwrap();
    assert_eq!(log_in(at, "node1", "another one").0, 401);
    let mut cookies = Vec::new();
    for node in ["node1", "node2"] {
        let (status, cookie) = log_in(at, node, password);
        assert_eq!(status, 200, "{node}");
        let get = format!(
            "GET /api/v1/cluster HTTP/1.1\r\nHost: demo\r\nConnection: close\r\nCookie: \
             {cookie}\r\n\r\n"
        );
        let deadline = Instant::now() + BOUND;
        // The other one is asked for the first time.
        let states = loop {
            let (status, _, cluster) = console(at, node, &get);
            assert_eq!(status, 200, "{node}");
            let states = [0, 1].map(|of| cluster["nodes"][of]["state"].clone());
            if states.iter().all(|state| !state.is_null()) || Instant::now() > deadline {
                break states;
            }
        };
        assert_eq!(states, ["PRIM", "SECOND"], "as {node} tells it");
        cookies.push(cookie.split('=').next().unwrap().to_owned());
    }
    // A browser that looks at both keeps both sessions: cookies know no ports.
    assert_ne!(cookies[0], cookies[1]);
    let pid = at["process"].as_u64().unwrap();
    assert_eq!(pid, u64::from(demo.child.as_ref().unwrap().id()));
    assert_eq!(demo.end(Signal::TERM), Some(0), "it was ended, not interrupted");
    assert!(fs::read_dir(directory.path()).unwrap().next().is_none());
}
