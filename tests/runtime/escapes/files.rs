//! Ways out through paths, links and mounts.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use rustix::fs::{CWD, RenameFlags, renameat_with};
use serde_json::{Value, json};

use super::{Launcher, probing, secret};
use crate::support::Bundle;

const SECRET: &str = "of the host";
/// How often a race is run; without the defence one in a few is lost.
const TRIES: usize = 60;

pub fn a_descriptor_as_working_directory(launcher: &Launcher) -> bool {
    let host = secret();
    ["/proc/self/fd/9", "/proc/1/fd/9/.", "/work"].into_iter().any(|cwd| {
        let bundle = Bundle::running(&["/bin/cat", "secret"]).with("/process", "cwd", json!(cwd));
        symlink("/proc/self/fd/9", bundle.root().join("work")).unwrap();
        launcher.prints_with_open(&bundle, host.path()).contains(SECRET)
    })
}

pub fn a_descriptor_left_open(launcher: &Launcher) -> bool {
    let host = secret();
    launcher.prints_with_open(&Bundle::running(&["cat", "/proc/self/fd/9/secret"]), host.path()).contains(SECRET)
}

/// /dev is a volume here, whose `null` leads to the very file that is to be masked: a mask of nothing.
pub fn a_mask_of_the_images_choice(launcher: &Launcher) -> bool {
    let volume = tempfile::tempdir().unwrap();
    symlink("../proc/timer_list", volume.path().join("null")).unwrap();
    let mut bundle = Bundle::running(&["cat", "/proc/timer_list"]);
    mounts(&mut bundle).retain(|mount| !mount["destination"].as_str().unwrap().starts_with("/dev"));
    launcher.prints(&bundle.binding(volume.path(), "/dev", &["bind"])).contains("Timer List")
}

/// A volume over /proc/sys takes what is meant for the kernel.
pub fn a_redirected_sysctl(launcher: &Launcher) -> bool {
    let volume = tempfile::tempdir().unwrap();
    let place = volume.path().join("net/ipv4");
    fs::create_dir_all(&place).unwrap();
    fs::write(volume.path().join("taken"), "").unwrap();
    symlink("../../taken", place.join("ip_unprivileged_port_start")).unwrap();
    let mut bundle = Bundle::running(&["true"]).binding(volume.path(), "/proc/sys", &["bind"]).with(
        "/linux",
        "sysctl",
        json!({"net.ipv4.ip_unprivileged_port_start": "7"}),
    );
    bundle.spec["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "network"}));
    launcher.run(&bundle);
    fs::read_to_string(volume.path().join("taken")).unwrap() == "7"
}

/// Sets the host's to what it is already.
pub fn a_sysctl_of_the_host(launcher: &Launcher) -> bool {
    let now = fs::read_to_string("/proc/sys/kernel/panic").unwrap();
    [("kernel.panic", now.trim()), ("net/../kernel/panic", now.trim())].into_iter().any(|(name, value)| {
        launcher.run(&Bundle::running(&["true"]).with("/linux", "sysctl", json!({name: value}))).status.success()
    })
}

/// The first volume, mounted through the image's link, would cover the folder of the second one's source.
pub fn a_destination_moves_a_source(launcher: &Launcher) -> bool {
    let (host, volumes, first) = (secret(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let second = volumes.path().join("second");
    fs::create_dir(&second).unwrap();
    symlink(host.path(), first.path().join("second")).unwrap();
    let mut bundle = Bundle::running(&["cat", "/data/secret"]);
    symlink(volumes.path(), bundle.root().join("out")).unwrap();
    fs::create_dir_all(bundle.root().join(volumes.path().strip_prefix("/").unwrap())).unwrap();
    mounts(&mut bundle).retain(|mount| mount["destination"] != "/tmp");
    let bundle = bundle.binding(first.path(), "/out", &["bind"]).binding(&second, "/data", &["bind"]);
    launcher.prints(&bundle).contains(SECRET)
}

/// The same, as it was found: another container with the volume swaps a folder for a link again and again.
pub fn a_swapped_destination_moves_a_source(launcher: &Launcher) -> bool {
    let (host, volumes, first) = (secret(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let second = volumes.path().join("second");
    fs::create_dir(&second).unwrap();
    symlink(host.path(), first.path().join("second")).unwrap();
    let volume = tempfile::tempdir().unwrap();
    let (folder, link) = (volume.path().join("folder"), volume.path().join("link"));
    fs::create_dir(&folder).unwrap();
    symlink(volumes.path(), &link).unwrap();
    let bundle = Bundle::running(&["cat", "/tmp/second/secret"])
        .binding(volume.path(), "/data", &["bind"])
        .binding(first.path(), "/data/folder", &["bind"])
        .binding(&second, "/tmp/second", &["bind"]);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                renameat_with(CWD, &folder, CWD, &link, RenameFlags::EXCHANGE).unwrap();
            }
        });
        let escaped = (0..TRIES).any(|_| launcher.prints(&bundle).contains(SECRET));
        done.store(true, Ordering::Relaxed);
        escaped
    })
}

