//! Who may ask what, how somebody logs in and out, and what comes live: over the real router, without
//! sockets, of a node that is none.

#![expect(clippy::unwrap_used, reason = "a test says what is wrong by panicking")]

mod fake;
mod live;

use std::time::{Duration, Instant};

use axum::http::{Method, StatusCode};
use duolog_console::api::session::Role;
use duolog_console::gate::{Need, RULES, rule};
use duolog_console::{Console, document};
use fake::{Fake, PASSWORD, Visitor};
use flate2::read::GzDecoder;
use http_body_util::BodyExt;
use serde_json::Value;

/// Each operation of the document: method, path as it stands there, and the path with values.
fn operations() -> Vec<(String, String, String)> {
    let document: Value = serde_json::from_str(document::text()).unwrap();
    let mut all = Vec::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        let filled = path
            .replace("{node}", "1")
            .replace("{log}", "module")
            .replace("{name}", "x")
            .replace("{id}", "7");
        for method in methods.as_object().unwrap().keys() {
            all.push((method.to_uppercase(), path.clone(), filled.clone()));
        }
    }
    all
}

#[test]
fn the_table_of_roles_and_the_document_name_the_same_routes() {
    let documented = operations();
    for (method, path, _) in &documented {
        let method: Method = method.parse().unwrap();
        assert!(rule(&method, path).is_some(), "{method} {path} has no rule");
    }
    assert_eq!(RULES.len(), documented.len(), "a rule for a route that is not documented");
}

/// A body that each route takes, so that nothing but the role decides.
fn body(path: &str) -> &'static str {
    match path {
        "/api/v1/actions" => r#"{"on":"node1","action":{"kind":"start"}}"#,
        "/api/v1/users" => r#"{"name":"ben","role":"viewer","password":"secret word"}"#,
        "/api/v1/users/{name}" => r#"{"password":"secret word"}"#,
        "/api/v1/settings" | "/api/v1/settings/check" => r#"{"base":null,"text":""}"#,
        "/api/v1/login" => r#"{"name":"nobody","password":"x"}"#,
        _ => "",
    }
}

#[tokio::test]
async fn every_route_opens_to_the_roles_of_its_rule_and_to_nobody_else() {
    let console = Console::new(Fake::new());
    let roles = [
        (None, None),
        (Some("met"), Some(Role::Metrics)),
        (Some("vic"), Some(Role::Viewer)),
        (Some("oli"), Some(Role::Operator)),
        (Some("ada"), Some(Role::Administrator)),
    ];
    let mut refused = 0;
    for (method, path, filled) in operations() {
        let need = rule(&method.parse().unwrap(), &path).unwrap();
        if need == Need::Nobody {
            continue;
        }
        for (name, role) in roles {
            // By certificate, so that a user who may not log in is looked at too.
            let mut visitor = Visitor::new(&console);
            visitor.certificate = name;
            visitor.csrf = Some("certificate".into());
            let answer = visitor.ask(&method, &filled, body(&path)).await;
            let may = match (need, role) {
                (Need::Role(least), Some(role)) => role >= least,
                (Need::Token, Some(_)) => true,
                (_, None) | (Need::Nobody, _) => false,
            };
            let let_in = !matches!(answer.status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN);
            assert_eq!(let_in, may, "{method} {path} as {role:?}: {answer:?}");
            let wanted =
                if role.is_none() { StatusCode::UNAUTHORIZED } else { StatusCode::FORBIDDEN };
            if !may {
                assert_eq!(answer.status, wanted, "{method} {path} as {role:?}");
                refused += 1;
            }
        }
    }
    assert!(refused > 40, "{refused}");
}

/// What the log-in page needs, and nothing that says what runs here or where.
#[tokio::test]
async fn a_stranger_is_told_no_name_and_no_version() {
    let console = Console::new(Fake::new());
    let stranger = Visitor::new(&console);
    let told = stranger.ask("GET", "/api/v1/session", "").await.json();
    let wanted = serde_json::json!({
        "session": null, "certificate": null, "certificate_refused": false, "encrypted": true,
        "users": true, "node": 1,
    });
    assert_eq!(told, wanted);
    for (method, _, filled) in operations() {
        let answer = stranger.ask(&method, &filled, body(&filled)).await;
        let all = format!("{:?}\n{}", answer.headers, answer.body);
        for secret in ["alpha", "01234567", env!("CARGO_PKG_VERSION")] {
            assert!(!all.contains(secret), "{method} {filled} says {secret}: {all}");
        }
    }
    let mut revoked = stranger.clone();
    revoked.certificate = Some("mallory");
    let told = revoked.ask("GET", "/api/v1/session", "").await.json();
    assert_eq!((&told["certificate"], &told["certificate_refused"]), (&Value::Null, &true.into()));
}

