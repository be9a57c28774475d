//! Who is let in, and to what.

use super::*;
use crate::secret::Secret;

const NOW: Timestamp = Timestamp::from_micros(0);

fn callers() -> Callers {
    let key = |name, secret: &str, scopes: &[Scope]| Key::new(name, &Secret::new(secret), scopes.to_vec());
    Callers::new(
        Keys::new(vec![
            key("billing", "secret of billing", &[Scope::MessagesWrite]),
            key("support", "secret of support", &[Scope::Admin]),
        ]),
        None,
    )
}

fn headers(list: &[(&'static str, &str)]) -> HeaderMap {
    list.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
}

#[tokio::test]
async fn a_key_opens_its_scopes_and_no_others() {
    let callers = callers();
    for (secret, scope, actor) in [
        ("Bearer secret of billing", Scope::MessagesWrite, Some("billing")),
        ("bearer  secret of billing", Scope::MessagesWrite, Some("billing")),
        ("Bearer secret of billing", Scope::InboxRead, None),
        ("Bearer secret of support", Scope::InboxRead, Some("support")),
        ("Bearer secret of support", Scope::Metrics, Some("support")),
        ("Bearer secret of nobody", Scope::MessagesWrite, None),
        ("Bearer ", Scope::MessagesWrite, None),
        ("Basic c2VjcmV0", Scope::MessagesWrite, None),
        ("B", Scope::MessagesWrite, None),
    ] {
        let identity = callers.identify(&headers(&[("authorization", secret)]), NOW).await;
        let identity = identity.unwrap_or_else(Identity::Unknown);
        let allowed = identity.allow(scope).ok();
        assert_eq!(allowed.as_deref(), actor, "{secret} {scope}");
    }
}

#[tokio::test]
async fn without_keys_programs_may_do_everything_and_pages_nothing() {
    let callers = Callers::default();
    for (list, allowed) in [
        (&[][..], true),
        (&[("host", "127.0.0.1:8080")][..], true),
        (&[("host", "localhost:8080")][..], true),
        (&[("host", "[::1]:8080")][..], true),
        (&[("host", "ledger.evil.example:8080")][..], false),
        (&[("host", "127.0.0.1:8080"), ("origin", "https://evil.example")][..], false),
        (&[("host", "127.0.0.1:8080"), ("origin", "null")][..], false),
        (&[("host", "127.0.0.1:8080"), ("origin", "http://127.0.0.1:8080")][..], true),
    ] {
        let identity = callers.identify(&headers(list), NOW).await.unwrap_or_else(Identity::Unknown);
        assert_eq!(identity.allow(Scope::Admin).is_ok(), allowed, "{list:?}");
    }
}

#[test]
fn nothing_of_a_secret_is_printed() {
    let shown = format!("{:?}", callers());
    assert!(!shown.contains("secret of"), "{shown}");
}

#[test]
fn a_scope_is_written_as_it_is_read() {
    for scope in Scope::ALL {
        assert_eq!(serde_json::from_value::<Scope>(scope.as_str().into()).unwrap(), scope);
    }
}
