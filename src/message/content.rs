//! Whether two messages say the same: the canonical form and its hash.
//!
//! The canonical form is one JSON text without white space. Members stand in the order of the
//! contract, absent ones are left out; members inside `data` and of unknown fields are sorted by the
//! bytes of their names, at every depth. Times are UTC with six decimals. A string escapes `"`, `\`
//! and what is below U+0020 (as `\u00xx`), nothing else. Numbers are written as RFC 8785 has them, so
//! `1`, `1.0` and `1e0` are one, and so are `0` and `-0`; but a 64-bit integer keeps all its digits.
//!
//! The message id is left out: hashes are compared among messages of one id only, and without it an
//! auditor can see that the same words went out under two ids. What the envelope said is left out
//! too: a message sent again by another way is still the same message.
//!
//! The hash is stored for ever with every message, so this form is a promise: a change would turn
//! redeliveries of what the log holds into conflicts. The writer is our own for that reason; no
//! library's taste in escapes or digits can move it. A test pins text and hash.

use std::fmt::{self, Write};

use serde_json::{Map, Number, Value};
use sha2::{Digest, Sha256};

use super::{Channel, ContentHash, Message, Priority, PushOptions, Target};
use crate::clock::Timestamp;

/// The hash of the canonical form.
#[must_use]
pub fn hash(message: &Message) -> ContentHash {
    ContentHash(Sha256::digest(canonical(message).as_bytes()).into())
}

/// The canonical form.
#[must_use]
pub fn canonical(message: &Message) -> String {
    // Every field by name: a new one must be given its place here.
    let Message {
        message_id: _,
        notification_type,
        recipient_id,
        title,
        body,
        category,
        link,
        image_url,
        data,
        locale,
        source,
        occurred_at,
        deliver_at,
        expires_at,
        collapse_key,
        priority,
        push,
        unknown,
    } = message;
    let mut out = Object::open(String::with_capacity(512));
    out.member("notificationType", |out| channels(out, &Vec::from(*notification_type)));
    out.member("recipientId", |out| string(out, recipient_id.as_str()));
    out.member("title", |out| string(out, title));
    out.text("body", body.as_deref());
    out.text("category", category.as_deref());
    out.text("link", link.as_deref());
    out.text("imageUrl", image_url.as_deref());
    out.map("data", data);
    out.text("locale", locale.as_deref());
    out.text("source", source.as_deref());
    out.time("occurredAt", *occurred_at);
    out.time("deliverAt", *deliver_at);
    out.time("expiresAt", *expires_at);
    out.text("collapseKey", collapse_key.as_deref());
    out.text("priority", priority.map(priority_name));
    if let Some(push) = push {
        out.member("push", |out| push_options(out, push));
    }
    out.map("unknown", unknown);
    out.close()
}

const fn priority_name(priority: Priority) -> &'static str {
    match priority {
        Priority::Normal => "normal",
        Priority::High => "high",
    }
}

fn channels(out: &mut String, list: &[Channel]) {
    array(out, list, |out, channel| {
        string(
            out,
            match channel {
                Channel::AppNotification => "APP_NOTIFICATION",
                Channel::Push => "PUSH",
            },
        );
    });
}

fn push_options(out: &mut String, push: &PushOptions) {
    let PushOptions { provider, targets, title, body } = push;
    let mut object = Object::open(std::mem::take(out));
    object.text("provider", provider.as_deref());
    if !targets.is_empty() {
        object.member("targets", |out| array(out, targets, target));
    }
    object.text("title", title.as_deref());
    object.text("body", body.as_deref());
    *out = object.close();
}

fn target(out: &mut String, target: &Target) {
    let mut object = Object::open(std::mem::take(out));
    object.text(target.kind(), Some(target.value()));
    *out = object.close();
}

/// An object being written.
struct Object {
    out: String,
    empty: bool,
}

impl Object {
    fn open(mut out: String) -> Self {
        out.push('{');
        Self { out, empty: true }
    }

    fn close(mut self) -> String {
        self.out.push('}');
        self.out
    }

    fn member(&mut self, name: &str, write: impl FnOnce(&mut String)) {
        if !std::mem::take(&mut self.empty) {
            self.out.push(',');
        }
        string(&mut self.out, name);
        self.out.push(':');
        write(&mut self.out);
    }

    fn text(&mut self, name: &str, text: Option<&str>) {
        if let Some(text) = text {
            self.member(name, |out| string(out, text));
        }
    }

