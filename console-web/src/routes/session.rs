//! Log in, log out, and who asks.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};

use crate::answer::{DELAY, Failed};
use crate::api::problem::{Problem, Why};
use crate::api::session::{By, Login, Offered, Over, Role, Session, SessionInfo};
use crate::backend::{Denied, User};
use crate::gate::{Caller, Connection, Cookie};
use crate::sessions::Found;
use crate::site::{Shared, Site};

/// The longest name or password that is looked at, in bytes: 128 characters of four.
const CREDENTIAL_MAX: usize = 512;
/// What of a name that nobody has is written down, in characters.
const NAME_SAID_MAX: usize = 40;

fn session(name: &str, role: Role, found: &Found) -> Session {
    Session {
        name: name.to_owned(),
        role,
        by: found.begun.by,
        csrf: found.begun.csrf.clone(),
        idle_s: found.idle.as_secs(),
        left_s: found.left.as_secs(),
    }
}

/// Who asks: the session, where there is one, and whose certificate was shown.
#[utoipa::path(get, path = "/api/v1/session", tag = "session",
    responses((status = 200, body = SessionInfo)))]
pub(crate) async fn session_info(
    State(site): State<Shared>,
    Extension(connection): Extension<Connection>,
    headers: HeaderMap,
) -> Json<SessionInfo> {
    let caller = site.caller(&connection, &headers).ok();
    let held = caller.as_ref().and_then(|caller| {
        let (_, found) = caller.session.as_ref()?;
        Some(session(&caller.asker.name, caller.asker.role, found))
    });
    if caller.is_some() {
        connection.known.store(true, Ordering::Relaxed);
    }
    let shown = connection.certificate.as_ref().map(|der| site.node.by_certificate(der).ok());
    let certificate_refused = matches!(shown, Some(None));
    Json(SessionInfo {
        session: held,
        certificate: shown.flatten().map(|User { name, role }| Offered { name, role }),
        certificate_refused,
        encrypted: connection.encrypted,
        users: site.node.has_users(),
        node: site.about.node,
    })
}

/// Logs in by name and password.
#[utoipa::path(post, path = "/api/v1/login", tag = "session", request_body = Login,
    responses((status = 200, body = Session), (status = 401, body = Problem),
        (status = 429, body = Problem)))]
pub(crate) async fn log_in(
    State(site): State<Shared>,
    Extension(connection): Extension<Connection>,
    headers: HeaderMap,
    Json(login): Json<Login>,
) -> Result<Response, Failed> {
    let from = connection.from;
    let name = login.name.chars().take(NAME_SAID_MAX).collect::<String>();
    if login.name.len().max(login.password.len()) > CREDENTIAL_MAX {
        // Nobody's, and no try: it is not counted, so it is not written down either.
        tokio::time::sleep(DELAY).await;
        return Err(Failed::of(Denied::Unknown));
    }
    let node = site.node.clone();
    // Before it is looked at, which may wait: a password that is changed meanwhile ends this session too.
    let mark = node.password_mark(&login.name);
    let tried =
        site.block(move || Ok(node.by_password(&login.name, &login.password, from))).await?;
    match tried {
        Ok(user) => begin(&site, &connection, &headers, &user, By::Password, mark),
        Err(denied) => {
            // What is not looked at is not written down: a stranger must not be able to push out of
            // the log what others did.
            if denied == Denied::Unknown {
                site.node.said(&name, from, "log in", "refused: name or password is wrong");
            }
            tokio::time::sleep(DELAY).await;
            Err(Failed::of(denied))
        }
    }
}

/// Logs in by the certificate that the connection shows.
#[utoipa::path(post, path = "/api/v1/login/certificate", tag = "session",
    responses((status = 200, body = Session), (status = 401, body = Problem)))]
pub(crate) async fn log_in_by_certificate(
    State(site): State<Shared>,
    Extension(connection): Extension<Connection>,
    headers: HeaderMap,
) -> Result<Response, Failed> {
    let none = || Problem::new(Why::NotLoggedIn, "the browser showed no certificate of this pair");
    let der = connection.certificate.clone().ok_or_else(none)?;
    let Ok(user) = site.node.by_certificate(&der) else {
        site.node.said("", connection.from, "log in", "refused: the certificate counts no more");
        tokio::time::sleep(DELAY).await;
        let text = "this certificate counts for nobody: it was revoked, or its user was removed";
        return Err(Problem::new(Why::WrongCredentials, text).into());
    };
    let mark = site.node.password_mark(&user.name);
    begin(&site, &connection, &headers, &user, By::Certificate, mark)
}

fn begin(
    site: &Arc<Site>,
    connection: &Connection,
    headers: &HeaderMap,
    user: &User,
    by: By,
    mark: u64,
) -> Result<Response, Failed> {
    if user.role < Role::Viewer {
        let text = format!("{} may read metrics and nothing else", user.name);
        return Err(Problem::new(Why::Forbidden, text).into());
    }
    let cookie = Cookie::of(&site.about, connection.encrypted);
    // A token that was there before log-in must not be one afterwards.
    if let Some(old) = cookie.find(headers) {
        site.sessions.end(old, Over::LoggedOut);
    }
    let certificate = connection.certificate.clone().filter(|_| by == By::Certificate);
    let now = Instant::now();
    let token = site.sessions.begin(&user.name, by, certificate, mark, now);
    let token = token.map_err(|error| Problem::new(Why::Unavailable, error.to_string()))?;
    let found = site.sessions.find(&token, false, now);
    let found = found.ok_or_else(|| Problem::new(Why::Unavailable, "too many sessions"))?;
    connection.known.store(true, Ordering::Relaxed);
    let how = if by == By::Password { "done, by password" } else { "done, by certificate" };
    site.node.said(&user.name, connection.from, "log in", how);
    let mut answer = Json(session(&user.name, user.role, &found)).into_response();
    cookie.set(answer.headers_mut(), Some(&token));
    Ok(answer)
}

/// Logs out: the session counts no more, and its streams end.
#[utoipa::path(post, path = "/api/v1/logout", tag = "session",
    params(("Duolog-Csrf" = String, Header)),
    responses((status = 204), (status = 401, body = Problem)))]
pub(crate) async fn log_out(
    State(site): State<Shared>,
    Extension(connection): Extension<Connection>,
    Extension(caller): Extension<Caller>,
) -> Response {
    if let Some((token, _)) = &caller.session {
        site.sessions.end(token, Over::LoggedOut);
        site.node.said(&caller.asker.name, connection.from, "log out", "done");
    }
    let mut answer = StatusCode::NO_CONTENT.into_response();
    let cookie = Cookie::of(&site.about, connection.encrypted);
    cookie.set(answer.headers_mut(), None);
    answer
}
