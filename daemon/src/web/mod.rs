//! The node's HTTPS server, for people and their tools. Today it has `/metrics`.
//!
//! ```text
//!  listener: connections, TLS, bounds ──> routes: who asks (auth), then what ──> metrics
//! ```
//! One thread, `duolog-web`, of a lower priority than everything that a commit, a heartbeat or a
//! takeover waits for, with a runtime of its own. What fails here is an alarm; it never ends the
//! node. It changes nothing, and tells nobody anything before it is known who asks.

mod auth;
mod listener;
mod routes;

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use duolog_transport::tls::https_server;
use tokio_rustls::TlsAcceptor;

use crate::alarms;
use crate::certs;
use crate::config::{Config, Web};
use crate::member::Member;
use crate::metrics::Metrics;
use crate::users::Users;
use auth::Doorman;
use listener::serve;
use routes::Site;

/// Below everything that somebody waits for.
const NICE: i32 = 5;
/// From one note of where the log ends to the next.
const TICK: Duration = Duration::from_secs(1);

/// Starts the server, where the configuration has one.
pub(crate) fn start(config: &Config, member: &Arc<Member>) {
    let Some(web) = config.web.clone() else { return };
    let site = Arc::new(Site {
        doorman: Doorman::new(
            web.metrics_credentials.clone(),
            Arc::new(Users::new(member.documents())),
        ),
        metrics: Metrics::new(member.clone(), config),
    });
    let tls = acceptor(config, member);
    let tls = match tls {
        Ok(tls) => Some(tls),
        Err(error) => {
            cannot(&format!("{error:#}"));
            None
        }
    };
    let started = std::thread::Builder::new().name("duolog-web".into()).spawn(move || {
        if let Err(error) = live(&web, tls, &site) {
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
    let alarm = format!("nobody can read metrics: {why}; mend that and restart this node");
    alarms::are("web", vec![alarm]);
}

fn live(web: &Web, tls: Option<TlsAcceptor>, site: &Arc<Site>) -> anyhow::Result<()> {
    // Of this thread alone, on Linux.
    if let Err(error) = rustix::process::setpriority_process(None, NICE) {
        tracing::debug!(%error, "the HTTPS server keeps its normal priority");
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot wait for events")?;
    runtime.block_on(async {
        if let Some(tls) = tls {
            tokio::spawn(serve("HTTPS", web.https, Some(tls), site.clone()));
        }
        if let Some(http) = web.http {
            tokio::spawn(serve("HTTP", http, None, site.clone()));
        }
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
        loop {
            ticks.tick().await;
            site.metrics.tick();
        }
    })
}
