//! What `exec` and `run` let a person choose about a program, laid over the process of a config.json. `sysctr` and the bundled runtime
//! share this file.

use std::path::PathBuf;

use anyhow::Result;
use oci_spec::runtime::{LinuxCapabilities, Process, User as Numbers};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::user::User;

/// The choices; what is empty stays as config.json has it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wishes {
    /// The program and its arguments.
    pub args: Vec<String>,
    /// `USER[:GROUP]`, resolved in the container.
    pub user: Option<String>,
    /// Where it starts.
    pub workdir: Option<PathBuf>,
    /// `KEY=VALUE`
    pub env: Vec<String>,
    /// A terminal of its own.
    pub terminal: bool,
    /// It reads what we read.
    pub interactive: bool,
}

/// What `sysctr exec` hands to the runtime beside the pidfd of the container's main process.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Exec {
    /// The container's name, for messages.
    pub container: String,
    /// The folder of the deployment that runs.
    pub deployment: PathBuf,
    /// The control group of the main process, from the root of the hierarchy.
    pub cgroup: String,
    /// The program.
    pub wishes: Wishes,
}

impl Wishes {
    /// Lays the choices over a process. `user` is `self.user`, resolved.
    pub fn apply(&self, process: &mut Process, user: Option<&User>) -> Result<()> {
        if let Some(user) = user {
            become_user(process, user)?;
        }
        if !self.args.is_empty() {
            process.set_args(Some(self.args.clone()));
        }
        if let Some(workdir) = &self.workdir {
            process.set_cwd(workdir.clone());
        }
        for variable in &self.env {
            set_variable(process, variable);
        }
        process.set_terminal(Some(self.terminal));
        Ok(())
    }
}

/// Another user of the same container: root there has what the container may have at most, any other has nothing but what the
/// container's own user has.
fn become_user(process: &mut Process, user: &User) -> Result<()> {
    let same = process.user().uid() == user.uid;
    if let Some(sets) = process.capabilities().clone().filter(|_| !same) {
        let all = sets.bounding().clone().unwrap_or_default();
        let held = if user.uid == 0 { all.clone() } else { Default::default() };
        let mut sets = LinuxCapabilities::default();
        sets.set_bounding(Some(all)).set_effective(Some(held.clone())).set_permitted(Some(held));
        sets.set_inheritable(Some(Default::default())).set_ambient(Some(Default::default()));
        process.set_capabilities(Some(sets));
    }
    let umask = process.user().umask();
    let numbers = json!({"uid": user.uid, "gid": user.gid, "additionalGids": user.groups, "umask": umask});
    process.set_user(serde_json::from_value::<Numbers>(numbers)?);
    set_variable(process, &format!("HOME={}", user.home));
    Ok(())
}

fn set_variable(process: &mut Process, variable: &str) {
    let key = |text: &str| text.split('=').next().unwrap_or_default().to_owned();
    let mut env = process.env().clone().unwrap_or_default();
    env.retain(|other| key(other) != key(variable));
    env.push(variable.to_owned());
    process.set_env(Some(env));
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn process(uid: u32) -> Process {
        serde_json::from_value(json!({
            "user": {"uid": uid, "gid": uid, "umask": 7}, "args": ["/a"], "cwd": "/srv", "env": ["HOME=/x", "A=1"],
            "capabilities": {
                "bounding": ["CAP_KILL", "CAP_CHOWN"], "effective": ["CAP_KILL"], "permitted": ["CAP_KILL"],
                "inheritable": ["CAP_KILL"], "ambient": ["CAP_KILL"]
            }
        }))
        .expect("a process")
    }

    fn as_user(of: u32, uid: u32) -> Process {
        let mut process = process(of);
        let user = User { uid, gid: 9, groups: vec![4], home: "/home".into() };
        Wishes::default().apply(&mut process, Some(&user)).expect("applied");
        process
    }

    #[test]
    fn what_is_not_chosen_stays() {
        let mut wished = process(5);
        Wishes::default().apply(&mut wished, None).expect("applied");
        let mut before = process(5);
        before.set_terminal(Some(false));
        assert_eq!(wished, before);
    }

    #[test]
    fn choices_win_and_a_variable_is_there_once() {
        let mut process = process(5);
        let wishes = Wishes {
            args: vec!["b".into()],
            workdir: Some("/tmp".into()),
            env: vec!["A=2=3".into(), "B=".into()],
            terminal: true,
            ..Wishes::default()
        };
        wishes.apply(&mut process, None).expect("applied");
        assert_eq!(process.args().as_deref(), Some(&["b".to_owned()][..]));
        assert_eq!((process.cwd().as_path(), process.terminal()), (Path::new("/tmp"), Some(true)));
        assert_eq!(process.env().as_deref(), Some(&["HOME=/x".to_owned(), "A=2=3".into(), "B=".into()][..]));
    }

    #[test]
    fn root_gets_the_bounding_set_and_another_user_nothing() {
        let held = |process: &Process| {
            let sets = process.capabilities().clone().expect("sets");
            [sets.bounding(), sets.effective(), sets.permitted(), sets.inheritable(), sets.ambient()]
                .map(|set| set.as_ref().map_or(0, |set| set.len()))
        };
        assert_eq!(held(&as_user(5, 5)), [2, 1, 1, 1, 1]);
        assert_eq!(held(&as_user(5, 0)), [2, 2, 2, 0, 0]);
        assert_eq!(held(&as_user(0, 5)), [2, 0, 0, 0, 0]);
        let process = as_user(0, 5);
        let user = process.user();
        assert_eq!(
            (user.uid(), user.gid(), user.additional_gids().as_deref(), user.umask()),
            (5, 9, Some(&[4][..]), Some(7))
        );
        assert!(process.env().iter().flatten().any(|variable| variable == "HOME=/home"));
    }
}
