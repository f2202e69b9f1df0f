//! Versions, as far as what can be done depends on them.

use std::fmt;

/// Major and minor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version(pub u32, pub u32);

impl Version {
    /// The oldest Kubernetes that takes init containers which stay beside the others (`restartPolicy: Always`)
    /// without being told to. Older ones forget what makes them stay, or refuse them.
    pub const SIDECARS: Self = Self(1, 29);

    /// Reads `v1.33.1`, `1.33`, `v1.29.0-eks-1` and the like.
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.trim_start_matches('v').split('.');
        let mut number = || -> Option<u32> {
            let digits: String = parts.next()?.chars().take_while(char::is_ascii_digit).collect();
            digits.parse().ok()
        };
        Some(Self(number()?, number()?))
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.0, self.1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_distributions_add_is_read_over() {
        for (text, version) in [
            ("v1.33.1", Some(Version(1, 33))),
            ("v1.29.0-eks-a5565ad", Some(Version(1, 29))),
            ("v1.30.2+k3s1", Some(Version(1, 30))),
            ("1.28+", Some(Version(1, 28))),
            ("2", None),
            ("dev", None),
            ("", None),
        ] {
            assert_eq!(Version::parse(text), version, "{text}");
        }
        assert!(Version(1, 9) < Version::SIDECARS && Version(2, 0) > Version::SIDECARS);
    }
}
