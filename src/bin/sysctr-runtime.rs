//! The bundled runtime: `sysctr-runtime run DEPLOYMENT_DIR`.
//!
//! It takes its modules in by path instead of linking the library: what starts a container at boot links libc and nothing of
//! OSTree, D-Bus or TLS.

use std::process::ExitCode;

#[path = "../model"]
mod model {
    pub mod idmap;
    pub mod instance;
    pub mod process;
    pub mod user;
}
#[path = "../runtime/mod.rs"]
mod runtime;

fn main() -> ExitCode {
    runtime::main()
}
