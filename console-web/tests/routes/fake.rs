//! A node that is none: users, standings and outcomes as a test wants them.

use std::io;
use std::net::IpAddr;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::http::{HeaderMap, Request, StatusCode};
use duolog_console::api::actions::{ActionRequest, Estimate, Outcome, SeatStanding};
use duolog_console::api::cluster::{Cluster, NodeStanding};
use duolog_console::api::history::{History, HistoryQuery, NodeSample};
use duolog_console::api::logs::{Log, LogForm, LogPage, LogQuery};
use duolog_console::api::problem::{Problem, Why};
use duolog_console::api::records::{
    Branch, Dropped, Information, Receipt, SettingsQuery, SettingsVersion,
};
use duolog_console::api::session::Role;
use duolog_console::api::status::{DataSync, SettingsFrom, Stamp, State};
use duolog_console::api::users::{
    SettingsChanged, SettingsChecked, SettingsDraft, UserEdit, UserEntry,
};
use duolog_console::{About, Asker, Backend, Connection, Console, Denied, Report, User};
use http_body_util::BodyExt;
use serde_json::Value;

pub(crate) const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);
pub(crate) const PASSWORD: &str = "correct horse";

pub(crate) struct Fake {
    pub(crate) users: Mutex<Vec<(&'static str, Role)>>,
    pub(crate) cluster: Mutex<Cluster>,
    pub(crate) acted: Mutex<Vec<(String, Role)>>,
    pub(crate) said: Mutex<Vec<String>>,
    pub(crate) tried: Mutex<u32>,
    /// Holds a snapshot up after its first piece until something comes.
    pub(crate) snapshot_goes_on: Mutex<Option<std::sync::mpsc::Receiver<()>>>,
    pub(crate) mark: Mutex<u64>,
    pub(crate) looked_now: Mutex<Option<Instant>>,
}

pub(crate) fn standing(state: State) -> SeatStanding {
    SeatStanding { state, sentence: "is".into(), data_sync: DataSync::Uptodate, serves: true }
}

impl Fake {
    pub(crate) fn new() -> Arc<Self> {
        let node = NodeStanding {
            node: 1,
            here: true,
            host: Some("alpha".into()),
            state: Some(State::Prim),
            sentence: Some("every commit is on both nodes".into()),
            data_sync: Some(DataSync::Uptodate),
            serves: Some(true),
            reached: true,
            age_ms: Some(0),
            trouble: None,
            switches: None,
            status: None,
            status_age_ms: None,
        };
        let cluster = Cluster {
            cluster: "0123456789abcdef0123456789abcdef".into(),
            asked: 1,
            at_ms: 1,
            nodes: vec![node],
            virtual_ips: Vec::new(),
        };
        let users = vec![
            ("met", Role::Metrics),
            ("vic", Role::Viewer),
            ("oli", Role::Operator),
            ("ada", Role::Administrator),
        ];
        Arc::new(Self {
            users: Mutex::new(users),
            cluster: Mutex::new(cluster),
            acted: Mutex::default(),
            said: Mutex::default(),
            tried: Mutex::default(),
            snapshot_goes_on: Mutex::default(),
            mark: Mutex::default(),
            looked_now: Mutex::default(),
        })
    }
}

fn none<T>() -> Result<T, Problem> {
    Err(Problem::new(Why::Unreachable, "this node is none"))
}

impl Backend for Fake {
    fn about(&self) -> About {
        About { cluster: self.cluster.lock().unwrap().cluster.clone(), node: 1 }
    }

    fn by_password(&self, name: &str, password: &str, _: IpAddr) -> Result<User, Denied> {
        *self.tried.lock().unwrap() += 1;
        if name == "many" {
            return Err(Denied::TooMany);
        }
        let role = self.role_of(name).filter(|_| password == PASSWORD);
        Ok(User { name: name.into(), role: role.ok_or(Denied::Unknown)? })
    }

