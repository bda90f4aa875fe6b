//! What commands print.
//!
//! The standard library's macros panic where nobody reads any more, as behind `| head -1`: a command
//! would be cut off in the middle of what it does. Those here take their names, so that every command
//! prints by them. What finds no reader is dropped, and the command goes on to its end and to its own
//! exit code; whatever else keeps it from printing, a full disk for one, is said at its end.

use std::fmt;
use std::io::{self, Write};
use std::sync::Mutex;

/// Why something could not be printed, the first time.
static FAILED: Mutex<Option<io::Error>> = Mutex::new(None);

macro_rules! print {
    ($($what:tt)*) => { $crate::print::out(format_args!($($what)*)) };
}

macro_rules! println {
    ($($what:tt)*) => { $crate::print::out(format_args!("{}\n", format_args!($($what)*))) };
}

macro_rules! eprint {
    ($($what:tt)*) => { $crate::print::error(format_args!($($what)*)) };
}

macro_rules! eprintln {
    () => { $crate::print::error(format_args!("\n")) };
    ($($what:tt)*) => { $crate::print::error(format_args!("{}\n", format_args!($($what)*))) };
}

/// Prints what was asked for.
pub(crate) fn out(what: fmt::Arguments<'_>) {
    note(io::stdout().lock().write_fmt(what));
}

/// Prints on standard error. Where that fails there is nobody left to be told.
pub(crate) fn error(what: fmt::Arguments<'_>) {
    io::stderr().lock().write_fmt(what).ok();
}

fn note(printed: io::Result<()>) {
    if let Err(error) = printed
        && error.kind() != io::ErrorKind::BrokenPipe
    {
        FAILED.lock().expect(POISON).get_or_insert(error);
    }
}

/// Called once, at the end.
///
/// # Errors
/// Something could not be printed that somebody might still have read.
pub(crate) fn ended() -> io::Result<()> {
    note(io::stdout().lock().flush());
    FAILED.lock().expect(POISON).take().map_or(Ok(()), Err)
}

const POISON: &str = "no thread panics while it prints";
