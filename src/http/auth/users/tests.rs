//! When keys are fetched, and what is said while there are none.

use std::{
    collections::VecDeque,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use axum::{
    Router,
    http::{HeaderMap, StatusCode},
    routing::get,
};
use jsonwebtoken::Algorithm;
use serde_json::json;
use tokio::{net::TcpListener, time::advance};

use super::{
    super::issuer::{Issuer, claims, rules},
    *,
};

const BOTH: [Algorithm; 2] = [Algorithm::RS256, Algorithm::ES256];

/// Answers as it was told, one after the other, and counts.
#[derive(Clone, Default)]
struct Told {
    next: Arc<Mutex<VecDeque<Names>>>,
    fetches: Arc<AtomicUsize>,
}

/// The names of keys; none for a fetch that fails.
type Names = Option<&'static [&'static str]>;

impl Told {
    fn next(&self, names: Names) {
        self.next.lock().unwrap().push_back(names);
    }

    fn fetches(&self) -> usize {
        self.fetches.load(Ordering::SeqCst)
    }
}

impl Source for Told {
    async fn fetch(&mut self) -> Result<Option<KeySet>, FetchError> {
        self.fetches.fetch_add(1, Ordering::SeqCst);
        let next = self.next.lock().unwrap().pop_front();
        let names = next.flatten().ok_or(FetchError::Status(500))?;
        Ok(Some(set(names)))
    }
}

fn set(names: &[&str]) -> KeySet {
    let keys: Vec<_> =
        names.iter().map(|it| Issuer::get().jwk(Algorithm::ES256, &json!({ "kid": it }))).collect();
    KeySet::parse(json!({ "keys": keys }).to_string().as_bytes(), &BOTH).unwrap()
}

fn now() -> Timestamp {
    Timestamp::parse("2026-11-22T09:00:00Z").unwrap()
}

fn token(kid: &str) -> String {
    Issuer::get().token(Some(kid), Algorithm::ES256, &claims(now(), &json!({})))
}

async fn is_known(users: &Users, kid: &str) -> Result<(), NotKnown> {
    users.user(&token(kid), now()).await.map(|_| ())
}

const UNKNOWN: Result<(), NotKnown> = Err(NotKnown::Refused(Refused::KeyUnknown));

#[allow(clippy::disallowed_methods, reason = "there is no supervisor in a test")]
fn start(told: &Told) -> Users {
    let (users, fetching) = Users::with_keys_of(rules(&BOTH), told.clone(), Pace::SLOW);
    tokio::spawn(fetching.run(CancellationToken::new()));
    users
}

#[tokio::test(start_paused = true)]
async fn an_unknown_key_is_looked_for_once_a_minute_and_keys_outlive_failures() {
    let told = Told::default();
    let users = start(&told);
    assert_eq!(told.fetches(), 0, "nothing is fetched before a token comes");
    told.next(Some(&["a"]));
    assert_eq!(is_known(&users, "a").await, Ok(()));
    for _ in 0..20 {
        assert_eq!(is_known(&users, "b").await, UNKNOWN);
    }
    assert_eq!(told.fetches(), 1);

    advance(Duration::from_secs(61)).await;
    assert_eq!(is_known(&users, "b").await, UNKNOWN);
    assert_eq!((told.fetches(), is_known(&users, "a").await), (2, Ok(())), "it failed, and the keys stay");

    advance(Duration::from_secs(61)).await;
    told.next(Some(&["a", "b"]));
    let many = futures_util::future::join_all((0..50).map(|_| is_known(&users, "b"))).await;
    assert!(many.iter().all(Result::is_ok), "all wait for one fetch: {many:?}");
    assert!(told.fetches() <= 4, "{}", told.fetches());
}

