//! Text from others, made safe to show on a terminal, in a log or in an Event.
//!
//! A peer's version, a workload's name or a refusal may contain any character. A line break would forge a line of the
//! log, an escape sequence would control the terminal, and a bidirectional override would make text look like other
//! text (CVE-2021-42574). All of these are escaped, as `\n` or `\u{202e}`.

use std::borrow::Cow;

/// `text` with every character escaped that a terminal would not simply show. Borrowed if there is none.
pub fn plain(text: &str) -> Cow<'_, str> {
    if !text.chars().any(is_hidden) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        match c {
            '\n' | '\r' | '\t' => shown.extend(c.escape_default()),
            c if is_hidden(c) => shown.extend(c.escape_unicode()),
            c => shown.push(c),
        }
    }
    Cow::Owned(shown)
}

/// The same, of at most `bytes` bytes of `text`; what was cut off is marked by `…`.
pub fn plain_within(text: &str, bytes: usize) -> String {
    if text.len() <= bytes {
        return plain(text).into_owned();
    }
    let end = text.floor_char_boundary(bytes);
    format!("{}…", plain(&text[..end]))
}

/// Whether a character does something instead of being seen: controls, bidi controls, what separates lines, and
/// what has no width.
pub fn is_hidden(c: char) -> bool {
    c.is_control()
        || matches!(
            c,
            '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}'
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_act_instead_of_being_seen_is_written_out() {
        for (said, shown) in [
            ("0.1.0", "0.1.0"),
            ("größer → ok", "größer → ok"),
            ("a\nERROR forged", "a\\nERROR forged"),
            ("\u{1b}[2J", "\\u{1b}[2J"),
            ("\u{9b}31m", "\\u{9b}31m"),
            ("a\u{202e}b\u{2066}", "a\\u{202e}b\\u{2066}"),
            ("a\u{2028}b", "a\\u{2028}b"),
            ("\u{7f}", "\\u{7f}"),
        ] {
            assert_eq!(plain(said), shown);
        }
        assert!(matches!(plain("0.1.0"), Cow::Borrowed(_)));
    }

    #[test]
    fn what_is_too_long_is_cut_between_characters() {
        assert_eq!(plain_within("äää", 3), "ä…");
        assert_eq!(plain_within("abc", 3), "abc");
    }
}