pub fn a_mount_point_on_the_host(launcher: &Launcher) -> bool {
    let (host, volume) = (secret(), tempfile::tempdir().unwrap());
    symlink(host.path(), volume.path().join("away")).unwrap();
    let bundle = Bundle::running(&["true"]).binding(volume.path(), "/data", &["bind"]);
    launcher.run(&bundle.binding("/etc/passwd".as_ref(), "/data/away/new", &["bind", "ro"]));
    host.path().join("new").exists() || volume.path().join("away/new").exists()
}

pub fn proc_is_a_link(launcher: &Launcher) -> bool {
    starts_with_a_link(launcher, "proc")
}

pub fn sys_is_a_link(launcher: &Launcher) -> bool {
    starts_with_a_link(launcher, "sys")
}

pub fn dev_is_a_link(launcher: &Launcher) -> bool {
    starts_with_a_link(launcher, "dev")
}

/// Whatever is mounted and masked there would be so where the image wants it.
fn starts_with_a_link(launcher: &Launcher, name: &str) -> bool {
    let mut bundle = Bundle::running(&["grep", &format!(" /data/{name} "), "/data/proc/self/mountinfo"]);
    let place = bundle.root().join(name);
    fs::remove_dir(&place).unwrap();
    symlink(format!("data/{name}"), place).unwrap();
    fs::create_dir(bundle.root().join("data").join(name)).unwrap();
    if name != "proc" {
        fs::create_dir(bundle.root().join("data/proc")).unwrap();
        mounts(&mut bundle).push(json!({"destination": "/data/proc", "type": "proc", "source": "proc"}));
    }
    mounts(&mut bundle).retain(|mount| mount["destination"] != "/sys/fs/cgroup");
    launcher.run(&bundle).status.success()
}

pub fn a_link_left_in_a_volume(launcher: &Launcher) -> bool {
    let (host, volume) = (secret(), tempfile::tempdir().unwrap());
    symlink(host.path(), volume.path().join("sub")).unwrap();
    let bundle = Bundle::running(&["cat", "/tmp/sub/secret"]).binding(volume.path(), "/data", &["bind"]);
    launcher.prints(&bundle.binding(&volume.path().join("sub"), "/tmp/sub", &["bind"])).contains(SECRET)
}

pub fn another_root(launcher: &Launcher) -> bool {
    let other = Bundle::running(&["true"]);
    fs::write(other.root().join("etc/own"), SECRET).unwrap();
    let path = Path::new("..").join(other.path().file_name().unwrap()).join("rootfs");
    launcher.prints(&Bundle::running(&["cat", "/etc/own"]).with("/root", "path", json!(path))).contains(SECRET)
}

pub fn the_store_is_written(launcher: &Launcher) -> bool {
    let bundle = Bundle::script("echo changed > /etc/own");
    launcher.run(&bundle);
    fs::read_to_string(bundle.root().join("etc/own")).unwrap() == "changed\n"
}

pub fn a_device_of_the_image(launcher: &Launcher) -> bool {
    let bundle = Bundle::script("exec 3</data/zero && echo open");
    let (kind, mode) = (nix::sys::stat::SFlag::S_IFCHR, nix::sys::stat::Mode::from_bits_truncate(0o666));
    nix::sys::stat::mknod(&bundle.root().join("data/zero"), kind, mode, nix::sys::stat::makedev(1, 5)).unwrap();
    launcher.prints(&bundle) == "open\n"
}

/// A node like the host's, since the host's own had to be mended afterwards.
pub fn a_null_of_the_host(launcher: &Launcher) -> bool {
    let folder = tempfile::tempdir_in("/dev").unwrap();
    let node = folder.path().join("null");
    let (kind, mode) = (nix::sys::stat::SFlag::S_IFCHR, nix::sys::stat::Mode::from_bits_truncate(0o666));
    nix::sys::stat::mknod(&node, kind, mode, nix::sys::stat::makedev(1, 3)).unwrap();
    let before = fs::metadata(&node).unwrap().permissions();
    let input = fs::File::open(&node).unwrap();
    let bundle = Bundle::script("busybox chmod 600 /proc/self/fd/0");
    let mut command = launcher.command(&bundle, &[]);
    command.stdin(input).output().unwrap();
    fs::metadata(&node).unwrap().permissions() != before
}

