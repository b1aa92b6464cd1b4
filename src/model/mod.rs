//! What sysctr knows, without effects: names, references, manifests, values, rendered text and plans.

pub mod deployment;
pub mod devices;
pub mod digest;
pub mod directives;
pub mod event;
pub mod fault;
pub mod host_lines;
pub mod layout;
pub mod lint;
pub mod manifest;
pub mod name;
pub mod other_runtime;
pub mod process;
pub mod reference;
pub mod render;
pub mod request;
pub mod retention;
pub mod seccomp;
pub mod settings;
pub mod spec;
pub mod template;
pub mod throwaway;
pub mod unit;
pub mod user;
pub mod values;
pub mod window;
