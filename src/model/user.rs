//! Who a container runs as: the image's User (image-spec config.md, "User") against the image's own passwd(5) and group(5).

use anyhow::{Context, Result, bail};

/// The numbers that the kernel wants.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct User {
    pub uid: u32,
    pub gid: u32,
    /// Supplementary groups, without the first one.
    pub groups: Vec<u32>,
    pub home: String,
}

impl User {
    /// Resolves `USER[:GROUP]`; an empty text is root.
    pub fn resolve(text: &str, passwd: &str, group: &str) -> Result<User> {
        let (user, named_group) = match text.split_once(':') {
            Some((user, group)) => (user, Some(group)),
            None => (text, None),
        };
        let user = if user.is_empty() { "0" } else { user };
        let entry = fields(passwd).find(|entry| entry.first() == Some(&user) || entry.get(2) == Some(&user));
        let number = |entry: &[&str], index: usize| -> Result<u32> {
            let text = entry.get(index).copied().unwrap_or_default();
            text.parse().with_context(|| format!("the image's /etc/passwd: {user}: {text:?} is no number"))
        };
        let (uid, first_gid) = match (&entry, user.parse::<u32>()) {
            (Some(entry), _) => (number(entry, 2)?, number(entry, 3)?),
            (None, Ok(uid)) => (uid, 0),
            (None, Err(_)) => bail!("user {user:?} is not in the image's /etc/passwd"),
        };
        let gid = match named_group {
            None => first_gid,
            Some(name) => group_number(name, group)?,
        };
        // Membership is by user name, and only counts where the image did not name the group itself.
        let name = entry.as_ref().and_then(|entry| entry.first().copied());
        let groups = match (name, named_group) {
            (Some(name), None) => fields(group)
                .filter(|entry| entry.get(3).is_some_and(|members| members.split(',').any(|member| member == name)))
                .filter_map(|entry| entry.get(2).and_then(|number| number.parse().ok()))
                .filter(|number| *number != gid)
                .collect(),
            _ => Vec::<u32>::new(),
        };
        // To the kernel this number says "leave it as it is".
        if [uid, gid].contains(&u32::MAX) || groups.contains(&u32::MAX) {
            bail!("user {text:?}: {} is nobody's number", u32::MAX);
        }
        let home = entry.as_ref().and_then(|entry| entry.get(5)).filter(|home| !home.is_empty()).unwrap_or(&"/");
        Ok(User { uid, gid, groups, home: (*home).to_owned() })
    }
}

fn group_number(name: &str, group: &str) -> Result<u32> {
    let entry = fields(group).find(|entry| entry.first() == Some(&name));
    match entry.and_then(|entry| entry.get(2).and_then(|number| number.parse().ok())).or(name.parse().ok()) {
        Some(number) => Ok(number),
        None => bail!("group {name:?} is not in the image's /etc/group"),
    }
}

fn fields(text: &str) -> impl Iterator<Item = Vec<&str>> {
    text.lines().filter(|line| !line.starts_with('#')).map(|line| line.split(':').collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\netcd:x:2379:2380::/var/lib/etcd:/bin/false\n";
    const GROUP: &str = "root:x:0:\netcd:x:2380:\nssl:x:50:etcd,other\n";

    #[test]
    fn names_and_numbers_resolve_as_the_image_says() {
        let resolve = |text| User::resolve(text, PASSWD, GROUP).expect(text);
        let user =
            |uid, gid, groups: &[u32], home: &str| User { uid, gid, groups: groups.to_vec(), home: home.to_owned() };
        assert_eq!(resolve(""), user(0, 0, &[], "/root"));
        assert_eq!(resolve("etcd"), user(2379, 2380, &[50], "/var/lib/etcd"));
        assert_eq!(resolve("2379:ssl"), user(2379, 50, &[], "/var/lib/etcd"));
        assert_eq!(resolve("77:88"), user(77, 88, &[], "/"));
    }

    #[test]
    fn an_unknown_user_or_group_is_named() {
        assert!(User::resolve("nobody", PASSWD, GROUP).expect_err("unknown").to_string().contains("\"nobody\""));
        assert!(
            User::resolve("4294967295", PASSWD, GROUP).is_err()
                && User::resolve("0:4294967295", PASSWD, GROUP).is_err()
        );
        assert!(User::resolve("etcd:wheel", PASSWD, GROUP).expect_err("unknown").to_string().contains("\"wheel\""));
    }
}
