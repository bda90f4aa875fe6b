//! Live updates, as server-sent events: one producer, many readers, changes only.
//!
//! ```text
//!  node ── cluster(), samples() ──> Hub: compared, written once ──> every open stream
//!                                                         actions ──^
//! ```
//! An event is turned into bytes once, whoever reads it. A reader that is too slow misses events and
//! gets the state anew; it holds up nobody. With no stream open nothing is asked of the node.

use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::body::{Body, Bytes};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, HeaderValue};
use axum::response::Response;
use futures_util::stream;
use serde::Serialize;
use tokio::sync::{broadcast, watch};
use tokio::time::{MissedTickBehavior, interval, sleep};

use crate::api::actions::Stage;
use crate::api::cluster::Cluster;
use crate::api::history::NodeSample;
use crate::api::session::{Over, Role, SessionOver};
use crate::api::status::State;
use crate::backend::Node;
use crate::gate::Caller;
use crate::site::{Shared, Site};

/// How often the producer looks.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// How long a change of this node waits for what the other one says to it, and how often that is looked for.
const SAME_MOMENT: Duration = Duration::from_millis(400);
const LOOK_AGAIN: Duration = Duration::from_millis(20);
/// Events that a reader may be behind.
const BEHIND_MAX: usize = 256;
/// How often something is said at least, so that both ends see that the other one is there.
const ALIVE_EVERY: Duration = Duration::from_secs(10);
/// Streams of all users together.
const STREAMS_MAX: usize = 256;
/// How soon a browser that lost its stream asks again, in milliseconds.
const RETRY_MS: u32 = 1000;

/// What an event is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// How the nodes stand.
    Cluster,
    /// How an action stands.
    Action,
    /// A new sample for charts.
    Sample,
    /// The stream ends for good.
    Over,
    /// New lines of a log.
    Lines,
    /// Why there are none for now.
    Trouble,
}

impl Kind {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Cluster => "cluster",
            Self::Action => "action",
            Self::Sample => "sample",
            Self::Over => "over",
            Self::Lines => "lines",
            Self::Trouble => "trouble",
        }
    }
}

/// An event as it crosses.
pub(crate) fn event(kind: Kind, data: &impl Serialize) -> Bytes {
    let mut text = format!("event: {}\ndata: ", kind.name()).into_bytes();
    // Without line feeds in it: JSON escapes them. Numbers and texts always can be written.
    serde_json::to_writer(&mut text, data).unwrap_or_default();
    text.extend(b"\n\n");
    text.into()
}

/// Tells everybody who listens.
#[derive(Debug)]
pub(crate) struct Hub {
    say: broadcast::Sender<(Kind, Bytes)>,
    last: Mutex<Option<Bytes>>,
}

impl Default for Hub {
    fn default() -> Self {
        Self { say: broadcast::Sender::new(BEHIND_MAX), last: Mutex::default() }
    }
}

impl Hub {
    /// Says something to all streams.
    pub(crate) fn say(&self, kind: Kind, data: &impl Serialize) {
        if self.say.receiver_count() > 0 {
            // The last one may have gone at this moment.
            self.say.send((kind, event(kind, data))).ok();
        }
    }
}

/// What of it makes a change: not that a clock went on, or that a round trip took another moment.
fn without_clocks(cluster: &Cluster) -> Cluster {
    let mut still = cluster.clone();
    still.at_ms = 0;
    for node in &mut still.nodes {
        // An age of seconds is news once the node does not answer.
        node.age_ms = node.age_ms.filter(|_| !node.reached).map(|ms| ms / 1000);
        node.status_age_ms = node.status_age_ms.filter(|ms| *ms >= 5000).map(|ms| ms / 1000);
        let Some(status) = &mut node.status else { continue };
        if let Some(peer) = &mut status.peer {
            peer.round_trip_us = 0;
        }
        for path in &mut status.paths {
            path.round_trip_ms = None;
        }
    }
    still
}

/// What the node that answers is.
fn own(cluster: &Cluster) -> Option<State> {
    cluster.nodes.iter().find(|node| node.here)?.state
}

impl Site {
    /// Looks for changes and tells them, for ever; and ends sessions that count no more.
    pub(crate) async fn produce(self: Arc<Self>) {
        let mut looks = interval(LOOK_EVERY);
        looks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let (mut before, mut sampled) = (None, Vec::<NodeSample>::new());
        let mut here = own(&self.node.cluster());
        loop {
            looks.tick().await;
            self.sessions.tick(Instant::now());
            self.sessions.keep(|begun| self.role_now(begun) >= Some(Role::Viewer));
            if self.hub.say.receiver_count() == 0 {
                before = None;
                continue;
            }
            self.node.look();
            let mut cluster = self.node.cluster();
            if own(&cluster) != here {
                cluster = self.of_one_moment(cluster).await;
                here = own(&cluster);
            }
            let still = without_clocks(&cluster);
            if before.as_ref() != Some(&still) {
                let bytes = event(Kind::Cluster, &cluster);
                *self.hub.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(bytes.clone());
                self.hub.say.send((Kind::Cluster, bytes)).ok();
                before = Some(still);
            }
            let samples = self.node.samples();
            for sample in &samples {
                if !sampled.contains(sample) {
                    self.hub.say(Kind::Sample, sample);
                }
            }
            sampled = samples;
        }
    }

