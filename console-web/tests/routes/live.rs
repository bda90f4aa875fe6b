//! Actions, and what comes as events.

use std::time::Duration;

use axum::body::BodyDataStream;
use axum::http::StatusCode;
use duolog_console::Console;
use duolog_console::api::cluster::NodeStanding;
use duolog_console::api::session::Role;
use duolog_console::api::status::State;
use futures_util::StreamExt;
use serde_json::Value;

use super::fake::{Fake, Visitor};

const BOUND: Duration = Duration::from_secs(20);

/// A stream that is read event by event.
struct Events(BodyDataStream);

impl Events {
    async fn of(visitor: &Visitor, path: &str) -> Self {
        let answer = visitor.begin("GET", path, "").await;
        assert_eq!(answer.status(), StatusCode::OK);
        assert_eq!(answer.headers()["content-type"], "text/event-stream");
        Self(answer.into_body().into_data_stream())
    }

    /// The next piece of the stream; nothing at its end.
    async fn piece(&mut self) -> Option<String> {
        let next = tokio::time::timeout(BOUND, self.0.next()).await.expect("nothing comes");
        next.map(|piece| String::from_utf8(piece.unwrap().to_vec()).unwrap())
    }

    /// The next event of that name.
    async fn next(&mut self, name: &str) -> Value {
        loop {
            let piece = self.piece().await.unwrap_or_else(|| panic!("it ended before {name}"));
            for event in piece.split("\n\n") {
                let Some(rest) = event.strip_prefix(&format!("event: {name}\ndata: ")) else {
                    continue;
                };
                return serde_json::from_str(rest).unwrap();
            }
        }
    }
}

fn watched() -> (std::sync::Arc<Fake>, Console) {
    let fake = Fake::new();
    let console = Console::new(fake.clone());
    let producer = console.clone();
    tokio::spawn(async move { producer.produce().await });
    (fake, console)
}

#[tokio::test]
async fn a_change_of_state_comes_to_every_stream_and_what_did_not_change_to_none() {
    let (fake, console) = watched();
    let vic = Visitor::named(&console, "vic").await;
    let mut streams = Vec::new();
    for _ in 0..20 {
        let mut events = Events::of(&vic, "/api/v1/events").await;
        assert_eq!(events.next("cluster").await["nodes"][0]["state"], "PRIM");
        streams.push(events);
    }
    // The first look of the producer.
    for events in &mut streams {
        events.next("cluster").await;
    }
    // The clock goes on, and nobody is told.
    let quiet = tokio::time::timeout(Duration::from_secs(2), streams[0].0.next()).await;
    assert!(quiet.is_err(), "{quiet:?}");
    fake.cluster.lock().unwrap().nodes[0].state = Some(State::Alone);
    for events in &mut streams {
        assert_eq!(events.next("cluster").await["nodes"][0]["state"], "ALONE");
    }
}

/// What is known of the other node is older: the new state of this one must not be told beside the old
/// state of that one, as where both are SECOND for half a second of a swap.
#[tokio::test]
async fn a_change_here_is_told_with_what_the_other_node_says_of_the_same_moment() {
    let (fake, console) = watched();
    let other = {
        let mut cluster = fake.cluster.lock().unwrap();
        let mut other = cluster.nodes[0].clone();
        (other.node, other.here) = (2, false);
        (other.state, other.age_ms) = (Some(State::Second), Some(400));
        cluster.nodes.push(other.clone());
        other
    };
    let vic = Visitor::named(&console, "vic").await;
    let mut events = Events::of(&vic, "/api/v1/events").await;
    for _ in 0..2 {
        let told = events.next("cluster").await;
        assert_eq!(
            (&told["nodes"][0]["state"], &told["nodes"][1]["state"]),
            (&"PRIM".into(), &"SECOND".into())
        );
    }
    fake.cluster.lock().unwrap().nodes[0].state = Some(State::Second);
    let told = events.next("cluster").await;
    assert_eq!(
        (&told["nodes"][0]["state"], &told["nodes"][1]["state"]),
        (&"SECOND".into(), &"PRIM".into())
    );
    // One that does not answer holds nothing up for long.
    *fake.looked_now.lock().unwrap() = None;
    fake.cluster.lock().unwrap().nodes[1] = NodeStanding { reached: false, ..other };
    fake.cluster.lock().unwrap().nodes[0].state = Some(State::Alone);
    assert_eq!(events.next("cluster").await["nodes"][0]["state"], "ALONE");
}

