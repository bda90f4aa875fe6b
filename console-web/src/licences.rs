//! The licences of Duolog and of what it is built with, as they were gathered.

/// A list of `api::records::Licence`.
pub(crate) const JSON: &str = include_str!("../licences.json");
