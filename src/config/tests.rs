//! What an operator may rely on: which layer wins, what is refused and how it is said, what is shown.

use std::{collections::BTreeSet, time::Duration};

use super::*;
use crate::http::auth::Scope;

/// Loads a file with this text, and these environment variables.
fn load(file: &str, variables: &[(&str, &str)]) -> Result<Loaded, ConfigError> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("test.toml");
    std::fs::write(&path, file).unwrap();
    let sources = Sources::none().with_file(path);
    variables.iter().fold(sources, |it, (name, value)| it.with_variable(*name, *value)).load()
}

/// What is wrong, without the folder of the file.
fn problems(file: &str, variables: &[(&str, &str)]) -> Vec<String> {
    match load(file, variables).unwrap_err() {
        ConfigError::Invalid(problems) => problems
            .into_iter()
            .map(|mut it| {
                it.origin = it.origin.map(|it| it.rsplit('/').next().unwrap_or_default().to_owned());
                it.to_string()
            })
            .collect(),
        other => panic!("{other}"),
    }
}

#[test]
fn the_default_file_is_a_complete_configuration() {
    let config = Sources::none().load().unwrap().config;
    assert_eq!(config.database.url.to_string(), "sqlite://notification-ledger.db");
    assert_eq!(config.database.direct_url, None);
    assert_eq!(config.api.bind.to_string(), "127.0.0.1:8080");
    assert_eq!(config.service.roles, Role::ALL);
    assert_eq!(config.log.shards, Shards::Auto);
    assert!(config.delivery.worker_name().ends_with(&format!("-{}", std::process::id())));
}

#[test]
fn the_examples_of_the_default_file_work_and_show_the_defaults() {
    let example =
        |it: &str| it.strip_prefix('#').filter(|it| it.starts_with(|c: char| c != ' ')).map(str::to_owned);
    let examples: Vec<String> = DEFAULT
        .lines()
        .filter_map(|it| if it.starts_with('#') { example(it) } else { Some(it.to_owned()) })
        .collect();
    let shown = load(&examples.join("\n"), &[]).unwrap().config;
    let queue = &shown.ingest.sqs[0];
    let file = format!("[[ingest.sqs]]\nname = {:?}\nqueue_url = {:?}", queue.name, queue.queue_url);
    assert_eq!(&load(&file, &[]).unwrap().config.ingest.sqs[0], queue);
    assert_eq!(shown.api.keys.len(), 1);
    assert_eq!(shown.providers["trial"].kind, "log");
}

#[test]
fn every_key_is_described_in_the_documentation() {
    let text = include_str!("../../docs/configuration.md");
    let mut section = String::new();
    let mut keys = BTreeSet::new();
    for line in DEFAULT.lines().map(|it| it.trim_start_matches('#')) {
        if let Some(name) = line.strip_prefix('[') {
            section = name.trim_matches(['[', ']']).to_owned();
        } else if let Some((key, _)) = line.split_once(" = ").filter(|(key, _)| !key.contains(' ')) {
            keys.insert(format!("`{section}.{key}`"));
        }
    }
    assert!(keys.len() > 30, "{keys:?}");
    for key in keys.iter().filter(|it| !it.contains("trial")) {
        assert!(text.contains(key.as_str()), "{key} is missing");
    }
}

