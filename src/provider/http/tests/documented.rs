//! That `docs/providers.md` is right: its examples build, and do what they say.

use super::super::super::double::{ec_key, rsa_key, service_account};
use super::*;

/// The providers in the examples of the documentation, with their secrets in a file.
fn documented(reference: &str) -> Vec<(String, Value)> {
    let page = include_str!("../../../../docs/providers.md");
    let examples = page.split("```toml\n").skip(1).filter_map(|it| it.split("```").next());
    let mut providers = Vec::new();
    for example in examples {
        let example: toml::Table = toml::from_str(example).unwrap();
        for (name, table) in example.get("providers").and_then(toml::Value::as_table).into_iter().flatten() {
            let mut settings = serde_json::to_value(table).unwrap();
            if let Some(secrets) = settings.get_mut("secrets").and_then(Value::as_object_mut) {
                secrets.values_mut().for_each(|it| *it = json!(reference));
            }
            providers.push((name.clone(), settings));
        }
    }
    providers
}

#[test]
fn every_documented_example_builds() {
    let (_file, reference) = secret("s3cret");
    let (_signing, signing) = secret("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw");
    let (_vapid, vapid) = secret("yfWPiYE-n46HLnH0KqZOF1fJJU3MYrct3AELtAQ-oRw");
    let (_apple, apple) = secret(&ec_key().pem);
    let (_google, google) = secret(&service_account(&rsa_key(), "https://oauth2.example/token"));
    let providers = documented(&reference);
    for (name, mut settings) in providers {
        let kind = settings.as_object_mut().unwrap().remove("kind").unwrap();
        match kind.as_str().unwrap() {
            "webhook" => settings["secrets"] = json!([signing]),
            "webpush" => settings["vapid_key"] = json!(vapid),
            "onesignal" => settings["api_key"] = json!(reference),
            "apns" => settings["key"] = json!(apple),
            "expo" => settings["access_token"] = json!(reference),
            "fcm" => settings["credentials"] = json!(google),
            _ => {}
        }
        let clock = Arc::new(ManualClock::new(Timestamp::parse(NOW).unwrap()));
        let built = build(&name, kind.as_str().unwrap(), settings, clock);
        assert_eq!(built.unwrap().provider.name(), name);
    }
}

#[test]
fn every_setting_is_documented() {
    let page = include_str!("../../../../docs/providers.md");
    for kind in super::super::super::KINDS {
        assert!(page.contains(&format!("\n| `{}` |", kind.name)), "{}", kind.name);
        assert!(page.contains(&format!("kind = \"{}\"\n", kind.name)), "{} has no example", kind.name);
    }
    let remedy = refusal(json!({"url": "https://a.example", "no_such_key": 1}));
    let retry = refusal(json!({"url": "https://a.example", "retry": {"no_such_key": 1}}));
    let keys = [remedy, retry].map(|it| it.split("use one of: ").nth(1).unwrap().to_owned()).join(", ");
    for key in keys.split(", ") {
        assert!(page.contains(&format!("| `{key}` |")), "{key}");
    }
    let placeholders = refusal(json!({"url": "https://a.example/{{no}}"}));
    for name in placeholders.split("use one of: ").nth(1).unwrap().split(", ") {
        let name = name.split(' ').next().unwrap();
        let shown = [format!("`{name}`"), format!("`{}`", name.trim_start_matches("message."))];
        assert!(shown.iter().any(|it| page.contains(it)), "{name}");
    }
}

#[tokio::test]
async fn the_documented_onesignal_example_sends_and_understands_what_that_vendor_does() {
    use FailureClass::{AuthConfig, InvalidTarget, Permanent, Retry};
    let (_file, reference) = secret("s3cret");
    let answer = async |State(seen): State<Arc<Mutex<Vec<Value>>>>, headers: Headers, body: Bytes| {
        assert_eq!(headers["authorization"], "Key s3cret");
        let body: Value = serde_json::from_slice(&body).unwrap();
        let case = body["data"]["case"].as_str().unwrap_or_default().to_owned();
        seen.lock().unwrap().push(body);
        let (status, answer) = match case.as_str() {
            "nobody" => (200, r#"{"id":"","errors":["All included players are not subscribed"]}"#),
            "stranger" => (200, r#"{"id":"n-1","errors":{"invalid_aliases":{"external_id":["user-1"]}}}"#),
            "wrong" => (400, r#"{"errors":["contents.en is required"]}"#),
            "app" => (404, r#"{"errors":["app not found"]}"#),
            "limit" => (429, r#"{"errors":["API rate limit exceeded"]}"#),
            _ => (200, r#"{"id":"n-1","external_id":"k"}"#),
        };
        (StatusCode::from_u16(status).unwrap(), [("retry-after", "30")], answer)
    };
    let seen: Arc<Mutex<Vec<Value>>> = Arc::default();
    let router = Router::new().route("/notifications", axum::routing::post(answer));
    against_router(router.with_state(Arc::clone(&seen)), async |base| {
        let (_, mut settings) = documented(&reference).into_iter().find(|it| it.0 == "onesignal").unwrap();
        settings["url"] = json!(format!("{base}/notifications?c=push"));
        settings.as_object_mut().unwrap().remove("kind");
        let configured = provider(settings);
        let accepted = Outcome::Accepted { provider_message_id: Some("n-1".into()), status: Some(200) };
        assert_eq!(configured.provider.push(&push()).await, accepted);
        for (case, class, code) in [
            ("nobody", InvalidTarget, "All included players are not subscribed"),
            ("stranger", InvalidTarget, "http_200"),
            ("wrong", Permanent, "contents.en is required"),
            ("app", AuthConfig, "app not found"),
            ("limit", Retry, "API rate limit exceeded"),
        ] {
            let mut push = Push { target: Target::Alias("user-1".into()), ..push() };
            Arc::make_mut(&mut push.message).data.insert("case".into(), case.into());
            let failure = failure(configured.provider.push(&push).await);
            assert_eq!((failure.class, failure.code.as_str()), (class, code), "{case}");
            assert_eq!(failure.retry_after, Some(Duration::from_secs(30)));
        }
    })
    .await;
    let calls = std::mem::take(&mut *seen.lock().unwrap());
    assert_eq!(calls[0]["include_subscription_ids"], json!(["dev/ce+token=1234"]));
    assert_eq!(calls[0].get("include_aliases"), None);
    assert_eq!(calls[1]["include_aliases"], json!({"external_id": ["user-1"]}));
    assert_eq!((&calls[0]["ttl"], &calls[0]["collapse_id"]), (&json!(3600), &json!("pass-7")));
}
