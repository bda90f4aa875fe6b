//! Users and settings of the pair: shown to administrators, and changed by them on both nodes.

use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::{Extension, Json};

use crate::answer::Failed;
use crate::api::problem::Problem;
use crate::api::users::{
    NewUser, SettingsChanged, SettingsChecked, SettingsDraft, UserChange, UserEdit, UserEntry,
    UserQuery,
};
use crate::gate::Caller;
use crate::site::Shared;

/// The users of the pair.
#[utoipa::path(get, path = "/api/v1/users", tag = "users",
    responses((status = 200, body = Vec<UserEntry>), (status = 409, body = Problem)))]
pub(crate) async fn users(State(site): State<Shared>) -> Result<Json<Vec<UserEntry>>, Failed> {
    let node = site.node.clone();
    Ok(Json(site.block(move || node.users()).await?))
}

async fn edit(
    site: Shared,
    caller: Caller,
    edit: UserEdit,
    UserQuery { here }: UserQuery,
) -> Result<Json<SettingsChanged>, Failed> {
    let node = site.node.clone();
    Ok(Json(site.block(move || node.edit_users(&caller.asker, &edit, here)).await?))
}

/// Adds a user, on both nodes.
#[utoipa::path(post, path = "/api/v1/users", tag = "users", request_body = NewUser,
    params(UserQuery, ("Duolog-Csrf" = String, Header)),
    responses((status = 201, body = SettingsChanged), (status = 400, body = Problem),
        (status = 409, body = Problem), (status = 502, body = Problem)))]
pub(crate) async fn add_user(
    State(site): State<Shared>,
    Query(query): Query<UserQuery>,
    Extension(caller): Extension<Caller>,
    Json(user): Json<NewUser>,
) -> Result<(StatusCode, Json<SettingsChanged>), Failed> {
    Ok((StatusCode::CREATED, edit(site, caller, UserEdit::Add(user), query).await?))
}

/// Gives a user another role or password, or enables or disables them, on both nodes. It counts at
/// once, for open sessions and pages too.
#[utoipa::path(patch, path = "/api/v1/users/{name}", tag = "users", request_body = UserChange,
    params(("name" = String, Path), UserQuery, ("Duolog-Csrf" = String, Header)),
    responses((status = 200, body = SettingsChanged), (status = 400, body = Problem),
        (status = 404, body = Problem), (status = 409, body = Problem),
        (status = 502, body = Problem)))]
pub(crate) async fn change_user(
    State(site): State<Shared>,
    Path(name): Path<String>,
    Query(query): Query<UserQuery>,
    Extension(caller): Extension<Caller>,
    Json(change): Json<UserChange>,
) -> Result<Json<SettingsChanged>, Failed> {
    edit(site, caller, UserEdit::Change { name, change }, query).await
}

/// Removes a user from both nodes; the certificates that were made for them count no more.
#[utoipa::path(delete, path = "/api/v1/users/{name}", tag = "users",
    params(("name" = String, Path), UserQuery, ("Duolog-Csrf" = String, Header)),
    responses((status = 200, body = SettingsChanged), (status = 404, body = Problem),
        (status = 409, body = Problem), (status = 502, body = Problem)))]
pub(crate) async fn remove_user(
    State(site): State<Shared>,
    Path(name): Path<String>,
    Query(query): Query<UserQuery>,
    Extension(caller): Extension<Caller>,
) -> Result<Json<SettingsChanged>, Failed> {
    edit(site, caller, UserEdit::Remove { name }, query).await
}

/// What settings would come to at this node; nothing is changed.
#[utoipa::path(post, path = "/api/v1/settings/check", tag = "users", request_body = SettingsDraft,
    params(("Duolog-Csrf" = String, Header)),
    responses((status = 200, body = SettingsChecked), (status = 409, body = Problem)))]
pub(crate) async fn check_settings(
    State(site): State<Shared>,
    Json(draft): Json<SettingsDraft>,
) -> Result<Json<SettingsChecked>, Failed> {
    let node = site.node.clone();
    Ok(Json(site.block(move || node.check_settings(&draft)).await?))
}

/// Changes the settings of the pair, on both nodes, as `duolog config edit` does.
#[utoipa::path(put, path = "/api/v1/settings", tag = "users", request_body = SettingsDraft,
    params(("Duolog-Csrf" = String, Header)),
    responses((status = 200, body = SettingsChanged), (status = 400, body = Problem),
        (status = 409, body = Problem), (status = 502, body = Problem)))]
pub(crate) async fn change_settings(
    State(site): State<Shared>,
    Extension(caller): Extension<Caller>,
    Json(draft): Json<SettingsDraft>,
) -> Result<Json<SettingsChanged>, Failed> {
    let node = site.node.clone();
    Ok(Json(site.block(move || node.change_settings(&caller.asker, &draft)).await?))
}
