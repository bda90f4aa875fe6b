//! Places in a log as people write and read them: positions and moments.

use std::fmt;

use duolog_wal::{Cursor, Lsn, Time};
use jiff::Timestamp;

/// Where to begin or to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mark {
    /// At a position.
    At(Lsn),
    /// At a moment.
    Moment(Time),
}

impl Mark {
    /// Whether a record with that cursor behind it lies within what ends here.
    pub(crate) fn covers(self, end: Cursor) -> bool {
        match self {
            Self::At(lsn) => end.lsn <= lsn,
            Self::Moment(time) => end.time <= time,
        }
    }
}

impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::At(lsn) => lsn.fmt(f),
            Self::Moment(time) => f.write_str(&moment(*time)),
        }
    }
}

/// Reads a position.
pub(crate) fn lsn(text: &str) -> Result<Lsn, String> {
    let wrong = || format!("{text:?} is no position: write 0/00001000, or a number of bytes");
    let digits = |part: &str, radix| {
        part.bytes().all(|byte| byte.is_ascii_hexdigit()).then(|| u64::from_str_radix(part, radix))
    };
    let number = match text.split_once('/') {
        Some((high, low)) if low.len() <= 8 && high.len() <= 8 => {
            let (high, low) = (digits(high, 16), digits(low, 16));
            high.and_then(Result::ok).zip(low.and_then(Result::ok)).map(|(h, l)| h << 32 | l)
        }
        Some(_) => None,
        None => digits(text, 10).and_then(Result::ok),
    };
    number.map(Lsn).ok_or_else(wrong)
}

/// Reads a position or a moment.
pub(crate) fn mark(text: &str) -> Result<Mark, String> {
    if let Some(nanoseconds) = text.strip_prefix('@') {
        return match nanoseconds.parse() {
            Ok(nanoseconds) => Ok(Mark::Moment(Time(nanoseconds))),
            Err(_) => Err(format!("{text:?}: a number of nanoseconds since 1970 follows the @")),
        };
    }
    if let Ok(lsn) = lsn(text) {
        return Ok(Mark::At(lsn));
    }
    let moment: Timestamp = text.parse().map_err(|_| {
        format!(
            "{text:?} is neither a position such as 0/00001000 nor a moment such as \
             2026-11-22T18:00:00Z"
        )
    })?;
    match u64::try_from(moment.as_nanosecond()) {
        Ok(nanoseconds) => Ok(Mark::Moment(Time(nanoseconds))),
        Err(_) => Err(format!("{text:?} lies before 1970, and no log goes back that far")),
    }
}

/// A moment in RFC 3339; a log tells none before its first mark.
pub(crate) fn moment(time: Time) -> String {
    if time == Time(0) {
        return "-".into();
    }
    match Timestamp::from_nanosecond(time.0.into()) {
        Ok(moment) => moment.to_string(),
        Err(_) => format!("@{}", time.0),
    }
}

/// A moment for scripts: null before the first mark.
pub(crate) fn moment_json(time: Time) -> Option<String> {
    (time != Time(0)).then(|| moment(time))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_can_be_written() {
        for number in [0, 1, 4096, 0xffff_ffff, 0x1_0000_0000, u64::MAX] {
            assert_eq!(lsn(&Lsn(number).to_string()), Ok(Lsn(number)));
            assert_eq!(lsn(&number.to_string()), Ok(Lsn(number)));
        }
        let time = Time(1_763_769_600_123_456_789);
        assert_eq!(mark(&moment(time)), Ok(Mark::Moment(time)));
        assert_eq!(mark("@17"), Ok(Mark::Moment(Time(17))));
        assert_eq!(mark("2025-11-22T01:00:00+01:00"), mark("2025-11-22T00:00:00Z"));
    }

    #[test]
    fn what_is_no_place_is_refused() {
        for text in ["", "x", "1/", "/1", "1/123456789", "+5", "-5", "1/-2", "@", "@x", "1e3"] {
            assert!(mark(text).is_err(), "{text:?}");
        }
        assert!(mark("1969-12-31T23:59:59Z").unwrap_err().contains("1970"));
        assert!(mark("2025-11-22T00:00:00").is_err(), "without a zone it is no moment");
    }
}
