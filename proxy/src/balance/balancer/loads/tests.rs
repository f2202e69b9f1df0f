//! Shares of groups, against Envoy's own arithmetic read naively.

use proptest::prelude::*;

use super::*;

fn health(list: &[(u64, u64)]) -> Vec<Health> {
    list.iter().map(|(healthy, all)| Health { all: *all, healthy: *healthy }).collect()
}

fn priorities(list: &[(u64, u64)]) -> Vec<u32> {
    shares(&health(list), None, 0).0
}

/// The examples of Envoy's documentation ("Priority levels"), with ten endpoints at each.
#[test]
fn requests_spill_as_envoys_documentation_says() {
    assert_eq!(priorities(&[(100, 100), (100, 100)]), [100, 0]);
    assert_eq!(priorities(&[(72, 100), (72, 100)]), [100, 0]);
    assert_eq!(priorities(&[(71, 100), (71, 100)]), [99, 1]);
    assert_eq!(priorities(&[(50, 100), (50, 100)]), [70, 30]);
    assert_eq!(priorities(&[(25, 100), (100, 100)]), [35, 65]);
    assert_eq!(priorities(&[(25, 100), (25, 100)]), [50, 50]);
    assert_eq!(priorities(&[(0, 100), (25, 100)]), [0, 100]);
    assert_eq!(priorities(&[(0, 100), (0, 100)]), [0, 0]);
    assert_eq!(priorities(&[(25, 100), (25, 100), (20, 100)]), [37, 35, 28]);
}

#[test]
fn a_priority_is_called_as_a_whole_only_if_all_together_cannot_take_everything() {
    let panicking = |list: &[(u64, u64)]| shares(&health(list), None, 50).1;

    assert_eq!(panicking(&[(0, 10), (10, 10)]), [false, false]);
    assert_eq!(panicking(&[(4, 10), (4, 10)]), [false, false], "together they take everything");
    assert_eq!(panicking(&[(3, 10), (0, 10)]), [true, true]);
    assert_eq!(panicking(&[(5, 10), (0, 10)]), [false, true]);
    assert_eq!(shares(&health(&[(1, 10), (0, 30)]), None, 50).0, [10, 30], "by their numbers of endpoints");
    assert_eq!(shares(&health(&[(1, 10), (0, 30)]), None, 0), (vec![100, 0], vec![false, false]));
}

#[test]
fn a_weight_shrinks_with_its_health() {
    let weighted = |list: &[(u64, u64)], weights: &[u32], least| shares(&health(list), Some(weights), least);

    assert_eq!(weighted(&[(10, 10), (10, 10)], &[80, 20], 0).0, [8_000, 2_000]);
    assert_eq!(weighted(&[(5, 10), (10, 10)], &[80, 20], 0).0, [5_600, 2_000]);
    assert_eq!(weighted(&[(0, 10), (10, 10)], &[80, 20], 0).0, [0, 2_000]);
    assert_eq!(weighted(&[(0, 10), (1, 10)], &[80, 20], 50), (vec![8_000, 2_000], vec![true, true]));
}

/// Envoy's `LoadBalancerBase` step by step: health, panic, load.
fn naive(groups: &[Health], least: u64) -> (Vec<u32>, Vec<bool>) {
    let healths: Vec<u64> = groups.iter().map(|group| (140 * group.healthy / group.all).min(100)).collect();
    let normalized = healths.iter().sum::<u64>().min(100);
    let panics: Vec<bool> = groups
        .iter()
        .map(|group| {
            let percent = 100.0 * group.healthy as f64 / group.all as f64;
            normalized != 100 && percent < least as f64
        })
        .collect();
    let mut loads = vec![0_u64; groups.len()];
    if panics.iter().all(|panic| *panic) {
        return (groups.iter().map(|group| group.all as u32).collect(), panics);
    }
    let mut total_load = 100;
    for (load, health) in loads.iter_mut().zip(&healths) {
        *load = (health * 100).checked_div(normalized).unwrap_or(0).min(total_load);
        total_load -= *load;
    }
    if let Some(first) = healths.iter().position(|health| *health > 0) {
        loads[first] += total_load;
    }
    (loads.into_iter().map(|load| load as u32).collect(), panics)
}

proptest! {
    #[test]
    fn priorities_get_what_envoy_gives_them(
        list in prop::collection::vec((1_u64..40).prop_flat_map(|all| (0..=all, Just(all))), 1..6),
        least in 0_u8..=100,
    ) {
        let groups = health(&list);
        let (found, panicking) = shares(&groups, None, least);
        let (wanted, panics) = naive(&groups, least.into());

        prop_assert_eq!(&panicking, &panics);
        prop_assert_eq!(&found, &wanted);
        let sum: u32 = found.iter().sum();
        if !panicking.iter().all(|panics| *panics) {
            prop_assert_eq!(sum, if groups.iter().all(|group| group.healthy == 0) { 0 } else { 100 });
        }
        // Nothing is sent where nobody may be called.
        for ((share, group), panics) in found.iter().zip(&groups).zip(&panicking) {
            prop_assert!(*share == 0 || group.healthy > 0 || *panics);
        }
    }

    #[test]
    fn a_draw_has_the_share_of_its_group(weights in prop::collection::vec(1_u32..=100, 1..5), seed in any::<u64>()) {
        let loads = Loads::of(weights.iter().map(|_| 3), Some(weights.clone().into()));
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut counts = vec![0_f64; weights.len()];
        for _ in 0..4_000 {
            counts[loads.draw(false, None, &mut rng).unwrap()] += 1.0;
        }
        let mut by_key = vec![0_f64; weights.len()];
        for key in 0..4_000_u64 {
            let key = xxhash_rust::xxh3::xxh3_64(&key.to_le_bytes());
            by_key[loads.draw(false, Some(key), &mut rng).unwrap()] += 1.0;
        }
        let sum: u32 = weights.iter().sum();
        for counts in [counts, by_key] {
            let chi: f64 = counts.iter().zip(&weights).map(|(count, weight)| {
                let expected = 4_000.0 * f64::from(*weight) / f64::from(sum);
                (count - expected).powi(2) / expected
            }).sum();
            // At most three degrees of freedom: above 30 once in a million draws.
            prop_assert!(chi < 35.0, "{chi}: {counts:?} for {weights:?}");
        }
    }
}
