//! What a node keeps and says about itself.

use axum::extract::{Path, Query, State};
use axum::{Extension, Json};

use super::node;
use crate::answer::Failed;
use crate::api::history::{History, HistoryQuery};
use crate::api::problem::{Problem, Why};
use crate::api::records::{Branch, Dropped, Information, Receipt, Resources};
use crate::gate::Caller;
use crate::resources;
use crate::site::Shared;

/// The longest name of a branch.
const NAME_MAX: usize = 128;

/// Why a node was promoted, and other decisions, oldest first.
#[utoipa::path(get, path = "/api/v1/nodes/{node}/receipts", tag = "nodes",
    params(("node" = u8, Path, description = "1 or 2")),
    responses((status = 200, body = Vec<Receipt>), (status = 502, body = Problem)))]
pub(crate) async fn receipts(
    State(site): State<Shared>,
    Path(of): Path<String>,
) -> Result<Json<Vec<Receipt>>, Failed> {
    let (of, asked) = (node(&of)?, site.node.clone());
    Ok(Json(site.block(move || asked.receipts(of)).await?))
}

/// What was cut off a node's log and kept.
#[utoipa::path(get, path = "/api/v1/nodes/{node}/branches", tag = "nodes",
    params(("node" = u8, Path, description = "1 or 2")),
    responses((status = 200, body = Vec<Branch>), (status = 502, body = Problem)))]
pub(crate) async fn branches(
    State(site): State<Shared>,
    Path(of): Path<String>,
) -> Result<Json<Vec<Branch>>, Failed> {
    let (of, asked) = (node(&of)?, site.node.clone());
    Ok(Json(site.block(move || asked.branches(of)).await?))
}

/// Drops a branch for good.
#[utoipa::path(delete, path = "/api/v1/nodes/{node}/branches/{name}", tag = "nodes",
    params(("node" = u8, Path, description = "1 or 2"), ("name" = String, Path),
        ("Duolog-Csrf" = String, Header)),
    responses((status = 200, body = Dropped), (status = 409, body = Problem),
        (status = 502, body = Problem)))]
pub(crate) async fn drop_branch(
    State(site): State<Shared>,
    Path((of, name)): Path<(String, String)>,
    Extension(Caller { asker, .. }): Extension<Caller>,
) -> Result<Json<Dropped>, Failed> {
    let (of, asked) = (node(&of)?, site.node.clone());
    if name.len() > NAME_MAX {
        return Err(Problem::new(Why::NotFound, "there is no branch of that name").into());
    }
    Ok(Json(site.block(move || asked.drop_branch(&asker, of, &name)).await?))
}

/// Everything of a node that has a value, by its internal name.
#[utoipa::path(get, path = "/api/v1/nodes/{node}/resources", tag = "nodes",
    params(("node" = u8, Path, description = "1 or 2")),
    responses((status = 200, body = Resources), (status = 502, body = Problem)))]
pub(crate) async fn resources(
    State(site): State<Shared>,
    Path(of): Path<String>,
) -> Result<Json<Resources>, Failed> {
    let of = node(&of)?;
    site.node.look();
    let cluster = site.node.cluster();
    let unknown = || {
        let text =
            "nothing is known of that node yet: it was not connected since this one was started";
        Problem::new(Why::Unreachable, text)
    };
    let known = cluster.nodes.iter().find(|known| known.node == of).ok_or_else(unknown)?;
    let status = known.status.as_ref().ok_or_else(unknown)?;
    Ok(Json(Resources {
        node: of,
        age_ms: known.status_age_ms.unwrap_or(0),
        resources: resources::of(status),
    }))
}

/// What a node is made of: versions, addresses, configuration, certificates.
#[utoipa::path(get, path = "/api/v1/nodes/{node}/information", tag = "nodes",
    params(("node" = u8, Path, description = "1 or 2")),
    responses((status = 200, body = Information), (status = 502, body = Problem)))]
pub(crate) async fn information(
    State(site): State<Shared>,
    Path(of): Path<String>,
) -> Result<Json<Information>, Failed> {
    let (of, asked) = (node(&of)?, site.node.clone());
    Ok(Json(site.block(move || asked.information(of)).await?))
}

/// What charts are drawn of.
#[utoipa::path(get, path = "/api/v1/nodes/{node}/history", tag = "nodes",
    params(("node" = u8, Path, description = "1 or 2"), HistoryQuery),
    responses((status = 200, body = History), (status = 502, body = Problem)))]
pub(crate) async fn history(
    State(site): State<Shared>,
    Path(of): Path<String>,
    Query(query): Query<HistoryQuery>,
) -> Result<Json<History>, Failed> {
    let (of, asked) = (node(&of)?, site.node.clone());
    Ok(Json(site.block(move || asked.history(of, &query)).await?))
}
