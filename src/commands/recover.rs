//! `sysctr recover`: run at boot, before anything of ours starts.

use anyhow::Result;

use super::Context;

/// Finishes or undoes what was cut short.
pub fn run(context: &Context) -> Result<()> {
    context.begin("recover").map(drop)
}
