//! Every effect on the machine, one subject a file.

pub mod import;
pub mod layer;
pub mod lock;
pub mod ostree;
pub mod policy;
pub mod tarball;