    fn time(&mut self, name: &str, time: Option<Timestamp>) {
        if let Some(time) = time {
            self.member(name, |out| {
                let _ = write!(out, "\"{time}\"");
            });
        }
    }

    fn map(&mut self, name: &str, members: &Map<String, Value>) {
        if !members.is_empty() {
            self.member(name, |out| object(out, members));
        }
    }
}

fn value(out: &mut String, it: &Value) {
    match it {
        Value::Null => out.push_str("null"),
        Value::Bool(it) => out.push_str(if *it { "true" } else { "false" }),
        Value::Number(it) => number(out, it),
        Value::String(it) => string(out, it),
        Value::Array(it) => array(out, it, value),
        Value::Object(it) => object(out, it),
    }
}

fn object(out: &mut String, members: &Map<String, Value>) {
    // The map may keep another order, should any crate in the build ask serde_json for that.
    let mut sorted: Vec<_> = members.iter().collect();
    sorted.sort_unstable_by(|a, b| a.0.cmp(b.0));
    let mut object = Object::open(std::mem::take(out));
    for (name, it) in sorted {
        object.member(name, |out| value(out, it));
    }
    *out = object.close();
}

fn array<T>(out: &mut String, items: &[T], write: impl Fn(&mut String, &T)) {
    out.push('[');
    for (index, item) in items.iter().enumerate() {
        if index > 0 {
            out.push(',');
        }
        write(out, item);
    }
    out.push(']');
}

fn number(out: &mut String, number: &Number) {
    // Writing to a string cannot fail.
    let _ = match (number.as_i64(), number.as_u64(), number.as_f64()) {
        (Some(it), _, _) => write!(out, "{it}"),
        (_, Some(it), _) => write!(out, "{it}"),
        (_, _, Some(it)) => double(out, it),
        (None, None, None) => write!(out, "{number}"),
    };
}

/// The shortest digits that read back as the same number, laid out as ECMAScript does.
fn double(out: &mut String, it: f64) -> fmt::Result {
    match it.abs() {
        0.0 => write!(out, "0"),
        1e21.. => {
            let text = format!("{it:e}");
            out.push_str(&text.replacen('e', "e+", 1));
            Ok(())
        }
        1e-6.. => write!(out, "{it}"),
        _ => write!(out, "{it:e}"),
    }
}

