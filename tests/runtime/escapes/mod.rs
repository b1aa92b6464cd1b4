//! The ways out of a container that runtimes had to close: each is tried on the launcher as it is shipped, where it must fail, and on
//! one without the defence in question, where it must work. A probe that cannot fail would show nothing.
//!
//! The second one is built here, with the cargo feature `controls`; `src/runtime/controls.rs` has the defences' names. A name stands for all the layers of a defence; where two defences close the same way, both are taken out.

mod files;
mod privileges;
mod programs;

use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;
use std::{env, fs};

use crate::support::{Bundle, RUNTIME, copy_program};

/// A launcher, whole or with something taken out.
pub struct Launcher {
    path: PathBuf,
    without: &'static str,
}

impl Launcher {
    /// Runs the bundle by it; `before` is a command line that executes the launcher.
    pub fn command(&self, bundle: &Bundle, before: &[&str]) -> Command {
        let mut line = before.to_vec();
        line.push(self.path.to_str().unwrap());
        let mut command = bundle.started_by(&line);
        // No probe has to do with /dev/null by its standard input.
        command.env("SYSCTR_WITHOUT", self.without).stdin(Stdio::piped());
        command
    }

    /// The same command by this launcher.
    pub fn instead(&self, command: &Command) -> Command {
        let mut own = Command::new(&self.path);
        own.args(command.get_args()).env("SYSCTR_WITHOUT", self.without).stdin(Stdio::null());
        own
    }

    pub fn run(&self, bundle: &Bundle) -> Output {
        self.command(bundle, &[]).output().unwrap()
    }

    /// What it printed, whether it went well or not.
    pub fn prints(&self, bundle: &Bundle) -> String {
        String::from_utf8_lossy(&self.run(bundle).stdout).into_owned()
    }

    /// The same with descriptor 9 open on a folder of the host's.
    pub fn prints_with_open(&self, bundle: &Bundle, folder: &Path) -> String {
        let script = format!("exec \"$@\" 9<{}", folder.display());
        let output = self.command(bundle, &["sh", "-c", &script, "sh"]).output().unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// The same launcher from a file of its own, which may be spoilt.
    pub fn copied(&self, folder: &Path) -> Self {
        let path = folder.join("sysctr-runtime");
        copy_program(&self.path, &path);
        Self { path, without: self.without }
    }

    pub fn bytes(&self) -> Vec<u8> {
        fs::read(&self.path).unwrap()
    }
}

/// A folder of the host's with a file that no container may see.
pub fn secret() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("secret"), "of the host\n").unwrap();
    folder
}

/// `probe.c` as a program, or as a library.
pub fn probe(library: bool) -> &'static Path {
    static BUILT: OnceLock<tempfile::TempDir> = OnceLock::new();
    static BOTH: OnceLock<[PathBuf; 2]> = OnceLock::new();
    let [program, shared] = BOTH.get_or_init(|| {
        let folder = BUILT.get_or_init(|| tempfile::tempdir().unwrap()).path();
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/runtime/escapes/probe.c");
        let as_library = ["-shared", "-fPIC", "-DLIBRARY", "-Wl,-init,begin"];
        let (program, shared) = (folder.join("probe"), folder.join("probe.so"));
        for (kind, target) in [(&["-static"][..], &program), (&as_library[..], &shared)] {
            let mut cc = Command::new("cc");
            cc.args(["-O1", "-nostdlib", "-fno-stack-protector"]).args(kind).arg("-o").arg(target).arg(&source);
            assert!(cc.status().expect("a C compiler").success());
        }
        [program, shared]
    });
    if library { shared } else { program }
}

/// A container whose `/bin/probe` is that program.
pub fn probing(args: &[&str]) -> Bundle {
    let bundle = Bundle::running(args);
    copy_program(probe(false), &bundle.root().join("bin/probe"));
    bundle
}

/// Puts a program into the image.
pub fn install(bundle: &Bundle, place: &str, from: &Path, mode: u32) {
    let place = bundle.root().join(place.trim_start_matches('/'));
    fs::create_dir_all(place.parent().unwrap()).unwrap();
    copy_program(from, &place);
    fs::set_permissions(&place, fs::Permissions::from_mode(mode)).unwrap();
}

/// A way out: what is known of it, the defences that close it, and a probe that says whether it got out.
type Way = (&'static str, &'static str, fn(&Launcher) -> bool);

