//! Header fields that few messages have.
//!
//! A look-up in a header map costs a hash of the name and a walk. Every request would pay for a dozen look-ups that
//! find nothing. Where there are few, it is cheaper to go through the names that are there: nearly all differ from the sought
//! name in their first word.

use http::{HeaderMap, HeaderName, HeaderValue};

/// Up to so many names are gone through: 13 instructions each, where a look-up takes about 105.
const FEW: usize = 8;

/// The first value of the field called `name`, if `headers` have it.
pub fn get_rare<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a HeaderValue> {
    if headers.keys_len() > FEW {
        return headers.get(name);
    }
    headers.iter().find(|(present, _)| *present == name).map(|(_, value)| value)
}

/// Takes the field called `name` away, with all its values. Returns the first.
pub fn remove_rare(headers: &mut HeaderMap, name: &HeaderName) -> Option<HeaderValue> {
    if get_rare(headers, name).is_some() { headers.remove(name) } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAME: HeaderName = HeaderName::from_static("x-rare");

    #[test]
    fn what_is_not_there_is_not_found_and_what_is_there_goes_whole() {
        for others in [1, FEW, FEW + 1] {
            let mut headers = HeaderMap::new();
            for other in 0..others {
                let name = HeaderName::from_bytes(format!("x-other-{other}").as_bytes()).unwrap();
                headers.insert(name, HeaderValue::from_static("0"));
            }
            assert_eq!(get_rare(&headers, &NAME), None);
            assert_eq!(remove_rare(&mut headers, &NAME), None);

            headers.append(NAME, HeaderValue::from_static("1"));
            headers.append(NAME, HeaderValue::from_static("2"));

            assert_eq!(get_rare(&headers, &NAME).unwrap(), "1");
            assert_eq!(remove_rare(&mut headers, &NAME).unwrap(), "1");
            assert_eq!(headers.len(), others);
        }
    }
}
