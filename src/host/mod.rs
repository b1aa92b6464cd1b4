//! Every effect on the machine, one subject a file.

pub mod dir;
pub mod state;
