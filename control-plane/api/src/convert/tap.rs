//! Live requests that somebody asks to see.

use std::sync::Arc;

use selvedge_model::{
    tap::{LONGEST_TEXT, MOST_FIELDS, MOST_TAPS, Sample, Wanted},
    traffic::Way,
};

use super::{ConvertError, authorization::at_most, invalid, parse};
use crate::wire;

/// A number by which a tap is told.
type TapNumber = u64;

impl From<&(TapNumber, Wanted)> for wire::Tap {
    fn from((number, wanted): &(TapNumber, Wanted)) -> Self {
        let Wanted { way, method, authority, path, reason, client, reveal, .. } = wanted;
        Self {
            tap: *number,
            inbound: way.map(|way| way == Way::Inbound),
            method: method.clone(),
            authority: authority.clone(),
            path: path.clone(),
            status_from: wanted.status_from.map(Into::into),
            status_to: wanted.status_to.map(Into::into),
            reason: reason.clone(),
            slower_ms: wanted.slower_ms,
            client: client.as_ref().map(ToString::to_string),
            headers: wanted.headers,
            reveal: reveal.clone(),
            query: wanted.query,
        }
    }
}

impl TryFrom<wire::Tap> for (TapNumber, Wanted) {
    type Error = ConvertError;

    fn try_from(tap: wire::Tap) -> Result<Self, ConvertError> {
        let status = |status: Option<u32>| {
            at_most("status of a tap", status.unwrap_or_default() as usize, 999)?;
            Ok(status.and_then(|status| u16::try_from(status).ok()))
        };
        let wanted = Wanted {
            way: tap.inbound.map(way),
            method: tap.method,
            authority: tap.authority,
            path: tap.path,
            status_from: status(tap.status_from)?,
            status_to: status(tap.status_to)?,
            reason: tap.reason,
            slower_ms: tap.slower_ms,
            client: tap.client.map(|client| parse("client of a tap", &client)).transpose()?,
            headers: tap.headers,
            reveal: tap.reveal,
            query: tap.query,
        };
        if wanted.is_bounded() {
            Ok((tap.tap, wanted))
        } else {
            Err(invalid("text of a tap", "", &format_args!("it has more than {LONGEST_TEXT} bytes")))
        }
    }
}

fn way(inbound: bool) -> Way {
    if inbound { Way::Inbound } else { Way::Outbound }
}

/// What a proxy is asked to show. What this version does not understand it does not show.
pub fn taps(wanted: wire::Taps) -> Vec<(TapNumber, Wanted)> {
    wanted.list.into_iter().take(MOST_TAPS).filter_map(|tap| tap.try_into().ok()).collect()
}

/// As much of `text` as may be shown.
fn within(text: &str) -> String {
    text[..text.floor_char_boundary(LONGEST_TEXT)].to_owned()
}

impl From<&Sample> for wire::TapSample {
    fn from(sample: &Sample) -> Self {
        let field =
            |(name, value): &(String, String)| wire::TapField { name: within(name), value: within(value) };
        let Sample { at_ms, micros, attempts, .. } = *sample;
        Self {
            at_ms,
            micros,
            attempts,
            inbound: sample.way == Way::Inbound,
            method: within(&sample.method),
            authority: within(&sample.authority),
            path: within(&sample.path),
            query: sample.query.as_deref().map(within),
            status: sample.status.unwrap_or_default().into(),
            grpc_status: sample.grpc_status.map(Into::into),
            reason: sample.reason.as_deref().unwrap_or_default().to_owned(),
            client_address: sample.client_address.clone(),
            client_identity: sample.client_identity.as_ref().map(ToString::to_string),
            route: sample.route.as_deref().map(within),
            endpoint: sample.endpoint.clone(),
            endpoint_workload: sample.endpoint_workload.as_ref().map(ToString::to_string),
            endpoint_identity: sample.endpoint_identity.as_ref().map(ToString::to_string),
            headers: sample.headers.iter().take(MOST_FIELDS).map(field).collect(),
        }
    }
}

impl TryFrom<wire::TapSample> for Sample {
    type Error = ConvertError;

