//! Header fields that few messages have.
//!
//! A look-up in a header map costs a hash of the name and a walk. Every request would pay for a dozen look-ups that
//! find nothing. It is cheaper to go through the names that are there: nearly all differ from the sought name in their
//! first word.

use http::{HeaderMap, HeaderName, HeaderValue};

/// The first value of the field called `name`, if `headers` have it.
pub fn get_rare<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a HeaderValue> {
    headers.iter().find(|(present, _)| *present == name).map(|(_, value)| value)
}

/// Takes the field called `name` away, with all its values. Returns the first.
pub fn remove_rare(headers: &mut HeaderMap, name: &HeaderName) -> Option<HeaderValue> {
    if headers.keys().any(|present| present == name) { headers.remove(name) } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAME: HeaderName = HeaderName::from_static("x-rare");

    #[test]
    fn what_is_not_there_is_not_found_and_what_is_there_goes_whole() {
        let mut headers = HeaderMap::new();
        headers.insert("x-other", HeaderValue::from_static("0"));
        assert_eq!(get_rare(&headers, &NAME), None);
        assert_eq!(remove_rare(&mut headers, &NAME), None);

        headers.append(NAME, HeaderValue::from_static("1"));
        headers.append(NAME, HeaderValue::from_static("2"));

        assert_eq!(get_rare(&headers, &NAME).unwrap(), "1");
        assert_eq!(remove_rare(&mut headers, &NAME).unwrap(), "1");
        assert_eq!(headers.len(), 1);
    }
}
