//! Images that mean harm.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::fs::{StatVfsMountFlags, statvfs};
use serde_json::json;

use crate::support::{Bundle, RUNTIME};

#[test]
fn kernel_file_systems_are_not_mounted_through_links_of_the_image() {
    for place in ["proc", "sys", "dev"] {
        for target in ["/", "/etc", "../../../etc", "data"] {
            let bundle = Bundle::running(&["true"]);
            fs::remove_dir(bundle.root().join(place)).unwrap();
            symlink(target, bundle.root().join(place)).unwrap();
            let error = bundle.fails();
            assert!(error.contains(&format!("/{place} of the image is a symbolic link: refused")), "{error}");
        }
    }
}

/// As StandardInput=null gives it: a device of the host's, owned by root, and so by the container's root too.
#[test]
fn a_device_of_the_hosts_keeps_its_mode_whatever_root_in_the_container_does_to_its_standard_input() {
    let host = tempfile::tempdir().unwrap();
    let null = host.path().join("null");
    assert!(Command::new("mknod").args(["-m", "666"]).arg(&null).args(["c", "1", "3"]).status().unwrap().success());
    let bundle = Bundle::script("exec /bin/busybox chmod 600 /proc/self/fd/0");
    let output = bundle.command().stdin(fs::File::open(&null).unwrap()).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(fs::metadata(&null).unwrap().permissions().mode() & 0o777, 0o666);
}

#[test]
fn a_device_that_had_to_be_the_hosts_works_and_keeps_its_mode() {
    let mode = || fs::metadata("/dev/null").unwrap().permissions().mode() & 0o777;
    let before = mode();
    let bundle = Bundle::script("echo x >/dev/null && /bin/busybox chmod 644 /dev/null");
    let mut command = Command::new("setpriv");
    bundle.command(); // writes config.json
    let output = command.args(["--bounding-set", "-mknod", RUNTIME, "run"]).arg(bundle.path()).output().unwrap();
    let after = mode();
    fs::set_permissions("/dev/null", PermissionsExt::from_mode(before)).unwrap();
    assert_eq!(after, before, "{output:?}");
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(error.contains("Read-only file system"), "{output:?}");
}

#[test]
fn a_mount_through_a_link_to_outside_lands_inside() {
    let host = tempfile::tempdir().unwrap();
    fs::write(host.path().join("mark"), "mounted\n").unwrap();
    let outside = tempfile::tempdir().unwrap();
    // The same path exists on the host and, with other content, in the image.
    let bundle =
        Bundle::script(&format!("cat {}/mark", outside.path().display())).binding(host.path(), "/out", &["bind"]);
    let inside = bundle.root().join(outside.path().strip_prefix("/").unwrap());
    fs::create_dir_all(&inside).unwrap();
    // /tmp of the image must be the image's for this.
    let mut bundle = bundle;
    bundle.spec["mounts"].as_array_mut().unwrap().retain(|mount| mount["destination"] != "/tmp");
    symlink(format!("/../../../../../..{}", outside.path().display()), bundle.root().join("out")).unwrap();
    assert_eq!(bundle.prints(), "mounted\n");
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
}

#[test]
fn a_mount_through_a_link_to_what_only_the_host_has_is_missing() {
    let host = tempfile::tempdir().unwrap();
    let bundle = Bundle::running(&["true"]).binding(host.path(), "/out", &["bind"]);
    symlink("/usr/share", bundle.root().join("out")).unwrap();
    let error = bundle.fails();
    assert!(error.contains("the mount point /out is missing in the image"), "{error}");
}

#[test]
fn a_link_that_the_container_left_in_its_own_state_does_not_choose_what_is_mounted() {
    let state = tempfile::tempdir().unwrap();
    symlink("/etc", state.path().join("sub")).unwrap();
    let bundle = || Bundle::script("ls /tmp/sub").binding(state.path(), "/data", &["bind"]);
    let error = bundle().binding(&state.path().join("sub"), "/tmp/sub", &["bind"]).fails();
    assert!(error.contains("which the container may write"), "{error}");
    fs::remove_file(state.path().join("sub")).unwrap();
    fs::create_dir_all(state.path().join("sub/own")).unwrap();
    assert_eq!(bundle().binding(&state.path().join("sub"), "/tmp/sub", &["bind"]).prints(), "own\n");
}

