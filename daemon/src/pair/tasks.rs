//! Tasks: what takes its time, each on a thread of its own, told to the machine when it ended.

use std::net::IpAddr;
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use duolog_beat::now;
use duolog_failover::{Event, Task, Ticket};

use super::Input;
use super::receipts::Receipts;
use super::served::{ServeError, Served, beginning};

/// How long the gateway may take to answer.
const GATEWAY_LIMIT: Duration = Duration::from_secs(1);

/// Begins tasks.
#[derive(Debug)]
pub(super) struct Tasks {
    pub(super) served: Arc<Served>,
    receipts: Arc<Mutex<Receipts>>,
    say: Sender<Input>,
    gateway: Option<IpAddr>,
}

impl Tasks {
    pub(super) fn new(
        served: Arc<Served>,
        receipts: Arc<Mutex<Receipts>>,
        say: Sender<Input>,
        gateway: Option<IpAddr>,
    ) -> Self {
        Self { served, receipts, say, gateway }
    }

    /// Begins a task; it ends with an event that names `ticket`.
    pub(super) fn run(&self, task: Task, ticket: Ticket) {
        let served = self.served.clone();
        match task {
            Task::StartServices { view } => {
                tracing::info!(view = view.num.0, "begins to serve");
                self.receipts.lock().unwrap_or_else(PoisonError::into_inner).start_is(ticket);
                let receipts = self.receipts.clone();
                self.begin("duolog-start", ticket, move || {
                    let mut started = beginning();
                    let result = served.start(ticket.0, &mut started);
                    started.ended = now();
                    started.failed = result.as_ref().err().map(in_full);
                    let mut receipts = receipts.lock().unwrap_or_else(PoisonError::into_inner);
                    receipts.started(ticket, &started);
                    result.map_err(|error| in_full(&error))
                });
            }
            Task::StopServices => {
                // Tickets count up, so that concerns every start before and after.
                let ending = served.ending(ticket.0, false);
                self.begin("duolog-stop", ticket, move || {
                    served.stop(&ending).map_err(|error| error.to_string())
                });
            }
            Task::Fence => {
                let ending = served.ending(ticket.0, true);
                tracing::warn!("ends what is served, at once");
                self.begin("duolog-fence", ticket, move || {
                    served.fence(&ending).map_err(|error| error.to_string())
                });
            }
            Task::CheckGateway => {
                let gateway = self.gateway;
                self.begin("duolog-gateway", ticket, move || check(gateway));
            }
        }
    }

    fn begin(
        &self,
        name: &str,
        ticket: Ticket,
        work: impl FnOnce() -> Result<(), String> + Send + 'static,
    ) {
        let say = self.say.clone();
        let begun = std::thread::Builder::new().name(name.to_owned()).spawn(move || {
            let event = match work() {
                Ok(()) => Event::Done(ticket),
                Err(cause) => {
                    tracing::warn!("{cause}");
                    Event::Failed { ticket, cause }
                }
            };
            // The driver ends before its tasks do when the process ends at once.
            say.send(Input::Event(event)).ok();
        });
        if let Err(error) = begun {
            let cause = format!("cannot start a thread: {error}");
            self.say.send(Input::Event(Event::Failed { ticket, cause })).ok();
        }
    }
}

fn in_full(error: &ServeError) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

fn check(gateway: Option<IpAddr>) -> Result<(), String> {
    // Without one the check counts as passed.
    let Some(address) = gateway else { return Ok(()) };
    duolog_beat::gateway::check(address, GATEWAY_LIMIT)
        .map_err(|error| format!("the gateway {address} does not answer: {error}"))
}
