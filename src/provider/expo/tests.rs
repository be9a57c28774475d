//! What is sent to Expo, and what its tickets, receipts and refusals mean.

use super::super::{
    Configured, build,
    double::{against, answer, failure, reply},
    tests::push,
};
use super::*;
use crate::clock::ManualClock;

const NOW: &str = "2026-11-23T08:00:00Z";
const DEVICE: &str = "ExponentPushToken[abcdefghijklmnop]";

fn now() -> Timestamp {
    Timestamp::parse(NOW).unwrap()
}

fn clock() -> Arc<ManualClock> {
    Arc::new(ManualClock::new(now()))
}

fn configured(base: &str, more: &Value, clock: Arc<ManualClock>) -> Configured {
    let mut settings = json!({ "base_url": format!("{base}/--/api/v2/") });
    settings.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    build("expo", "expo", settings, clock).unwrap()
}

fn vendor() -> Vendor {
    let parts =
        Parts { name: "expo".into(), timeout: Duration::from_secs(1), concurrency: 1, clock: clock() };
    let mut settings = Settings::new("expo", json!({ "base_url": "http://127.0.0.1:9" })).unwrap();
    Vendor::take(&parts, &mut settings, Some(BASE), Protocol::Any).unwrap()
}

fn to(target: &str) -> Push {
    Push { target: Target::Token(target.into()), ..push() }
}

fn pending(ticket: &str) -> Outcome {
    Outcome::Pending { ticket: ticket.into(), ask_after: Duration::from_mins(15) }
}

#[test]
fn a_message_says_what_expo_can_say() {
    let style = Style { sound: Some("default".into()), channel: Some("passes".into()) };
    let push = to(DEVICE);
    let delivery = push.delivery_id.to_string();
    let expected = json!({
        "to": DEVICE, "title": "Your pass expires tomorrow", "body": "Only on the phone",
        "data": {
            "messageId": "m-42", "deliveryId": delivery, "link": "app://pass/7",
            "passId": "7", "days": 1, "nested": {"deep": true}, "nothing": null,
        },
        "ttl": 3600, "priority": "high", "sound": "default", "channelId": "passes",
        "collapseId": "pass-7", "tag": "pass-7",
        "mutableContent": true, "richContent": { "image": "https://img.example/7.png" },
    });
    assert_eq!(message(&push, &style, now()).unwrap(), expected);
    let little = json!({ "messageId": "m", "notificationType": ["PUSH"], "recipientId": "r", "title": "Hi" });
    let push = Push { message: Arc::new(serde_json::from_value(little).unwrap()), ..push };
    let expected = json!({
        "to": DEVICE, "title": "Hi", "data": { "messageId": "m", "deliveryId": delivery },
        "collapseId": delivery, "tag": delivery,
    });
    assert_eq!(message(&push, &Style::default(), now()).unwrap(), expected);
}

#[test]
fn what_is_no_token_of_expo_would_spoil_the_call_and_stays_out() {
    let token = |it: &str| message(&to(it), &Style::default(), now()).is_ok();
    for good in [DEVICE, "ExpoPushToken[x]", "f47ac10b-58cc-4372-a567-0e02b2c3d479"] {
        assert!(token(good), "{good}");
    }
    for bad in ["", "ExponentPushToken[x", "dev/ce+token=1234", "f47ac10b-58cc-4372-a567", "x[y]"] {
        assert!(!token(bad), "{bad}");
    }
    let topic = Push { target: Target::Topic("news".into()), ..push() };
    let failure = failure(message(&topic, &Style::default(), now()).unwrap_err());
    assert_eq!((failure.class, failure.code.as_str()), (FailureClass::Permanent, "target"));
}

/// The errors of tickets and receipts.
const ERRORS: &[(&str, FailureClass, RetryScope)] = &[
    ("DeviceNotRegistered", FailureClass::InvalidTarget, RetryScope::Message),
    ("MessageTooBig", FailureClass::Permanent, RetryScope::Message),
    ("MessageRateExceeded", FailureClass::Retry, RetryScope::Device),
    ("InvalidCredentials", FailureClass::AuthConfig, RetryScope::Message),
    ("MismatchSenderId", FailureClass::AuthConfig, RetryScope::Message),
    ("DeveloperError", FailureClass::Permanent, RetryScope::Message),
    ("ProviderError", FailureClass::Retry, RetryScope::Message),
    ("ExpoError", FailureClass::Retry, RetryScope::Message),
    ("BrandNew", FailureClass::Permanent, RetryScope::Message),
];

/// A ticket or a receipt of status `error`.
fn error(code: &str) -> Value {
    json!({
        "status": "error", "message": format!("\"{DEVICE}\" is not for us"),
        "details": { "error": code, "expoPushToken": DEVICE },
    })
}

