//! The deny list: which workloads are refused although their certificate is still valid.
//!
//! A certificate cannot be taken back; every peer must refuse it. So the list goes to every proxy. Each proxy checks the
//! peer of every connection against it, in both directions: when the connection begins, and whenever the list changes.

use std::{
    collections::HashMap,
    fmt,
    str::FromStr,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde::{Deserialize, Serialize};

use crate::{SpiffeId, WorkloadName};

/// A certificate's serial number: lower-case hexadecimal digits, without zeros in front.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String")]
pub struct Serial(Box<str>);

/// A text is not a serial number.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{text:?} is not a serial number; expected 1 to 40 hexadecimal digits, with or without colons, as \
     `selvedge certs inspect` and `openssl x509 -serial` print them"
)]
pub struct NotASerial {
    text: String,
}

/// The most digits of a serial number (RFC 5280, section 4.1.2.2: 20 octets).
const MAX_DIGITS: usize = 40;

impl Serial {
    /// That of these bytes, the most significant first.
    pub fn from_bytes(bytes: &[u8]) -> Self {
        let digits: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        Self::of(&digits)
    }

    fn of(digits: &str) -> Self {
        let significant = digits.trim_start_matches('0');
        Self(Box::from(if significant.is_empty() { "0" } else { significant }))
    }
}

impl FromStr for Serial {
    type Err = NotASerial;

    fn from_str(text: &str) -> Result<Self, NotASerial> {
        let digits = text.replace(':', "").to_ascii_lowercase();
        let is_one =
            (1..=MAX_DIGITS).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_hexdigit());
        if is_one { Ok(Self::of(&digits)) } else { Err(NotASerial { text: text.to_owned() }) }
    }
}

impl TryFrom<String> for Serial {
    type Error = NotASerial;

    fn try_from(text: String) -> Result<Self, NotASerial> {
        text.parse()
    }
}

impl fmt::Display for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Whom one entry of the list is about.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Revoked {
    /// Everybody with this identity.
    Identity(SpiffeId),
    /// Whoever has a certificate for this workload.
    Workload(WorkloadName),
    /// Whoever shows the certificate with this serial number.
    Serial {
        /// The number.
        serial: Serial,
        /// The only namespace whose identities it may be for; `None` = any.
        namespace: Option<Arc<str>>,
    },
}

/// One entry of the list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Revocation {
    /// Whom it is about.
    pub revoked: Revoked,
    /// The document that says so, such as `Revocation selvedge/stolen`.
    pub document: Arc<str>,
    /// Why, in the words of whoever wrote the document.
    pub reason: Option<Arc<str>>,
    /// When it ends; `None` = never.
    pub until: Option<SystemTime>,
}

impl Revocation {
    /// Whether it is in force at `now`.
    pub fn holds(&self, now: SystemTime) -> bool {
        self.until.is_none_or(|until| now < until)
    }
}

impl fmt::Display for Revocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.revoked {
            Revoked::Identity(identity) => write!(f, "{identity} is revoked by {}", self.document)?,
            Revoked::Workload(workload) => write!(f, "workload {workload} is revoked by {}", self.document)?,
            Revoked::Serial { serial, .. } => {
                write!(f, "the certificate with serial number {serial} is revoked by {}", self.document)?;
            }
        }
        self.reason.iter().try_for_each(|reason| write!(f, " ({reason})"))
    }
}

/// What is known of somebody who may be on the list.
#[derive(Debug, Clone, Copy)]
pub struct Holder<'a> {
    /// Who it has proven to be, or is expected to prove.
    pub identity: &'a SpiffeId,
    /// The workload that its certificate is for, or that it is expected to be.
    pub workload: Option<&'a WorkloadName>,
    /// The serial number of its certificate.
    pub serial: Option<&'a Serial>,
}

/// The whole list, by what is looked up in it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Revocations {
    list: Vec<Revocation>,
    identities: HashMap<SpiffeId, Vec<usize>>,
    workloads: HashMap<WorkloadName, Vec<usize>>,
    serials: HashMap<Serial, Vec<usize>>,
}

impl Revocations {
    /// The list of these entries.
    pub fn new(list: Vec<Revocation>) -> Self {
        let mut revocations = Self::default();
        for (place, entry) in list.iter().enumerate() {
            match &entry.revoked {
                Revoked::Identity(identity) => {
                    revocations.identities.entry(identity.clone()).or_default().push(place);
                }
                Revoked::Workload(workload) => {
                    revocations.workloads.entry(workload.clone()).or_default().push(place);
                }
                Revoked::Serial { serial, .. } => {
                    revocations.serials.entry(serial.clone()).or_default().push(place);
                }
            }
        }
        Self { list, ..revocations }
    }

