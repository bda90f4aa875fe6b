//! The node's HTTPS server, for people and their tools: the console and `/metrics`.
//!
//! ```text
//!  listener: connections, TLS, bounds ──> Console (crate duolog-console: who asks, what) ──> backend
//!                                                    backend ──> own (this node) │ neighbour (the other)
//! ```
//! One thread, `duolog-web`, of a lower priority than everything that a commit, a heartbeat or a
//! takeover waits for, with a runtime of its own; what blocks has threads of the same
//! priority, a bounded number. What fails here is an alarm; it never ends the node. Before it
//! is known who asks nobody is told more than what the log-in page needs.

mod auth;
mod backend;
mod history;
mod lines;
mod listener;
mod neighbour;
mod own;
mod people;

use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use duolog_console::Console;
use duolog_transport::tls::https_server;
use tokio_rustls::TlsAcceptor;

use crate::alarms;
use crate::certs;
use crate::config::{Config, Web};
use crate::logs::Logs;
use crate::member::Member;
use crate::users::Users;
use auth::Doorman;
use backend::Here;
use listener::serve;
use neighbour::Neighbour;
pub(crate) use own::{Inquiry, Own};

/// Below everything that somebody waits for.
const NICE: i32 = 5;
/// Threads for what blocks: questions to the node, and actions that are followed.
const BLOCKING_MAX: usize = 32;

/// Gives this thread, and those that it starts, a lower priority.
pub(crate) fn be_nice() {
    // Of this thread alone, on Linux.
    if let Err(error) = rustix::process::setpriority_process(None, NICE) {
        tracing::debug!(%error, "a thread of the console keeps its normal priority");
    }
}

/// Starts the server, where the configuration has one; and answers the console of the other node in any
/// case.
pub(crate) fn start(config: &Config, file: &Path, member: &Arc<Member>, logs: &Logs) {
    let own = Arc::new(Own::new(config, file, member, logs));
    if let Err(error) = own.keep_history() {
        tracing::error!(%error, "no history is kept");
    }
    if let Some(across) = member.across() {
        across.tells(Arc::downgrade(&own));
    }
    let Some(web) = config.web.clone() else { return };
    let neighbour = Arc::<Neighbour>::default();
    let users = Arc::new(Users::new(member.documents()));
    let here = Here {
        own,
        users: users.clone(),
        doorman: Doorman::new(web.metrics_credentials.clone(), users),
        neighbour: neighbour.clone(),
    };
    let tls = match acceptor(config, member) {
        Ok(tls) => Some(tls),
        Err(error) => {
            cannot(&format!("{error:#}"));
            None
        }
    };
    if let Member::Pair(pair) = &**member
        && let Some(other) = pair.other()
        && let Err(error) = neighbour.start(other, pair.across.clone())
    {
        tracing::error!(%error, "the console knows nothing of the other node");
    }
    let console = Console::new(Arc::new(here));
    let started = std::thread::Builder::new().name("duolog-web".into()).spawn(move || {
        if let Err(error) = live(&web, tls, &console) {
            cannot(&format!("{error:#}"));
        }
    });
    if let Err(error) = started {
        cannot(&error.to_string());
    }
}

fn acceptor(config: &Config, member: &Member) -> anyhow::Result<TlsAcceptor> {
    let shown = member.documents().keys(config)?.shown();
    let authority = certs::authority(config)?;
    Ok(TlsAcceptor::from(Arc::new(https_server(shown, authority.as_deref())?)))
}

fn cannot(why: &str) {
    tracing::error!("no HTTPS: {why}");
    let alarm = format!("nobody can use the console: {why}; mend that and restart this node");
    alarms::are("web", vec![alarm]);
}

fn live(web: &Web, tls: Option<TlsAcceptor>, console: &Console) -> anyhow::Result<()> {
    be_nice();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(BLOCKING_MAX)
        .thread_name("duolog-web-work")
        .build()
        .context("cannot wait for events")?;
    runtime.block_on(async {
        if let Some(tls) = tls {
            tokio::spawn(serve("HTTPS", web.https, Some(tls), console.clone()));
        }
        if let Some(http) = web.http {
            tokio::spawn(serve("HTTP", http, None, console.clone()));
        }
        console.produce().await;
    });
    Ok(())
}
