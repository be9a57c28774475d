//! What the contract takes, what it refuses, and the exact words of the refusal.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::{
    Channels, Message, Priority, PushOptions, RejectionCode, Target, content,
    parse::{BODY_BYTES_MAX, Outside, Parsed, parse},
};
use crate::clock::Timestamp;

fn small() -> Value {
    json!({"messageId": "m-1", "notificationType": "PUSH", "recipientId": "user-42", "title": "Hello"})
}

fn with(field: &str, value: Value) -> Value {
    let mut document = small();
    document[field] = value;
    document
}

fn without(field: &str) -> Value {
    let mut document = small();
    document.as_object_mut().unwrap().remove(field);
    document
}

fn accepted(document: &Value) -> Parsed {
    parse(document.to_string().as_bytes(), Outside::default()).unwrap()
}

fn refused(body: &[u8]) -> String {
    let rejection = parse(body, Outside::default()).unwrap_err();
    format!("{}: {rejection}", rejection.code)
}

#[test]
fn every_field_arrives() {
    let parsed = accepted(&json!({
        "messageId": "3f0c", "notificationType": ["APP_NOTIFICATION", "PUSH"], "recipientId": "user-42",
        "title": "Your pass expires tomorrow", "body": "line\r\n\tline", "category": "pass",
        "link": "app://pass/7", "imageUrl": "https://img.example/7.png", "data": {"passId": "7"},
        "locale": "ko-KR", "source": "billing-batch", "occurredAt": "2026-11-22T09:00:00Z",
        "deliverAt": "2026-11-22T19:00:00.5+09:00", "expiresAt": "2026-11-23T00:00:00.000000Z",
        "collapseKey": "pass-7", "priority": "high",
        "push": {"provider": "fcm-main", "targets": [{"token": "t"}, {"topic": "o"}, {"alias": "a"}],
                 "title": "T", "body": "B"},
    }));
    let text = |text: &str| Some(text.to_owned());
    let expected = Message {
        message_id: "3f0c".parse().unwrap(),
        notification_type: Channels { inbox: true, push: true },
        recipient_id: "user-42".parse().unwrap(),
        title: "Your pass expires tomorrow".to_owned(),
        body: text("line\r\n\tline"),
        category: text("pass"),
        link: text("app://pass/7"),
        image_url: text("https://img.example/7.png"),
        data: json!({"passId": "7"}).as_object().unwrap().clone(),
        locale: text("ko-KR"),
        source: text("billing-batch"),
        occurred_at: Timestamp::parse("2026-11-22T09:00:00Z"),
        deliver_at: Timestamp::parse("2026-11-22T10:00:00.5Z"),
        expires_at: Timestamp::parse("2026-11-23T00:00:00Z"),
        collapse_key: text("pass-7"),
        priority: Some(Priority::High),
        push: Some(PushOptions {
            provider: text("fcm-main"),
            targets: vec![
                Target::Token("t".to_owned()),
                Target::Topic("o".to_owned()),
                Target::Alias("a".to_owned()),
            ],
            title: text("T"),
            body: text("B"),
        }),
        unknown: serde_json::Map::new(),
    };
    assert_eq!(parsed.message, expected);
    assert_eq!((parsed.envelope, parsed.weak_id, parsed.unknown_fields), (None, None, vec![]));
}

#[test]
fn each_notification_type_says_where_the_message_goes() {
    for (value, inbox, push) in [
        (json!("APP_NOTIFICATION"), true, false),
        (json!("PUSH"), false, true),
        (json!(["PUSH"]), false, true),
        (json!(["PUSH", "APP_NOTIFICATION", "PUSH"]), true, true),
    ] {
        let message = accepted(&with("notificationType", value)).message;
        assert_eq!((message.for_inbox(), message.for_push()), (inbox, push));
    }
}

#[test]
fn null_and_the_empty_text_count_as_absent() {
    let expected = accepted(&small()).message;
    for field in [
        "body",
        "category",
        "link",
        "imageUrl",
        "data",
        "locale",
        "source",
        "occurredAt",
        "deliverAt",
        "expiresAt",
        "collapseKey",
        "priority",
        "push",
    ] {
        assert_eq!(accepted(&with(field, Value::Null)).message, expected, "{field}");
    }
    for field in ["body", "category", "link", "imageUrl", "locale", "source", "collapseKey"] {
        assert_eq!(accepted(&with(field, json!(""))).message, expected, "{field}");
    }
    let push = json!({"provider": "", "targets": [], "title": null, "body": ""});
    assert_eq!(accepted(&with("push", push)).message, expected);
}

