//! Why something was not answered, in a word for programs and a sentence for people.

use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Why not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Why {
    /// Nobody is logged in, or not any more (401).
    NotLoggedIn,
    /// Name or password are wrong, or the certificate counts for nothing (401).
    WrongCredentials,
    /// The role does not suffice (403).
    Forbidden,
    /// The header `Duolog-Csrf` is missing or wrong (403).
    Csrf,
    /// Too many wrong passwords; wait (429).
    TooMany,
    /// There is no such thing (404).
    NotFound,
    /// The question is none (400).
    BadRequest,
    /// The node will not (409).
    Refused,
    /// The other node does not answer (502).
    Unreachable,
    /// This node cannot at the moment (503).
    Unavailable,
}

impl Why {
    /// The status of an answer that is one.
    #[must_use]
    pub const fn status(self) -> StatusCode {
        match self {
            Self::NotLoggedIn | Self::WrongCredentials => StatusCode::UNAUTHORIZED,
            Self::Forbidden | Self::Csrf => StatusCode::FORBIDDEN,
            Self::TooMany => StatusCode::TOO_MANY_REQUESTS,
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::BadRequest => StatusCode::BAD_REQUEST,
            Self::Refused => StatusCode::CONFLICT,
            Self::Unreachable => StatusCode::BAD_GATEWAY,
            Self::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        }
    }
}

/// Why something was not answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema, thiserror::Error)]
#[error("{text}")]
pub struct Problem {
    /// In a word that programs tell apart.
    pub why: Why,
    /// For people: a cause, and what would help.
    pub text: String,
}

impl Problem {
    /// That, in these words.
    pub fn new(why: Why, text: impl Into<String>) -> Self {
        Self { why, text: text.into() }
    }
}
