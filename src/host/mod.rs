//! Every effect on the machine, one subject a file.

pub mod archive;
pub mod blob;
pub mod content;
pub mod credentials;
pub mod import;
pub mod layer;
pub mod lock;
pub mod ostree;
pub mod policy;
pub mod pull;
pub mod registry;
pub mod source;
pub mod tarball;
