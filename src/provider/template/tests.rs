//! What placeholders become, and what they cannot be made to do.

use super::*;
use crate::{message::Message, provider::tests::push};
use std::sync::Arc;

use serde_json::json;

fn secrets() -> Secrets {
    [("key".to_owned(), Secret::new("s3cret"))].into()
}

fn now() -> Timestamp {
    "2026-11-23T08:00:00Z".parse().unwrap()
}

fn bare() -> Push {
    let message: Message = serde_json::from_value(json!({
        "messageId": "m-1", "notificationType": ["PUSH"], "recipientId": "user-1", "title": "Hello",
    }))
    .unwrap();
    Push { message: Arc::new(message), target: Target::Alias("user-1".into()), ..push() }
}

fn body(template: &Value, push: &Push) -> Option<Value> {
    Body::parse(template, &secrets()).unwrap().render(&Scope { push, now: now() })
}

#[test]
fn a_placeholder_alone_becomes_the_typed_value_and_a_missing_one_takes_its_key_along() {
    let template = json!({
        "to": {"token": ["{{target.token}}"], "alias": ["{{target.alias}}"]},
        "title": "{{title}}", "text": "{{ body | title }}", "data": "{{message.data}}",
        "days": "{{message.data.days}}", "deep": "{{message.data.nested.deep}}",
        "nothing": "{{message.data.nothing}}", "attempt": "{{attempt}}", "ttl": "{{ttlSeconds}}",
        "empty": {}, "none": null, "sound": true,
    });
    let full = json!({
        "to": {"token": ["dev/ce+token=1234"]}, "title": "Your pass expires tomorrow",
        "text": "Only on the phone", "data": push().message.data, "days": 1, "deep": true,
        "attempt": 2, "ttl": 3600, "empty": {}, "none": null, "sound": true,
    });
    assert_eq!(body(&template, &push()), Some(full));
    let least = json!({
        "to": {"alias": ["user-1"]}, "title": "Hello", "text": "Hello", "attempt": 2,
        "empty": {}, "none": null, "sound": true,
    });
    assert_eq!(body(&template, &bare()), Some(least));
    assert_eq!(body(&json!({"a": ["{{message.link}}"]}), &bare()), None);
}

#[test]
fn inside_a_text_values_are_written_out_and_missing_ones_are_empty() {
    let template = json!("{{title}}: {{message.data.days}}, {{message.data.nested}}{{message.data.no}}!");
    let expected = json!("Your pass expires tomorrow: 1, {\"deep\":true}!");
    assert_eq!(body(&template, &push()), Some(expected));
}

#[test]
fn quotes_in_a_message_cannot_leave_their_text() {
    let mut push = bare();
    Arc::make_mut(&mut push.message).title = "\",\"admin\":true,\"x\":\"{{secret.key}}".into();
    let expected = json!({"t": push.message.title, "u": format!("> {}", push.message.title)});
    assert_eq!(body(&json!({"t": "{{title}}", "u": "> {{title}}"}), &push), Some(expected));
}

#[test]
fn every_field_of_the_contract_has_a_placeholder_with_the_same_value() {
    let push = push();
    let Value::Object(fields) = serde_json::to_value(&push.message).unwrap() else { panic!() };
    for (name, value) in fields.into_iter().filter(|(name, _)| name != "push") {
        assert_eq!(body(&json!(format!("{{{{message.{name}}}}}")), &push), Some(value), "{name}");
    }
}

#[test]
fn what_is_wrong_with_a_template_is_said_when_it_is_read() {
    let unknown = |name: &str| BadTemplate::Unknown(name.into());
    for (template, expected) in [
        (json!("{{tilte}}"), unknown("tilte")),
        (json!({"a": [{"b": "x {{message.nope}}"}]}), unknown("message.nope")),
        (json!("{{secret.other}}"), unknown("secret.other")),
        (json!("{{title | }}"), unknown("")),
        (json!("{{message.data.}}"), unknown("message.data.")),
        (json!("{{title"), BadTemplate::Unclosed),
        (json!({"{{title}}": 1}), BadTemplate::InKey("{{title}}".into())),
    ] {
        assert_eq!(Body::parse(&template, &secrets()).unwrap_err(), expected);
    }
    assert_eq!(unknown("tilte").to_string(), "names {{tilte}}, which is not known");
    assert!(unknown("tilte").remedy().starts_with("use one of: title, body, deliveryId, "));
}

#[test]
fn urls_are_checked_when_they_are_read() {
    for (url, expected) in [
        ("ftp://a/b", BadTemplate::NoHost),
        ("https://", BadTemplate::NoHost),
        ("{{target.value}}", BadTemplate::NoHost),
        ("https://{{target.value}}/x", BadTemplate::NoHost),
        ("https://a.{{target.value}}.example/x", BadTemplate::InHost),
        ("https://a:{{attempt}}", BadTemplate::InHost),
        ("https://u:p@a/x", BadTemplate::HasUserOrFragment),
        ("https://a/x#y", BadTemplate::HasUserOrFragment),
        ("https://a/x/../y", BadTemplate::DotSegment),
        ("https://a b/", BadTemplate::NotAUrl("invalid international domain name".into())),
    ] {
        assert_eq!(UrlTemplate::parse(url, &secrets()).unwrap_err(), expected, "{url}");
    }
}

#[test]
fn values_cannot_lead_a_url_elsewhere() {
    let url = |template: &str, value: &str| {
        let push = Push { target: Target::Alias(value.into()), ..bare() };
        let template = UrlTemplate::parse(template, &secrets()).unwrap();
        template.render(&Scope { push: &push, now: now() }).map(String::from)
    };
    let path = "https://a.example/v1/{{target.value}}/send?key={{secret.key}}&q={{target.alias}}";
    for (value, encoded) in
        [("a/../b?c#d", "a%2F..%2Fb%3Fc%23d"), ("한 %2e\\", "%ED%95%9C%20%252e%5C"), ("...", "...")]
    {
        let expected = format!("https://a.example/v1/{encoded}/send?key=s3cret&q={encoded}");
        assert_eq!(url(path, value), Ok(expected));
    }
    for value in [".", ".."] {
        assert_eq!(url(path, value), Err(Unfilled::OtherPath), "{value}");
    }
    assert_eq!(url(path, ""), Err(Unfilled::Missing("target.value".into())));
    assert_eq!(url("https://a/{{target.token}}", "x"), Err(Unfilled::Missing("target.token".into())));
}

#[test]
fn header_values_cannot_start_a_new_line() {
    let header = |template: &str, title: &str| {
        let mut push = bare();
        Arc::make_mut(&mut push.message).title = title.into();
        let text = Text::parse(template, &secrets()).unwrap();
        text.header(&Scope { push: &push, now: now() })
    };
    assert_eq!(header("x {{title}}", "a\r\nb: c"), Err(Unfilled::NotAHeader));
    assert_eq!(header("{{message.link}}", "a"), Ok(None));
    let bearer = header("Bearer {{secret.key}}", "a").unwrap().unwrap();
    assert_eq!((bearer.as_bytes(), bearer.is_sensitive()), (&b"Bearer s3cret"[..], true));
}