const P256DH: &str =
    "BCVxsr7N_eNgVRqvHtD0zTZsEc6-VV-JvLexhqUzORcxaOzi6-AYWXvTBHm4bjyPjs7Vd8pZGH6SRpkNtoIAiw4";
const AUTH: &str = "BTBZMqHH6r4Tts7J_aSIgg";

#[test]
fn a_subscription_is_read_as_one_text_and_told_apart_by_it() {
    let first = json!({"endpoint": "https://push.example.net/1", "expirationTime": null,
                       "keys": {"p256dh": P256DH, "auth": AUTH}});
    let again = json!({"keys": {"auth": format!("{AUTH}=="), "p256dh": P256DH}, "contentEncoding": "aes128gcm",
                       "endpoint": "https://push.example.net/1", "expirationTime": 1_800_000_000_000_u64});
    let targets =
        json!([{"subscription": first}, {"subscription": again}, {"token": "t", "subscription": null}]);
    let parsed = accepted(&with("push", json!({"targets": targets})));
    let text = format!(
        r#"{{"endpoint":"https://push.example.net/1","keys":{{"p256dh":"{P256DH}","auth":"{AUTH}"}}}}"#
    );
    let push = parsed.message.push.unwrap();
    assert_eq!(push.targets, [Target::Subscription(text), Target::Token("t".to_owned())]);
    assert_eq!(parsed.unknown_fields, Vec::<String>::new());
    let one = |subscription: &Value| {
        let message = with("push", json!({"targets": [{"subscription": subscription}]}));
        content::canonical(&accepted(&message).message)
    };
    assert_eq!(one(&first), one(&again));
    assert!(
        one(&first).contains(r#""targets":[{"subscription":"{\"endpoint\":\"https://push.example.net/1\","#)
    );
}

#[test]
fn a_target_named_twice_counts_once() {
    let targets = json!([{"token": "t"}, {"topic": "t"}, {"token": "t", "alias": ""}]);
    let push = accepted(&with("push", json!({"targets": targets}))).message.push.unwrap();
    assert_eq!(push.targets, [Target::Token("t".to_owned()), Target::Topic("t".to_owned())]);
}

#[test]
fn unknown_fields_are_kept_and_reported() {
    let mut document =
        with("push", json!({"sound": "x", "targets": [{"token": "t"}, {"topic": "o", "os": 1}]}));
    document["push.sound"] = json!(null);
    document["unknown"] = json!({"a": [1]});
    let parsed = accepted(&document);
    let expected = json!({
        "push": {"sound": "x", "targets": {"1": {"os": 1}}}, "push.sound": null, "unknown": {"a": [1]},
    });
    assert_eq!(Value::Object(parsed.message.unknown), expected);
    assert_eq!(parsed.unknown_fields, ["push.sound", "push.targets[1].os", r#"["push.sound"]"#, "unknown"],);
}

#[test]
fn of_very_many_unknown_fields_the_first_are_reported() {
    let mut document = small();
    (100..200).for_each(|n| document[format!("x{n}")] = json!(n));
    let parsed = accepted(&document);
    assert_eq!(parsed.message.unknown.len(), 100);
    assert_eq!(parsed.unknown_fields.len(), 65);
    assert_eq!(parsed.unknown_fields[63..], ["x163", "… and 36 more"]);
}

#[test]
fn the_strongest_id_wins() {
    let body = |id: bool, event: bool| {
        let message = if id { small() } else { without("messageId") };
        if !event {
            return message.to_string();
        }
        json!({"specversion": "1.0", "id": "event", "source": "/s", "type": "t", "data": message}).to_string()
    };
    let strong = Some("beside");
    let weak = Some(("sqs", "weak"));
    for (body, strong_id, weak_id, expected) in [
        (body(true, true), strong, weak, ("m-1", None)),
        (body(false, true), strong, weak, ("beside", None)),
        (body(false, true), None, weak, ("event", None)),
        (body(false, false), None, weak, ("weak", Some("sqs"))),
        (body(false, false), strong, None, ("beside", None)),
    ] {
        let parsed = parse(body.as_bytes(), Outside { strong_id, weak_id }).unwrap();
        assert_eq!((parsed.message.message_id.as_str(), parsed.weak_id), expected);
    }
}

#[test]
fn an_id_beside_the_body_keeps_to_the_rule_too() {
    let body = without("messageId").to_string();
    let told = |strong_id, weak_id| {
        let rejection = parse(body.as_bytes(), Outside { strong_id, weak_id }).unwrap_err();
        format!("{}: {rejection}", rejection.code)
    };
    assert_eq!(
        told(Some("a b"), None),
        "bad_character: messageId given beside the body contains ' ', which is not allowed; \
         use 1–128 of A–Z a–z 0–9 . _ : - (a UUIDv7 is best)",
    );
    assert_eq!(
        told(Some(""), Some(("sqs", "w"))),
        "missing_id: messageId given beside the body is empty; \
         use 1–128 of A–Z a–z 0–9 . _ : - (a UUIDv7 is best)",
    );
    assert_eq!(
        told(None, Some(("sqs", "w w"))),
        "bad_character: messageId that the queue gave contains ' ', which is not allowed; \
         use 1–128 of A–Z a–z 0–9 . _ : - (a UUIDv7 is best)",
    );
}

#[test]
fn the_message_is_found_in_its_envelope() {
    let message = small();
    let sns =
        json!({"Type": "Notification", "MessageId": "x", "TopicArn": "arn", "Message": message.to_string()});
    let parsed = accepted(&sns);
    assert_eq!((parsed.envelope, &parsed.message), (Some("sns"), &accepted(&message).message));
    assert_eq!(parsed.content_hash, accepted(&message).content_hash);
    let event = json!({"detail-type": "t", "source": "s", "id": "weak", "detail": without("messageId")});
    assert!(refused(event.to_string().as_bytes()).starts_with("missing_id"), "EventBridge's own id is weak");
}

/// One line a fault: what is sent and the exact answer.
#[test]
fn bad_input_is_refused_in_words_a_producer_can_act_on() {
    let text = |length: usize| json!("x".repeat(length));
    let target = |target: Value| with("push", json!({"targets": [{"token": "t"}, target]}));
    let id_rule = "use 1–128 of A–Z a–z 0–9 . _ : - (a UUIDv7 is best)";
    let types = r#"use "APP_NOTIFICATION", "PUSH" or a list of both"#;
    let one_target = "send an object with exactly one of token, topic, alias and subscription";
    let browser =
        "send what PushSubscription.toJSON() gives in the browser: endpoint, and p256dh and auth under keys";
    let keys = json!({"p256dh": P256DH, "auth": AUTH});
    let no_control = "leave control characters out";
    let time = "send an RFC 3339 time with an offset, such as 2026-11-22T09:00:00Z";
    let recipient = "use 1–128 characters, no control characters and no white space at either end";
    let no_id = "send an id that stays the same when you retry (a UUIDv7 is best): in the body, as the SQS message attribute messageId, or as the header Idempotency-Key";
    for (document, expected) in [
        (json!([small()]), "wrong_type: the message is a list, not an object; send each message on its own".to_owned()),
        (json!(small().to_string()), "wrong_type: the message is a string, not an object; send the JSON object itself; it was encoded twice".to_owned()),
        (json!(7), "wrong_type: the message is a number, not an object; send the message as one JSON object".to_owned()),
        (json!({}), format!("missing_id: messageId is missing or empty; {no_id}")),
        (with("messageId", Value::Null), format!("missing_id: messageId is missing or empty; {no_id}")),
        (with("messageId", json!("")), format!("missing_id: messageId is empty; {id_rule}")),
        (with("messageId", json!(7)), "wrong_type: messageId is a number; send a string".to_owned()),
        (with("messageId", json!("a/b")), format!("bad_character: messageId contains '/', which is not allowed; {id_rule}")),
        (with("messageId", text(129)), format!("too_long: messageId has 129 characters, more than 128; {id_rule}")),
        (json!({"message_id": "m-1"}), "missing_id: messageId is missing or empty; rename message_id to messageId".to_owned()),
        (without("notificationType"), format!("missing_field: notificationType is missing or empty; {types}")),
        (with("notificationType", json!([])), format!("missing_field: notificationType is missing or empty; {types}")),
        (with("notificationType", json!("EMAIL")), format!("unknown_type: notificationType is \"EMAIL\", which is not known; {types}")),
        (with("notificationType", json!(["PUSH", "push"])), format!("unknown_type: notificationType[1] is \"push\", which is not known; {types}")),
        (with("notificationType", json!(["PUSH", 1])), format!("wrong_type: notificationType[1] is a number; {types}")),
        (with("notificationType", json!({})), format!("wrong_type: notificationType is an object; {types}")),
        (without("recipientId"), format!("missing_field: recipientId is missing or empty; {recipient}")),
        (with("recipientId", json!("")), format!("missing_field: recipientId is missing or empty; {recipient}")),
        (with("recipientId", json!(42)), "wrong_type: recipientId is a number; send a string".to_owned()),
        (with("recipientId", json!(" a")), format!("bad_character: recipientId begins or ends with white space; {recipient}")),
        (with("recipientId", json!("a\u{85}b")), format!("bad_character: recipientId contains '\\u{{85}}', which is not allowed; {recipient}")),
        (with("recipientId", json!("é".repeat(129))), format!("too_long: recipientId has 129 characters, more than 128; {recipient}")),
        (without("title"), "missing_field: title is missing or empty; send what the recipient is to read".to_owned()),
        (with("title", json!("")), "missing_field: title is missing or empty; send what the recipient is to read".to_owned()),
        (with("title", json!(["Hello"])), "wrong_type: title is a list; send a string".to_owned()),
        (with("title", text(513)), "too_long: title has 513 characters, more than 512; shorten it".to_owned()),
        (with("title", json!("a\nb")), format!("bad_character: title contains '\\n'; {no_control}")),
        (with("title", json!("a\u{7f}b")), format!("bad_character: title contains '\\u{{7f}}'; {no_control}")),
        (with("title", json!("a\u{0}b")), "bad_character: title contains '\\0'; leave the character out; it cannot be stored everywhere".to_owned()),
        (with("body", json!(true)), "wrong_type: body is a boolean; send a string".to_owned()),
        (with("body", json!("한".repeat(2731))), "too_long: body has 8193 bytes of UTF-8, more than 8192; shorten it".to_owned()),
        (with("body", json!("a\u{b}")), "bad_character: body contains '\\u{b}'; leave control characters other than line feed, carriage return and tab out".to_owned()),
        (with("category", text(65)), "too_long: category has 65 characters, more than 64; shorten it".to_owned()),
        (with("category", json!("a\tb")), format!("bad_character: category contains '\\t'; {no_control}")),
        (with("link", text(2049)), "too_long: link has 2049 characters, more than 2048; shorten it".to_owned()),
        (with("imageUrl", text(2049)), "too_long: imageUrl has 2049 characters, more than 2048; shorten it".to_owned()),
        (with("locale", text(36)), "too_long: locale has 36 characters, more than 35; shorten it".to_owned()),
        (with("source", text(129)), "too_long: source has 129 characters, more than 128; shorten it".to_owned()),
        (with("collapseKey", text(65)), "too_long: collapseKey has 65 characters, more than 64; shorten it".to_owned()),
        (with("data", json!("{}")), "wrong_type: data is a string; send an object".to_owned()),
        (with("data", json!({"a": "x".repeat(65_529)})), "too_long: data has 65537 bytes as JSON, more than 65536; send a link to what is long".to_owned()),
        (with("occurredAt", json!(1_763_802_000)), format!("wrong_type: occurredAt is a number; {time}")),
        (with("occurredAt", json!("2026-11-22T09:00:00")), format!("bad_time: occurredAt is \"2026-11-22T09:00:00\", not an RFC 3339 time; {time}")),
        (with("deliverAt", json!("2026-02-30T09:00:00Z")), format!("bad_time: deliverAt is \"2026-02-30T09:00:00Z\", not an RFC 3339 time; {time}")),
        (with("deliverAt", json!("2026-11-22 09:00:00Z")), format!("bad_time: deliverAt is \"2026-11-22 09:00:00Z\", not an RFC 3339 time; {time}")),
        (with("expiresAt", json!("")), format!("bad_time: expiresAt is \"\", not an RFC 3339 time; {time}")),
        (with("expiresAt", json!("9999-12-31T23:59:59-23:59")), "bad_time: expiresAt is \"9999-12-31T23:59:59-23:59\"; send a time from 1970 to 9999".to_owned()),
        (with("priority", json!("urgent")), "bad_value: priority is \"urgent\"; use \"normal\" or \"high\"".to_owned()),
        (with("priority", json!(10)), "wrong_type: priority is a number; send \"normal\" or \"high\"".to_owned()),
        (with("push", json!("fcm-main")), "wrong_type: push is a string; send an object".to_owned()),
        (with("push", json!({"provider": "x".repeat(65)})), "too_long: push.provider has 65 characters, more than 64; shorten it".to_owned()),
        (with("push", json!({"title": "x".repeat(513)})), "too_long: push.title has 513 characters, more than 512; shorten it".to_owned()),
        (with("push", json!({"body": "x".repeat(8193)})), "too_long: push.body has 8193 bytes of UTF-8, more than 8192; shorten it".to_owned()),
        (with("push", json!({"targets": {"token": "t"}})), "wrong_type: push.targets is an object; send a list".to_owned()),
        (with("push", json!({"targets": vec![json!({"token": "t"}); 101]})), "too_long: push.targets has 101 entries, more than 100; split the message, or push to a topic".to_owned()),
        (target(json!("token")), format!("wrong_type: push.targets[1] is a string; {one_target}")),
        (target(json!({"token": ""})), format!("missing_field: push.targets[1] names no target; {one_target}")),
        (target(json!({"token": "a", "alias": "b"})), format!("bad_value: push.targets[1] names more than one target; {one_target}")),
        (target(json!({"token": 7})), "wrong_type: push.targets[1].token is a number; send a string".to_owned()),
        (target(json!({"token": "x".repeat(4097)})), "too_long: push.targets[1].token has 4097 characters, more than 4096; shorten it".to_owned()),
        (target(json!({"subscription": "s"})), format!("wrong_type: push.targets[1].subscription is a string; {browser}")),
        (target(json!({"subscription": {"keys": keys}})), format!("missing_field: push.targets[1].subscription.endpoint is missing; {browser}")),
        (target(json!({"subscription": {"endpoint": "http://push.example.net/1", "keys": keys}})), format!("bad_value: push.targets[1].subscription.endpoint does not begin with https://; {browser}")),
        (target(json!({"subscription": {"endpoint": "https://push.example.net/1", "keys": {"p256dh": P256DH, "auth": 7}}})), format!("wrong_type: push.targets[1].subscription.keys.auth is not a string; {browser}")),
        (target(json!({"topic": "a\u{1}"})), format!("bad_character: push.targets[1].topic contains '\\u{{1}}'; {no_control}")),
    ] {
        assert_eq!(refused(document.to_string().as_bytes()), expected);
    }
}

#[test]
fn a_body_that_is_no_message_at_all_is_refused_too() {
    let large = format!("{{\"messageId\":\"m-1\",\"x\":\"{}\"}}", "x".repeat(1024 * 1024));
    let deep = format!("{}1{}", r#"{"data":"#.repeat(1000), "}".repeat(1000));
    let latin1 = b"{\"messageId\":\"m-1\",\"title\":\"caf\xe9\"}".to_vec();
    for (body, expected) in [
        (
            large.into_bytes(),
            "too_large: the body has 1048602 bytes, more than 262144; shorten the texts, or send a link to what is long",
        ),
        (latin1, "not_utf8: the body is not UTF-8 from byte 31 on; encode the JSON as UTF-8"),
        (vec![], "not_json: the body is empty; send the message as one JSON object"),
        (
            b"hello".to_vec(),
            "not_json: the body is not JSON: expected value at line 1 column 1; send the message as one JSON object",
        ),
        (deep.into_bytes(), "too_deep: data.data is nested deeper than 32 levels; send a flatter message"),
        (
            br#"{"messageId":"a","messageId":"b"}"#.to_vec(),
            "duplicate_key: messageId appears twice; send it once",
        ),
        (
            br#"["software.amazon.payloadoffloading.PayloadS3Pointer",{"s3BucketName":"b","s3Key":"k"}]"#
                .to_vec(),
            "s3_pointer: the body is a pointer of the SQS extended client to an object in S3, not a message; send messages of at most 256 KiB without the extended client",
        ),
    ] {
        assert_eq!(refused(&body), expected);
    }
}

#[test]
fn the_largest_body_is_taken_and_one_byte_more_is_not() {
    let mut document = with("x", json!(""));
    let room = BODY_BYTES_MAX - document.to_string().len();
    document["x"] = json!("x".repeat(room));
    assert_eq!(document.to_string().len(), BODY_BYTES_MAX);
    accepted(&document);
    document["x"] = json!("x".repeat(room + 1));
    assert!(refused(document.to_string().as_bytes()).starts_with("too_large"));
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(body in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = parse(&body, Outside::default());
    }

    #[test]
    fn no_text_like_json_makes_it_panic(body in r#"[\[\]{}",:\\0-9a-eu ]{0,60}"#) {
        if let Err(rejection) = parse(body.as_bytes(), Outside::default()) {
            prop_assert!(RejectionCode::ALL.contains(&rejection.code));
        }
    }
}
