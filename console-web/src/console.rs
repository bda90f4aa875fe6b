//! The router: every route behind the gate, the pages beside them, and the headers of all answers.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::middleware::{from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, delete, get, patch, post};
use tower::ServiceExt;

use crate::answer::{Failed, with_headers};
use crate::api::problem::{Problem, Why};
use crate::backend::Node;
use crate::gate::gate;
use crate::pages;
use crate::routes::{actions, logs, nodes, pair, session, users};
use crate::site::{Shared, Site};

/// The console of a node.
#[derive(Clone, Debug)]
pub struct Console {
    site: Shared,
    router: Router,
}

/// What stands at each path.
fn table() -> Vec<(&'static str, MethodRouter<Shared>)> {
    vec![
        ("/api/v1/session", get(session::session_info)),
        ("/api/v1/login", post(session::log_in)),
        ("/api/v1/login/certificate", post(session::log_in_by_certificate)),
        ("/api/v1/logout", post(session::log_out)),
        ("/api/v1/openapi.json", get(pair::openapi)),
        ("/api/v1/cluster", get(pair::cluster)),
        ("/api/v1/events", get(pair::events)),
        ("/api/v1/actions", get(actions::actions).post(actions::act)),
        ("/api/v1/actions/{id}", get(actions::one_action)),
        ("/api/v1/estimate", get(actions::estimate)),
        ("/api/v1/nodes/{node}/logs/{log}", get(logs::lines)),
        ("/api/v1/nodes/{node}/logs/{log}/follow", get(logs::follow)),
        ("/api/v1/nodes/{node}/logs/{log}/file", get(logs::file)),
        ("/api/v1/nodes/{node}/receipts", get(nodes::receipts)),
        ("/api/v1/nodes/{node}/branches", get(nodes::branches)),
        ("/api/v1/nodes/{node}/branches/{name}", delete(nodes::drop_branch)),
        ("/api/v1/nodes/{node}/resources", get(nodes::resources)),
        ("/api/v1/nodes/{node}/information", get(nodes::information)),
        ("/api/v1/nodes/{node}/history", get(nodes::history)),
        ("/api/v1/settings", get(pair::settings).put(users::change_settings)),
        ("/api/v1/settings/check", post(users::check_settings)),
        ("/api/v1/settings/history", get(pair::settings_history)),
        ("/api/v1/users", get(users::users).post(users::add_user)),
        ("/api/v1/users/{name}", patch(users::change_user).delete(users::remove_user)),
        ("/api/v1/licences", get(pair::licences)),
        ("/api/v1/snapshot", get(pair::snapshot)),
        ("/metrics", get(pair::metrics)),
    ]
}

impl Console {
    /// Of that node.
    #[must_use]
    pub fn new(node: Node) -> Self {
        let site = Arc::new(Site::new(node));
        let mut router = Router::new();
        for (path, methods) in table() {
            router = router.route(path, methods);
        }
        let router = router
            .route_layer(from_fn_with_state(site.clone(), gate))
            .fallback(elsewhere)
            .layer(from_fn(async |request: Request, next: axum::middleware::Next| {
                let mut answer = next.run(request).await;
                with_headers(answer.headers_mut());
                answer
            }))
            .with_state(site.clone());
        Self { site, router }
    }

    /// Answers a request, among whose extensions the listener has put a [`crate::gate::Connection`].
    pub async fn answer<B>(&self, request: axum::http::Request<B>) -> Response
    where
        B: axum::body::HttpBody<Data = axum::body::Bytes> + Send + 'static,
        B::Error: Into<axum::BoxError>,
    {
        let request = request.map(Body::new);
        match self.router.clone().oneshot(request).await {
            Ok(answer) => answer,
            Err(never) => match never {},
        }
    }

    /// Tells all open streams what changes, for ever. Once, beside the listeners.
    pub async fn produce(&self) {
        self.site.clone().produce().await;
    }
}

/// The pages, and what is nowhere.
async fn elsewhere(request: Request) -> Response {
    let path = request.uri().path();
    if path.starts_with("/api/") {
        return Failed(Problem::new(Why::NotFound, "there is no such thing here")).into_response();
    }
    pages::answer(request.method(), path, request.headers())
}
