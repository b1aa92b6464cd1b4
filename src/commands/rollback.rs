//! `sysctr rollback NAME`: back to an earlier deployment.

use anyhow::{Context as _, Result, bail};

use super::{
    Context, auto, probation,
    replace::{self, Running},
    snapshot,
};
use crate::cli::RollbackArgs;
use sysctr::{
    host::{self, events, recovery, settings, state, transaction},
    model::{
        event::{self, Event, Operation},
        fault::{Code, Fault},
    },
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
    let kept = if old.epoch == new.epoch { None } else { host::snapshot::of(&root, name, new.id)? };
    if old.raises_epoch_of(&new) && kept.is_none() {
        bail!(replace::older_format(&new, &old));
    }
    let manager = context.manager()?;
    let settle = settings::load(&root)?.update.settle();
    let running = Running::look(&root, &lock, manager.as_ref(), &old, settle, true)?;
    let rolling_back = || format!("rolling back {name}");
    let placed = match &kept {
        None => transaction::roll_back(&root, &lock, name, old.id, new.id, &running.ran()),
        Some(_) => snapshot::roll_back(&running, &old, &new),
    };
    placed.with_context(rolling_back)?;
    let done = running.become_new(&old, &new);
    transaction::finish(&root, &lock, name).with_context(|| transaction::half_done(name))?;
    probation::forget(manager.as_ref(), name, old.id);
    let result = if done.is_ok() { event::Result::RolledBack } else { event::Result::NeedsYou };
    let cause = done.as_ref().err().map(|error| format!("{error:#}"));
    let (from, to) = (Some(auto::version(&old)), Some(auto::version(&new)));
    let (container, operation) = (name.clone(), Operation::Rollback);
    events::tell(&context.root, &Event { container, operation, result, from, to, unasked: false, cause });
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
            let state = kept.map_or_else(String::new, |kept| {
                format!("; its state is that of {}, and what it was is kept with deployment {}", kept.created, old.id)
            });
            format!("rolled back {name} from deployment {} to {} ({}){verdict}{state}", old.id, new.id, new.image)
        }
    })
}
