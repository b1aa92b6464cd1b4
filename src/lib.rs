//! sysctr installs OCI images as systemd services, without a container engine.
//!
//! Data flows one way: text → [`model`] → plan → [`host`] effects → [`output`].
//! `commands` imports `host`, `model` and `output`; `host` and `output` import `model`; `model` imports only itself.
//! The bundled runtime (`src/runtime`) belongs to its own binary alone, so that a start links neither libostree nor D-Bus.

pub mod host;
pub mod model;
