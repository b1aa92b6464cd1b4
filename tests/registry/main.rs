//! Images pulled from a real registry, and every way in which that can fail: a clear line, and the store as before.
#![allow(missing_docs, clippy::unwrap_used)]

#[path = "../common/mod.rs"]
mod common;

mod bench;
mod hostile;
mod leftovers;
mod login_servers;
mod logins;
mod network;
mod places;
mod proxy;
mod pulls;
mod resume;
