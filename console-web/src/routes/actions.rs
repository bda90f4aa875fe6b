//! Actions: asked for, followed, looked up.

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::{Extension, Json};

use crate::answer::Failed;
use crate::api::actions::{Action, ActionRecord, ActionRequest, Estimate, REASON_MAX};
use crate::api::problem::{Problem, Why};
use crate::gate::{Caller, forbidden};
use crate::site::Shared;

/// How long an action may be followed, in seconds.
const WAIT_S_MAX: u64 = 3600;
/// The longest maintenance, in seconds.
const MAINTENANCE_S_MAX: u64 = 7 * 86_400;

/// What is wrong with a request.
fn fault(request: &ActionRequest) -> Option<String> {
    if !(1..=WAIT_S_MAX).contains(&request.wait_s) {
        return Some(format!("wait_s is 1 to {WAIT_S_MAX}"));
    }
    if let Action::Maintenance { for_s: Some(for_s) } = request.action
        && !(1..=MAINTENANCE_S_MAX).contains(&for_s)
    {
        return Some(format!("for_s is 1 to {MAINTENANCE_S_MAX}"));
    }
    let reason = request.action.reason()?.trim();
    if reason.is_empty() {
        return Some("say why: it is recorded".into());
    }
    (reason.len() > REASON_MAX || reason.chars().any(char::is_control))
        .then(|| format!("a reason is one line of at most {REASON_MAX} bytes"))
}

/// Has something done. The answer says only that it was begun: how it goes, and what came of it, comes
/// as events `action`, and stands at `/api/v1/actions/{id}`.
#[utoipa::path(post, path = "/api/v1/actions", tag = "actions", request_body = ActionRequest,
    params(("Duolog-Csrf" = String, Header)),
    responses((status = 202, body = ActionRecord), (status = 400, body = Problem),
        (status = 403, body = Problem), (status = 503, body = Problem)))]
pub(crate) async fn act(
    State(site): State<Shared>,
    Extension(Caller { asker, .. }): Extension<Caller>,
    Json(request): Json<ActionRequest>,
) -> Result<(StatusCode, Json<ActionRecord>), Failed> {
    if let Some(fault) = fault(&request) {
        return Err(Problem::new(Why::BadRequest, fault).into());
    }
    let least = request.action.needs();
    if asker.role < least {
        return Err(forbidden(&asker, least).into());
    }
    let busy = || {
        let text = "too many actions are under way; wait until one is done (/api/v1/actions)";
        Problem::new(Why::Unavailable, text)
    };
    let record = site.actions.begin(&asker, &request).ok_or_else(busy)?;
    let (id, node, actions) = (record.id, site.node.clone(), site.actions.clone());
    // Not among the questions: it may be followed for an hour.
    tokio::task::spawn_blocking(move || {
        let mut report = |of, standing| actions.step(id, of, standing);
        let came = node.act(&asker, &request, &mut report);
        actions.end(id, came);
    });
    Ok((StatusCode::ACCEPTED, Json(record)))
}

/// The last actions that were asked for at this node's console, oldest first; at most 100.
#[utoipa::path(get, path = "/api/v1/actions", tag = "actions",
    responses((status = 200, body = Vec<ActionRecord>)))]
pub(crate) async fn actions(State(site): State<Shared>) -> Json<Vec<ActionRecord>> {
    Json(site.actions.all())
}

/// One of them.
#[utoipa::path(get, path = "/api/v1/actions/{id}", tag = "actions",
    params(("id" = u64, Path, description = "As it was answered")),
    responses((status = 200, body = ActionRecord), (status = 404, body = Problem)))]
pub(crate) async fn one_action(
    State(site): State<Shared>,
    Path(id): Path<u64>,
) -> Result<Json<ActionRecord>, Failed> {
    let gone = || Problem::new(Why::NotFound, "there is no such action, or it is too long ago");
    Ok(Json(site.actions.one(id).ok_or_else(gone)?))
}

/// What a resynchronisation would come to, before it is done.
#[utoipa::path(get, path = "/api/v1/estimate", tag = "actions",
    responses((status = 200, body = Estimate), (status = 409, body = Problem),
        (status = 502, body = Problem)))]
pub(crate) async fn estimate(State(site): State<Shared>) -> Result<Json<Estimate>, Failed> {
    let node = site.node.clone();
    Ok(Json(site.block(move || node.estimate()).await?))
}
