//! Whether this node's engine and its disks are well: what ends it reaches the driver, what it waits
//! for is an alarm.
//!
//! A thread of its own that waits for no disk. Whether the node may go on is the machine's to say.

use std::io;
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use duolog_engine::node::Node;

use super::Input;
use super::driver::Shown;
use crate::alarms;
use crate::config::pair::Pair;

/// Longest time between two looks.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Looks after the node until it is over.
pub(super) fn watch(
    node: &Arc<Node>,
    pair: &Pair,
    shown: Arc<Mutex<Option<Shown>>>,
    say: Sender<Input>,
) -> io::Result<()> {
    let node = node.clone();
    let alarm_at = Duration::from_millis(pair.stall_ms);
    let give_up_at = Duration::from_millis(pair.disk_stall_ms);
    let every = (alarm_at.min(give_up_at) / 4).min(LOOK_EVERY);
    std::thread::Builder::new().name("duolog-watch".into()).spawn(move || {
        let mut silent = None;
        let failure = loop {
            let failure = node.wait_failure(every);
            if failure.is_some() {
                break failure;
            }
            if node.is_over() {
                // It may have failed at this moment.
                break node.wait_failure(Duration::ZERO);
            }
            let now = node.silent_disk().filter(|(_, waits)| *waits > alarm_at).map(|it| it.0);
            if now != silent {
                silent = now;
                let alarm = now.map(|of| {
                    format!(
                        "the disk of this node's {of} has not answered for more than {alarm_at:?}, and what needs it \
                         waits; look at what the kernel says of it (dmesg)"
                    )
                });
                if let Some(alarm) = &alarm {
                    tracing::warn!("{alarm}");
                } else {
                    tracing::info!("the disks of this node answer again");
                }
                alarms::are("disk", alarm.into_iter().collect());
            }
            let shown = shown.lock().unwrap_or_else(PoisonError::into_inner).clone();
            // An end would turn a pause into an outage where nobody takes over.
            if shown.is_some_and(|shown| shown.has_heir) {
                node.give_up_silent_disk(give_up_at);
            }
        };
        if let Some(failure) = failure {
            // The driver ends before its node does.
            say.send(Input::NodeFailed(failure.to_string())).ok();
        }
    })?;
    Ok(())
}