    fn try_from(sample: wire::TapSample) -> Result<Self, ConvertError> {
        at_most("number of a sample's header fields", sample.headers.len(), MOST_FIELDS)?;
        at_most("status of a sample", sample.status as usize, 1023)?;
        let texts =
            [Some(&sample.method), Some(&sample.authority), Some(&sample.path), sample.query.as_ref()];
        let more = [
            sample.route.as_ref(),
            Some(&sample.reason),
            Some(&sample.client_address),
            sample.endpoint.as_ref(),
        ];
        let fields = sample.headers.iter().flat_map(|field| [Some(&field.name), Some(&field.value)]);
        for text in texts.into_iter().chain(more).chain(fields).flatten() {
            at_most("length of a sample's text", text.len(), LONGEST_TEXT)?;
        }
        let identity = |identity: Option<String>| {
            identity.map(|identity| parse("an identity of a sample", &identity)).transpose()
        };
        Ok(Self {
            at_ms: sample.at_ms,
            way: way(sample.inbound),
            method: sample.method,
            authority: sample.authority,
            path: sample.path,
            query: sample.query,
            status: u16::try_from(sample.status).ok().filter(|status| *status > 0),
            grpc_status: sample.grpc_status.and_then(|status| u8::try_from(status).ok()),
            reason: (!sample.reason.is_empty()).then(|| Arc::from(sample.reason)),
            micros: sample.micros,
            client_address: sample.client_address,
            client_identity: identity(sample.client_identity)?,
            route: sample.route,
            endpoint: sample.endpoint,
            endpoint_workload: sample
                .endpoint_workload
                .map(|name| parse("a workload of a sample", &name))
                .transpose()?,
            endpoint_identity: identity(sample.endpoint_identity)?,
            attempts: sample.attempts,
            headers: sample.headers.into_iter().map(|field| (field.name, field.value)).collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Sample {
        let text = |text: &str| Some(text.to_owned());
        Sample {
            at_ms: 1_800_000_000_123,
            way: Way::Outbound,
            method: "GET".to_owned(),
            authority: "reviews:9080".to_owned(),
            path: "/a".to_owned(),
            query: text("b=c"),
            status: Some(503),
            grpc_status: Some(14),
            reason: Some("no-endpoint".into()),
            micros: 1234,
            client_address: "127.0.0.1:5000".to_owned(),
            client_identity: None,
            route: text("a route"),
            endpoint: text("10.0.0.1:9080"),
            endpoint_workload: Some("shop/reviews-1".parse().unwrap()),
            endpoint_identity: Some("spiffe://td/ns/shop/sa/reviews".parse().unwrap()),
            attempts: 2,
            headers: vec![("a".to_owned(), "b".to_owned())],
        }
    }

    #[test]
    fn a_sample_is_read_as_it_was_written_and_what_is_too_long_is_cut_or_refused() {
        let sent = sample();
        assert_eq!(Sample::try_from(wire::TapSample::from(&sent)).unwrap(), sent);

        let long = Sample { path: "é".repeat(LONGEST_TEXT), ..sample() };
        let mut message = wire::TapSample::from(&long);
        assert_eq!(Sample::try_from(message.clone()).unwrap().path.len(), LONGEST_TEXT);
        message.path.push('x');
        assert!(Sample::try_from(message).is_err());
    }

    #[test]
    fn a_tap_is_read_as_it_was_written_and_one_that_is_not_understood_is_left_out() {
        let wanted = Wanted {
            way: Some(Way::Inbound),
            method: Some("GET".to_owned()),
            status_from: Some(500),
            slower_ms: Some(10),
            client: Some("spiffe://td/ns/shop/sa/reviews".parse().unwrap()),
            headers: true,
            reveal: Some("a,b".to_owned()),
            ..Wanted::default()
        };
        let list = vec![
            wire::Tap::from(&(7, wanted.clone())),
            wire::Tap { client: Some("x".into()), ..wire::Tap::default() },
        ];

        assert_eq!(taps(wire::Taps { list, often: false }), [(7, wanted)]);
    }
}
