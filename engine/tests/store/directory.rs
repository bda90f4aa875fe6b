//! What can be seen and done in an open store.