#[tokio::test]
async fn nothing_is_changed_without_the_word_that_only_our_pages_know() {
    let fake = Fake::new();
    let console = Console::new(fake.clone());
    let mut ada = Visitor::named(&console, "ada").await;
    let right = ada.csrf.clone();
    for wrong in [None, Some("x".to_owned()), Some("certificate".to_owned())] {
        ada.csrf = wrong;
        for (method, path, filled) in operations() {
            let need = rule(&method.parse().unwrap(), &path).unwrap();
            if method != "GET" && need != Need::Nobody {
                let answer = ada.ask(&method, &filled, body(&path)).await;
                assert_eq!(answer.status, StatusCode::FORBIDDEN, "{method} {path}");
                assert_eq!(answer.json()["why"], "csrf");
            }
        }
    }
    assert!(fake.acted.lock().unwrap().is_empty());
    ada.csrf = right;
    // A page of another site, by whatever cookie.
    for site in ["cross-site", "same-site"] {
        ada.more = vec![("sec-fetch-site", site.into())];
        assert_eq!(ada.ask("GET", "/api/v1/cluster", "").await.status, StatusCode::FORBIDDEN);
    }
    ada.more = vec![("sec-fetch-site", "same-origin".into())];
    assert_eq!(ada.ask("GET", "/api/v1/cluster", "").await.status, StatusCode::OK);
    // A form of another site sends no JSON.
    let mut form = Visitor::new(&console);
    form.more = vec![("content-type", "text/plain".into())];
    let answer = form.ask("POST", "/api/v1/login", "").await;
    assert_eq!(answer.status, StatusCode::UNSUPPORTED_MEDIA_TYPE);
}

