//! The bundled runtime: `sysctr-runtime run DEPLOYMENT`.
fn main() {}
