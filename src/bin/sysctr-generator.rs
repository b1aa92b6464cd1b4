//! systemd.generator(7): `sysctr-generator NORMAL EARLY LATE`, at boot and at each `systemctl daemon-reload`.
//!
//! It takes its modules in by path instead of linking the library, as the runtime does.

use std::process::ExitCode;

#[path = "../generator/mod.rs"]
mod generator;
#[path = "../model"]
#[allow(dead_code, unused_imports, reason = "it needs a part of what they know")]
mod model {
    pub mod instance;
    pub mod journal;
    pub mod layout;
    pub mod links;
    pub mod name;
    pub mod other_runtime;
    pub mod probation;
    pub mod record;
    pub mod unit;
}

fn main() -> ExitCode {
    generator::main()
}
