//! A node's own logs: looked at, followed, saved.

use std::convert::Infallible;
use std::time::Duration;

use axum::Extension;
use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::{Path, Query, State};
use axum::http::header::{CONTENT_DISPOSITION, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, sleep_until};

use super::node;
use crate::answer::Failed;
use crate::api::logs::{LINES_MAX, Log, LogForm, LogPage, LogQuery};
use crate::api::problem::{Problem, Why};
use crate::events::{Ending, Kind, Woken, answer, event};
use crate::gate::Caller;
use crate::site::Shared;

/// How often it is looked for new lines.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Lines that are shown unless somebody says how many.
const LINES: usize = 500;

/// A log in a path.
fn log(text: &str) -> Result<Log, Problem> {
    match text {
        "module" => Ok(Log::Module),
        "application" => Ok(Log::Application),
        "commands" => Ok(Log::Commands),
        _ => Err(Problem::new(Why::NotFound, "a log is module, application or commands")),
    }
}

const fn name(log: Log) -> &'static str {
    match log {
        Log::Module => "module",
        Log::Application => "application",
        Log::Commands => "commands",
    }
}

fn whole(query: LogQuery, most: usize) -> Result<LogQuery, Problem> {
    let lines = query.lines.unwrap_or(most);
    if !(1..=LINES_MAX).contains(&lines) {
        return Err(Problem::new(Why::BadRequest, format!("lines is 1 to {LINES_MAX}")));
    }
    Ok(LogQuery { lines: Some(lines), ..query })
}

/// Lines of a log of a node, oldest first.
#[utoipa::path(get, path = "/api/v1/nodes/{node}/logs/{log}", tag = "logs",
    params(("node" = u8, Path, description = "1 or 2"), ("log" = Log, Path), LogQuery),
    responses((status = 200, body = LogPage), (status = 400, body = Problem),
        (status = 502, body = Problem)))]
pub(crate) async fn lines(
    State(site): State<Shared>,
    Path((of, which)): Path<(String, String)>,
    Query(query): Query<LogQuery>,
) -> Result<Json<LogPage>, Failed> {
    let (of, which, query) = (node(&of)?, log(&which)?, whole(query, LINES)?);
    let asked = site.node.clone();
    Ok(Json(site.block(move || asked.log(of, which, &query)).await?))
}

/// The same as a stream: events `lines`, each a [`LogPage`] of what is new (the first one holds the last
/// lines there are), and `trouble`, a [`Problem`], while there can be none.
#[utoipa::path(get, path = "/api/v1/nodes/{node}/logs/{log}/follow", tag = "logs",
    params(("node" = u8, Path, description = "1 or 2"), ("log" = Log, Path), LogQuery),
    responses((status = 200, content_type = "text/event-stream", body = String),
        (status = 400, body = Problem)))]
pub(crate) async fn follow(
    State(site): State<Shared>,
    Path((of, which)): Path<(String, String)>,
    Query(query): Query<LogQuery>,
    Extension(caller): Extension<Caller>,
) -> Result<Response, Failed> {
    let (of, which, query) = (node(&of)?, log(&which)?, whole(query, LINES)?);
    let many = || Problem::new(Why::Unavailable, "too many follow a log; close some pages");
    let place = site.followers.clone().try_acquire_owned().map_err(|_| many())?;
    let follower = Follower {
        ending: Ending::new(&site.node, caller),
        _place: place,
        site,
        of,
        which,
        query,
        next: Instant::now(),
        trouble: None,
    };
    Ok(answer(Body::from_stream(stream::unfold(follower, async |mut follower| {
        follower.next().await.map(|bytes| (Ok::<_, Infallible>(bytes), follower))
    }))))
}

struct Follower {
    _place: OwnedSemaphorePermit,
    site: Shared,
    of: u8,
    which: Log,
    query: LogQuery,
    next: Instant,
    ending: Ending,
    trouble: Option<Problem>,
}

impl Follower {
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if self.ending.done() {
                return None;
            }
            tokio::select! {
                () = sleep_until(self.next) => {}
                woken = self.ending.wait() => match woken {
                    Woken::Over(bytes) | Woken::Alive(bytes) => return Some(bytes),
                },
            }
            let (of, which, query) = (self.of, self.which, self.query.clone());
            let asked = self.site.node.clone();
            let found = self.site.block(move || asked.log(of, which, &query)).await;
            self.next = Instant::now() + LOOK_EVERY;
            match found {
                Ok(page) => {
                    let first = self.query.after.is_none();
                    self.query.after.clone_from(&page.next);
                    // What comes from here on is new, however much it is.
                    self.query.lines = Some(LINES_MAX);
                    let mended = self.trouble.take().is_some();
                    if first || mended || !page.lines.is_empty() {
                        return Some(event(Kind::Lines, &page));
                    }
                }
                Err(problem) if self.trouble.as_ref() != Some(&problem) => {
                    let bytes = event(Kind::Trouble, &problem);
                    self.trouble = Some(problem);
                    return Some(bytes);
                }
                Err(_) => {}
            }
        }
    }
}

/// How a log is saved.
#[derive(Debug, Default, serde::Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct SaveQuery {
    /// For people, or as the node's file has it; `text` unless it is said.
    #[serde(default)]
    #[param(inline)]
    form: LogForm,
    /// Of the module log: only what an operator reads first.
    #[serde(default)]
    short: bool,
    /// Only lines in whose text for people this regular expression is found.
    grep: Option<String>,
    /// Only lines from then on, in milliseconds of the wall clock since 1970.
    since_ms: Option<u64>,
}

/// The whole log as a file.
#[utoipa::path(get, path = "/api/v1/nodes/{node}/logs/{log}/file", tag = "logs",
    params(("node" = u8, Path, description = "1 or 2"), ("log" = Log, Path), SaveQuery),
    responses((status = 200, content_type = "text/plain", body = String),
        (status = 400, body = Problem), (status = 502, body = Problem)))]
pub(crate) async fn file(
    State(site): State<Shared>,
    Path((of, which)): Path<(String, String)>,
    Query(SaveQuery { form, short, grep, since_ms }): Query<SaveQuery>,
) -> Result<Response, Failed> {
    let (of, which) = (node(&of)?, log(&which)?);
    let query = LogQuery { short, grep, since_ms, lines: None, after: None };
    let asked = site.node.clone();
    let bytes = site.block(move || asked.log_file(of, which, &query, form)).await?;
    let (kind, end) = match form {
        LogForm::Text => ("text/plain; charset=utf-8", "txt"),
        LogForm::Json => ("application/x-ndjson", "ndjson"),
    };
    let name = format!("attachment; filename=\"node{of}-{}.{end}\"", name(which));
    Ok(([(CONTENT_TYPE, kind.to_owned()), (CONTENT_DISPOSITION, name)], bytes).into_response())
}
