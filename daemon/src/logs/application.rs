//! `application.log`: what services and their commands print, a line each.
//!
//! ```text
//! {"time":"2026-11-29T12:00:00.123Z","node":1,"service":"postgresql","from":"start","text":"..."}
//! ```
//! A pipe lies between a service and the file, and is always read, so that neither a disk nor the
//! size of the file holds a service up. It ends when the last process of the service has closed
//! it; whoever goes on writing after this process has ended gets SIGPIPE, and is fenced anyhow.

use std::io::{self, BufRead, BufReader, PipeReader, PipeWriter, Read};

use serde::Serialize;

use super::{Logs, TEXT_BYTES_MAX, line, now};

#[derive(Serialize)]
struct Line<'a> {
    time: String,
    node: u8,
    service: &'a str,
    from: &'a str,
    text: &'a str,
}

impl Logs {
    /// What is written there goes to the application log as what `from` of `service` says.
    ///
    /// # Errors
    /// There is no pipe, or no thread to read it.
    pub(crate) fn output_of(&self, service: &str, from: &'static str) -> io::Result<PipeWriter> {
        let (read, write) = io::pipe()?;
        let (logs, service) = (self.clone(), service.to_owned());
        std::thread::Builder::new().name("duolog-output".into()).spawn(move || {
            if let Err(error) = logs.read(read, &service, from) {
                tracing::warn!(%error, service, "what it says is not heard any more");
            }
        })?;
        Ok(write)
    }

    /// A text that `from` of `service` said.
    pub(crate) fn application(&self, service: &str, from: &str, text: &str) {
        for text in text.lines().filter(|text| !text.trim().is_empty()) {
            self.say_of(service, from, super::short(text));
        }
    }

    fn read(&self, from_it: PipeReader, service: &str, from: &str) -> io::Result<()> {
        let mut from_it = BufReader::new(from_it);
        let mut said = Vec::new();
        loop {
            said.clear();
            // A line without an end is cut into pieces.
            let mut some = from_it.by_ref().take(TEXT_BYTES_MAX as u64);
            if some.read_until(b'\n', &mut said)? == 0 {
                return Ok(());
            }
            let text = String::from_utf8_lossy(&said);
            self.say_of(service, from, text.trim_end_matches(['\n', '\r']));
        }
    }

    fn say_of(&self, service: &str, from: &str, text: &str) {
        let said = Line { time: now(), node: self.node, service, from, text };
        self.application.add(line(&said));
    }
}
