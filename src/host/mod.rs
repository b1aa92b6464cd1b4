//! Every effect on the machine, one subject a file.

pub mod apply;
pub mod dir;
pub mod import;
pub mod layer;
pub mod lock;
pub mod ostree;
pub mod owned;
pub mod policy;
pub mod settings;
pub mod state;
pub mod systemd;
pub mod tarball;
pub mod transaction;
pub mod units;
