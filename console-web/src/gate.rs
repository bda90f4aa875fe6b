//! Who may ask what: one table of all routes, and the gate that every request passes.
//!
//! ```text
//!  request ──> rule of its route ──> who asks (session │ certificate │ token) ──> role ──> CSRF ──> route
//! ```
//! A path that is not in the table is not there. What a user may do is asked of the node at each
//! request, so a user who is removed, or a certificate that is revoked, is out at once.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use axum::body::{Body, to_bytes};
use axum::extract::{MatchedPath, Request, State};
use axum::http::header::{ACCEPT, AUTHORIZATION, COOKIE, HeaderMap, SET_COOKIE};
use axum::http::{HeaderValue, Method};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use crate::answer::Failed;
use crate::api::problem::{Problem, Why};
use crate::api::session::{By, Role};
use crate::backend::{About, Asker, Denied};
use crate::sessions::{Begun, Found, equal};
use crate::site::Shared;

/// The header that shows that a page of ours asks, and not one of somebody else's in the same browser.
pub const CSRF: &str = "duolog-csrf";
/// The header of what a page asks by itself, again and again while it is open: it keeps no session alive.
pub const WATCHES: &str = "duolog-watches";
/// What [`CSRF`] holds where the certificate alone says who asks.
pub const CSRF_OF_CERTIFICATE: &str = "certificate";
/// The longest body that is read.
const BODY_MAX: usize = 256 << 10;
/// How long it may take to come.
const BODY_TIME: Duration = Duration::from_secs(10);

/// Who may ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// Everybody who reaches the port: log-in, and what it needs.
    Nobody,
    /// Whoever has at least that role.
    Role(Role),
    /// The token of those who read metrics, or any role.
    Token,
}

/// Who may ask what. [`crate::document`] describes the same routes, which a test compares.
pub const RULES: &[(&str, &str, Need)] = &[
    ("GET", "/api/v1/session", Need::Nobody),
    ("POST", "/api/v1/login", Need::Nobody),
    ("POST", "/api/v1/login/certificate", Need::Nobody),
    ("POST", "/api/v1/logout", Need::Role(Role::Viewer)),
    ("GET", "/api/v1/openapi.json", Need::Role(Role::Viewer)),
    ("GET", "/api/v1/cluster", Need::Role(Role::Viewer)),
    ("GET", "/api/v1/events", Need::Role(Role::Viewer)),
    ("GET", "/api/v1/actions", Need::Role(Role::Viewer)),
    // Some actions need more: see `Action::needs`, which the node that acts asks too.
    ("POST", "/api/v1/actions", Need::Role(Role::Operator)),
    ("GET", "/api/v1/actions/{id}", Need::Role(Role::Viewer)),
    ("GET", "/api/v1/estimate", Need::Role(Role::Operator)),
    ("GET", "/api/v1/nodes/{node}/logs/{log}", Need::Role(Role::Viewer)),
    ("GET", "/api/v1/nodes/{node}/logs/{log}/follow", Need::Role(Role::Viewer)),
    ("GET", "/api/v1/nodes/{node}/logs/{log}/file", Need::Role(Role::Viewer)),
    ("GET", "/api/v1/nodes/{node}/receipts", Need::Role(Role::Viewer)),
    ("GET", "/api/v1/nodes/{node}/branches", Need::Role(Role::Viewer)),
    ("DELETE", "/api/v1/nodes/{node}/branches/{name}", Need::Role(Role::Administrator)),
    ("GET", "/api/v1/nodes/{node}/resources", Need::Role(Role::Viewer)),
    ("GET", "/api/v1/nodes/{node}/information", Need::Role(Role::Viewer)),
    ("GET", "/api/v1/nodes/{node}/history", Need::Role(Role::Viewer)),
    ("GET", "/api/v1/settings", Need::Role(Role::Administrator)),
    ("PUT", "/api/v1/settings", Need::Role(Role::Administrator)),
    ("POST", "/api/v1/settings/check", Need::Role(Role::Administrator)),
    ("GET", "/api/v1/settings/history", Need::Role(Role::Viewer)),
    ("GET", "/api/v1/users", Need::Role(Role::Administrator)),
    ("POST", "/api/v1/users", Need::Role(Role::Administrator)),
    ("PATCH", "/api/v1/users/{name}", Need::Role(Role::Administrator)),
    ("DELETE", "/api/v1/users/{name}", Need::Role(Role::Administrator)),
    ("GET", "/api/v1/licences", Need::Role(Role::Viewer)),
    ("GET", "/api/v1/snapshot", Need::Role(Role::Operator)),
    ("GET", "/metrics", Need::Token),
];

