//! What happened to a container, as one structured entry of the system's journal (systemd.journal-fields(7)).

use super::{digest::Digest, fault::Code, name::ContainerName};

/// `MESSAGE_ID=` of every entry; it never changes, since `journalctl MESSAGE_ID=...` and alerts of admins name it.
pub const MESSAGE_ID: &str = "4e42a982f3914b6ea27edc8cb08b1a2b";

/// One image of a container and the number of its deployment, where it has or had one.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Version {
    pub digest: Digest,
    pub deployment: Option<u32>,
}

/// What was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// `sysctr update`.
    Update,
    /// `sysctr rollback`.
    Rollback,
    /// Something that was cut short was finished or taken back.
    Recovery,
    /// An update failed within its probation.
    Probation,
}

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Result {
    /// The new deployment is in force.
    Updated,
    /// There is a newer image; the policy says to tell so only.
    Available,
    /// The newest image failed before and is not tried again.
    Held,
    /// An earlier deployment is in force again.
    RolledBack,
    /// Policy refuses it, or the image requests what nobody accepted; nothing changed.
    Refused,
    /// It failed and nothing changed.
    Failed,
    /// It failed half-way and a person has to look.
    NeedsYou,
}

/// One entry.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub struct Event {
    pub container: ContainerName,
    pub operation: Operation,
    pub result: Result,
    /// What was in force before.
    pub from: Option<Version>,
    /// What was to be in force, or is.
    pub to: Option<Version>,
    /// Whether nobody asked for it just now: a timer, a boot, a crash.
    pub unasked: bool,
    /// The failure, or another word of explanation.
    pub cause: Option<String>,
}

impl Result {
    /// What a failure with this exit code came to.
    pub fn of_code(code: Option<Code>) -> Result {
        match code {
            Some(Code::RolledBack) => Result::RolledBack,
            Some(Code::Refused) => Result::Refused,
            Some(Code::NeedsYou) => Result::NeedsYou,
            _ => Result::Failed,
        }
    }

    fn word(self) -> &'static str {
        match self {
            Result::Updated => "updated",
            Result::Available => "available",
            Result::Held => "held",
            Result::RolledBack => "rolledBack",
            Result::Refused => "refused",
            Result::Failed => "failed",
            Result::NeedsYou => "needsYou",
        }
    }
}

impl Operation {
    fn word(self) -> &'static str {
        match self {
            Operation::Update => "update",
            Operation::Rollback => "rollback",
            Operation::Recovery => "recovery",
            Operation::Probation => "probation",
        }
    }
}

impl Event {
    /// Level of syslog(3): 3 for an error, 4 for a warning, 5 for what a person will want to know.
    pub fn priority(&self) -> u8 {
        match self.result {
            Result::NeedsYou => 2,
            Result::RolledBack if self.operation == Operation::Rollback => 5,
            Result::RolledBack | Result::Failed => 3,
            Result::Refused | Result::Held => 4,
            Result::Updated | Result::Available => 5,
        }
    }

    /// The line that `journalctl` shows.
    pub fn message(&self) -> String {
        let name = &self.container;
        let short = |version: &Option<Version>| match version {
            Some(Version { digest, deployment: Some(id) }) => format!("deployment {id} ({})", digest.short()),
            Some(Version { digest, deployment: None }) => digest.short().to_owned(),
            None => "another image".to_owned(),
        };
        let (from, to) = (short(&self.from), short(&self.to));
        let text = match (self.operation, self.result) {
            (_, Result::Updated) => format!("Updated {name} from {from} to {to}"),
            (_, Result::Available) => format!("An update of {name} is available: {to}"),
            (_, Result::Held) => format!("{name} stays as it is: {to} failed before"),
            (Operation::Update, Result::RolledBack) => {
                format!("The update of {name} to {to} was rolled back to {from}")
            }
            (Operation::Recovery, Result::RolledBack) => format!("{name} was cut short, and is at {to} again"),
            (Operation::Probation, Result::RolledBack) => {
                format!("{name} was not well with {from}, and is at {to} again")
            }
            (Operation::Rollback, Result::RolledBack) => format!("Rolled back {name} from {from} to {to}"),
            (operation, Result::Refused) => format!("The {} of {name} was refused", operation.word()),
            (operation, Result::Failed) => format!("The {} of {name} failed, nothing changed", operation.word()),
            (operation, Result::NeedsYou) => format!("The {} of {name} failed and needs you", operation.word()),
        };
        let cause = self.cause.as_ref().map(|cause| format!(": {cause}")).unwrap_or_default();
        one_line(&format!("{text}{cause}"))
    }

