//! Both nodes together: how they stand, what changes, settings, snapshot; and the document of all this.

use std::io;

use axum::body::{Body, Bytes};
use axum::extract::{Query, State};
use axum::http::header::{CONTENT_DISPOSITION, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use futures_util::stream;
use serde::Deserialize;
use tokio::sync::mpsc;

use crate::answer::Failed;
use crate::api::cluster::Cluster;
use crate::api::problem::{Problem, Why};
use crate::api::records::{Licence, SettingsQuery, SettingsVersion};
use crate::api::session::Role;
use crate::api::status::Stamp;
use crate::gate::Caller;
use crate::site::Shared;

/// Pieces of a file on their way to a reader that may be slow.
const WAITING: usize = 4;

/// How both nodes stand, as this one knows.
#[utoipa::path(get, path = "/api/v1/cluster", tag = "pair",
    responses((status = 200, body = Cluster)))]
pub(crate) async fn cluster(State(site): State<Shared>) -> Json<Cluster> {
    site.node.look();
    Json(site.node.cluster())
}

/// Which events.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct EventsQuery {
    /// Samples for charts too, one a second of each node.
    #[serde(default)]
    samples: bool,
}

/// A stream of what changes (server-sent events): `cluster` (a `Cluster`, the first one at once),
/// `action` (an `ActionRecord`), `sample` (a `NodeSample`, where asked for), and at last `over` (a
/// `SessionOver`) when the session ends.
#[utoipa::path(get, path = "/api/v1/events", tag = "pair",
    params(EventsQuery),
    responses((status = 200, content_type = "text/event-stream", body = String),
        (status = 503, body = Problem)))]
pub(crate) async fn events(
    State(site): State<Shared>,
    Query(query): Query<EventsQuery>,
    Extension(caller): Extension<Caller>,
) -> Result<Response, Failed> {
    let many = || Problem::new(Why::Unavailable, "too many streams are open; close some pages");
    Ok(site.stream(caller, query.samples).ok_or_else(many)?)
}

/// The settings of the pair, secrets removed.
#[utoipa::path(get, path = "/api/v1/settings", tag = "pair", params(SettingsQuery),
    responses((status = 200, body = SettingsVersion), (status = 404, body = Problem)))]
pub(crate) async fn settings(
    State(site): State<Shared>,
    Query(query): Query<SettingsQuery>,
) -> Result<Json<SettingsVersion>, Failed> {
    let node = site.node.clone();
    Ok(Json(site.block(move || node.settings(&query)).await?))
}

/// Who changed the settings when; the version that counts last.
#[utoipa::path(get, path = "/api/v1/settings/history", tag = "pair",
    responses((status = 200, body = Vec<Stamp>)))]
pub(crate) async fn settings_history(
    State(site): State<Shared>,
) -> Result<Json<Vec<Stamp>>, Failed> {
    let node = site.node.clone();
    Ok(Json(site.block(move || node.settings_history()).await?))
}

/// The licences of Duolog and of what it is built with. Always packed (`Content-Encoding: gzip`).
#[utoipa::path(get, path = "/api/v1/licences", tag = "pair",
    responses((status = 200, body = Vec<Licence>)))]
pub(crate) async fn licences() -> Response {
    crate::pages::licences()
}

/// Writes into the answer.
struct Pipe(mpsc::Sender<Bytes>);

impl io::Write for Pipe {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let gone = |_| io::Error::from(io::ErrorKind::BrokenPipe);
        self.0.blocking_send(Bytes::copy_from_slice(bytes)).map_err(gone)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// One ZIP for support: a new dump, the last 3 dumps and the last 3 configurations, of both nodes.
#[utoipa::path(get, path = "/api/v1/snapshot", tag = "pair",
    responses((status = 200, content_type = "application/zip", body = String),
        (status = 503, body = Problem)))]
pub(crate) async fn snapshot(
    State(site): State<Shared>,
    Extension(caller): Extension<Caller>,
) -> Result<Response, Failed> {
    let busy = "snapshots are under way; wait until one is done";
    let place = site.snapshots.clone().try_acquire_owned();
    let place = place.map_err(|_| Problem::new(Why::Unavailable, busy))?;
    let (to, mut pieces) = mpsc::channel(WAITING);
    let node = site.node.clone();
    let about = site.about.clone();
    let asker = caller.asker.clone();
    // Not among the questions: who takes it may be slow, and others ask meanwhile.
    let made = tokio::task::spawn_blocking(move || {
        let _place = place;
        node.snapshot(&asker, &mut io::BufWriter::with_capacity(64 << 10, Pipe(to)))
    });
    // What is wrong is found out before the first piece, so it can be said.
    let Some(first) = pieces.recv().await else {
        let broke = Problem::new(Why::Unavailable, "the snapshot broke off; see the module log");
        return Err(match made.await {
            Ok(Err(problem)) => problem,
            _ => broke,
        }
        .into());
    };
    let rest =
        stream::unfold((Some(first), pieces, Some(made)), move |(first, mut pieces, mut made)| {
            let (site, caller) = (site.clone(), caller.clone());
            async move {
                let next = match first {
                    Some(first) => Some(first),
                    None => pieces.recv().await,
                };
                if let Some(next) = next {
                    made.as_ref()?;
                    // It may take minutes: whoever may not have it any longer does not get the rest.
                    if site.role_of(&caller) >= Some(Role::Operator) {
                        return Some((Ok(next), (None, pieces, made)));
                    }
                    let denied = io::Error::other("whoever asked for it may not have it any more");
                    return Some((Err(denied), (None, pieces, None)));
                }
                // Half a file must not look like a whole one.
                let failed = match made.take()?.await {
                    Ok(Ok(())) => return None,
                    Ok(Err(problem)) => io::Error::other(problem),
                    Err(error) => io::Error::other(error),
                };
                Some((Err(failed), (None, pieces, None)))
            }
        });
    let file = format!("attachment; filename=\"duolog-{}.zip\"", about.cluster);
    let headers = [(CONTENT_TYPE, "application/zip".to_owned()), (CONTENT_DISPOSITION, file)];
    Ok((headers, Body::from_stream(rest)).into_response())
}

/// This document.
#[utoipa::path(get, path = "/api/v1/openapi.json", tag = "pair",
    responses((status = 200, content_type = "application/json", body = String)))]
pub(crate) async fn openapi() -> Response {
    ([(CONTENT_TYPE, "application/json")], crate::document::text()).into_response()
}

/// What Prometheus reads.
#[utoipa::path(get, path = "/metrics", tag = "metrics",
    responses((status = 200, content_type = "text/plain", body = String),
        (status = 401, body = Problem)))]
pub(crate) async fn metrics(State(site): State<Shared>) -> Result<Response, Failed> {
    let node = site.node.clone();
    let page = site.block(move || Ok(node.metrics())).await?;
    Ok(([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], page).into_response())
}