/// The rule of a route.
#[must_use]
pub fn rule(method: &Method, path: &str) -> Option<Need> {
    // Whoever may read may ask how long the answer would be.
    let method = if method == Method::HEAD { "GET" } else { method.as_str() };
    RULES.iter().find(|(is, at, _)| *is == method && *at == path).map(|(_, _, need)| *need)
}

/// What is known of the connection that a request came on. The listener puts it among the request's
/// extensions.
#[derive(Clone, Debug)]
pub struct Connection {
    /// Where it comes from.
    pub from: IpAddr,
    /// Whether it is encrypted.
    pub encrypted: bool,
    /// The certificate that was shown, which the TLS server found to be of the pair's authority.
    pub certificate: Option<Arc<[u8]>>,
    /// Set once it is known who asks: until then the connection is a stranger's, with a short life.
    pub known: Arc<AtomicBool>,
}

/// Who asks, by a session where there is one.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    pub asker: Asker,
    pub session: Option<(String, Found)>,
    /// The certificate, where that alone says it.
    pub certificate: Option<Arc<[u8]>>,
}

/// Lets a request pass, or says why not.
pub(crate) async fn gate(State(site): State<Shared>, request: Request, next: Next) -> Response {
    match pass(&site, request).await {
        Ok(request) => next.run(request).await,
        Err(failed) => failed.into_response(),
    }
}

async fn pass(site: &Shared, mut request: Request) -> Result<Request, Failed> {
    let nothing = || Problem::new(Why::NotFound, "there is no such thing here");
    let path = request.extensions().get::<MatchedPath>().ok_or_else(nothing)?.as_str().to_owned();
    let need = rule(request.method(), &path).ok_or_else(nothing)?;
    let connection = request.extensions().get::<Connection>().cloned();
    let connection = connection
        .ok_or_else(|| Problem::new(Why::Unavailable, "nothing is known of the connection"))?;
    let headers = request.headers();
    if path != "/metrics" && !of_our_pages(headers) {
        return Err(Problem::new(
            Why::Csrf,
            "the page of another site asks this; open the console by its own address",
        )
        .into());
    }
    let changes = !matches!(*request.method(), Method::GET | Method::HEAD);
    match need {
        Need::Nobody => {}
        Need::Token if bearer(headers).is_some() => {
            let token = bearer(headers).unwrap_or_default().to_vec();
            let node = site.node.clone();
            let from = connection.from;
            let admitted = site.block(move || Ok(node.by_token(&token, from))).await?;
            if let Err(denied) = admitted {
                tokio::time::sleep(crate::answer::DELAY).await;
                return Err(Failed::of(denied));
            }
            connection.known.store(true, Ordering::Relaxed);
        }
        Need::Token | Need::Role(_) => {
            let caller = match site.caller(&connection, headers) {
                Err(problem) if need == Need::Token => {
                    // As long as a wrong token takes.
                    tokio::time::sleep(crate::answer::DELAY).await;
                    return Err(problem.into());
                }
                caller => caller?,
            };
            let least = if let Need::Role(least) = need { least } else { Role::Metrics };
            if caller.asker.role < least {
                return Err(forbidden(&caller.asker, least).into());
            }
            if changes {
                csrf(&caller, headers)?;
            }
            connection.known.store(true, Ordering::Relaxed);
            request.extensions_mut().insert(caller);
        }
    }
    if changes {
        let (parts, body) = request.into_parts();
        let whole = tokio::time::timeout(BODY_TIME, to_bytes(body, BODY_MAX)).await;
        let whole = whole.ok().and_then(Result::ok).ok_or_else(|| {
            Problem::new(Why::BadRequest, format!("a body of at most {BODY_MAX} bytes is read"))
        })?;
        request = Request::from_parts(parts, Body::from(whole));
    }
    Ok(request)
}

/// A role that does not suffice, in words.
pub(crate) fn forbidden(asker: &Asker, least: Role) -> Problem {
    let text = format!(
        "{} is {} and may not do that; somebody who is {} may",
        asker.name,
        asker.role.name(),
        least.name()
    );
    Problem::new(Why::Forbidden, text)
}

/// Whether a page of this very address asks, or no page at all: browsers say so themselves.
fn of_our_pages(headers: &HeaderMap) -> bool {
    headers
        .get("sec-fetch-site")
        .is_none_or(|site| matches!(site.as_bytes(), b"same-origin" | b"none"))
}

fn csrf(caller: &Caller, headers: &HeaderMap) -> Result<(), Problem> {
    let given = headers.get(CSRF).and_then(|given| given.to_str().ok()).unwrap_or_default();
    let wanted = match &caller.session {
        Some((_, found)) => &*found.begun.csrf,
        None => CSRF_OF_CERTIFICATE,
    };
    if equal(given, wanted) {
        return Ok(());
    }
    let text = match caller.session {
        Some(_) => {
            "the header Duolog-Csrf does not hold what /api/v1/session says; load the page again"
        }
        None => "the header Duolog-Csrf: certificate is missing",
    };
    Err(Problem::new(Why::Csrf, text))
}

