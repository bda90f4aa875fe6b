//! The `OpenAPI` document, made of the code. `console-web/openapi.json` is what it was when somebody last
//! looked at it: a test compares, so no change of the API goes unseen.

use std::sync::LazyLock;

use utoipa::OpenApi;

use crate::api::history::NodeSample;
use crate::api::logs::Log;
use crate::api::session::SessionOver;
use crate::routes;

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Duolog",
        version = "1",
        description = "What the console and other programs ask a node of a pair, about both nodes.",
        license(name = "MIT OR Apache-2.0", identifier = "MIT OR Apache-2.0")
    ),
    paths(
        routes::session::session_info,
        routes::session::log_in,
        routes::session::log_in_by_certificate,
        routes::session::log_out,
        routes::pair::cluster,
        routes::pair::events,
        routes::actions::act,
        routes::actions::actions,
        routes::actions::one_action,
        routes::actions::estimate,
        routes::logs::lines,
        routes::logs::follow,
        routes::logs::file,
        routes::nodes::receipts,
        routes::nodes::branches,
        routes::nodes::drop_branch,
        routes::nodes::resources,
        routes::nodes::information,
        routes::nodes::history,
        routes::pair::settings,
        routes::pair::settings_history,
        routes::users::change_settings,
        routes::users::check_settings,
        routes::users::users,
        routes::users::add_user,
        routes::users::change_user,
        routes::users::remove_user,
        routes::pair::licences,
        routes::pair::snapshot,
        routes::pair::openapi,
        routes::pair::metrics
    ),
    components(schemas(Log, NodeSample, SessionOver))
)]
struct Api;

/// The document, as JSON.
pub fn text() -> &'static str {
    static TEXT: LazyLock<String> = LazyLock::new(|| {
        let mut text = Api::openapi().to_pretty_json().unwrap_or_default();
        text.push('\n');
        text
    });
    &TEXT
}