pub fn a_masked_path(launcher: &Launcher) -> bool {
    launcher.prints(&Bundle::running(&["cat", "/proc/timer_list"])).contains("Timer List")
}

/// The host name of the container's own namespace stands for every other parameter.
pub fn a_read_only_path(launcher: &Launcher) -> bool {
    launcher.prints(&Bundle::script("echo taken > /proc/sys/kernel/hostname; hostname")) == "taken\n"
}

pub fn a_cgroup_is_made(launcher: &Launcher) -> bool {
    makes_a_cgroup(launcher, |_| true)
}

pub fn a_cgroup_of_the_host_is_made(launcher: &Launcher) -> bool {
    makes_a_cgroup(launcher, |namespace| namespace != "cgroup")
}

fn makes_a_cgroup(launcher: &Launcher, has: impl Fn(&str) -> bool) -> bool {
    let script = "mount | grep -q ' /sys/fs/cgroup type cgroup ' && echo first version; \
        busybox mkdir /sys/fs/cgroup/sysctr-test && echo made; busybox rmdir /sys/fs/cgroup/sysctr-test";
    let over = json!(["CAP_DAC_OVERRIDE"]);
    let mut bundle = Bundle::script(script).with(
        "/process",
        "capabilities",
        json!({"bounding": over, "effective": over, "permitted": over}),
    );
    let namespaces = bundle.spec["linux"]["namespaces"].as_array_mut().unwrap();
    namespaces.retain(|namespace| has(namespace["type"].as_str().unwrap()));
    !launcher.prints(&bundle).is_empty()
}

pub fn mounts_of_the_start_on_the_host(launcher: &Launcher) -> bool {
    let bundle = Bundle::running(&["true"]);
    let left = shared(bundle.path(), || drop(launcher.run(&bundle)));
    left > 0
}

pub fn mounts_of_the_program_on_the_host(launcher: &Launcher) -> bool {
    let host = tempfile::tempdir().unwrap();
    fs::create_dir(host.path().join("sub")).unwrap();
    let admin = json!(["CAP_SYS_ADMIN"]);
    let bundle = Bundle::script("mount -t tmpfs tmpfs /data/sub").binding(host.path(), "/data", &["bind"]).with(
        "/process",
        "capabilities",
        json!({"bounding": admin, "effective": admin, "permitted": admin}),
    );
    shared(host.path(), || drop(launcher.run(&bundle))) > 0
}

/// How many mounts `run` leaves at or below a folder that spreads them, in this process's own mounts.
fn shared(folder: &Path, run: impl FnOnce()) -> usize {
    let text = folder.to_str().unwrap();
    let here =
        || fs::read_to_string("/proc/self/mountinfo").unwrap().lines().filter(|line| line.contains(text)).count();
    mount(Some(folder), folder, None::<&str>, MsFlags::MS_BIND, None::<&str>).unwrap();
    mount(None::<&str>, folder, None::<&str>, MsFlags::MS_SHARED, None::<&str>).unwrap();
    let before = here();
    run();
    let left = here() - before;
    let points = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let points = points.lines().filter_map(|line| line.split(' ').nth(4)).filter(|point| point.starts_with(text));
    for point in points.collect::<Vec<_>>().into_iter().rev() {
        let _ = umount2(point, MntFlags::MNT_DETACH);
    }
    left
}

pub fn the_old_root(launcher: &Launcher) -> bool {
    let host = secret();
    let path = format!("/..{}/secret", host.path().display());
    launcher.prints(&Bundle::running(&["cat", &path])).contains(SECRET)
}

pub fn out_of_a_chroot(launcher: &Launcher) -> bool {
    let host = secret();
    let path = host.path().join("secret");
    let chroot = json!(["CAP_SYS_CHROOT"]);
    let bundle = probing(&["/bin/probe", "chroot", path.to_str().unwrap()]).with(
        "/process",
        "capabilities",
        json!({"bounding": chroot, "effective": chroot, "permitted": chroot}),
    );
    launcher.prints(&bundle).contains(SECRET)
}

fn mounts(bundle: &mut Bundle) -> &mut Vec<Value> {
    bundle.spec["mounts"].as_array_mut().unwrap()
}
