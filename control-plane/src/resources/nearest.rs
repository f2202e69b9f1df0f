//! What was meant by a word that is not known: the nearest one that is.

/// The one of `known` that `word` most likely was to be; `None`: none is near. It differs by one letter in three at most,
/// and by three letters at most.
pub(super) fn nearest<'k>(word: &str, known: impl IntoIterator<Item = &'k str>) -> Option<&'k str> {
    let word = word.to_ascii_lowercase();
    let most = (word.chars().count() / 3).min(3);
    let near = known.into_iter().filter_map(|candidate| {
        let distance = distance(&word, &candidate.to_ascii_lowercase());
        (distance <= most).then_some((distance, candidate))
    });
    near.min().map(|(_, candidate)| candidate)
}

/// How many letters must be added, taken away, changed or swapped with the next one to make `one` of `other`.
fn distance(one: &str, other: &str) -> usize {
    let (one, other): (Vec<char>, Vec<char>) = (one.chars().collect(), other.chars().collect());
    let mut rows = vec![(0..=other.len()).collect::<Vec<usize>>()];
    for (row, letter) in one.iter().enumerate() {
        let above = &rows[row];
        let mut here = vec![row + 1];
        for (column, wanted) in other.iter().enumerate() {
            let changed = above[column] + usize::from(letter != wanted);
            let mut least = changed.min(above[column + 1] + 1).min(here[column] + 1);
            if row > 0 && column > 0 && *letter == other[column - 1] && one[row - 1] == *wanted {
                least = least.min(rows[row - 1][column - 1] + 1);
            }
            here.push(least);
        }
        rows.push(here);
    }
    rows[one.len()][other.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_word_is_meant_and_a_far_one_is_not() {
        let known = ["principals", "namespaces", "notPrincipals", "ports", "paths"];

        for (word, meant) in [
            ("principal", Some("principals")),
            ("Principals", Some("principals")),
            ("prinicpals", Some("principals")),
            ("namespace", Some("namespaces")),
            ("path", Some("paths")),
            ("port", Some("ports")),
            ("users", None),
            ("", None),
        ] {
            assert_eq!(nearest(word, known), meant, "{word}");
        }
    }
}
