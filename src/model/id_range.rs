//! Users of a container's own: which range of the host's numbers a new container gets, and what a configuration makes of it.

use oci_spec::runtime::Spec;

use super::idmap::IdMap;

/// How many users a container gets: as many as systemd-nspawn gives, so that "nobody" is among them.
pub const WIDTH: u32 = 65_536;

/// What systemd keeps for containers: <https://systemd.io/UIDS-GIDS/>. Each range begins at a multiple of [`WIDTH`].
const FIRST: u32 = 524_288;
const LAST: u32 = 1_879_048_191;

/// Whether the configuration gives the container users of its own, the host's root not among them.
pub fn is_apart(spec: &Spec) -> bool {
    map(spec).is_some_and(|map| !has_hosts_root(&map))
}

/// Whether the host's root is somebody in it.
pub fn has_hosts_root(map: &IdMap) -> bool {
    map.users.iter().chain(&map.groups).any(|range| range.host_id() == 0)
}

/// The map of the configuration's user namespace.
pub fn map(spec: &Spec) -> Option<IdMap> {
    spec.linux().as_ref().and_then(|linux| IdMap::of(linux).ok().flatten())
}

/// The first number of its range, where its map is as one that was chosen for it.
pub fn chosen(spec: &Spec) -> Option<u32> {
    let map = map(spec)?;
    match &map.users[..] {
        [all] if all.size() == WIDTH && all.container_id() == 0 => Some(all.host_id()),
        _ => None,
    }
}

/// Numbers that others have: the first one and how many.
pub type Range = (u32, u32);

/// The first number of a range that nobody has.
pub fn free(taken: &[Range]) -> Option<u32> {
    let clash = |start: u32| {
        let end = start.saturating_add(WIDTH);
        taken.iter().any(|(first, size)| *first < end && start < first.saturating_add(*size))
    };
    (FIRST..=LAST).step_by(WIDTH as usize).take_while(|start| LAST - start >= WIDTH - 1).find(|start| !clash(*start))
}

/// What subuid(5) or subgid(5) grants, in each line that says so: `NAME:FIRST:COUNT`.
pub fn granted(text: &str) -> Vec<Range> {
    let range = |line: &str| {
        let mut parts = line.split(':').skip(1).map(str::trim);
        Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
    };
    text.lines().filter(|line| !line.starts_with('#')).filter_map(range).collect()
}

/// The numbers in passwd(5) or group(5): `NAME:PASSWORD:NUMBER:...`.
pub fn accounts(text: &str) -> Vec<Range> {
    text.lines().filter_map(|line| Some((line.split(':').nth(2)?.parse().ok()?, 1))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_container_gets_the_first_range_that_nobody_has() {
        assert_eq!(free(&[]), Some(FIRST));
        let granted = granted("# a comment\nalice:100000:65536\nbob:524288:65536\n\n");
        assert_eq!(granted, [(100_000, 65_536), (524_288, 65_536)]);
        assert_eq!(free(&granted), Some(FIRST + WIDTH));
        // One that begins in the middle of a range spoils it and the next.
        assert_eq!(free(&[(FIRST + 5, WIDTH)]), Some(FIRST + 2 * WIDTH));
        assert_eq!(free(&[(0, LAST - WIDTH + 1)]), Some(LAST - WIDTH + 1));
        assert_eq!(free(&[(0, u32::MAX)]), None);
    }
}
