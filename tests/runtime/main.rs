//! The bundled runtime, run for real: containers of busybox-static on this machine's kernel.
//!
//! Needs root and /bin/busybox (Debian: busybox-static, Fedora: busybox).
#![allow(clippy::unwrap_used)] // a test that panics has said enough

mod container;
mod escapes;
mod exec;
mod handover;
mod hooks;
mod hostile;
mod manager;
mod process;
mod seccomp;
mod session;
mod settings;
mod support;
mod users;