    fn by_certificate(&self, der: &[u8]) -> Result<User, Denied> {
        let name = std::str::from_utf8(der).unwrap();
        Ok(User { name: name.into(), role: self.role_of(name).ok_or(Denied::Unknown)? })
    }

    fn by_token(&self, token: &[u8], _: IpAddr) -> Result<(), Denied> {
        if token == b"token" { Ok(()) } else { Err(Denied::Unknown) }
    }

    fn role_of(&self, name: &str) -> Option<Role> {
        self.users.lock().unwrap().iter().find(|user| user.0 == name).map(|user| user.1)
    }

    fn password_mark(&self, _: &str) -> u64 {
        *self.mark.lock().unwrap()
    }

    fn has_users(&self) -> bool {
        true
    }

    fn cluster(&self) -> Cluster {
        let mut cluster = self.cluster.lock().unwrap();
        // A clock goes on, and that alone is no change.
        cluster.at_ms += 1;
        let mut cluster = cluster.clone();
        // The other node takes a moment to answer; until then it is what it was.
        let looked = *self.looked_now.lock().unwrap();
        if let (Some(other), Some(looked)) = (cluster.nodes.get_mut(1), looked)
            && looked.elapsed() > Duration::from_millis(100)
        {
            other.state = Some(State::Prim);
            other.age_ms = Some(0);
        }
        cluster
    }

    fn look(&self) {}

    fn look_now(&self) {
        *self.looked_now.lock().unwrap() = Some(Instant::now());
    }

    fn samples(&self) -> Vec<NodeSample> {
        Vec::new()
    }

    fn act(
        &self,
        asker: &Asker,
        request: &ActionRequest,
        report: Report<'_>,
    ) -> Result<Vec<Outcome>, Problem> {
        self.acted.lock().unwrap().push((asker.name.clone(), request.action.needs()));
        report(1, standing(State::Wait));
        if request.action.reason() == Some("refuse") {
            return Err(Problem::new(Why::Refused, "node1 refuses: it is; wait"));
        }
        Ok(vec![Outcome { node: 1, done: true, standing: standing(State::Prim) }])
    }

    fn estimate(&self) -> Result<Estimate, Problem> {
        Ok(Estimate { bytes: 1, changed_only: true, seconds: 2 })
    }

    fn log(&self, _: u8, _: Log, _: &LogQuery) -> Result<LogPage, Problem> {
        Ok(LogPage::default())
    }

    fn log_file(&self, _: u8, _: Log, _: &LogQuery, _: LogForm) -> Result<Vec<u8>, Problem> {
        Ok(b"a line\n".to_vec())
    }

    fn receipts(&self, _: u8) -> Result<Vec<Receipt>, Problem> {
        none()
    }

    fn branches(&self, _: u8) -> Result<Vec<Branch>, Problem> {
        none()
    }

    fn drop_branch(&self, _: &Asker, _: u8, _: &str) -> Result<Dropped, Problem> {
        none()
    }

    fn information(&self, _: u8) -> Result<Information, Problem> {
        none()
    }

    fn history(&self, node: u8, _: &HistoryQuery) -> Result<History, Problem> {
        Ok(History { node, step_s: 1, samples: Vec::new() })
    }

    fn settings(&self, _: &SettingsQuery) -> Result<SettingsVersion, Problem> {
        let (from, text) = (SettingsFrom::Nowhere, String::new());
        Ok(SettingsVersion { from, stamp: None, text })
    }

    fn settings_history(&self) -> Result<Vec<Stamp>, Problem> {
        Ok(Vec::new())
    }

    fn check_settings(&self, _: &SettingsDraft) -> Result<SettingsChecked, Problem> {
        Ok(SettingsChecked::default())
    }

    fn change_settings(&self, _: &Asker, _: &SettingsDraft) -> Result<SettingsChanged, Problem> {
        none()
    }

    fn users(&self) -> Result<Vec<UserEntry>, Problem> {
        Ok(Vec::new())
    }

