//! One look at whether a service is well. Takes its time-out and hardly longer; what it says is
//! said of the service: "does not take connections on ...".

use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use rustix::fs::{MemfdFlags, memfd_create};
use rustix::process::Pid;

use super::policy::Finding;
use super::run::{Main, SUCCESS, clear_up};
use super::spawn::Prepared;
use crate::config::checkers::CheckKind;

/// How long a command goes on before it is looked whether it was called off.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// What a command may say.
const SAID_MAX: u64 = 1 << 20;
/// What of that is repeated.
const REPEATED_MAX: usize = 200;
/// The longest first line of an answer.
const STATUS_MAX: u64 = 4096;

/// Carries out a check; nothing when it was called off.
pub(super) fn carry_out(
    prepared: &Prepared,
    kind: &CheckKind,
    timeout: Duration,
    root: Pid,
    called_off: &dyn Fn() -> bool,
) -> Option<Finding> {
    let until = Instant::now() + timeout;
    let found = match kind {
        CheckKind::Tcp { address } => connect(address, until).map(drop).map_err(|error| {
            (error.kind(), format!("does not take connections on {address}: {error}"))
        }),
        CheckKind::Http { address, path, status } => match ask(address, path, until) {
            Ok(found) if found == *status => Ok(()),
            Ok(found) => Err((
                ErrorKind::Other,
                format!("answers http://{address}{path} with status {found} and not {status}"),
            )),
            Err(error) => {
                Err((error.kind(), format!("does not answer http://{address}{path}: {error}")))
            }
        },
        CheckKind::Sql { command } | CheckKind::Command { command } => {
            match run(prepared, command, until, root, called_off) {
                Ok(Ended::CalledOff) => return None,
                Ok(Ended::Well) => Ok(()),
                Ok(Ended::Badly(how)) => {
                    let (kind, program) = (kind.name(), kind.what());
                    Err((ErrorKind::Other, format!("fails its {kind} checker: {program} {how}")))
                }
                Ok(Ended::TooLate) => Err((ErrorKind::TimedOut, String::new())),
                Err(error) => {
                    let what = kind.what();
                    Err((ErrorKind::Other, format!("cannot be checked: {what}: {error}")))
                }
            }
        }
    };
    Some(match found {
        Ok(()) => Finding::Well,
        Err((ErrorKind::TimedOut | ErrorKind::WouldBlock, _)) => Finding::Slow(format!(
            "did not answer its {} checker ({}) within {} ms",
            kind.name(),
            kind.what(),
            timeout.as_millis()
        )),
        Err((_, how)) => Finding::Failed(how),
    })
}

fn left(until: Instant) -> io::Result<Duration> {
    let left = until.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(ErrorKind::TimedOut.into()) } else { Ok(left) }
}

fn connect(address: &SocketAddr, until: Instant) -> io::Result<TcpStream> {
    TcpStream::connect_timeout(address, left(until)?)
}

/// The status with which a server answers; nothing of what follows is read.
fn ask(address: &SocketAddr, path: &str, until: Instant) -> io::Result<u16> {
    let mut stream = connect(address, until)?;
    stream.set_write_timeout(Some(left(until)?))?;
    let question = format!(
        "GET {path} HTTP/1.1\r\nHost: {address}\r\nUser-Agent: duolog\r\nAccept: */*\r\n\
         Connection: close\r\n\r\n"
    );
    stream.write_all(question.as_bytes())?;
    let mut line = Vec::new();
    while !line.contains(&b'\n') && line.len() as u64 <= STATUS_MAX {
        stream.set_read_timeout(Some(left(until)?))?;
        let mut some = [0; 512];
        match stream.read(&mut some)? {
            0 => break,
            read => line.extend_from_slice(&some[..read]),
        }
    }
    status(&line).ok_or_else(|| io::Error::new(ErrorKind::InvalidData, "that is not HTTP"))
}

fn status(answer: &[u8]) -> Option<u16> {
    let line = answer.split(|byte| *byte == b'\n').next()?;
    let mut words = std::str::from_utf8(line).ok()?.split_ascii_whitespace();
    words.next().filter(|version| version.starts_with("HTTP/1."))?;
    words.next()?.parse().ok().filter(|status| (100..600).contains(status))
}

enum Ended {
    Well,
    Badly(String),
    TooLate,
    CalledOff,
}

/// Runs a command to its end, with all that it began. That it ended well is not recorded: that is
/// so every few seconds.
fn run(
    prepared: &Prepared,
    words: &[String],
    until: Instant,
    root: Pid,
    called_off: &dyn Fn() -> bool,
) -> io::Result<Ended> {
    let begun = Instant::now();
    let said = File::from(memfd_create("check", MemfdFlags::CLOEXEC)?);
    let main = Main::of(prepared.spawn_to(words, said.try_clone()?.into(), Some(SAID_MAX))?)?;
    let service = &prepared.service.name;
    let (ended, how) = loop {
        match main.ended(LOOK_EVERY)? {
            Some(how) if how == SUCCESS => return Ok(Ended::Well),
            Some(how) => break (Ended::Badly(how.clone()), how),
            None => {}
        }
        let off = called_off();
        if off || Instant::now() >= until {
            clear_up(root, &main, service);
            if off {
                return Ok(Ended::CalledOff);
            }
            break (Ended::TooLate, "killed: it took too long".to_owned());
        }
    };
    let mut text = vec![0; usize::try_from(SAID_MAX).unwrap_or(usize::MAX)];
    let read = said.read_at(&mut text, 0)?;
    text.truncate(read);
    let text = String::from_utf8_lossy(&text);
    prepared.logs.application(service, "check", &text);
    prepared.logs.ran(Some(service), "check", words, begun, &how);
    let line = text.lines().map(str::trim).rfind(|line| !line.is_empty()).unwrap_or_default();
    let line = &line[..line.floor_char_boundary(REPEATED_MAX)];
    Ok(match ended {
        Ended::Badly(how) if !line.is_empty() => Ended::Badly(format!("{how}: {line}")),
        ended => ended,
    })
}

/// Whether an address is one of this computer: only then who answers on it is here.
pub(super) fn is_here(address: &SocketAddr) -> bool {
    UdpSocket::bind((address.ip(), 0)).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_is_in_the_first_line_and_nothing_else_is_one() {
        assert_eq!(status(b"HTTP/1.1 204 No Content\r\nX: 1\r\n"), Some(204));
        assert_eq!(status(b"HTTP/1.0 503"), Some(503));
        for answer in ["", "SSH-2.0-x\r\n", "HTTP/1.1 abc", "HTTP/1.1 99 x", "\n200 HTTP/1.1"] {
            assert_eq!(status(answer.as_bytes()), None, "{answer}");
        }
    }

    #[test]
    fn an_address_of_nobody_is_not_here() {
        assert!(is_here(&"127.0.0.1:1".parse().unwrap()));
        // For documentation alone.
        assert!(!is_here(&"192.0.2.1:1".parse().unwrap()));
    }
}