const WAYS: &[Way] = &[
    ("CVE-2019-5736: interpreter is the runtime, loader writes to it", "Seal", programs::an_interpreter_overwrites),
    ("CVE-2019-5736: interpreter is the runtime, library writes to it", "Seal", programs::a_library_overwrites),
    ("CVE-2019-5736: program is /proc/self/exe", "Seal,Program", programs::the_program_itself_overwrites),
    ("CVE-2019-5736: the same by exec in a running container", "Seal", programs::an_executed_interpreter_overwrites),
    ("CVE-2016-9962: init looked into before its exec", "Dumpable", programs::a_neighbour_looks_in),
    ("CVE-2024-21626: working directory is a leaked descriptor", "Folder", files::a_descriptor_as_working_directory),
    ("CVE-2024-21626: leaked descriptor of the host", "Descriptors", files::a_descriptor_left_open),
    ("CVE-2025-31133: masks made of a swapped /dev/null", "Null", files::a_mask_of_the_images_choice),
    ("CVE-2025-52881: kernel parameter written through a redirected /proc", "OwnProc", files::a_redirected_sysctl),
    ("CVE-2022-0811: kernel parameter of the host", "SysctlNames", files::a_sysctl_of_the_host),
    (
        "CVE-2021-30465: destination through a link moves a later source",
        "Destinations",
        files::a_destination_moves_a_source,
    ),
    (
        "CVE-2021-30465: the same, by a link swapped in while it starts",
        "Destinations",
        files::a_swapped_destination_moves_a_source,
    ),
    (
        "CVE-2025-52565: terminal taken from what the container put there",
        "Console",
        programs::a_terminal_of_the_containers_choice,
    ),
    (
        "CVE-2024-45310: mount point made on the host, through a volume",
        "Destinations",
        files::a_mount_point_on_the_host,
    ),
    ("CVE-2019-19921: /proc of the image is a link", "KernelLinks", files::proc_is_a_link),
    ("CVE-2019-19921: /sys of the image is a link", "KernelLinks", files::sys_is_a_link),
    ("/dev of the image is a link", "KernelLinks", files::dev_is_a_link),
    ("source below a writable one leads away", "Sources", files::a_link_left_in_a_volume),
    ("root.path leads out of the deployment", "RootPath", files::another_root),
    ("the image's files written to, which are the store's", "ReadOnlyRoot", files::the_store_is_written),
    ("device file of the image", "NoDev", files::a_device_of_the_image),
    ("the host's /dev/null changed through a standard stream", "Streams", files::a_null_of_the_host),
    ("masked path read", "Masks", files::a_masked_path),
    ("read-only path of /proc written", "ReadOnlyPaths", files::a_read_only_path),
    ("CVE-2022-0492: control groups written", "Cgroup", files::a_cgroup_is_made),
    ("CVE-2023-25809: the same in the host's cgroup namespace", "Cgroup", files::a_cgroup_of_the_host_is_made),
    ("mounts show on the host", "CutOff", files::mounts_of_the_start_on_the_host),
    ("mounts below a bind mount show on the host", "Propagation", files::mounts_of_the_program_on_the_host),
    ("old root below the new one", "OldRoot", files::the_old_root),
    ("root left by another chroot", "Pivot", files::out_of_a_chroot),
    ("set-user-ID program of the image", "NoSuid", privileges::a_setuid_program),
    ("file capabilities of the image", "NoSuid", privileges::file_capabilities),
    ("set-user-ID program where these are accepted", "NoNewPrivileges", privileges::new_privileges),
    ("CVE-2022-2995: supplementary groups of the launcher", "Groups", privileges::groups_of_the_launcher),
    ("CVE-2022-24769: inheritable capabilities", "Inheritable", privileges::inheritable_capabilities),
    ("bounding set of the launcher", "Bounding", privileges::the_bounding_set),
    ("session keyring of the launcher", "Keyring", privileges::the_keyring_of_the_launcher),
];

/// The launcher with controls. Its build shares what is built of other crates (cargo 1.91 and later), so that this crate alone is
/// compiled again, which takes some seconds; only the program goes to a folder of its own.
fn controls() -> PathBuf {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let profile = Path::new(RUNTIME).parent().unwrap();
    let target = profile.parent().unwrap();
    let own = target.join("controls");
    let mut build = Command::new(cargo);
    build.args(["build", "--quiet", "--features", "controls", "--bin", "sysctr-runtime"]);
    build.args(profile.ends_with("release").then_some("--release")).current_dir(env!("CARGO_MANIFEST_DIR"));
    // What cargo tells this test of its own package would look like a change to other crates' build scripts.
    let told = |name: &str| {
        ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_", "CARGO_CRATE_"].iter().any(|start| name.starts_with(start))
    };
    for (name, _) in env::vars_os().filter(|(name, _)| name.to_str().is_some_and(told)) {
        build.env_remove(name);
    }
    build.env("CARGO_BUILD_BUILD_DIR", target).arg("--target-dir").arg(&own);
    assert!(build.status().unwrap().success(), "the launcher with controls was not built");
    own.join(profile.file_name().unwrap()).join("sysctr-runtime")
}

#[test]
fn every_known_way_out_is_closed_and_opens_without_its_defence() {
    let controls = controls();
    let only = env::var("SYSCTR_TEST_WAY").unwrap_or_default();
    let mut out = std::io::stdout();
    writeln!(out, "{:<70} {:<14} {:<7} without it", "way out", "defence", "shipped").unwrap();
    let mut wrong = Vec::new();
    for (way, defence, probe) in WAYS.iter().filter(|(way, ..)| way.contains(&only)) {
        let shipped = probe(&Launcher { path: RUNTIME.into(), without: defence });
        let whole = probe(&Launcher { path: controls.clone(), without: "" });
        let open = probe(&Launcher { path: controls.clone(), without: defence });
        let word = |open| if open { "OPEN" } else { "closed" };
        writeln!(out, "{way:<70} {defence:<14} {:<7} {}", word(shipped || whole), word(open)).unwrap();
        if shipped || whole || !open {
            wrong.push(format!("{way}: shipped {}, whole {}, without it {}", word(shipped), word(whole), word(open)));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn no_switch_is_in_what_is_shipped() {
    let has = |path: &Path| fs::read(path).unwrap().windows(14).any(|part| part == b"SYSCTR_WITHOUT");
    assert!(!has(RUNTIME.as_ref()));
    assert!(has(&controls()));
}
