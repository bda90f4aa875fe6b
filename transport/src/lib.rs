//! The log and its acknowledgements over QUIC. Knows bytes and positions; never a file.
