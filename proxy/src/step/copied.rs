//! Copies of requests' heads, which are made of nearly every request and nearly always for nothing.
//!
//! So a copy is text, in memory that a copy before has left. A copy of the map would be three times as many places in memory, and
//! changes a count that is shared with the buffer that the request was read into for each name and value, twice.

use std::ops::Deref;

use http::{Extensions, HeaderMap, HeaderName, HeaderValue, Method, Uri};

use crate::spare::{self, Spare};

/// How much memory for a head's fields is kept for the next one, in bytes.
const KEPT: usize = 4096;

/// How many places for copies a worker keeps.
const PLACES: usize = 64;

thread_local! {
    static LEFT: Spare<Box<Head>> = const { Spare::new(PLACES) };
}

/// A copy of a request's head.
#[derive(Debug, Default)]
pub struct Head {
    /// The method.
    pub method: Method,
    /// What is asked for.
    pub uri: Uri,
    /// What was found out of the request, and is not found out again.
    pub extensions: Extensions,
    /// The names and values of all fields, one after the other.
    text: Vec<u8>,
    fields: Vec<Field>,
}

/// How long a field's name and its value are.
#[derive(Debug, Clone, Copy)]
struct Field {
    name: usize,
    value: usize,
    /// No one may remember it (RFC 7541, section 7.1.3).
    is_sensitive: bool,
}

impl Head {
    /// Takes a copy of `http` instead of what was copied before; its extensions are left to the caller.
    pub fn copy<B>(&mut self, http: &http::Request<B>) {
        let Self { method, uri, extensions, text, fields } = self;
        method.clone_from(http.method());
        uri.clone_from(http.uri());
        extensions.clear();
        text.clear();
        fields.clear();
        // A rush of large heads is not remembered by their memory.
        text.shrink_to(KEPT);
        for (name, value) in http.headers() {
            let (name, bytes) = (name.as_str().as_bytes(), value.as_bytes());
            text.extend_from_slice(name);
            text.extend_from_slice(bytes);
            let is_sensitive = value.is_sensitive();
            fields.push(Field { name: name.len(), value: bytes.len(), is_sensitive });
        }
    }

    /// Adds the fields as they were to `headers`.
    pub fn add_to(&self, headers: &mut HeaderMap) {
        headers.reserve(self.fields.len());
        let mut rest = &*self.text;
        for Field { name, value, is_sensitive } in &self.fields {
            let (name, after) = rest.split_at(*name);
            let (value, after) = after.split_at(*value);
            rest = after;
            // Both were a field's, and so they are one's again.
            if let (Ok(name), Ok(mut value)) = (HeaderName::from_bytes(name), HeaderValue::from_bytes(value))
            {
                value.set_sensitive(*is_sensitive);
                headers.append(name, value);
            }
        }
    }

    /// The request as it was.
    pub(super) fn request(&self) -> http::Request<()> {
        let mut request = http::Request::new(());
        request.method_mut().clone_from(&self.method);
        request.uri_mut().clone_from(&self.uri);
        request.extensions_mut().clone_from(&self.extensions);
        self.add_to(request.headers_mut());
        request
    }
}

/// A copy of a head, whose place is left to another one when it is dropped.
#[derive(Debug)]
pub struct HeadCopy(Option<Box<Head>>);

impl HeadCopy {
    /// A copy of the head of `http`, with its extensions.
    pub fn of<B>(http: &http::Request<B>) -> Self {
        let mut head = LEFT.with(Spare::take).unwrap_or_default();
        head.copy(http);
        if !http.extensions().is_empty() {
            head.extensions.clone_from(http.extensions());
        }
        Self(Some(head))
    }
}

impl Deref for HeadCopy {
    type Target = Head;

    fn deref(&self) -> &Head {
        self.0.as_deref().expect("it is there until it is dropped")
    }
}

impl Drop for HeadCopy {
    fn drop(&mut self) {
        let Some(mut head) = self.0.take() else { return };
        // Parts of the request would keep all of the buffer that it was read into.
        head.uri = Uri::default();
        head.extensions.clear();
        spare::leave(&LEFT, head);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_is_the_head_as_it_was_whatever_was_copied_before() {
        let mut secret = HeaderValue::from_static("secret");
        secret.set_sensitive(true);
        let one = http::Request::put("/a?b")
            .header("x-own", "one")
            .header("authorization", secret)
            .header("x-own", HeaderValue::from_bytes(b"two, \xe9").unwrap())
            .header("x-empty", "")
            .extension(7_u8);
        let one = one.body(()).unwrap();
        let other = http::Request::get("/other").body(()).unwrap();

        for request in [&one, &other, &one] {
            let copy = HeadCopy::of(request);
            let again = copy.request();
            assert_eq!((again.method(), again.uri()), (request.method(), request.uri()));
            assert_eq!(again.headers(), request.headers());
            let is_sensitive = |request: &http::Request<()>| {
                request.headers().values().map(HeaderValue::is_sensitive).collect::<Vec<_>>()
            };
            assert_eq!(is_sensitive(&again), is_sensitive(request));
            assert_eq!(again.extensions().get::<u8>(), request.extensions().get::<u8>());
        }
    }

    #[test]
    fn a_place_that_is_left_holds_nothing_of_its_request() {
        drop(HeadCopy::of(&http::Request::get("/a").extension(7_u8).body(()).unwrap()));

        let left = LEFT.with(Spare::take).expect("it was left");
        assert_eq!((left.uri.path(), left.extensions.is_empty()), ("/", true));
    }
}
