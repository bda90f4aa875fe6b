//! Pairs on hosts of their own, with a witness and a real `PostgreSQL`, and everything that can
//! happen to them. After every fault the clients' journal is compared with what the server shows.

mod network;
mod power;