fn is_refused(outcome: &Outcome, code: &str, class: FailureClass, scope: RetryScope) {
    let failure = failure(outcome.clone());
    assert_eq!((failure.class, failure.code.as_str(), failure.scope), (class, code, scope));
    assert_eq!(failure.status, Some(200));
    let said = failure.answer.unwrap();
    assert!(said.contains(code) && !said.contains("efghij"), "{said}");
}

#[test]
fn each_push_has_the_outcome_of_its_own_ticket() {
    let mut list: Vec<_> = ERRORS.iter().map(|it| error(it.0)).collect();
    list.insert(0, json!({ "status": "ok", "id": "t-1" }));
    list.extend([json!({ "status": "error", "message": "?" }), json!({ "status": "ok" }), json!(7)]);
    let pushes: Vec<_> = list.iter().map(|_| to(DEVICE)).collect();
    let body = json!({ "data": list }).to_string();
    let outcomes = tickets(&vendor(), &answer(200, &[], &body), &pushes).unwrap();
    assert_eq!(outcomes[0], pending("t-1"));
    for (outcome, (code, class, scope)) in outcomes[1..].iter().zip(ERRORS) {
        is_refused(outcome, code, *class, *scope);
    }
    let rest: Vec<_> = outcomes[1 + ERRORS.len()..].iter().map(|it| failure(it.clone())).collect();
    let seen: Vec<_> = rest.iter().map(|it| (it.class, it.code.as_str())).collect();
    let (permanent, unknown) = (FailureClass::Permanent, FailureClass::Unknown);
    assert_eq!(seen, [(permanent, "error"), (unknown, "no_ticket"), (unknown, "no_ticket")]);
}

