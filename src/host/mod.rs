//! Every effect on the machine, one subject a file.

pub mod apply;
pub mod archive;
pub mod blob;
pub mod content;
pub mod credentials;
pub mod dir;
pub mod dropins;
pub mod fsck;
pub mod import;
pub mod layer;
pub mod lock;
pub mod ostree;
pub mod other_runtime;
pub mod owned;
mod paths;
pub mod policy;
pub mod private_socket;
pub mod pull;
pub mod registry;
pub mod settings;
pub mod source;
pub mod state;
pub mod systemd;
pub mod tarball;
pub mod transaction;
pub mod units;
