//! What lines of tmpfiles.d(5) and sysusers.d(5) that come from an image ask of the host, and the places that no image ever gets.

use anyhow::{Result, bail};

use super::{
    deployment::Deployment,
    manifest::absolute,
    name::ContainerName,
    request::{Requests, is_below},
    rules,
    unit::one_line_each,
};

/// Below these nothing that comes from an image is ever written, whoever accepts it.
pub(super) const NEVER: [&str; 28] = [
    "/etc/systemd",
    "/run/systemd",
    "/usr/lib/systemd",
    "/usr/local/lib/systemd",
    "/lib/systemd",
    "/etc/ld.so",
    "/etc/pam.d",
    "/usr/lib/pam.d",
    "/etc/security",
    "/usr/lib/security",
    "/etc/sudo",
    "/etc/cron",
    "/etc/anacrontab",
    "/var/spool/cron",
    "/etc/sysctr",
    "/usr/lib/sysctr",
    "/usr/libexec/sysctr",
    "/var/lib/sysctr",
    "/run/sysctr",
    "/var/run",
    "/etc/tmpfiles.d",
    "/run/tmpfiles.d",
    "/usr/lib/tmpfiles.d",
    "/lib/tmpfiles.d",
    "/etc/sysusers.d",
    "/run/sysusers.d",
    "/usr/lib/sysusers.d",
    "/lib/sysusers.d",
];

/// The place of [`NEVER`] that a path lies in, or that lies in it: who may change a folder may change what is below.
pub fn forbidden(path: &str) -> Option<&'static str> {
    let parent = |place: &str| is_below(place, path) || path == "/";
    NEVER.into_iter().find(|place| path.starts_with(place) || parent(place))
}

/// What tmpfiles.d(5) lines ask. Some places are refused whoever accepts.
pub fn of_tmpfiles(file: &str, text: &str, name: &ContainerName) -> Result<Requests> {
    let mut requests = Requests::new();
    let own = [format!("/var/lib/{name}"), format!("/run/{name}")];
    one_line_each(file, text)?;
    for line in lines(text) {
        let mut fields = line.split_ascii_whitespace();
        let kind = fields.next().and_then(|kind| kind.chars().next()).unwrap_or_default();
        let path = fields.next().unwrap_or_default();
        // Quotes, specifiers, escapes and patterns: the path would be another one than is read here.
        if absolute(path).is_err() || path.contains(['%', '*', '?', '[']) {
            bail!("{file}: {line:?}: a path is written out, in its shortest form and without %, quotes and patterns");
        }
        if let Some(place) = forbidden(path) {
            bail!("{file}: {line:?}: nothing of an image is written below {place}");
        }
        // A link of an image's own could lead a line out of its place: only plain folders and files, and only those that lie directly in
        // it, because the program may put a link where a folder was.
        let plain = matches!(kind, 'd' | 'D' | 'f' | 'q' | 'Q' | 'v' | 'r' | 'R' | 'x' | 'X');
        let direct = |place: &String| {
            path.strip_prefix(place.as_str())
                .is_some_and(|rest| rest.is_empty() || (rest.starts_with('/') && !rest[1..].contains('/')))
        };
        if !plain || !own.iter().any(direct) {
            requests.insert(rules::TMPFILES.ask(&[&line, &file]));
        }
    }
    Ok(requests)
}

/// The lines that take something away again (`systemd-tmpfiles --remove`), which an uninstall does: but what is state stays, as every
/// uninstall leaves it. With `purge` what lies in the container's own folder goes too, unless that was somebody else's before.
pub fn removals(text: &str, record: &Deployment, purge: bool) -> String {
    let own = format!("/var/lib/{}", record.name);
    let purge = purge && !record.accepted.contains(&rules::FOREIGN.ask(&[&own]));
    let stays = |path: &str| {
        let declared = record.state.iter().map(|folder| folder.path.as_str());
        declared.into_iter().any(|folder| is_below(path, folder) || is_below(folder, path))
            || (is_below(path, "/var/lib") && !(purge && is_below(path, &own)))
    };
    let removes = |line: &&str| {
        let mut fields = line.split_ascii_whitespace();
        let kind = fields.next().and_then(|kind| kind.chars().next());
        matches!(kind, Some('r' | 'R' | 'D')) && fields.next().is_some_and(|path| !stays(path))
    };
    lines(text).filter(removes).map(|line| format!("{line}\n")).collect()
}

