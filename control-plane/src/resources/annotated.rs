//! Settings that annotations of a document hold, where its kind has no field for them.

use std::{ops::RangeInclusive, time::Duration};

use super::{
    document::{Reading, wrong},
    typed::FieldError,
    values::parse_duration,
};

/// The place of an annotation in messages.
pub(super) fn place(name: &str) -> String {
    format!("metadata.annotations[{name}]")
}

/// What the annotation `name` of the document that is read says.
pub(super) fn text<'a>(reading: &Reading<'a>, name: &str) -> Option<&'a str> {
    reading.metadata.annotations.get(name).map(|text| text.trim())
}

/// The same as a whole number in this range.
pub(super) fn number(
    reading: &Reading<'_>,
    name: &str,
    range: RangeInclusive<u32>,
) -> Result<Option<u32>, FieldError> {
    let Some(text) = text(reading, name) else { return Ok(None) };
    let number = text.parse().ok().filter(|number| range.contains(number));
    let (least, most) = (range.start(), range.end());
    let message = || format!("{text:?} is not a whole number that fits; write {least} to {most}, in quotes");
    number.map(Some).ok_or_else(|| wrong(place(name), message()))
}

/// The same as a time in this range, such as 10s.
pub(super) fn duration(
    reading: &Reading<'_>,
    name: &str,
    range: RangeInclusive<Duration>,
) -> Result<Option<Duration>, FieldError> {
    let Some(text) = text(reading, name) else { return Ok(None) };
    let time = parse_duration(text).filter(|time| range.contains(time));
    let (least, most) = (range.start(), range.end());
    let message = || {
        let (least, most) = (humantime::format_duration(*least), humantime::format_duration(*most));
        format!("{text:?} is not a time that fits; write {least} to {most}, for example 10s")
    };
    time.map(Some).ok_or_else(|| wrong(place(name), message()))
}