#[tokio::test(start_paused = true)]
async fn a_key_that_was_removed_goes_by_itself() {
    let told = Told::default();
    let users = start(&told);
    told.next(Some(&["a", "b"]));
    assert_eq!(is_known(&users, "a").await, Ok(()));
    told.next(Some(&["b", "c"]));
    advance(Duration::from_secs(599)).await;
    assert_eq!((told.fetches(), is_known(&users, "a").await), (1, Ok(())));
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!((told.fetches(), is_known(&users, "a").await), (2, UNKNOWN));
    assert_eq!(is_known(&users, "c").await, Ok(()));
}

#[tokio::test(start_paused = true)]
async fn without_any_keys_nobody_is_refused_and_nobody_let_in() {
    let told = Told::default();
    let users = start(&told);
    assert_eq!(is_known(&users, "a").await, Err(NotKnown::NoKeys));
    assert_eq!(is_known(&users, "a").await, Err(NotKnown::NoKeys));
    assert_eq!(told.fetches(), 1, "not more often than every {RETRY_S} s");
    told.next(Some(&["a"]));
    advance(Duration::from_secs(5)).await;
    assert_eq!(is_known(&users, "a").await, Ok(()));
}

#[tokio::test(start_paused = true)]
async fn where_nobody_fetches_nobody_waits_for_ever() {
    let (users, _kept) = Users::with_keys_of(rules(&BOTH), Told::default(), Pace::SLOW);
    assert_eq!(is_known(&users, "a").await, Err(NotKnown::NoKeys));
    let (users, gone) = Users::with_keys_of(rules(&BOTH), Told::default(), Pace::SLOW);
    drop(gone);
    assert_eq!(is_known(&users, "a").await, Err(NotKnown::NoKeys));
}

#[tokio::test]
async fn a_file_is_read_again_when_it_changed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("keys.json");
    let mut source = Published { place: Place::File(path.clone(), None), rules: rules(&BOTH) };
    assert!(matches!(source.fetch().await, Err(FetchError::File(_))));
    std::fs::write(&path, "{\"keys\": []}").unwrap();
    assert!(matches!(source.fetch().await, Err(FetchError::NoKeys)));
    std::fs::write(&path, Issuer::get().set()).unwrap();
    assert_eq!(source.fetch().await.unwrap().unwrap().len(), 2);
    assert!(source.fetch().await.unwrap().is_none(), "nothing changed");
    std::fs::write(&path, " ".repeat(SET_MAX + 1)).unwrap();
    let later = std::fs::File::options().write(true).open(&path).unwrap();
    later.set_modified(SystemTime::UNIX_EPOCH).unwrap();
    assert!(matches!(source.fetch().await, Err(FetchError::TooLong)));
}

#[tokio::test]
#[allow(clippy::disallowed_methods, reason = "there is no supervisor in a test")]
async fn an_address_is_read_as_it_is_and_leads_nowhere_else() {
    let elsewhere = || async {
        let mut headers = HeaderMap::new();
        headers.insert("location", "/keys".parse().unwrap());
        (StatusCode::FOUND, headers)
    };
    let router = Router::new()
        .route("/keys", get(|| async { Issuer::get().set() }))
        .route("/page", get(|| async { "<html>" }))
        .route("/large", get(|| async { " ".repeat(SET_MAX + 1) }))
        .route("/elsewhere", get(elsewhere));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async { axum::serve(listener, router).await.unwrap() });
    let fetch = |path: &str| {
        let url = Url::parse(&format!("{base}{path}")).unwrap();
        let mut source = Published { place: Place::Url(client(&url).unwrap(), url), rules: rules(&BOTH) };
        async move { source.fetch().await }
    };
    assert_eq!(fetch("/keys").await.unwrap().unwrap().len(), 2);
    assert!(matches!(fetch("/page").await, Err(FetchError::NoKeys)));
    assert!(matches!(fetch("/large").await, Err(FetchError::TooLong)));
    assert!(matches!(fetch("/elsewhere").await, Err(FetchError::Status(302))));
    assert!(matches!(fetch("/nowhere").await, Err(FetchError::Status(404))));
}