#[test]
fn the_environment_wins_over_the_file_and_the_file_over_the_defaults() {
    let file = "[database]\nmax_connections = 3\nacquire_timeout_ms = 70\n[service]\nroles = [\"api\"]";
    let variables = [
        ("NOTIFICATION_LEDGER__DATABASE__MAX_CONNECTIONS", "4"),
        ("NOTIFICATION_LEDGER__SERVICE__ROLES", "ingest, project"),
        ("NOTIFICATION_LEDGER__DATABASE__URL", "postgres://me:pw@host/db"),
        ("NOTIFICATION_LEDGER__LOG__SHARDS", "8"),
        ("NOTIFICATION_LEDGER__DELIVERY__WORKER", "7"),
        ("NOTIFICATION_LEDGER__DATABASE__POOLER", "true"),
        ("NOTIFICATION_LEDGER__DATABASE__DIRECT_URL", "postgres://me:pw@other/db"),
        ("NOTIFICATION_LEDGER__API__KEYS", r#"[{name = "a", secret = "env:A", scopes = ["admin"]}]"#),
        ("NOTIFICATION_LEDGER__PROVIDERS__ACME__KIND", "log"),
        ("NOTIFICATION_LEDGER__PROVIDERS__ACME__TIMEOUT_MS", "900"),
        ("RUST_LOG", "debug"),
        ("NOTIFICATION_LEDGER_SERVICE_HOST", "10.0.0.1"),
    ];
    let config = load(file, &variables).unwrap().config;
    assert_eq!(config.database.max_connections, 4);
    assert_eq!(config.database.acquire_timeout, Duration::from_millis(70));
    assert_eq!(config.database.url.expose(), "postgres://me:pw@host/db");
    assert!(config.database.pooler);
    assert_eq!(config.service.roles, [Role::Ingest, Role::Project]);
    assert_eq!(config.log.shards, Shards::Fixed(8));
    assert_eq!(config.delivery.worker_name(), "7");
    assert_eq!(config.api.keys[0].scopes, [Scope::Admin]);
    assert_eq!(config.providers["acme"].settings, serde_json::json!({"timeout_ms": 900}));
    assert_eq!(config.telemetry.log, "debug");

    let variables = [("RUST_LOG", "debug"), ("NOTIFICATION_LEDGER__TELEMETRY__LOG", "warn")];
    assert_eq!(load("", &variables).unwrap().config.telemetry.log, "warn");
}

#[test]
fn an_option_of_the_command_line_wins() {
    let sources = Sources::none().with_variable("NOTIFICATION_LEDGER__DATABASE__URL", "mysql://h/d");
    let loaded = sources.with_option("database.url", "sqlite://x.db", "--database").load().unwrap();
    assert_eq!(loaded.config.database.url.expose(), "sqlite://x.db");
    assert!(loaded.to_toml().contains("url = \"sqlite://x.db\"  # --database"));
}

#[test]
fn everything_wrong_is_named_at_once_with_its_place_and_its_remedy() {
    let file = r#"
        [database]
        url = "postgress://me:pw@host/db"
        max_connections = "many"
        [databse]
        url = "x"
        [api]
        bnd = "0.0.0.0:80"
        pooler = true
        bind = "localhost:80"
        request_timeout_ms = -1
        [[api.keys]]
        name = "a"
        secret = "hunter2-hunter2-hunter2"
        scopes = ["messages:wirte", "admin"]
        [[api.keys]]
        nmae = "b"
        secret = 12345
        scopes = []
        [[ingest.sqs]]
        name = "q"
        queue_url = "a b"
        wait_s = 21
        [push]
        provider = "acmee"
        [providers.acme]
        timeout_ms = 5
        [service]
        roles = ["ingets"]
    "#;
    let variables = [
        ("NOTIFICATION_LEDGER__LOG__BATCH_MAX", "0"),
        ("NOTIFICATION_LEDGER_DATABASE_URL", "postgres://x"),
        ("NOTIFICATION_LEDGER__TELEMETRY__FORMAT", "xml"),
    ];
    insta::assert_snapshot!(problems(file, &variables).join("\n"));
}

#[test]
fn a_pooler_needs_a_way_past_it() {
    let pooled = "[database]\nurl = \"postgres://pool/db\"\npooler = true\n";
    assert_eq!(
        problems(pooled, &[]),
        [
            "database.pooler (test.toml) is true, but the migrations of every start need a way past the pooler; \
          set database.direct_url to the address of the database itself"
        ]
    );
    assert!(load(&format!("{pooled}direct_url = \"postgres://host/db\""), &[]).is_ok());
}

#[test]
fn a_secret_in_the_wrong_place_is_not_repeated() {
    let variables = [
        ("NOTIFICATION_LEDGER__API__KEYS", "s3cr3t"),
        ("NOTIFICATION_LEDGER__PROVIDERS__ACME", "s3cr3t"),
        ("NOTIFICATION_LEDGER__DATABASE", "postgres://me:s3cr3t@host/db"),
    ];
    assert_eq!(
        problems("", &variables),
        [
            "api.keys (NOTIFICATION_LEDGER__API__KEYS) is of another type; give a list: [ … ]",
            "database (NOTIFICATION_LEDGER__DATABASE) is \"postgres://me:***@host/db\"; give a table with keys",
            "providers.acme (NOTIFICATION_LEDGER__PROVIDERS__ACME) is of another type; give a table with keys",
        ]
    );
}

#[test]
fn the_users_of_an_app_are_known_by_exactly_one_source_of_keys() {
    let users = |keys: &str| format!("[api.users]\nissuer = \"i\"\naudience = \"a\"\n{keys}\n");
    let (url, secret) = ("jwks_url = \"https://login.example/keys\"", "secret = \"env:SHARED\"");
    let (hs256, mixed) = ("algorithms = [\"HS256\"]", "algorithms = [\"RS256\", \"HS256\"]");
    for good in [
        url.to_owned(),
        "jwks_url = \"http://127.0.0.1:9/keys\"".to_owned(),
        "jwks_file = \"/run/keys.json\"".to_owned(),
        format!("{secret}\n{hs256}"),
    ] {
        let file = format!("[api]\nbind = \"0.0.0.0:8080\"\n{}", users(&good));
        assert!(load(&file, &[]).is_ok(), "{:?}", load(&file, &[]));
    }
    for (file, expected) in [
        (
            "[api.users]\njwks_file = \"k\"".to_owned(),
            &["api.users.issuer is not set, so that no user's token is taken"][..],
        ),
        (
            "[api.users]\nissuer = \"i\"".to_owned(),
            &["api.users.audience is not set", "api.users.jwks_url is not set, and neither is"][..],
        ),
        (users(""), &["api.users.jwks_url is not set, and neither is"][..]),
        (users(&format!("{url}\njwks_file = \"k\"")), &["api.users.jwks_file is set beside another"][..]),
        (users("jwks_url = \"http://login.example/keys\""), &["api.users.jwks_url is not encrypted"][..]),
        (users("jwks_url = \"login.example\""), &["api.users.jwks_url is no address"][..]),
        (users("jwks_url = \"file:///keys\""), &["api.users.jwks_url is no address on the web"][..]),
        (users(secret), &["api.users.algorithms holds another algorithm than HS256"][..]),
        (users(&format!("{url}\n{mixed}")), &["api.users.algorithms holds HS256"][..]),
        (users(&format!("{url}\nalgorithms = []")), &["api.users.algorithms is empty"][..]),
        (users(&format!("{url}\nalgorithms = [\"none\"]")), &["api.users.algorithms[0] is \"none\""][..]),
        (users(&format!("{url}\nleeway_s = 61")), &["api.users.leeway_s is 61"][..]),
        (users(&format!("{url}\nrecipient_claim = \"\"")), &["api.users.recipient_claim is empty"][..]),
        (
            users("secret = \"0123456789abcdef0123456789abcdef\""),
            &["api.users.jwks_url is not set", "api.users.secret is not a reference to a secret"][..],
        ),
    ] {
        let found: Vec<_> = problems(&file, &[]).iter().map(|it| it.replace(" (test.toml)", "")).collect();
        let named = expected.iter().all(|it| found.iter().any(|found| found.starts_with(it)));
        assert!(named && found.len() == expected.len(), "{file}: {found:#?}");
        assert!(!found.concat().contains("0123456789"), "{found:?}");
    }
}

#[test]
fn a_limit_of_requests_has_room_for_one_or_is_none() {
    assert!(load("[api.limits]\nkey_per_s = 0\nkey_burst = 0\nuser_per_s = 1\nuser_burst = 1", &[]).is_ok());
    assert_eq!(
        problems("[api.limits]\nkey_burst = 0\nuser_per_s = 2000000", &[]),
        [
            "api.limits.key_burst (test.toml) is 0; use a number from 1 to 1000000",
            "api.limits.user_per_s (test.toml) is 2000000; use a number from 0 to 1000000",
        ]
    );
}

#[test]
fn a_file_that_is_no_toml_is_named_by_line_and_not_repeated() {
    let error = load("[database]\nurl = \"postgres://me:pw@host\n", &[]).unwrap_err().to_string();
    assert!(error.contains("test.toml, line 2, column 29: "), "{error}");
    assert!(!error.contains("me:pw"), "{error}");
}

#[test]
fn a_file_that_was_named_must_be_there() {
    let error = Sources::none().with_file("/no/such.toml").load().unwrap_err();
    assert!(error.to_string().contains("/no/such.toml"), "{error}");
}

#[test]
fn what_is_in_force_is_shown_with_its_origins_and_without_secrets() {
    let file = r#"
        [database]
        url = "mysql://me:s3cr3t@host/db?password=s3cr3t"
        [[api.keys]]
        name = "billing"
        secret = "env:BILLING"
        scopes = ["messages:write"]
        [push]
        provider = "acme"
        [providers.acme]
        kind = "http"
        url = "https://me:s3cr3t@push.example/v1?token=s3cr3t&app=7"
        api_key = "s3cr3t"
        [providers.acme.secrets]
        token = "file:/run/token"
        [providers.acme.headers]
        Authorization = "Bearer s3cr3t"
        X-Acme = "s3cr3t"
        X-Good = "{{secret.token}}"
        Content-Type = "application/json"
        [providers.acme.body]
        auth = { pin = 1, password = 1234 }
        lines = ["a", "b"]
    "#;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("test.toml");
    std::fs::write(&path, file).unwrap();
    let sources = Sources::none().with_file(&path).with_variable("NOTIFICATION_LEDGER__LOG__BATCH_MAX", "9");
    let loaded = sources.load().unwrap();
    let shown = loaded.to_toml().replace(&path.display().to_string(), "test.toml");
    assert!(!shown.contains("s3cr3t") && !shown.contains("1234"), "{shown}");
    assert!(!loaded.to_json().to_string().contains("s3cr3t"));
    assert_eq!(loaded.to_json()["origins"]["log.batch_max"], "NOTIFICATION_LEDGER__LOG__BATCH_MAX");
    insta::assert_snapshot!(shown);
    assert!(load(&shown, &[]).is_ok(), "what is shown can be read again");
    assert!(!format!("{loaded:?}").contains("s3cr3t@host"), "nor does it show in a debug print");
}
