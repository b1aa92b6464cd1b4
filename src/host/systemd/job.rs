//! Jobs: a start or a stop that is asked for and awaited by its JobRemoved signal, for which we listen before we ask.

use std::{collections::HashMap, time::Duration};

use anyhow::{Context, Result, bail};
use futures_util::StreamExt;
use serde::Serialize;
use zbus::{MessageStream, OwnedObjectPath, message::Type, zvariant::DynamicType};

use super::{BUS, MANAGER, Manager, PATH, STOP, plain};

const NO_SUCH_UNIT: &str = "org.freedesktop.systemd1.NoSuchUnit";
/// Longer than any start or stop that systemd itself lets run by default.
const JOB_DEADLINE: Duration = Duration::from_secs(15 * 60);

impl Manager {
    /// Asks for a job and waits until it is done.
    pub(super) fn job<B: Serialize + DynamicType>(&self, method: &str, unit: &str, body: &B) -> Result<()> {
        let _entered = self.runtime.enter();
        let result = self.runtime.block_on(async {
            let waiting = self.run_job(method, body);
            match tokio::time::timeout(JOB_DEADLINE, waiting).await {
                Ok(result) => result,
                Err(_) => bail!("the job is not done after {} minutes", JOB_DEADLINE.as_secs() / 60),
            }
        })?;
        match result.as_str() {
            "done" | "skipped" => Ok(()),
            // Another start soon takes this away.
            "failed" => match self.why(unit) {
                Some(why) => bail!("{why}; `journalctl -u {unit}` tells more"),
                None => bail!("it failed; `systemctl status {unit}` and `journalctl -u {unit}` say why"),
            },
            "dependency" => bail!("a unit that it requires failed; `systemctl status {unit}` says which"),
            "timeout" => bail!("it took longer than the unit allows"),
            other => bail!("systemd ended the job as {other:?}"),
        }
    }

    /// Asks for a job and gives its result. The signals are read while we wait for the answer too: left unread, they would fill the
    /// queue that the answer comes through.
    async fn run_job<B: Serialize + DynamicType>(&self, method: &str, body: &B) -> Result<String> {
        let mut signals = MessageStream::from(&self.connection);
        let destination = self.on_bus.then_some(BUS);
        let call = self.connection.call_method(destination, PATH, Some(MANAGER), method, body);
        let mut call = std::pin::pin!(call);
        let mut job: Option<OwnedObjectPath> = None;
        let mut removed = HashMap::new();
        loop {
            tokio::select! {
                reply = &mut call, if job.is_none() => match reply {
                    // What is not loaded does not run: it need not be stopped.
                    Err(zbus::Error::MethodError(name, ..)) if method == STOP && name.as_str() == NO_SUCH_UNIT => {
                        return Ok("done".to_owned());
                    }
                    reply => job = Some(reply.map_err(plain)?.body().deserialize()?),
                },
                message = signals.next() => {
                    let message = message.context("systemd closed the connection")??;
                    let is_removal = message.message_type() == Type::Signal
                        && message.header().member().is_some_and(|member| member.as_str() == "JobRemoved");
                    if is_removal {
                        let (_, path, _, result): (u32, OwnedObjectPath, String, String) = message.body().deserialize()?;
                        removed.insert(path, result);
                    }
                }
            }
            if let Some(result) = job.as_ref().and_then(|job| removed.remove(job)) {
                return Ok(result);
            }
        }
    }
}