/// Whether a page asks by itself: also for a stream, as it does whenever the one that it had is lost.
fn watches(headers: &HeaderMap) -> bool {
    headers.contains_key(WATCHES)
        || headers.get(ACCEPT).is_some_and(|accept| accept == "text/event-stream")
}

fn bearer(headers: &HeaderMap) -> Option<&[u8]> {
    let (scheme, token) = headers.get(AUTHORIZATION)?.as_bytes().split_at_checked(7)?;
    scheme.eq_ignore_ascii_case(b"Bearer ").then(|| token.trim_ascii())
}

/// The cookie of a session.
#[derive(Clone, Debug)]
pub(crate) struct Cookie {
    name: String,
    encrypted: bool,
}

impl Cookie {
    /// Cookies know no ports, so each node of each pair has a name of its own: `duolog demo` runs
    /// both on one computer. `__Host-` keeps others of the same domain from setting one.
    pub(crate) fn of(about: &About, encrypted: bool) -> Self {
        let About { cluster, node, .. } = about;
        let pair = cluster.get(..8).unwrap_or(cluster);
        let before = if encrypted { "__Host-" } else { "" };
        Self { name: format!("{before}duolog-{pair}-{node}"), encrypted }
    }

    pub(crate) fn find<'a>(&self, headers: &'a HeaderMap) -> Option<&'a str> {
        let cookies = headers.get_all(COOKIE).into_iter().filter_map(|all| all.to_str().ok());
        cookies.flat_map(|all| all.split(';')).find_map(|one| {
            let (name, value) = one.trim().split_once('=')?;
            (name == self.name).then_some(value)
        })
    }

    /// Sets it; without a value it is taken away.
    pub(crate) fn set(&self, headers: &mut HeaderMap, value: Option<&str>) {
        let secure = if self.encrypted { "; Secure" } else { "" };
        let age = if value.is_none() { "; Max-Age=0" } else { "" };
        let cookie = format!(
            "{}={}; Path=/; HttpOnly; SameSite=Strict{secure}{age}",
            self.name,
            value.unwrap_or_default()
        );
        if let Ok(cookie) = HeaderValue::from_str(&cookie) {
            headers.append(SET_COOKIE, cookie);
        }
    }
}

impl crate::site::Site {
    /// What the user of a session may do now; nothing: it counts no more.
    pub(crate) fn role_now(&self, begun: &Begun) -> Option<Role> {
        let Begun { name, certificate, mark, .. } = begun;
        match certificate {
            Some(der) => self.node.by_certificate(der).ok().map(|user| user.role),
            None => self.node.role_of(name).filter(|_| self.node.password_mark(name) == *mark),
        }
    }

    /// What somebody may do now who asked a while ago; nothing: nobody is found any more.
    pub(crate) fn role_of(&self, caller: &Caller) -> Option<Role> {
        match (&caller.session, &caller.certificate) {
            (Some((_, found)), _) => self.role_now(&found.begun),
            (None, Some(der)) => self.node.by_certificate(der).ok().map(|user| user.role),
            (None, None) => None,
        }
    }

    /// Who asks.
    ///
    /// # Errors
    /// Nobody who counts.
    pub(crate) fn caller(
        &self,
        connection: &Connection,
        headers: &HeaderMap,
    ) -> Result<Caller, Problem> {
        let from = connection.from;
        let cookie = Cookie::of(&self.about, connection.encrypted);
        if let Some(token) = cookie.find(headers)
            && let Some(found) = self.sessions.find(token, watches(headers), Instant::now())
        {
            let begun = &found.begun;
            if let Some(role) = self.role_now(begun) {
                let asker = Asker { name: begun.name.clone(), role, by: begun.by, from };
                let session = Some((token.to_owned(), found));
                return Ok(Caller { asker, session, certificate: None });
            }
            self.sessions.end(token, crate::api::session::Over::Refused);
        }
        if let Some(der) = &connection.certificate {
            let user = self.node.by_certificate(der).map_err(|denied| match denied {
                Denied::Unknown => Problem::new(
                    Why::WrongCredentials,
                    "this certificate counts for nobody: it was revoked, or its user was removed",
                ),
                Denied::TooMany => {
                    Problem::new(Why::TooMany, "too many wrong answers; wait a minute")
                }
            })?;
            let asker = Asker { name: user.name, role: user.role, by: By::Certificate, from };
            return Ok(Caller { asker, session: None, certificate: Some(der.clone()) });
        }
        Err(Problem::new(Why::NotLoggedIn, "log in first, or show a certificate of this pair"))
    }
}
