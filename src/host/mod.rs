//! Every effect on the machine, one subject a file.

pub mod dir;
pub mod owned;
pub mod state;
pub mod systemd;
pub mod units;
