//! The workload that a certificate was issued to: a private extension beside its SPIFFE ID.
//!
//! A SPIFFE ID names a service account, which many workloads share, and a certificate has exactly one such URI
//! (SPIFFE X.509-SVID, section 2). What a token for one workload promises would end there; so the CA writes the
//! workload into each certificate, and the control plane gives that workload's configuration, and the next
//! certificate, to nobody else. The extension is not critical: others read over it.

use std::fmt;

use rcgen::CustomExtension;
use selvedge_model::WorkloadName;
use serde::Serialize;
use x509_parser::{
    asn1_rs::{FromDer as _, Utf8String},
    certificate::X509Certificate,
    oid_registry::Oid,
};

/// Below 2.25, where anybody may take a number at random (ITU-T X.667).
const ARCS: &[u64] = &[2, 25, 5_902_415_967_043_210_177, 1];

/// The workload that a certificate was issued to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Workload {
    /// Which.
    pub name: WorkloadName,
    /// How the CA came to know.
    pub basis: Basis,
}

/// How the CA came to know which workload it issued a certificate to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Basis {
    /// The token was for this workload alone, or for its pod.
    Proven,
    /// The token was for every workload of the service account, and its bearer said which one it is.
    Claimed,
}

impl Basis {
    fn word(self) -> &'static str {
        match self {
            Self::Proven => "proven",
            Self::Claimed => "claimed",
        }
    }
}

impl fmt::Display for Workload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.name, self.basis.word())
    }
}

/// The extension is there, and cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Unreadable;

/// The extension that says so: a UTF8String, `proven NAMESPACE/NAME` or `claimed NAMESPACE/NAME`.
pub(crate) fn extension(workload: &Workload) -> CustomExtension {
    let text = format!("{} {}", workload.basis.word(), workload.name);
    let mut der = vec![0x0c];
    der.extend(length(text.len()));
    der.extend(text.into_bytes());
    CustomExtension::from_oid_content(ARCS, der)
}

/// In DER: short where it can be. A name has at most 507 bytes, so two bytes are enough.
fn length(length: usize) -> Vec<u8> {
    let [.., high, low] = length.to_be_bytes();
    match length {
        0..=0x7f => vec![low],
        0x80..=0xff => vec![0x81, low],
        _ => vec![0x82, high, low],
    }
}

/// What `certificate` says.
pub(crate) fn of(certificate: &X509Certificate<'_>) -> Result<Option<Workload>, Unreadable> {
    let ours = Oid::from(ARCS).map_err(|_| Unreadable)?;
    // An error where there are two of them.
    let Some(extension) = certificate.get_extension_unique(&ours).map_err(|_| Unreadable)? else {
        return Ok(None);
    };
    let (rest, text) = Utf8String::from_der(extension.value).map_err(|_| Unreadable)?;
    let (word, name) = text.as_ref().split_once(' ').filter(|_| rest.is_empty()).ok_or(Unreadable)?;
    let basis = [Basis::Proven, Basis::Claimed].into_iter().find(|basis| basis.word() == word);
    let (basis, name) = (basis.ok_or(Unreadable)?, name.parse().map_err(|_| Unreadable)?);
    Ok(Some(Workload { name, basis }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        facts::{Facts, NoIdentity},
        forge::{Forger, identity},
    };

    fn read(extensions: Vec<CustomExtension>) -> Facts {
        let leaf =
            Forger::new().leaf_with(&identity("reviews"), |params| params.custom_extensions = extensions);
        Facts::parse(&leaf.chain[0]).unwrap()
    }

    #[test]
    fn a_workload_is_read_as_it_was_written_whatever_the_length_of_its_name() {
        for name in
            ["shop/a".to_owned(), format!("shop/{}", "a".repeat(150)), format!("{0}/{0}", "a".repeat(253))]
        {
            for basis in [Basis::Proven, Basis::Claimed] {
                let workload = Workload { name: name.parse().unwrap(), basis };
                assert_eq!(read(vec![extension(&workload)]).workload, Some(workload));
            }
        }
        assert_eq!(read(Vec::new()).workload, None);
    }

    #[test]
    fn what_says_it_twice_or_illegibly_is_nobodys() {
        let workload = Workload { name: "shop/a".parse().unwrap(), basis: Basis::Proven };
        let garbled = |text: &str| {
            let der = [0x0c].into_iter().chain(length(text.len())).chain(text.bytes()).collect();
            CustomExtension::from_oid_content(ARCS, der)
        };

        for extensions in [
            vec![extension(&workload), extension(&workload)],
            vec![garbled("proven shop")],
            vec![garbled("surely shop/a")],
            vec![garbled("shop/a")],
            vec![CustomExtension::from_oid_content(ARCS, vec![5, 0])],
        ] {
            assert_eq!(read(extensions).identity(), Err(NoIdentity::Workload));
        }
    }
}