    /// The fields beside message and priority. `OBJECT_SYSTEMD_UNIT=` lets `journalctl -u NAME` show the entry too.
    pub fn fields(&self) -> Vec<(&'static str, String)> {
        let mut fields = vec![
            ("MESSAGE_ID", MESSAGE_ID.to_owned()),
            ("OBJECT_SYSTEMD_UNIT", self.container.service_unit()),
            ("SYSLOG_IDENTIFIER", "sysctr".to_owned()),
            ("SYSCTR_CONTAINER", self.container.to_string()),
            ("SYSCTR_OPERATION", self.operation.word().to_owned()),
            ("SYSCTR_RESULT", self.result.word().to_owned()),
            ("SYSCTR_UNASKED", if self.unasked { "yes" } else { "no" }.to_owned()),
        ];
        let mut version = |version: &Option<Version>, digest, deployment| {
            if let Some(version) = version {
                fields.push((digest, version.digest.to_string()));
                fields.extend(version.deployment.map(|id| (deployment, id.to_string())));
            }
        };
        version(&self.from, "SYSCTR_FROM", "SYSCTR_FROM_DEPLOYMENT");
        version(&self.to, "SYSCTR_TO", "SYSCTR_TO_DEPLOYMENT");
        fields.extend(self.cause.as_ref().map(|cause| ("SYSCTR_CAUSE", one_line(cause))));
        fields
    }
}

/// What an image brought must neither break the entry nor steer a terminal.
fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(operation: Operation, result: Result) -> Event {
        let version = |number: u8, id| Version { digest: Digest::from_sha256([number; 32]), deployment: Some(id) };
        Event {
            container: "app".parse().expect("a name"),
            operation,
            result,
            from: Some(version(1, 1)),
            to: Some(version(2, 2)),
            unasked: true,
            cause: Some("it ended\nwith \u{1b}[31m1".to_owned()),
        }
    }

    #[test]
    fn an_entry_names_what_happened_and_has_no_control_characters() {
        let failed = event(Operation::Update, Result::RolledBack);
        let message = failed.message();
        assert!(message.starts_with("The update of app to deployment 2 (0202"), "{message}");
        assert!(message.contains("rolled back to deployment 1 (0101"), "{message}");
        assert!(!message.chars().any(char::is_control), "{message:?}");
        let fields = failed.fields();
        let field = |name: &str| fields.iter().find(|(key, _)| *key == name).map(|(_, value)| value.as_str());
        assert_eq!(field("SYSCTR_RESULT"), Some("rolledBack"));
        assert_eq!(field("SYSCTR_FROM"), Some(Digest::from_sha256([1; 32]).to_string().as_str()));
        assert_eq!(field("SYSCTR_TO_DEPLOYMENT"), Some("2"));
        assert_eq!(field("SYSCTR_CAUSE"), Some("it ended with  [31m1"));
    }

    #[test]
    fn only_what_nobody_wanted_is_an_error() {
        for (operation, result, priority) in [
            (Operation::Update, Result::Updated, 5),
            (Operation::Update, Result::RolledBack, 3),
            (Operation::Probation, Result::RolledBack, 3),
            (Operation::Rollback, Result::RolledBack, 5),
            (Operation::Update, Result::Refused, 4),
            (Operation::Update, Result::NeedsYou, 2),
        ] {
            assert_eq!(event(operation, result).priority(), priority, "{operation:?} {result:?}");
        }
    }
}