#[test]
fn a_call_as_a_whole_is_refused_for_every_push() {
    use FailureClass::{AuthConfig, Permanent, Retry, Unknown};
    use RetryScope::{Message, Provider};
    let errors = |code: &str| json!({ "errors": [{ "code": code, "message": DEVICE }] }).to_string();
    let several = json!({ "errors": [{
        "code": SEVERAL_PROJECTS, "message": "All push messages must be for one project",
        "details": { "@a/one": [DEVICE], "@a/two": ["ExponentPushToken[qrstuvwxyz]"] },
    }]});
    for (status, body, class, code, scope) in [
        (429, errors("TOO_MANY_REQUESTS"), Retry, "TOO_MANY_REQUESTS", Provider),
        (400, several.to_string(), Retry, SEVERAL_PROJECTS, Message),
        (400, errors("PUSH_TOO_MANY_NOTIFICATIONS"), Permanent, "PUSH_TOO_MANY_NOTIFICATIONS", Message),
        (400, errors("PUSH_TOO_MANY_RECEIPTS"), Permanent, "PUSH_TOO_MANY_RECEIPTS", Message),
        (401, errors("UNAUTHORIZED"), AuthConfig, "UNAUTHORIZED", Message),
        (400, errors("UNAUTHORIZED"), AuthConfig, "UNAUTHORIZED", Message),
        (400, errors("VALIDATION_ERROR"), Permanent, "VALIDATION_ERROR", Message),
        (500, errors("INTERNAL_SERVER_ERROR"), Retry, "INTERNAL_SERVER_ERROR", Message),
        (404, "<html>404</html>".into(), Permanent, "http_404", Message),
        (502, "<html>502</html>".into(), Retry, "http_502", Message),
        (503, String::new(), Retry, "http_503", Message),
        (429, "slow down".into(), Retry, "http_429", Provider),
        (400, r#"{"errors":{"code":7}}"#.into(), Permanent, "http_400", Message),
        (400, r#"{"errors":[[]],"data":[{"status":"ok","id":"t"}]}"#.into(), Permanent, "http_400", Message),
        (200, "{\"data\":[".into(), Unknown, "http_200", Message),
        (200, r#"{"data":"ok"}"#.into(), Unknown, "http_200", Message),
        (200, "OK".into(), Unknown, "http_200", Message),
        (200, r#"{"data":[]}"#.into(), Unknown, "ticket_count", Message),
    ] {
        let pushes = [to(DEVICE), to(DEVICE)];
        let headers = [("retry-after", "7")];
        let failure = tickets(&vendor(), &answer(status, &headers, &body), &pushes).unwrap_err();
        let seen = (failure.class, failure.code.as_str(), failure.scope, failure.status);
        assert_eq!(seen, (class, code, scope, Some(status)), "{body}");
        assert!(code == "ticket_count" || failure.retry_after == Some(Duration::from_secs(7)));
        let said = failure.answer.unwrap_or_default();
        assert!(!said.contains("efghij") && !said.contains("rstuv"), "{said}");
    }
}

#[test]
fn a_receipt_says_what_became_of_its_ticket() {
    let refused = ERRORS.iter().map(|it| (it.0.to_owned(), error(it.0)));
    let mut map: serde_json::Map<_, _> = refused.collect();
    map.insert("fine".into(), json!({ "status": "ok" }));
    map.insert("odd".into(), json!({ "status": "soon" }));
    let mut ids: Vec<_> = ERRORS.iter().map(|it| it.0.to_owned()).collect();
    ids.extend(["fine", "odd", "absent"].map(str::to_owned));
    let body = json!({ "data": map }).to_string();
    let said = receipts(&vendor(), &answer(200, &[], &body), &ids).unwrap();
    for (said, (code, class, scope)) in said.iter().zip(ERRORS) {
        let Said::Finally(outcome) = said else { panic!("{code}: {said:?}") };
        is_refused(outcome, code, *class, *scope);
    }
    let provider_message_id = Some("fine".to_owned());
    let accepted = Outcome::Accepted { provider_message_id, status: Some(200) };
    assert_eq!(said[ERRORS.len()..], [Said::Finally(accepted), Said::NotYet, Said::NotYet]);
    for (status, body, class) in [
        (200, r#"{"data":7}"#, FailureClass::Unknown),
        (401, r#"{"errors":[{"code":"UNAUTHORIZED"}]}"#, FailureClass::AuthConfig),
        (503, "", FailureClass::Retry),
    ] {
        let failure = receipts(&vendor(), &answer(status, &[], body), &ids).unwrap_err();
        assert_eq!(failure.class, class, "{body}");
    }
}

#[tokio::test]
async fn many_pushes_are_one_call_and_their_tickets_one_question() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "s3cret").unwrap();
    let more = json!({ "access_token": format!("file:{}", file.path().display()), "channel_id": "news" });
    let expo = |call: &super::super::double::Call| {
        if call.uri.path().ends_with("getReceipts") {
            reply(200, r#"{"data":{"t-0":{"status":"ok"}}}"#)
        } else {
            let tickets: Vec<_> = (0..call.json().as_array().unwrap().len())
                .map(|it| json!({ "status": "ok", "id": format!("t-{it}") }))
                .collect();
            reply(200, json!({ "data": tickets }).to_string())
        }
    };
    let ((outcomes, alone, said), calls) = against(expo, async |base| {
        let configured = configured(&base, &more, clock());
        assert!(!format!("{configured:?}").contains("s3cret"));
        let provider = configured.provider;
        let batch = provider.batch().unwrap();
        assert_eq!(batch.size_max(), 100);
        let outcomes = batch.push_all(&[to(DEVICE), push(), to(DEVICE)]).await;
        assert_eq!(batch.push_all(&[push()]).await.len(), 1);
        let asked = provider.receipts().unwrap();
        let said = asked.ask(&["t-0".into(), "t-1".into()]).await.unwrap();
        assert!(asked.ask(&[]).await.unwrap().is_empty());
        (outcomes, provider.push(&to(DEVICE)).await, said)
    })
    .await;
    assert_eq!((&outcomes[0], &outcomes[2], alone), (&pending("t-0"), &pending("t-1"), pending("t-0")));
    assert_eq!(failure(outcomes[1].clone()).code, "target");
    assert!(matches!(&said[..], [Said::Finally(Outcome::Accepted { .. }), Said::NotYet]), "{said:?}");
    let paths: Vec<_> = calls.iter().map(|it| it.uri.path()).collect();
    let (send, ask) = ("/--/api/v2/push/send", "/--/api/v2/push/getReceipts");
    assert_eq!(paths, [send, ask, send]);
    assert!(calls.iter().all(|it| it.header("authorization") == "Bearer s3cret"));
    assert_eq!(calls[0].json()[1]["channelId"], "news");
    assert_eq!(calls[1].json(), json!({ "ids": ["t-0", "t-1"] }));
}

#[tokio::test]
async fn after_a_call_with_several_projects_there_is_one_push_a_call() {
    let said = format!(r#"{{"errors":[{{"code":"{SEVERAL_PROJECTS}"}}]}}"#);
    let clock = clock();
    let (outcomes, _) = against(
        move |_| reply(400, said.clone()),
        async |base| {
            let provider = configured(&base, &json!({}), Arc::clone(&clock)).provider;
            let batch = provider.batch().unwrap();
            let outcomes = batch.push_all(&[to(DEVICE), to(DEVICE)]).await;
            assert_eq!(batch.size_max(), 1);
            clock.advance(ALONE);
            assert_eq!(batch.size_max(), 100);
            outcomes
        },
    )
    .await;
    assert!(outcomes.iter().all(|it| failure(it.clone()).class == FailureClass::Retry));
}

#[tokio::test]
async fn a_check_asks_for_a_receipt_that_nobody_has() {
    for (status, body, ok) in
        [(200, r#"{"data":{}}"#, true), (401, r#"{"errors":[{"code":"UNAUTHORIZED"}]}"#, false)]
    {
        let (check, calls) = against(
            move |_| reply(status, body),
            async |base| configured(&base, &json!({}), clock()).provider.check().await,
        )
        .await;
        assert_eq!(check.is_ok(), ok);
        assert_eq!(calls[0].json(), json!({ "ids": [NO_TICKET] }));
    }
}
