//! Keys that are made and revoked while the service runs.

use std::time::Duration;

use notification_ledger::{
    clock::Timestamp,
    http::auth::{PREFIX, Scope, issue},
    store::{ApiKey, Revoked},
};
use reqwest::StatusCode;

use crate::support::{
    database::for_each_database, eventually, http_client, ledger::open_store, service::Service,
};

/// The second of this number.
fn at(second: i64) -> Timestamp {
    Timestamp::from_micros(second * 1_000_000)
}

for_each_database! {
    /// A key is kept word for word, used, revoked once, and stays on record.
    async fn a_key_is_kept_noted_and_revoked_once(db: TestDb) {
        let store = open_store(&db, 1).await;
        assert!(!store.has_api_keys().await.unwrap());
        assert_eq!(store.api_keys().await.unwrap(), []);
        let made = |name: &str, second, until: Option<Timestamp>| {
            issue(name, &[Scope::MessagesWrite, Scope::InboxRead], "나 🙂", at(second), until).unwrap().0
        };
        let (first, second) = (made("billing 청구", 10, None), made("billing 청구", 20, Some(at(90))));
        store.add_api_key(&first).await.unwrap();
        store.add_api_key(&second).await.unwrap();
        assert!(store.add_api_key(&first).await.unwrap_err().is_unique_violation());
        assert!(store.has_api_keys().await.unwrap());
        assert_eq!(store.api_key(&second.key_id).await.unwrap().as_ref(), Some(&second));
        let other_case = |it: char| if it.is_lowercase() { it.to_ascii_uppercase() } else { it.to_ascii_lowercase() };
        let like: String = first.key_id.chars().map(other_case).collect();
        assert_eq!(store.api_key(&like).await.unwrap(), None);
        assert_eq!(store.api_keys().await.unwrap(), [second.clone(), first.clone()]);

        for (one, other) in [(30, 31), (40, 33), (35, 35)] {
            let used = [(first.key_id.clone(), at(one)), (second.key_id.clone(), at(other))];
            store.touch_api_keys(&used).await.unwrap();
        }
        let used = |it: Vec<ApiKey>| it.iter().map(|it| it.last_used_at).collect::<Vec<_>>();
        assert_eq!(used(store.api_keys().await.unwrap()), [Some(at(35)), Some(at(40))]);

        assert_eq!(store.revoke_api_key(&first.key_id, "me", at(50)).await.unwrap(), Revoked::Now);
        assert_eq!(store.revoke_api_key(&first.key_id, "you", at(60)).await.unwrap(), Revoked::Before);
        assert_eq!(store.revoke_api_key("nobody", "me", at(60)).await.unwrap(), Revoked::Unknown);
        let key = store.api_key(&first.key_id).await.unwrap().unwrap();
        assert_eq!(key.revoked, Some((at(50), "me".to_owned())));
        assert_eq!(store.api_key(&second.key_id).await.unwrap().unwrap().revoked, None);
        store.close().await;
    }
}

/// What a command printed to stdout.
async fn printed(service: &Service, arguments: &[&str]) -> String {
    let output = service.run(arguments).await;
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{arguments:?}: {text}{}", String::from_utf8_lossy(&output.stderr));
    text.trim_end().to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_opens_a_ledger_that_others_can_reach_until_it_is_revoked() {
    let config = "[database]\nurl = \"sqlite://{folder}/ledger.db\"\n[api]\nbind = \"0.0.0.0:{port}\"\n";
    let mut service = Service::new(config);
    printed(&service, &["migrate"]).await;
    let refused = service.start_with(&["serve"]).await.unwrap_err();
    assert!(refused.contains("keys create") && refused.contains("others can reach"), "{refused}");

    let key = printed(&service, &["keys", "create", "billing", "--scope", "projections,metrics"]).await;
    assert!(key.starts_with(PREFIX) && key.len() == 70 && !key.contains('\n'), "{key}");
    service.start().await;
    let call = async |path: &str, key: &str| {
        let request = http_client().get(service.url(path)).bearer_auth(key);
        request.send().await.unwrap().status()
    };
    assert_eq!(call("/v1/projections", &key).await, StatusCode::OK, "{}", service.output());
    assert_eq!(call("/v1/quarantine", &key).await, StatusCode::FORBIDDEN);
    assert_eq!(call("/v1/projections", &key[..69]).await, StatusCode::UNAUTHORIZED);
    let none = http_client().get(service.url("/v1/projections")).send().await.unwrap().status();
    assert_eq!(none, StatusCode::UNAUTHORIZED);

    let id = &key[PREFIX.len()..PREFIX.len() + 12];
    assert!(
        printed(&service, &["keys", "list"])
            .await
            .starts_with(&format!("{id}  billing  live  projections metrics"))
    );
    assert!(printed(&service, &["keys", "revoke", id]).await.contains("revoked"));
    eventually("the key is refused", Duration::from_secs(15), async || {
        call("/v1/projections", &key).await == StatusCode::UNAUTHORIZED
    })
    .await;
    assert!(service.stop().await.success(), "{}", service.output());
    let list = printed(&service, &["keys", "list", "--json"]).await;
    assert!(list.contains("\"status\":\"revoked\"") && !list.contains(&key[21..]), "{list}");
    assert!(!list.contains("\"lastUsedAt\":null"), "its use was noted: {list}");
    let text = service.output();
    assert!(!text.contains(&key[21..]), "no log holds a key: {text}");
}