    fn edit_users(
        &self,
        asker: &Asker,
        edit: &UserEdit,
        here: bool,
    ) -> Result<SettingsChanged, Problem> {
        let here = if here { " here" } else { "" };
        self.said.lock().unwrap().push(format!("{} {edit:?}{here}", asker.name));
        none()
    }

    fn snapshot(&self, _: &Asker, to: &mut dyn io::Write) -> Result<(), Problem> {
        to.write_all(b"PK").map_err(|error| Problem::new(Why::Unavailable, error.to_string()))?;
        to.flush().map_err(|error| Problem::new(Why::Unavailable, error.to_string()))?;
        let Some(goes_on) = self.snapshot_goes_on.lock().unwrap().take() else { return Ok(()) };
        goes_on.recv().unwrap();
        to.write_all(b"REST").map_err(|error| Problem::new(Why::Unavailable, error.to_string()))
    }

    fn metrics(&self) -> String {
        "duolog_alarms 0\n".into()
    }

    fn said(&self, who: &str, from: IpAddr, what: &str, outcome: &str) {
        self.said.lock().unwrap().push(format!("{who} {from} {what}: {outcome}"));
    }
}

/// What comes back.
#[derive(Debug)]
pub(crate) struct Answered {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: String,
}

impl Answered {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

/// Somebody who asks.
#[derive(Clone)]
pub(crate) struct Visitor {
    pub(crate) console: Console,
    pub(crate) cookie: Option<String>,
    pub(crate) csrf: Option<String>,
    pub(crate) certificate: Option<&'static str>,
    pub(crate) encrypted: bool,
    pub(crate) more: Vec<(&'static str, String)>,
}

impl Visitor {
    pub(crate) fn new(console: &Console) -> Self {
        Self {
            console: console.clone(),
            cookie: None,
            csrf: None,
            certificate: None,
            encrypted: true,
            more: Vec::new(),
        }
    }

    /// Somebody who is logged in.
    pub(crate) async fn named(console: &Console, name: &str) -> Self {
        let mut visitor = Self::new(console);
        let answer = visitor.log_in(name, PASSWORD).await;
        assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
        visitor
    }

    pub(crate) async fn log_in(&mut self, name: &str, password: &str) -> Answered {
        let body = serde_json::json!({ "name": name, "password": password }).to_string();
        let answer = self.ask("POST", "/api/v1/login", &body).await;
        if answer.status == StatusCode::OK {
            let cookie = answer.headers["set-cookie"].to_str().unwrap();
            self.cookie = Some(cookie.split(';').next().unwrap().to_owned());
            self.csrf = Some(answer.json()["csrf"].as_str().unwrap().to_owned());
        }
        answer
    }

    pub(crate) async fn begin(
        &self,
        method: &str,
        path: &str,
        body: &str,
    ) -> axum::response::Response {
        let mut request = Request::builder().method(method).uri(path);
        if !body.is_empty() {
            request = request.header("content-type", "application/json");
        }
        if let Some(cookie) = &self.cookie {
            request = request.header("cookie", format!("other=1; {cookie}"));
        }
        if let Some(csrf) = &self.csrf {
            request = request.header("duolog-csrf", csrf);
        }
        for (name, value) in &self.more {
            request = request.header(*name, value);
        }
        let mut request = request.body(Body::from(body.to_owned())).unwrap();
        request.extensions_mut().insert(Connection {
            from: HERE,
            encrypted: self.encrypted,
            certificate: self.certificate.map(|name| name.as_bytes().into()),
            known: Arc::new(AtomicBool::new(false)),
        });
        self.console.answer(request).await
    }

    pub(crate) async fn ask(&self, method: &str, path: &str, body: &str) -> Answered {
        let answer = self.begin(method, path, body).await;
        let (parts, body) = answer.into_parts();
        let body = if parts.headers.get("content-type").is_some_and(|is| is == "text/event-stream")
        {
            String::new()
        } else {
            String::from_utf8_lossy(&body.collect().await.unwrap().to_bytes()).into_owned()
        };
        Answered { status: parts.status, headers: parts.headers, body }
    }
}
