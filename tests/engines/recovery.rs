//! A base copy taken in service, and the log replayed on it to random moments.
