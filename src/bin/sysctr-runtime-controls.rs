//! The bundled runtime with a switch for each of its defences, for tests alone: see `src/runtime/controls.rs`.

use std::process::ExitCode;

#[path = "../runtime/mod.rs"]
mod runtime;

fn main() -> ExitCode {
    runtime::main()
}
