//! Answers: JSON with the headers that all of them have, and problems with theirs.

use std::time::Duration;

use axum::Json;
use axum::http::HeaderValue;
use axum::http::header::{CACHE_CONTROL, HeaderMap, HeaderName, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::response::{IntoResponse, Response};

use crate::api::problem::{Problem, Why};
use crate::backend::Denied;

/// How long whoever gave wrong credentials waits for being told.
pub(crate) const DELAY: Duration = Duration::from_millis(500);

/// What the pages may do: load from here and nowhere else, and be in nobody's frame.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; \
     font-src 'self'; connect-src 'self'; manifest-src 'self'; base-uri 'none'; form-action 'self'; \
     frame-ancestors 'none'";

/// Headers of every answer, by name.
const ALWAYS: &[(&str, &str)] = &[
    ("content-security-policy", POLICY),
    ("x-content-type-options", "nosniff"),
    ("x-frame-options", "DENY"),
    ("referrer-policy", "no-referrer"),
    ("cross-origin-opener-policy", "same-origin"),
    ("cross-origin-resource-policy", "same-origin"),
    ("permissions-policy", "camera=(), geolocation=(), microphone=()"),
];

/// Gives an answer the headers that every one has; what is not of the pages is kept nowhere.
/// No `Strict-Transport-Security`: it would hold for every port of the computer, other programs' too.
pub(crate) fn with_headers(headers: &mut HeaderMap) {
    for &(name, value) in ALWAYS {
        headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    headers.entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
}

/// A problem as an answer.
#[derive(Debug)]
pub(crate) struct Failed(pub Problem);

impl Failed {
    /// Credentials that count for nobody.
    pub(crate) fn of(denied: Denied) -> Self {
        Self(match denied {
            Denied::Unknown => Problem::new(
                Why::WrongCredentials,
                "name or password is wrong, or the token (duolog metrics token prints it)",
            ),
            Denied::TooMany => Problem::new(
                Why::TooMany,
                "too many wrong answers from there, or with that name; wait a minute",
            ),
        })
    }
}

impl From<Problem> for Failed {
    fn from(problem: Problem) -> Self {
        Self(problem)
    }
}

impl IntoResponse for Failed {
    fn into_response(self) -> Response {
        let why = self.0.why;
        let mut answer = (why.status(), Json(self.0)).into_response();
        match why {
            Why::TooMany => {
                answer.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("60"));
            }
            // Not `Basic`: browsers would ask in a window of their own.
            Why::NotLoggedIn | Why::WrongCredentials => {
                answer.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            }
            _ => {}
        }
        answer
    }
}
