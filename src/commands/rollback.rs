//! `sysctr rollback NAME`: back to an earlier deployment.

use anyhow::{Context as _, Result, bail};

use super::{
    Context,
    replace::{self, Running},
};
use crate::cli::RollbackArgs;
use sysctr::{
    host::{recovery, settings, state, transaction},
    model::fault::{Code, Fault},
};

/// Puts an earlier deployment in force; the one in force stays on disk.
pub fn run(context: &Context, args: &RollbackArgs) -> Result<()> {
    let name = &args.name;
    let (root, lock) = context.begin_now("rollback")?;
    let (container, old) = state::installed(&root, name)?;
    recovery::refuse_pending(&container)?;
    let new = replace::earlier(&root, &old, args.to)?;
    if new.id == old.id {
        let same = serde_json::json!({"name": name, "changed": false, "deployment": old.id});
        return context.output.result(&same, || format!("{name} runs deployment {} already; nothing to do", old.id));
    }
    if old.raises_epoch_of(&new) {
        bail!(replace::older_format(&new, &old));
    }
    let manager = context.manager()?;
    let settle = settings::load(&root)?.update.settle();
    let running = Running::look(&root, &lock, manager.as_ref(), &old, settle, true)?;
    transaction::roll_back(&root, &lock, name, old.id, new.id)
        .with_context(|| format!("rolling back {name}"))
        .with_context(|| transaction::half_done(name))?;
    let done = running.become_new(&old, &new);
    transaction::finish(&root, &lock, name)?;
    if let Err(error) = done {
        let message = format!("deployment {} of {name} is in force, and not well: {error:#}", new.id);
        bail!(
            Fault::new(Code::NeedsYou, message)
                .hint(format!("`journalctl -u {name}` tells why; `sysctr rollback {name} --to {}` goes back", old.id))
        );
    }
    let document =
        serde_json::json!({"name": name, "changed": true, "from": old.id, "deployment": new.id, "digest": new.digest});
    context.output.result(&document, || match context.output.quiet {
        true => String::new(),
        false => {
            let verdict = running.verdict.take().map_or_else(String::new, |verdict| format!(": {verdict}"));
            format!("rolled back {name} from deployment {} to {} ({}){verdict}", old.id, new.id, new.image)
        }
    })
}
