//! The `sysctr` program.
fn main() {}
