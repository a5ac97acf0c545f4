//! Mistyped words: the nearest of those that are known.

/// The known word with the fewest letters to change, add or drop; the first of equals. `None` where none is near
/// enough to be what was meant: more than a third of it, and more than two letters, would have to change.
pub fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let word = word.get(..64).unwrap_or(word);
    let far = known.into_iter().map(|one| (distance(word, one), one));
    let (least, found) = far.min_by_key(|(far, _)| *far)?;
    (least <= 2.max(word.len() / 3)).then_some(found)
}

/// Levenshtein's distance, by letters.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let changed = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = changed.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_near_is_found_and_what_is_far_is_not() {
        let known = ["balanced", "fast", "cheap", "green"];
        assert_eq!(nearest("balancd", known), Some("balanced"));
        assert_eq!(nearest("gren", known), Some("green"));
        assert_eq!(nearest("zome", ["zone", "arch"]), Some("zone"));
        assert_eq!(nearest("quickest", known), None);
        assert_eq!(nearest("fast", []), None);
    }
}