fn string(out: &mut String, text: &str) {
    let escaped = |byte: u8| byte < 0x20 || byte == b'"' || byte == b'\\';
    out.push('"');
    let mut from = 0;
    // Most texts need no escape; looking at all bytes without a branch is the quickest way to know.
    if text.bytes().fold(false, |found, byte| found | escaped(byte)) {
        for (at, byte) in text.bytes().enumerate().filter(|&(_, byte)| escaped(byte)) {
            out.push_str(&text[from..at]);
            from = at + 1;
            let _ = match byte {
                b'"' => write!(out, "\\\""),
                b'\\' => write!(out, "\\\\"),
                _ => write!(out, "\\u{byte:04x}"),
            };
        }
    }
    out.push_str(&text[from..]);
    out.push('"');
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::message::parse::{Outside, parse};

    fn message(document: &Value) -> Message {
        parse(document.to_string().as_bytes(), Outside::default()).unwrap().message
    }

    fn with(field: &str, value: Value) -> Value {
        let mut document = json!({
            "messageId": "m-1", "notificationType": "PUSH", "recipientId": "user-42", "title": "Hello",
        });
        document[field] = value;
        document
    }

    fn same(a: &Value, b: &Value) -> bool {
        hash(&message(a)) == hash(&message(b))
    }

    #[test]
    fn the_form_and_the_hash_are_a_stored_promise() {
        let everything = json!({
            "messageId": "m-1", "notificationType": ["PUSH", "APP_NOTIFICATION"], "recipientId": "user-42",
            "title": "Your \"pass\" \\ 만료 😀", "body": "a\nb\tc\u{2028}", "category": "pass", "link": "app://pass/7",
            "imageUrl": "https://img.example/7.png", "locale": "ko-KR", "source": "billing-batch",
            "data": {
                "z": [1.0, -0.0, 1e3, 0.1, 1e-6, 1e-7, -1.5e300, 1e21, 1e20, u64::MAX, i64::MIN, null, true, false],
                "é": {}, "B": {"b": [], "a": ""}, "a": "\u{1f}\u{7f}",
            },
            "occurredAt": "2026-11-22T18:00:00.1234567+09:00", "deliverAt": "2026-11-22T10:00:00Z",
            "expiresAt": "2026-11-23T00:00:00Z", "collapseKey": "pass-7", "priority": "high",
            "push": {"provider": "fcm-main", "targets": [{"token": "t"}, {"topic": "o"}, {"alias": "a"}], "title": "T", "body": "B", "sound": "x"},
            "colour": {"y": 1, "x": 2},
        });
        let expected = concat!(
            r#"{"notificationType":["APP_NOTIFICATION","PUSH"],"recipientId":"user-42","#,
            r#""title":"Your \"pass\" \\ 만료 😀","body":"a\u000ab\u0009c"#,
            "\u{2028}",
            r#"","category":"pass","link":"app://pass/7","imageUrl":"https://img.example/7.png","#,
            r#""data":{"B":{"a":"","b":[]},"a":"\u001f"#,
            "\u{7f}",
            r#"","z":[1,0,1000,0.1,0.000001,1e-7,-1.5e+300,1e+21,100000000000000000000,18446744073709551615,"#,
            r#"-9223372036854775808,null,true,false],"é":{}},"#,
            r#""locale":"ko-KR","source":"billing-batch","occurredAt":"2026-11-22T09:00:00.123456Z","#,
            r#""deliverAt":"2026-11-22T10:00:00.000000Z","expiresAt":"2026-11-23T00:00:00.000000Z","#,
            r#""collapseKey":"pass-7","priority":"high","push":{"provider":"fcm-main","#,
            r#""targets":[{"token":"t"},{"topic":"o"},{"alias":"a"}],"title":"T","body":"B"},"#,
            r#""unknown":{"colour":{"x":2,"y":1},"push":{"sound":"x"}}}"#,
        );
        let message = message(&everything);
        assert_eq!(canonical(&message), expected);
        assert_eq!(
            hex::encode(hash(&message).0),
            "21c88d8f49e7a22aac136b02a918438a083d104a8ee41e23d8735950f21a0ad5",
        );
    }

    #[test]
    fn a_reserialised_retry_says_the_same() {
        for (field, one, other) in [
            ("notificationType", json!("PUSH"), json!(["PUSH"])),
            (
                "notificationType",
                json!(["APP_NOTIFICATION", "PUSH"]),
                json!(["PUSH", "APP_NOTIFICATION", "PUSH"]),
            ),
            ("data", json!({"a": 1, "b": [2.0]}), json!({"b": [2], "a": 1.0})),
            ("data", json!({}), Value::Null),
            ("body", json!(""), Value::Null),
            ("push", json!({}), Value::Null),
            (
                "push",
                json!({"targets": [{"token": "t"}, {"token": "t"}]}),
                json!({"targets": [{"token": "t", "topic": null}]}),
            ),
            ("occurredAt", json!("2026-11-22T09:00:00Z"), json!("2026-11-22T18:00:00.000+09:00")),
            ("messageId", json!("m-1"), json!("m-2")),
        ] {
            assert!(same(&with(field, one), &with(field, other)), "{field}");
        }
    }

    #[test]
    fn other_words_say_something_else() {
        for (field, one, other) in [
            ("notificationType", json!("PUSH"), json!("APP_NOTIFICATION")),
            ("recipientId", json!("user-42"), json!("user-43")),
            ("title", json!("é"), json!("e\u{301}")),
            ("data", json!({"a": "1"}), json!({"a": 1})),
            ("data", json!({"a": null}), json!({})),
            ("data", json!({"a": [1, 2]}), json!({"a": [2, 1]})),
            ("data", json!({"a": 0.1}), json!({"a": 0.100_000_000_000_000_02})),
            ("data", json!({"colour": 1}), json!({})),
            ("colour", json!("red"), Value::Null),
            ("colour", json!("red"), json!("blue")),
            ("push", json!({"title": "x"}), json!({"body": "x"})),
            ("push", json!({"targets": [{"token": "x"}]}), json!({"targets": [{"topic": "x"}]})),
            ("occurredAt", json!("2026-11-22T09:00:00Z"), json!("2026-11-22T09:00:00.000001Z")),
        ] {
            assert!(!same(&with(field, one), &with(field, other)), "{field}");
        }
    }
}