/// What sysusers.d(5) lines ask. Root and membership of groups are refused whoever accepts.
pub fn of_sysusers(file: &str, text: &str, name: &ContainerName) -> Result<Requests> {
    let mut requests = Requests::new();
    one_line_each(file, text)?;
    for line in lines(text) {
        let fields: Vec<&str> = line.split_ascii_whitespace().take(3).collect();
        let kind = fields.first().copied().unwrap_or_default();
        let id = fields.get(2).copied().unwrap_or("-");
        if kind.starts_with('m') {
            bail!("{file}: {line:?}: membership of a group of the host is never given to an image");
        }
        if kind.starts_with('r') {
            bail!("{file}: {line:?}: the ranges of system users are the host's");
        }
        if fields.iter().any(|field| field.contains(['"', '\'', '\\', '%'])) {
            bail!("{file}: {line:?}: names and numbers are written without quotes and %");
        }
        // A path stands for its owner, a name for a group that is there: neither says who the user will be.
        let number = |part: &str| part.bytes().all(|b| b.is_ascii_digit()) && part.parse().is_ok_and(|id: u32| id != 0);
        if id != "-" && !(id.split(':').all(number) && id.split(':').count() <= 2) {
            bail!("{file}: {line:?}: uid or gid 0, a path or a group of the host are never given to an image");
        }
        if !(matches!(kind, "u" | "g") && id == "-" && fields.get(1) == Some(&name.as_str())) {
            requests.insert(rules::SYSUSERS.ask(&[&line, &file]));
        }
    }
    Ok(requests)
}

fn lines(text: &str) -> impl Iterator<Item = &str> {
    text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn host_files_stay_in_the_containers_own_places() {
        let name = "a".parse().expect("a name");
        let of = |text| of_tmpfiles("tmpfiles.hbs", text, &name);
        assert!(of("d /var/lib/a 0700 5 5 -\nd /run/a\n").expect("lines").is_empty());
        for text in [
            "d /var/lib/ab",
            "L /var/lib/a/x - - - - /etc",
            "f /etc/motd",
            "d /var/lib/a/b/c",
            "C /run/a/x - - - - /etc/shadow",
        ] {
            assert_eq!(of(text).expect(text).len(), 1, "{text}");
        }
        for text in [
            "f /etc/systemd/system/x.service",
            "f /etc/cron.d/x",
            "f /var/lib/sysctr/x",
            "f /etc/sudoers.d/x",
            "f /var/run/systemd/system/x.service",
            "R /etc",
            "z / 0777",
            "R /etc/sys*",
            "f %S/sysctr/x",
            "d /run/%n",
            "d /var/lib/a/../b",
            "f \"/var/lib/a /../../../etc/cron.d/x\"",
            "f /var/lib/a\u{a0}/../../../etc/cron.d/x",
        ] {
            assert!(of(text).is_err(), "{text} was taken");
        }
        let users = |text| of_sysusers("sysusers.hbs", text, &name);
        assert!(users("u a - \"A\" /var/lib/a").expect("a line").is_empty());
        assert_eq!(users("u b - -").expect("a line").len(), 1);
        for text in [
            "m a docker",
            "m! a docker",
            "u a 0 -",
            "u a 5:0 -",
            "u a \"0\"",
            "u a 0x0",
            "g a 0",
            "u a /etc/passwd",
            "u a 5:root",
            "u a -:root",
        ] {
            assert!(users(text).is_err(), "{text} was taken");
        }
    }

    #[test]
    fn an_uninstall_takes_away_what_lines_say_and_never_state() {
        let folder = |path: &str| json!({"path": path, "mode": 0o700, "uid": 0, "gid": 0});
        let record = json!({"version": 1, "name": "a", "id": 1, "image": "a", "digest": format!("sha256:{}", "0".repeat(64)), "commit": "",
            "created": "", "values": {}, "accepted": [], "units": [], "mountPoints": [],
            "state": [folder("/var/lib/a/data"), folder("/srv/a/data")]});
        let mut record: Deployment = serde_json::from_value(record).expect("a record");
        let text = "d /run/a\n# R /etc/x\nR /run/a\nD! /run/a-more 0755\nr /etc/a.conf\nR /var/lib/a/cache\nR /var/lib/a\n\
            R /var/lib/a/data/x\nR /var/lib/b\nR /srv/a\nR /srv/a/data\nR /srv/a/datas\n";
        let always = "R /run/a\nD! /run/a-more 0755\nr /etc/a.conf\n";
        assert_eq!(removals(text, &record, false), format!("{always}R /srv/a/datas\n"));
        assert_eq!(removals(text, &record, true), format!("{always}R /var/lib/a/cache\nR /srv/a/datas\n"));
        // Of an old image nothing is declared: its lines say what is to go.
        record.state.clear();
        let purged = removals("R /var/lib/a\nR /var/lib/b\n", &record, true);
        assert_eq!(purged, "R /var/lib/a\n");
        record.accepted.insert("take over /var/lib/a of the host, which is there already".to_owned());
        assert_eq!(removals("R /var/lib/a\n", &record, true), "");
    }
}
