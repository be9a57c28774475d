//! Hiding push tokens in input that may be no message: what stands in quarantine is read by people.

/// Fields whose values open a device: of targets, and of Web Push subscriptions (W3C Push API).
const SECRET: [&str; 4] = ["token", "endpoint", "p256dh", "auth"];

/// The text with the values of token fields cut to their last four characters, of whatever shape it is
/// otherwise: whole JSON, broken JSON, or JSON inside a string of JSON.
#[must_use]
pub fn hide_tokens(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, value, after)) = next_secret(rest) {
        shown.push_str(before);
        let skip = value.chars().count().saturating_sub(4).max(1);
        shown.push('…');
        shown.extend(value.chars().skip(skip));
        rest = after;
    }
    shown.push_str(rest);
    shown
}

/// What stands before the value of the next token field, the value, and what follows it.
fn next_secret(text: &str) -> Option<(&str, &str, &str)> {
    let mut from = 0;
    loop {
        let at = from + text.get(from..)?.find('"')?;
        from = at + 1;
        let Some((start, depth)) = SECRET.iter().find_map(|name| value_of(text, from, name)) else {
            continue;
        };
        let value = text.get(start..)?;
        // A value that is cut off is a secret all the same.
        let len = closing(value, depth).unwrap_or(value.len());
        return Some((text.get(..start)?, value.get(..len)?, value.get(len..)?));
    }
}

/// Where the text value of the field `name` begins, whose name begins at `at`; and before how many
/// backslashes its quotes stand.
fn value_of(text: &str, at: usize, name: &str) -> Option<(usize, usize)> {
    let rest = quote(text.get(at..)?.strip_prefix(name)?)?.0.trim_start();
    let (value, depth) = quote(rest.strip_prefix(':')?.trim_start())?;
    Some((text.len() - value.len(), depth))
}

/// What follows a quote with its backslashes, and how many those are.
fn quote(text: &str) -> Option<(&str, usize)> {
    let rest = text.trim_start_matches('\\');
    Some((rest.strip_prefix('"')?, text.len() - rest.len()))
}

/// Where a value ends: at a quote behind no more backslashes than its first quote had.
fn closing(value: &str, depth: usize) -> Option<usize> {
    value.match_indices('"').find_map(|(at, _)| {
        let before = value.get(..at)?;
        let slashes = before.len() - before.trim_end_matches('\\').len();
        (slashes <= depth).then(|| at - slashes)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_cut_whatever_they_stand_in() {
        for (text, shown) in [
            (r#"{"token":"abcdefgh"}"#, r#"{"token":"…efgh"}"#),
            (r#"{"token" : "abc", "title": "token"}"#, r#"{"token" : "…bc", "title": "token"}"#),
            (r#"{"tokens":"abcdefgh","token":7}"#, r#"{"tokens":"abcdefgh","token":7}"#),
            (r#"{"a":"{\"token\": \"ab\/cdefgh\"}"}"#, r#"{"a":"{\"token\": \"…efgh\"}"}"#),
            (r#"{"token":"ab\"cdefgh","b":1}"#, r#"{"token":"…efgh","b":1}"#),
            (r#"{"token":"abcdefgh"#, r#"{"token":"…efgh"#),
            (
                r#"{"endpoint":"https://x.example/send/secret","keys":{"p256dh":"BNcRd","auth":"tBHI"}}"#,
                r#"{"endpoint":"…cret","keys":{"p256dh":"…NcRd","auth":"…BHI"}}"#,
            ),
            ("", ""),
            ("no \"JSON\": \"한국어\"", "no \"JSON\": \"한국어\""),
            (r#""token":"한국어한국어""#, r#""token":"…어한국어""#),
        ] {
            assert_eq!(hide_tokens(text), shown, "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn what_holds_no_token_field_stays_as_it_is(text in "[a-s\"\\\\:{} ]{0,60}") {
            proptest::prop_assert_eq!(hide_tokens(&text), text);
        }
    }
}
