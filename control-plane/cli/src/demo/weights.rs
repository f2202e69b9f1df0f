//! The canary's weights, edited as a person would: in the text, comments kept.

/// The `VirtualService` with other weights, in the order in which they stand.
pub(super) fn edited(text: &str, weights: [u32; 2]) -> String {
    let mut weights = weights.into_iter();
    let mut lines = Vec::new();
    for line in text.lines() {
        match line.split_once("weight:") {
            Some((before, _)) if before.trim().is_empty() => match weights.next() {
                Some(weight) => lines.push(format!("{before}weight: {weight}")),
                None => lines.push(line.to_owned()),
            },
            _ => lines.push(line.to_owned()),
        }
    }
    lines.join("\n") + "\n"
}

/// The file in which they stand.
pub(super) const FILE: &str = "virtualservice.yaml";

#[cfg(test)]
mod tests {
    use selvedge_demo::documents::CANARY;

    use super::*;

    #[test]
    fn only_the_weights_change() {
        let (_, canary) = CANARY.into_iter().find(|(file, _)| *file == FILE).unwrap();

        let text = edited(canary, [50, 50]);

        assert_eq!(text, canary.replace("weight: 90", "weight: 50").replace("weight: 10", "weight: 50"));
        assert_eq!(edited(&text, [90, 10]), canary);
    }
}