    /// The same with what the other node says after this one changed: what is known of it is older, and
    /// beside the new state of this one it would be a pair that never was. Waits for that, not for long.
    async fn of_one_moment(&self, mut cluster: Cluster) -> Cluster {
        let until = Instant::now() + SAME_MOMENT;
        loop {
            let (changed, asked) = (own(&cluster), Instant::now());
            let answered = |cluster: &Cluster| {
                cluster.nodes.iter().filter(|node| !node.here && node.reached).all(|node| {
                    node.age_ms.is_some_and(|ms| Duration::from_millis(ms) < asked.elapsed())
                })
            };
            self.node.look_now();
            while !answered(&cluster) && Instant::now() < until {
                sleep(LOOK_AGAIN).await;
                cluster = self.node.cluster();
            }
            if own(&cluster) == changed || Instant::now() >= until {
                return cluster;
            }
        }
    }

    /// A stream for somebody: how things stand, then what changes.
    pub(crate) fn stream(self: &Arc<Self>, caller: Caller, samples: bool) -> Option<Response> {
        if self.hub.say.receiver_count() >= STREAMS_MAX {
            return None;
        }
        let heard = self.hub.say.subscribe();
        let mut first = format!("retry: {RETRY_MS}\n\n").into_bytes();
        first.extend(event(Kind::Cluster, &self.node.cluster()));
        for record in self.actions.all() {
            if record.stage == Stage::UnderWay {
                first.extend(event(Kind::Action, &record));
            }
        }
        self.node.look();
        let reader = Reader {
            site: self.clone(),
            first: Some(first.into()),
            heard,
            ending: Ending::new(&self.node, caller),
            samples,
        };
        Some(answer(Body::from_stream(stream::unfold(reader, async |mut reader| {
            reader.next().await.map(|bytes| (Ok::<_, Infallible>(bytes), reader))
        }))))
    }
}

/// An answer that is a stream of events.
pub(crate) fn answer(body: Body) -> Response {
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    let mut answer = Response::new(body);
    *answer.headers_mut() = headers;
    answer
}

/// Knows when a stream must end.
pub(crate) struct Ending {
    over: Option<watch::Receiver<Option<Over>>>,
    /// Asked about again and again, where there is no session that ends.
    certificate: Option<(Node, Arc<[u8]>)>,
    done: bool,
    alive: tokio::time::Interval,
}

/// What a stream that waits is woken by.
pub(crate) enum Woken {
    /// Its session is over: what is said last.
    Over(Bytes),
    /// Something is to be said so that both ends see each other.
    Alive(Bytes),
}

impl Ending {
    /// Of a stream of that caller.
    pub(crate) fn new(node: &Node, caller: Caller) -> Self {
        let over = caller.session.map(|(_, found)| found.over);
        let certificate = caller.certificate.map(|der| (node.clone(), der));
        let mut alive = interval(ALIVE_EVERY);
        alive.set_missed_tick_behavior(MissedTickBehavior::Delay);
        alive.reset();
        Self { over, certificate, done: false, alive }
    }

    /// Whether all was said.
    pub(crate) const fn done(&self) -> bool {
        self.done
    }

    /// Waits for either; may be dropped meanwhile.
    pub(crate) async fn wait(&mut self) -> Woken {
        let over = async {
            match &mut self.over {
                // Whoever ends a session says why; a session that is gone without it has expired.
                Some(over) => match over.wait_for(Option::is_some).await {
                    Ok(why) => why.unwrap_or(Over::Expired),
                    Err(_) => Over::Expired,
                },
                None => std::future::pending().await,
            }
        };
        let refused = async {
            let Some((node, der)) = &self.certificate else {
                return std::future::pending().await;
            };
            while node.by_certificate(der).is_ok_and(|user| user.role >= Role::Viewer) {
                sleep(LOOK_EVERY).await;
            }
        };
        tokio::select! {
            () = refused => {
                self.done = true;
                Woken::Over(event(Kind::Over, &SessionOver { why: Over::Refused }))
            }
            why = over => {
                self.done = true;
                Woken::Over(event(Kind::Over, &SessionOver { why }))
            }
            _ = self.alive.tick() => Woken::Alive(Bytes::from_static(b":\n\n")),
        }
    }
}

struct Reader {
    site: Shared,
    first: Option<Bytes>,
    heard: broadcast::Receiver<(Kind, Bytes)>,
    ending: Ending,
    samples: bool,
}

impl Reader {
    async fn next(&mut self) -> Option<Bytes> {
        if let Some(first) = self.first.take() {
            return Some(first);
        }
        if self.ending.done() {
            return None;
        }
        loop {
            tokio::select! {
                heard = self.heard.recv() => match heard {
                    Ok((Kind::Sample, _)) if !self.samples => {}
                    Ok((_, bytes)) => {
                        self.ending.alive.reset();
                        return Some(bytes);
                    }
                    Err(broadcast::error::RecvError::Lagged(_)) => {
                        return Some(event(Kind::Cluster, &self.site.node.cluster()));
                    }
                    Err(broadcast::error::RecvError::Closed) => return None,
                },
                woken = self.ending.wait() => match woken {
                    Woken::Over(bytes) | Woken::Alive(bytes) => return Some(bytes),
                },
            }
        }
    }
}
