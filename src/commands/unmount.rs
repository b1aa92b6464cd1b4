//! `sysctr unmount DIR`: end what `mount` began.

use std::path::Path;

use anyhow::Result;

use super::Context;
use sysctr::host::mounted;

/// Unmounts it, and removes what it showed.
pub fn run(context: &Context, dir: &Path) -> Result<()> {
    let (root, lock) = context.begin("unmount")?;
    mounted::take_away(&root, &lock, dir)
}
