//! This machine's processor in the image specification's words (Go's).

use crate::model::platform::Platform;

/// What images have to be for.
pub fn this_platform() -> Platform<'static> {
    Platform { architecture: this_architecture(), variants: variants() }
}

/// The architecture.
pub fn this_architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "x86" => "386",
        "powerpc64" if cfg!(target_endian = "little") => "ppc64le",
        "loongarch64" => "loong64",
        other => other,
    }
}

/// The levels of the
/// [psABI](https://gitlab.com/x86-psABIs/x86-64-ABI), by the features that only the next one has.
#[cfg(target_arch = "x86_64")]
fn variants() -> &'static [&'static str] {
    use std::arch::is_x86_feature_detected as has;
    const LEVELS: [&str; 4] = ["v4", "v3", "v2", "v1"];
    let second = has!("sse3") && has!("ssse3") && has!("sse4.1") && has!("sse4.2") && has!("popcnt");
    let second = second && has!("cmpxchg16b");
    let third = second && has!("avx") && has!("avx2") && has!("bmi1") && has!("bmi2") && has!("f16c");
    let third = third && has!("fma") && has!("lzcnt") && has!("movbe");
    let fourth = third && has!("avx512f") && has!("avx512bw") && has!("avx512cd") && has!("avx512dq");
    let fourth = fourth && has!("avx512vl");
    &LEVELS[[fourth, third, second, true].iter().position(|known| *known).unwrap_or(3)..]
}

#[cfg(not(target_arch = "x86_64"))]
fn variants() -> &'static [&'static str] {
    const ARM: [&str; 4] = ["v8", "v7", "v6", "v5"];
    match std::env::consts::ARCH {
        "aarch64" => &ARM[..1],
        "arm" => {
            let machine = nix::sys::utsname::uname().map(|name| name.machine().to_string_lossy().into_owned());
            let machine = machine.unwrap_or_default();
            let level = ARM.iter().position(|level| machine.starts_with(&format!("arm{level}")));
            // a 32-bit program on a 64-bit kernel
            &ARM[level.unwrap_or(if machine == "aarch64" { 1 } else { 3 })..]
        }
        _ => &[],
    }
}