#[tokio::test]
async fn somebody_logs_in_and_out_and_is_out_at_once_when_the_user_is_removed() {
    let fake = Fake::new();
    let console = Console::new(fake.clone());
    let mut ada = Visitor::new(&console);
    let info = ada.ask("GET", "/api/v1/session", "").await.json();
    assert_eq!((&info["session"], &info["encrypted"]), (&Value::Null, &Value::Bool(true)));
    let begun = Instant::now();
    let wrong = ada.log_in("ada", "wrong").await;
    assert_eq!(
        (wrong.status, wrong.json()["why"].clone()),
        (StatusCode::UNAUTHORIZED, "wrong_credentials".into())
    );
    assert!(begun.elapsed() >= Duration::from_millis(500), "a wrong password costs time");
    assert!(!wrong.headers.contains_key("set-cookie"));
    let many = ada.log_in("many", "x").await;
    assert_eq!(many.status, StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(many.headers["retry-after"], "60");
    // Nobody's memory is filled by a password.
    let tried = *fake.tried.lock().unwrap();
    assert_eq!(ada.log_in("ada", &"x".repeat(1000)).await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(*fake.tried.lock().unwrap(), tried);

    let right = ada.log_in("ada", PASSWORD).await;
    let cookie = right.headers["set-cookie"].to_str().unwrap();
    for part in
        ["__Host-duolog-01234567-1=", "; Path=/", "; HttpOnly", "; Secure", "; SameSite=Strict"]
    {
        assert!(cookie.contains(part), "{part} is not in {cookie}");
    }
    let session = ada.ask("GET", "/api/v1/session", "").await.json()["session"].clone();
    assert_eq!((&session["role"], &session["by"]), (&"administrator".into(), &"password".into()));
    // Another role counts at once.
    fake.users.lock().unwrap()[3].1 = Role::Viewer;
    assert_eq!(ada.ask("GET", "/api/v1/snapshot", "").await.status, StatusCode::FORBIDDEN);
    fake.users.lock().unwrap()[3].1 = Role::Administrator;
    assert_eq!(ada.ask("GET", "/api/v1/snapshot", "").await.body, "PK");
    assert_eq!(ada.ask("POST", "/api/v1/logout", "").await.status, StatusCode::NO_CONTENT);
    assert_eq!(ada.ask("GET", "/api/v1/cluster", "").await.status, StatusCode::UNAUTHORIZED);

    let oli = Visitor::named(&console, "oli").await;
    assert_eq!(oli.ask("GET", "/api/v1/cluster", "").await.status, StatusCode::OK);
    *fake.mark.lock().unwrap() += 1;
    let out = oli.ask("GET", "/api/v1/cluster", "").await;
    assert_eq!(out.status, StatusCode::UNAUTHORIZED, "the password is another one");
    let oli = Visitor::named(&console, "oli").await;
    assert_eq!(oli.ask("GET", "/api/v1/cluster", "").await.status, StatusCode::OK);
    fake.users.lock().unwrap().retain(|user| user.0 != "oli");
    assert_eq!(oli.ask("GET", "/api/v1/cluster", "").await.status, StatusCode::UNAUTHORIZED);
    let mut met = Visitor::new(&console);
    assert_eq!(met.log_in("met", PASSWORD).await.status, StatusCode::FORBIDDEN);
    let said = fake.said.lock().unwrap().join("\n");
    for line in [
        "ada 127.0.0.1 log in: refused: name or password is wrong",
        "ada 127.0.0.1 log in: done, by password",
        "ada 127.0.0.1 log out: done",
    ] {
        assert!(said.contains(line), "{line} is not in {said}");
    }
}

/// What is sent takes its time, in which a user may be shut out.
#[tokio::test]
async fn a_snapshot_ends_when_who_asked_for_it_may_not_have_it_any_more() {
    let fake = Fake::new();
    let console = Console::new(fake.clone());
    let by_password = Visitor::named(&console, "oli").await;
    let by_certificate = Visitor { certificate: Some("oli"), ..Visitor::new(&console) };
    for visitor in [by_password, by_certificate] {
        for role in [Role::Operator, Role::Viewer] {
            let (go, goes_on) = std::sync::mpsc::channel();
            *fake.snapshot_goes_on.lock().unwrap() = Some(goes_on);
            let mut body = visitor.begin("GET", "/api/v1/snapshot", "").await.into_body();
            let first = body.frame().await.unwrap().unwrap().into_data().unwrap();
            assert_eq!(first, "PK");
            let of = |role| {
                let mut users = fake.users.lock().unwrap();
                users.iter_mut().find(|user| user.0 == "oli").unwrap().1 = role;
            };
            of(role);
            go.send(()).unwrap();
            let rest = body.frame().await.unwrap();
            assert_eq!(rest.is_ok(), role == Role::Operator, "{role:?}: {rest:?}");
            of(Role::Operator);
        }
    }
}

#[tokio::test]
async fn a_certificate_logs_in_until_it_counts_no_more_and_clear_text_is_said_to_be_that() {
    let fake = Fake::new();
    let console = Console::new(fake.clone());
    let mut vic = Visitor::new(&console);
    assert_eq!(
        vic.ask("POST", "/api/v1/login/certificate", "").await.status,
        StatusCode::UNAUTHORIZED
    );
    vic.certificate = Some("vic");
    let info = vic.ask("GET", "/api/v1/session", "").await.json();
    assert_eq!(info["certificate"]["name"], "vic");
    let answer = vic.ask("POST", "/api/v1/login/certificate", "").await;
    assert_eq!(
        (answer.status, answer.json()["by"].clone()),
        (StatusCode::OK, "certificate".into())
    );
    let cookie = answer.headers["set-cookie"].to_str().unwrap();
    vic.cookie = cookie.split(';').next().map(str::to_owned);
    // The session goes with the certificate, also on a connection that shows none.
    vic.certificate = None;
    assert_eq!(vic.ask("GET", "/api/v1/cluster", "").await.status, StatusCode::OK);
    fake.users.lock().unwrap().clear();
    assert_eq!(vic.ask("GET", "/api/v1/cluster", "").await.status, StatusCode::UNAUTHORIZED);

    let fake = Fake::new();
    let console = Console::new(fake.clone());
    let mut clear = Visitor::new(&console);
    clear.encrypted = false;
    let answer = clear.log_in("vic", PASSWORD).await;
    let cookie = answer.headers["set-cookie"].to_str().unwrap();
    assert!(cookie.starts_with("duolog-01234567-1=") && !cookie.contains("Secure"), "{cookie}");
    assert_eq!(clear.ask("GET", "/api/v1/session", "").await.json()["encrypted"], false);
}

#[tokio::test]
async fn answers_have_their_headers_and_pages_come_from_here_alone() {
    let console = Console::new(Fake::new());
    let mut vic = Visitor::named(&console, "vic").await;
    vic.more = vec![("accept-encoding", "br, gzip;q=0.8".into())];
    for path in ["/", "/some/page", "/api/v1/cluster", "/api/v1/nowhere", "/nothing.js"] {
        let answer = vic.begin("GET", path, "").await;
        let headers = answer.headers();
        let policy = headers["content-security-policy"].to_str().unwrap();
        assert!(policy.contains("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
        assert!(policy.contains("frame-ancestors 'none'") && !policy.contains("http"), "{policy}");
        assert_eq!(headers["x-content-type-options"], "nosniff", "{path}");
        let api = path.starts_with("/api");
        assert_eq!(headers["cache-control"] == "no-store", api || path == "/nothing.js", "{path}");
        assert_eq!(headers.contains_key("content-encoding"), !api && path != "/nothing.js");
    }
    let stranger = Visitor::new(&console);
    let page = stranger.ask("GET", "/", "").await;
    assert!(page.status == StatusCode::OK && page.body.starts_with("<!doctype html>"), "{page:?}");
    let mut again = stranger.clone();
    again.more = vec![("if-none-match", page.headers["etag"].to_str().unwrap().into())];
    assert_eq!(again.ask("GET", "/", "").await.status, StatusCode::NOT_MODIFIED);
    assert_eq!(stranger.ask("GET", "/api/v1/nowhere", "").await.json()["why"], "not_found");
    let mut token = stranger.clone();
    token.more = vec![("authorization", "Bearer token".into())];
    assert_eq!(token.ask("GET", "/metrics", "").await.body, "duolog_alarms 0\n");
    assert_eq!(token.ask("GET", "/api/v1/cluster", "").await.status, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn the_licences_of_what_the_program_is_made_of_are_in_it() {
    let vic = Visitor::named(&Console::new(Fake::new()), "vic").await;
    let answer = vic.begin("GET", "/api/v1/licences", "").await;
    assert_eq!(answer.headers()["content-encoding"], "gzip");
    let packed = answer.into_body().collect().await.unwrap().to_bytes();
    let all: Value = serde_json::from_reader(GzDecoder::new(&*packed)).unwrap();
    let all = all.as_array().unwrap();
    assert_eq!(
        (&all[0]["name"], &all[0]["licence"]),
        (&"duolog".into(), &"MIT OR Apache-2.0".into())
    );
    assert!(all.iter().all(|one| one["name"] != "stateright"), "only the tests need it");
    for name in ["duolog", "quinn", "axum", "zstd"] {
        let found = all.iter().find(|one| one["name"] == name);
        let text = found.unwrap_or_else(|| panic!("{name} is missing"))["text"].as_str();
        assert!(text.is_some_and(|text| text.len() > 500), "{name}");
    }
}

#[tokio::test]
async fn what_is_no_question_is_refused() {
    let console = Console::new(Fake::new());
    let ada = Visitor::named(&console, "ada").await;
    for path in [
        "/api/v1/nodes/3/receipts",
        "/api/v1/nodes/1/logs/other",
        "/api/v1/nodes/1/logs/../module",
        "/api/v1/actions/8",
    ] {
        let answer = ada.ask("GET", path, "").await;
        assert_eq!(answer.status, StatusCode::NOT_FOUND, "{path}: {answer:?}");
    }
    for path in ["/api/v1/nodes/1/logs/module?lines=0", "/api/v1/nodes/1/logs/module?lines=99999"] {
        assert_eq!(ada.ask("GET", path, "").await.status, StatusCode::BAD_REQUEST, "{path}");
    }
    for body in [
        r#"{"on":"node1","action":{"kind":"force_start","reason":" "}}"#,
        r#"{"on":"node1","action":{"kind":"maintenance","for_s":0}}"#,
        r#"{"on":"node1","action":{"kind":"stop"},"wait_s":0}"#,
        r#"{"on":"node1","action":{"kind":"keep_writes","reason":"a\nb"}}"#,
    ] {
        let answer = ada.ask("POST", "/api/v1/actions", body).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{body}: {answer:?}");
    }
    let unknown = r#"{"on":"node1","action":{"kind":"explode"}}"#;
    assert!(ada.ask("POST", "/api/v1/actions", unknown).await.status.is_client_error());
    let long = format!("{{\"name\":\"{}\",\"password\":\"x\"}}", "x".repeat(300 << 10));
    assert_eq!(ada.ask("POST", "/api/v1/login", &long).await.status, StatusCode::BAD_REQUEST);
}
