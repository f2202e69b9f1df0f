//! Finds loops that no address shows: a request that comes back through another proxy, or through something that passes
//! bytes on.
//!
//! A request that goes out in plaintext and may come back carries the random names of the proxies that it came through;
//! a proxy recognises its own. A request may come back if it goes to this host, or did not come from it. What an app on
//! this host sends to another host goes out without the mark, and gets it when it is here for the second time. Requests
//! between sidecars have no mark, because a request that arrives at one goes to the app. Where connections are
//! redirected there is none either, because what was not redirected is refused there.

use http::{HeaderMap, HeaderValue};
use selvedge_ops::guarded::HOPS;

use crate::{
    error::{Failure, Reason},
    fields::remove_rare,
};

/// The most proxies that a request may come through.
const MOST: usize = 8;

/// The digits of a name.
const DIGITS: usize = 8;

/// This proxy's own name among the hops.
#[derive(Debug, Clone)]
pub struct Instance {
    name: String,
    /// The same, as the only hop of a request.
    alone: HeaderValue,
}

impl Instance {
    /// A random name, which nobody can guess.
    pub fn random() -> Self {
        let name = format!("{:0DIGITS$x}", fastrand::u32(..));
        let alone = HeaderValue::from_str(&name).expect("digits");
        Self { name, alone }
    }

    /// Puts this proxy among the hops of a request that may come back.
    ///
    /// # Errors
    /// [`Reason::Loop`] if it has come back, or came through too many others.
    pub(super) fn mark(&self, headers: &mut HeaderMap) -> Result<(), Failure> {
        // Looked up once: nearly always there is none.
        let Some(before) = headers.insert(HOPS, self.alone.clone()) else { return Ok(()) };
        // What is not written as we write it, a client made up.
        let before: Vec<&str> = hops(&before).unwrap_or_default();
        if before.contains(&self.name.as_str()) {
            return Err(Failure::new(Reason::Loop, "the request has come back to the proxy that sent it"));
        }
        if before.len() >= MOST {
            let what = format!("the request has passed through {MOST} proxies and reached no app");
            return Err(Failure::new(Reason::Loop, what));
        }
        let hops = before.into_iter().chain([self.name.as_str()]).collect::<Vec<_>>().join(",");
        headers.insert(HOPS, HeaderValue::try_from(hops).expect("digits and commas"));
        Ok(())
    }

    /// Takes this proxy from the hops of a request that was not sent.
    pub(super) fn unmark(&self, headers: &mut HeaderMap) {
        let Some(hops) = remove_rare(headers, &HOPS) else { return };
        let before = hops.to_str().ok().and_then(|hops| hops.strip_suffix(&self.name)?.strip_suffix(','));
        if let Some(before) = before.and_then(|before| HeaderValue::from_str(before).ok()) {
            headers.insert(HOPS, before);
        }
    }
}

/// Takes the hops away from a request that cannot come back.
pub(super) fn forget(headers: &mut HeaderMap) {
    remove_rare(headers, &HOPS);
}

fn hops(value: &HeaderValue) -> Option<Vec<&str>> {
    let hops: Vec<&str> = value.to_str().ok()?.split(',').collect();
    let is_name = |hop: &&str| hop.len() == DIGITS && hop.bytes().all(|digit| digit.is_ascii_hexdigit());
    (hops.len() <= MOST && hops.iter().all(is_name)).then_some(hops)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_back_is_known() {
        let (one, other) = (Instance::random(), Instance::random());
        let mut headers = HeaderMap::new();

        one.mark(&mut headers).unwrap();
        other.mark(&mut headers).unwrap();

        assert_eq!(headers[HOPS], format!("{},{}", one.name, other.name));
        assert_eq!(one.mark(&mut headers.clone()).unwrap_err().reason, Reason::Loop);
        assert_eq!(other.mark(&mut headers).unwrap_err().reason, Reason::Loop);
    }

    #[test]
    fn what_was_not_sent_has_not_come_back() {
        let (one, other) = (Instance::random(), Instance::random());
        let mut headers = HeaderMap::new();

        for before in [&other, &one] {
            for _ in 0..3 {
                let was = headers.get(HOPS).cloned();
                before.mark(&mut headers).unwrap();
                before.unmark(&mut headers);
                assert_eq!(headers.get(HOPS), was.as_ref());
            }
            before.mark(&mut headers).unwrap();
        }
    }

    #[test]
    fn there_are_so_many_hops_and_no_more() {
        let mut headers = HeaderMap::new();
        for _ in 0..MOST {
            Instance::random().mark(&mut headers).unwrap();
        }

        assert_eq!(Instance::random().mark(&mut headers).unwrap_err().reason, Reason::Loop);
    }

    #[test]
    fn what_a_client_makes_up_is_replaced() {
        for made_up in ["nonsense", "", "12345678,", "1234567g", "x,y", &"12345678,".repeat(2000)] {
            let mut headers = HeaderMap::new();
            headers.append(HOPS, HeaderValue::try_from(made_up).unwrap());
            headers.append(HOPS, HeaderValue::from_static("a second one"));
            let instance = Instance::random();

            instance.mark(&mut headers).unwrap();

            assert_eq!(headers.get_all(HOPS).iter().collect::<Vec<_>>(), [&instance.name], "{made_up}");
        }
    }
}