#[tokio::test]
async fn an_action_is_told_from_its_beginning_to_its_outcome_and_needs_its_role() {
    let (fake, console) = watched();
    let oli = Visitor::named(&console, "oli").await;
    let mut events = Events::of(&oli, "/api/v1/events").await;
    events.next("cluster").await;
    let swap = r#"{"on":"both","action":{"kind":"swap"}}"#;
    let begun = oli.ask("POST", "/api/v1/actions", swap).await;
    assert_eq!(begun.status, StatusCode::ACCEPTED);
    let begun = begun.json();
    assert_eq!((&begun["stage"], &begun["who"]), (&"under_way".into(), &"oli".into()));
    let mut stages = Vec::new();
    loop {
        let record = events.next("action").await;
        assert_eq!(record["id"], begun["id"]);
        let stage = record["stage"].as_str().unwrap().to_owned();
        stages.push(stage.clone());
        if stage != "under_way" {
            assert_eq!(record["outcomes"][0]["standing"]["state"], "PRIM");
            assert_eq!(record["steps"][0]["standing"]["state"], "WAIT");
            break;
        }
    }
    assert_eq!(stages, ["under_way", "under_way", "done"]);
    let path = format!("/api/v1/actions/{}", begun["id"]);
    assert_eq!(oli.ask("GET", &path, "").await.json()["stage"], "done");
    let force = r#"{"on":"node1","action":{"kind":"force_start","reason":"refuse"}}"#;
    let refused = oli.ask("POST", "/api/v1/actions", force).await;
    assert_eq!(
        (refused.status, refused.json()["why"].clone()),
        (StatusCode::FORBIDDEN, "forbidden".into())
    );
    let ada = Visitor::named(&console, "ada").await;
    assert_eq!(ada.ask("POST", "/api/v1/actions", force).await.status, StatusCode::ACCEPTED);
    loop {
        let record = events.next("action").await;
        if record["stage"] == "refused" {
            assert_eq!(record["why"], "node1 refuses: it is; wait");
            break;
        }
    }
    let acted = fake.acted.lock().unwrap().clone();
    assert_eq!(
        acted,
        [("oli".to_owned(), Role::Operator), ("ada".to_owned(), Role::Administrator)]
    );
}

#[tokio::test]
async fn a_stream_ends_when_its_user_logs_out_or_is_removed() {
    let (fake, console) = watched();
    for (name, why) in [("vic", "logged_out"), ("oli", "refused")] {
        let user = Visitor::named(&console, name).await;
        let mut events = Events::of(&user, "/api/v1/events").await;
        let mut log = Events::of(&user, "/api/v1/nodes/1/logs/module/follow").await;
        events.next("cluster").await;
        if why == "logged_out" {
            user.ask("POST", "/api/v1/logout", "").await;
        } else {
            fake.users.lock().unwrap().retain(|user| user.0 != name);
        }
        for stream in [&mut events, &mut log] {
            assert_eq!(stream.next("over").await["why"], why);
            assert_eq!(stream.piece().await, None, "nothing comes after it");
        }
    }
}

/// Who shows a certificate needs no session, so none ends: the streams end all the same.
#[tokio::test]
async fn a_stream_ends_when_a_certificate_counts_no_more_or_its_user_may_not_look() {
    let (fake, console) = watched();
    for (name, role) in [("vic", None), ("oli", Some(Role::Metrics))] {
        let mut user = Visitor::new(&console);
        user.certificate = Some(name);
        let mut events = Events::of(&user, "/api/v1/events").await;
        let mut log = Events::of(&user, "/api/v1/nodes/1/logs/module/follow").await;
        events.next("cluster").await;
        fake.users.lock().unwrap().retain_mut(|user| match role {
            Some(role) if user.0 == name => {
                user.1 = role;
                true
            }
            _ => user.0 != name,
        });
        for stream in [&mut events, &mut log] {
            assert_eq!(stream.next("over").await["why"], "refused");
            assert_eq!(stream.piece().await, None, "nothing comes after it");
        }
    }
    let ada = Visitor::named(&console, "ada").await;
    let mut events = Events::of(&ada, "/api/v1/events").await;
    fake.users.lock().unwrap()[2].1 = Role::Metrics;
    assert_eq!(events.next("over").await["why"], "refused", "she may not look any more");
}
