//! The name of an installed container, and every name that is made from it.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use super::instance::Instance;

/// A container's name: also the stem of its unit, of its folders and of the host files that sysctr writes for it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ContainerName(String);

/// Text that cannot name a container.
#[derive(Debug, thiserror::Error)]
#[error("invalid container name {0:?}: use a-z, 0-9, '.', '_' and '-', starting with a letter or digit, at most 64")]
pub struct BadName(String);

impl ContainerName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// `NAME.service`
    pub fn service_unit(&self) -> String {
        format!("{self}.service")
    }

    /// `NAME@.service`, which an admin may write for instances.
    pub fn template_unit(&self) -> String {
        format!("{self}@.service")
    }

    /// The tmpfiles.d(5) file that sysctr writes for this container.
    pub fn tmpfiles_conf(&self) -> String {
        format!("sysctr-{self}.conf")
    }

    /// The sysusers.d(5) file that sysctr writes for this container.
    pub fn sysusers_conf(&self) -> String {
        format!("sysctr-{self}.conf")
    }
}

impl FromStr for ContainerName {
    type Err = BadName;

    fn from_str(text: &str) -> Result<ContainerName, BadName> {
        let first = text.bytes().next().is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
        let rest =
            text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'_' | b'-'));
        if first && rest && text.len() <= 64 {
            Ok(ContainerName(text.to_owned()))
        } else {
            Err(BadName(text.to_owned()))
        }
    }
}

/// A container's service as `systemctl` names it: `NAME`, or `NAME@INSTANCE` of its template unit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceName {
    /// The container.
    pub container: ContainerName,
    instance: Option<Instance>,
}

impl ServiceName {
    /// `NAME.service` or `NAME@INSTANCE.service`
    pub fn unit(&self) -> String {
        format!("{self}.service")
    }

    /// The template unit that an instance is made from: `NAME@.service`.
    pub fn template_unit(&self) -> Option<String> {
        self.instance.as_ref().map(|_| self.container.template_unit())
    }
}

impl FromStr for ServiceName {
    type Err = Box<dyn std::error::Error + Send + Sync>;

    fn from_str(text: &str) -> Result<ServiceName, Self::Err> {
        let (container, instance) = match text.split_once('@') {
            None => (text, None),
            Some((name, instance)) => (name, Some(instance.parse()?)),
        };
        Ok(ServiceName { container: container.parse()?, instance })
    }
}

impl fmt::Display for ServiceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.container)?;
        self.instance.as_ref().map_or(Ok(()), |instance| write!(f, "@{instance}"))
    }
}

impl TryFrom<String> for ContainerName {
    type Error = BadName;

    fn try_from(text: String) -> Result<ContainerName, BadName> {
        text.parse()
    }
}

impl From<ContainerName> for String {
    fn from(name: ContainerName) -> String {
        name.0
    }
}

impl fmt::Display for ContainerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_safe_as_a_file_and_as_a_unit() {
        for good in ["etcd", "a", "0", "my-app_1.2"] {
            assert_eq!(good.parse::<ContainerName>().expect(good).service_unit(), format!("{good}.service"));
        }
        for bad in ["", ".", "..", "-x", "_x", "A", "a/b", "a b", "a@b", "a\n", "é", &"x".repeat(65)] {
            assert!(bad.parse::<ContainerName>().is_err(), "{bad:?} was taken");
        }
    }

    #[test]
    fn a_service_is_named_as_systemctl_names_it() {
        for (text, unit, template) in [
            ("etcd", "etcd.service", None),
            ("etcd@a", "etcd@a.service", Some("etcd@.service")),
            (r"etcd@0-::1:4715\x2d", r"etcd@0-::1:4715\x2d.service", Some("etcd@.service")),
        ] {
            let service: ServiceName = text.parse().expect(text);
            assert_eq!((service.container.as_str(), service.unit().as_str()), ("etcd", unit));
            assert_eq!((service.template_unit().as_deref(), service.to_string().as_str()), (template, text));
        }
        for bad in ["@a", "etcd@", "etcd@a/b", "etcd@a@b", "etcd@a b", "Etcd@a"] {
            assert!(bad.parse::<ServiceName>().is_err(), "{bad:?} was taken");
        }
    }
}
