//! Which deployments of a container stay.

/// The one that `rollback` goes to: that which the one in force took the place of, else the last one with a lower number.
pub fn previous(ids: &[u32], active: u32, replaced: Option<u32>) -> Option<u32> {
    let lower = || ids.iter().copied().filter(|id| *id < active).max();
    replaced.filter(|id| ids.contains(id) && *id != active).or_else(lower)
}

/// Those that go, where `keep` stay: the one in force, the one before it, and then the newest ones.
pub fn surplus(ids: &[u32], active: u32, replaced: Option<u32>, keep: usize) -> Vec<u32> {
    let mut kept: Vec<u32> = [active].into_iter().chain(previous(ids, active, replaced)).collect();
    let mut others: Vec<u32> = ids.iter().copied().filter(|id| !kept.contains(id)).collect();
    others.sort_unstable_by(|one, other| other.cmp(one));
    let more = keep.saturating_sub(kept.len());
    kept.extend(others.into_iter().take(more));
    ids.iter().copied().filter(|id| !kept.contains(id)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_one_in_force_and_the_one_before_it_stay() {
        for (ids, active, replaced, keep, gone) in [
            (&[1][..], 1, None, 2, &[][..]),
            (&[1, 2, 3], 3, Some(2), 2, &[1]),
            (&[2, 3], 2, Some(1), 2, &[]),
            (&[4, 7, 9], 9, Some(7), 3, &[]),
            // 2 was bad, 1 came back, and 3 took its place
            (&[1, 2, 3], 3, Some(1), 2, &[2]),
        ] {
            assert_eq!(surplus(ids, active, replaced, keep), gone, "{ids:?} with {active} in force");
        }
        assert_eq!(previous(&[1, 3, 4], 4, Some(1)), Some(1));
        assert_eq!(previous(&[1, 3, 4], 4, Some(2)), Some(3));
        assert_eq!(previous(&[3, 4], 3, None), None);
    }
}
