//! Which deployments of a container stay.

use std::collections::BTreeSet;

/// The one that `rollback` goes to: the last one before that in force.
pub fn previous(ids: &[u32], active: u32) -> Option<u32> {
    ids.iter().copied().filter(|id| *id < active).max()
}

/// Those that go, where `keep` stay: the one in force and the last ones before it, and the newest, which a rollback left.
pub fn surplus(ids: &[u32], active: u32, keep: usize) -> Vec<u32> {
    let mut older: Vec<u32> = ids.iter().copied().filter(|id| *id <= active).collect();
    older.sort_unstable_by(|one, other| other.cmp(one));
    let kept: BTreeSet<u32> = older.into_iter().take(keep).chain([active]).chain(ids.iter().copied().max()).collect();
    ids.iter().copied().filter(|id| !kept.contains(id)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_one_in_force_and_the_one_before_it_stay() {
        for (ids, active, keep, gone) in [
            (&[1][..], 1, 2, &[][..]),
            (&[1, 2, 3], 3, 2, &[1]),
            (&[1, 2, 3], 2, 2, &[]),
            (&[4, 7, 9], 9, 3, &[]),
            (&[4, 7, 9], 4, 2, &[7]),
        ] {
            assert_eq!(surplus(ids, active, keep), gone, "{ids:?} with {active} in force");
        }
        assert_eq!(previous(&[1, 3, 4], 4), Some(3));
        assert_eq!(previous(&[3, 4], 3), None);
    }
}
