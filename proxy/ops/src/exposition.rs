//! The two formats of `/metrics`: OpenMetrics, in which the metrics are written, and Prometheus' text format for
//! scrapers that do not ask for OpenMetrics.
//!
//! They differ in the names of families and in two types. A scraper that gets the other format refuses all of it
//! (`promtool check metrics`: "unknown metric type").

use std::fmt::Write as _;

use axum::http::{HeaderMap, header};

/// A format of metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Version 0.0.4 of Prometheus' own.
    Prometheus,
    /// Version 1.0.0 of OpenMetrics.
    OpenMetrics,
}

impl Format {
    /// The format for a request with these `headers`: OpenMetrics if the request names it and does not prefer the
    /// other.
    pub fn asked_for(headers: &HeaderMap) -> Self {
        let (mut open, mut plain) = (0.0, 0.0);
        let accepted = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
        for range in accepted.flat_map(|value| value.split(',')) {
            let (kind, weight) = media_range(range);
            match &*kind {
                "application/openmetrics-text" => open = f32::max(open, weight),
                "text/plain" => plain = f32::max(plain, weight),
                _ => {}
            }
        }
        if open > 0.0 && open >= plain { Self::OpenMetrics } else { Self::Prometheus }
    }

    /// Its `content-type`.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }

    /// `openmetrics` in this format.
    pub fn of(self, openmetrics: String) -> String {
        match self {
            Self::Prometheus => prometheus(&openmetrics),
            Self::OpenMetrics => openmetrics,
        }
    }
}

/// Whether an answer to a request with these `headers` may be compressed with gzip, as Prometheus asks for.
pub(crate) fn takes_gzip(headers: &HeaderMap) -> bool {
    let (mut gzip, mut plain) = (0.0, 0.0);
    let accepted = headers.get_all(header::ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
    for coding in accepted.flat_map(|value| value.split(',')) {
        let (name, weight) = media_range(coding);
        match &*name {
            "gzip" | "x-gzip" => gzip = f32::max(gzip, weight),
            "identity" => plain = f32::max(plain, weight),
            _ => {}
        }
    }
    gzip > 0.0 && gzip >= plain
}

/// A media type or a coding in lower case, and its weight (RFC 9110, section 12.5.1).
fn media_range(range: &str) -> (String, f32) {
    let mut parts = range.split(';').map(str::trim);
    let kind = parts.next().unwrap_or_default().to_ascii_lowercase();
    let weight = parts.find_map(|part| part.strip_prefix("q=").or_else(|| part.strip_prefix("Q=")));
    (kind, weight.map_or(1.0, |weight| weight.parse().unwrap_or(0.0)))
}

/// The families of an OpenMetrics text as version 0.0.4 writes them: under the name of their samples.
fn prometheus(openmetrics: &str) -> String {
    let mut text = String::with_capacity(openmetrics.len());
    let mut help = None;
    for line in openmetrics.lines() {
        if let Some(told) = line.strip_prefix("# HELP ") {
            help = told.split_once(' ');
        } else if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|told| told.split_once(' '))
        {
            let (suffix, kind) = match kind {
                "counter" => ("_total", "counter"),
                "info" => ("_info", "gauge"),
                "stateset" => ("", "gauge"),
                "unknown" | "gaugehistogram" => ("", "untyped"),
                same => ("", same),
            };
            if let Some((_, words)) = help.take().filter(|(helped, _)| *helped == name) {
                let _ = writeln!(text, "# HELP {name}{suffix} {words}");
            }
            let _ = writeln!(text, "# TYPE {name}{suffix} {kind}");
        } else if !line.starts_with('#') {
            text.push_str(without_exemplar(line));
            text.push('\n');
        }
    }
    text
}

/// A sample without its exemplar, which only OpenMetrics has. Labels may have anything in them, in quotes.
fn without_exemplar(line: &str) -> &str {
    let (mut quoted, mut escaped) = (false, false);
    let mark = line.bytes().position(|byte| {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = quoted,
            b'"' => quoted = !quoted,
            b'#' if !quoted => return true,
            _ => {}
        }
        false
    });
    mark.map_or(line, |mark| line[..mark].trim_end())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(accept: &str) -> Format {
        let mut headers = HeaderMap::new();
        headers.insert(header::ACCEPT, accept.parse().unwrap());
        Format::asked_for(&headers)
    }

    #[test]
    fn openmetrics_is_for_those_who_ask_for_it() {
        let prometheus = "application/openmetrics-text;version=1.0.0;q=0.5,\
                          application/openmetrics-text;version=0.0.1;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2";
        assert_eq!(asked(prometheus), Format::OpenMetrics);
        for accept in ["*/*", "text/plain;version=0.0.4", "application/openmetrics-text;q=0", "text/html"] {
            assert_eq!(asked(accept), Format::Prometheus, "{accept}");
        }
        assert_eq!(asked("application/openmetrics-text;q=0.1, text/plain"), Format::Prometheus);
        assert_eq!(asked("Application/OpenMetrics-Text"), Format::OpenMetrics);
        assert_eq!(Format::asked_for(&HeaderMap::new()), Format::Prometheus);
    }

    #[test]
    fn an_answer_is_compressed_for_those_who_say_that_they_read_that() {
        let takes = |accept: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT_ENCODING, accept.parse().unwrap());
            takes_gzip(&headers)
        };
        for accept in ["gzip", "deflate, GZIP;q=0.5", "identity;q=0.5, gzip", "x-gzip"] {
            assert!(takes(accept), "{accept}");
        }
        for accept in ["", "*", "br", "gzip;q=0", "gzip;q=0.1, identity", "gzipped"] {
            assert!(!takes(accept), "{accept}");
        }
        assert!(!takes_gzip(&HeaderMap::new()));
    }

    #[test]
    fn exemplars_are_left_out_of_the_older_format() {
        let openmetrics = concat!(
            "# TYPE a_seconds histogram\n",
            r##"a_seconds_bucket{b="# {\"c\" #",le="1.0"} 3 # {trace_id="0a"} 0.5 1700000000.000"##,
            "\na_seconds_count 3\n# EOF\n"
        );
        assert_eq!(
            Format::Prometheus.of(openmetrics.to_owned()),
            concat!(
                "# TYPE a_seconds histogram\n",
                r##"a_seconds_bucket{b="# {\"c\" #",le="1.0"} 3"##,
                "\na_seconds_count 3\n"
            )
        );
        assert_eq!(Format::OpenMetrics.of(openmetrics.to_owned()), openmetrics);
    }

    #[test]
    fn families_have_the_names_of_their_samples() {
        let openmetrics = "# HELP a_requests Requests.\n# TYPE a_requests counter\na_requests_total 1\n\
                           # HELP a_build Which.\n# TYPE a_build info\na_build_info{v=\"# EOF\"} 1\n\
                           # HELP a_seconds Time.\n# TYPE a_seconds histogram\n# UNIT a_seconds seconds\n\
                           a_seconds_count 0\n# EOF\n";

        assert_eq!(
            Format::Prometheus.of(openmetrics.to_owned()),
            "# HELP a_requests_total Requests.\n# TYPE a_requests_total counter\na_requests_total 1\n\
             # HELP a_build_info Which.\n# TYPE a_build_info gauge\na_build_info{v=\"# EOF\"} 1\n\
             # HELP a_seconds Time.\n# TYPE a_seconds histogram\na_seconds_count 0\n"
        );
    }
}