    /// Its entries.
    pub fn list(&self) -> &[Revocation] {
        &self.list
    }

    /// Whether nobody is on it.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// The entry that is in force at `now` for this holder, if there is one.
    pub fn find(&self, holder: Holder<'_>, now: SystemTime) -> Option<&Revocation> {
        let by_identity = self.identities.get(holder.identity);
        let by_workload = holder.workload.and_then(|workload| self.workloads.get(workload));
        let by_serial = holder.serial.and_then(|serial| self.serials.get(serial));
        let mut places = [by_identity, by_workload, by_serial].into_iter().flatten().flatten();
        places.find_map(|place| {
            let entry = &self.list[*place];
            let is_meant = match &entry.revoked {
                Revoked::Serial { namespace: Some(namespace), .. } => {
                    **namespace == *holder.identity.namespace()
                }
                _ => true,
            };
            (is_meant && entry.holds(now)).then_some(entry)
        })
    }
}

/// A moment as whole seconds since 1970, rounded up: a revocation ends no sooner than it says.
pub fn seconds(moment: SystemTime) -> u64 {
    let since = moment.duration_since(UNIX_EPOCH).unwrap_or_default();
    since.as_secs() + u64::from(since.subsec_nanos() > 0)
}

/// The moment so many seconds after 1970; `None` if no clock can show it.
pub fn moment(seconds: u64) -> Option<SystemTime> {
    UNIX_EPOCH.checked_add(Duration::from_secs(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::TrustDomain;

    fn identity(namespace: &str, account: &str) -> SpiffeId {
        SpiffeId::new(&TrustDomain::default(), namespace, account).unwrap()
    }

    fn entry(revoked: Revoked) -> Revocation {
        Revocation { revoked, document: Arc::from("Revocation selvedge/a"), reason: None, until: None }
    }

    fn now() -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(1_800_000_000)
    }

    #[test]
    fn a_serial_number_is_the_same_however_it_is_written() {
        let serial = Serial::from_bytes(&[0, 0x4F, 0xA0]);

        for text in ["4FA0", "4f:a0", "004fa0"] {
            assert_eq!(text.parse::<Serial>().unwrap(), serial, "{text}");
        }
        assert_eq!(serial.to_string(), "4fa0");
        for text in ["", ":", "4g", "-1", &"1".repeat(41)] {
            assert!(text.parse::<Serial>().is_err(), "{text}");
        }
    }

    #[test]
    fn each_entry_is_found_by_what_it_names_and_by_nothing_else() {
        let workload: WorkloadName = "shop/reviews-1".parse().unwrap();
        let serial: Serial = "4fa0".parse().unwrap();
        let (reviews, other) = (identity("shop", "reviews"), identity("shop", "other"));
        let list = Revocations::new(vec![
            entry(Revoked::Identity(identity("shop", "thief"))),
            entry(Revoked::Workload(workload.clone())),
            entry(Revoked::Serial { serial: serial.clone(), namespace: None }),
        ]);
        let (thief, elsewhere) = (identity("shop", "thief"), "shop/reviews-2".parse().unwrap());
        let found = |identity, workload, serial| list.find(Holder { identity, workload, serial }, now());

        assert!(found(&thief, None, None).is_some());
        assert!(found(&reviews, Some(&workload), None).is_some());
        assert!(found(&other, None, Some(&serial)).is_some());
        assert!(found(&reviews, Some(&elsewhere), None).is_none());
        assert!(found(&other, None, None).is_none());
    }

    #[test]
    fn a_namespaces_own_entry_reaches_no_other_namespaces_certificate() {
        let serial: Serial = "4fa0".parse().unwrap();
        let list = Revocations::new(vec![entry(Revoked::Serial {
            serial: serial.clone(),
            namespace: Some(Arc::from("shop")),
        })]);
        let found = |identity: &SpiffeId| {
            list.find(Holder { identity, workload: None, serial: Some(&serial) }, now()).is_some()
        };

        assert!(found(&identity("shop", "a")));
        assert!(!found(&identity("bank", "a")));
    }

    #[test]
    fn the_longest_of_several_entries_counts_and_each_ends_in_its_time() {
        let thief = identity("shop", "thief");
        let until = |minutes: u64| {
            let until = Some(now() + Duration::from_secs(60 * minutes));
            Revocation { until, ..entry(Revoked::Identity(thief.clone())) }
        };
        let list = Revocations::new(vec![until(1), until(3)]);
        let holder = Holder { identity: &thief, workload: None, serial: None };

        assert!(list.find(holder, now() + Duration::from_secs(120)).is_some());
        assert!(list.find(holder, now() + Duration::from_secs(180)).is_none());
    }
}