#[test]
fn a_shared_mount_reaches_the_host_and_no_other_does() {
    let host = tempfile::tempdir().unwrap();
    let point = host.path().to_str().unwrap().to_owned();
    let here = || fs::read_to_string("/proc/self/mountinfo").unwrap().matches(&point).count();
    let capable =
        json!({"bounding": ["CAP_SYS_ADMIN"], "effective": ["CAP_SYS_ADMIN"], "permitted": ["CAP_SYS_ADMIN"]});
    fs::create_dir(host.path().join("sub")).unwrap();
    let run = |options: &[&str]| {
        let bundle = Bundle::script("mount -t tmpfs tmpfs /data/sub && grep -c /data/sub /proc/self/mountinfo");
        bundle.binding(host.path(), "/data", options).with("/process", "capabilities", capable.clone()).prints()
    };
    nix::mount::mount(Some(host.path()), host.path(), None::<&str>, nix::mount::MsFlags::MS_BIND, None::<&str>)
        .unwrap();
    nix::mount::mount(None::<&str>, host.path(), None::<&str>, nix::mount::MsFlags::MS_SHARED, None::<&str>).unwrap();
    let before = here();
    let (unshared, left) = (run(&["rbind"]), here() - before);
    let (shared, reached) = (run(&["rbind", "rshared"]), here() - before);
    while here() > 0 {
        let _ = nix::mount::umount2(&host.path().join("sub"), nix::mount::MntFlags::MNT_DETACH);
        let _ = nix::mount::umount2(host.path(), nix::mount::MntFlags::MNT_DETACH);
    }
    assert_eq!((unshared.as_str(), left, shared.as_str(), reached), ("1\n", 0, "1\n", 1));
}

#[test]
fn the_root_may_not_lead_out_of_the_deployment() {
    for path in ["/", "..", "../..", "rootfs/../.."] {
        let error = Bundle::running(&["true"]).with("/root", "path", json!(path)).fails();
        assert!(error.contains("opening the root file system"), "{error}");
    }
    let bundle = Bundle::running(&["true"]).with("/root", "path", json!("link"));
    symlink("/", bundle.path().join("link")).unwrap();
    assert!(bundle.fails().contains("opening the root file system link"));
}

#[test]
fn neither_program_nor_working_directory_goes_through_procs_magic_links() {
    for program in ["/proc/self/exe", "/proc/1/exe", "/proc/self/fd/0", "/proc/self/root/bin/true"] {
        let error = Bundle::running(&[program]).fails();
        assert!(error.contains("refused"), "{program}: {error}");
    }
    for number in 3..12 {
        let error =
            Bundle::running(&["true"]).with("/process", "cwd", json!(format!("/proc/self/fd/{number}"))).fails();
        assert!(error.contains("the working directory"), "{error}");
    }
}

#[test]
fn the_launcher_runs_from_a_mount_that_cannot_be_written_through() {
    let bundle = Bundle::script("echo up; sleep 5");
    let mut launcher = bundle.command().stdout(Stdio::piped()).spawn().unwrap();
    BufReader::new(launcher.stdout.take().unwrap()).read_line(&mut String::new()).unwrap();
    let executable = format!("/proc/{}/exe", launcher.id());
    let flags = statvfs(&executable).unwrap().f_flag;
    let name = fs::read_to_string(format!("/proc/{}/comm", launcher.id())).unwrap();
    launcher.kill().unwrap();
    launcher.wait().unwrap();
    assert!(flags.contains(StatVfsMountFlags::RDONLY), "{flags:?}");
    assert_eq!(name, "sysctr-runtime\n");
}

#[test]
fn an_interpreter_that_is_the_launcher_cannot_open_it_for_writing() {
    // The launcher, run in the container through the script's first line, is given a loader of the image's: busybox, which
    // as the loader sees the launcher as its own executable.
    let bundle = Bundle::running(&["/bin/attack"]);
    let attack = bundle.root().join("bin/attack");
    fs::write(&attack, "#!/proc/self/exe --version\n").unwrap();
    fs::set_permissions(&attack, fs::Permissions::from_mode(0o755)).unwrap();
    for library in
        ["/lib64/ld-linux-x86-64.so.2", "/lib/x86_64-linux-gnu/libc.so.6", "/lib/x86_64-linux-gnu/libgcc_s.so.1"]
    {
        if Path::new(library).exists() {
            let copy = bundle.root().join(library.trim_start_matches('/'));
            fs::create_dir_all(copy.parent().unwrap()).unwrap();
            fs::copy(library, copy).unwrap();
        }
    }
    let before = fs::read(RUNTIME).unwrap();
    let _ = bundle.run(); // whatever it does there, it does with the container's rights
    assert!(fs::read(RUNTIME).unwrap() == before);
}

#[test]
fn names_with_strange_letters_do_not_confuse() {
    let host = tempfile::tempdir().unwrap();
    let error = Bundle::running(&["true"]).binding(host.path(), "/a\nb", &["bind"]).fails();
    assert!(error.contains("missing in the image"), "{error}");
    let error = Bundle::running(&["true"]).with("/process", "env", json!(["A=b\u{0}c"])).fails();
    assert!(error.contains("has a NUL"), "{error}");
    let error = Bundle::running(&["true", "a\u{0}b"]).fails();
    assert!(error.contains("nul byte") || error.contains("NUL"), "{error}");
}
