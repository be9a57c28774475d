//! Defaults, every common key, and the words of every refusal.

use super::*;
use serde_json::json;

fn common(settings: Value) -> Result<Common, String> {
    let read = |settings| {
        let mut settings = Settings::new("acme", settings)?;
        let common = Common::take(&mut settings, Policy::default())?;
        settings.finish()?;
        Ok(common)
    };
    read(settings).map_err(|error: BuildError| error.to_string())
}

fn limits() -> Limits {
    let (window, open) = (Duration::from_mins(5), Duration::from_secs(30));
    Limits { rate: None, breaker: Breaking { share: 0.7, calls_min: 10, window, open }, invalid_share: 0.5 }
}

#[test]
fn without_a_word_the_documented_defaults_hold() {
    let expected = Common {
        timeout: Duration::from_secs(10),
        lease: Duration::from_secs(30),
        concurrency: 64,
        policy: Policy::default(),
        limits: limits(),
    };
    assert_eq!(common(json!({})), Ok(expected));
}

#[test]
fn every_common_key_is_read() {
    let settings = json!({
        "timeout_ms": 2_000, "lease_ms": 5_000, "concurrency": 8, "on_unknown": "give_up",
        "failover_after_s": 90, "rate_per_s": 100, "burst": 20, "invalid_targets_max": 0.9,
        "breaker": {"share": 0.5, "calls_min": 4, "window_s": 60, "open_s": 5},
        "retry": {
            "schedule_s": [0.5, 2], "throttled_schedule_s": [60], "jitter": 0, "max_attempts": 3, "max_age_s": 60,
            "retry_after_min_s": 1, "retry_after_max_s": 30, "auth_config_wait_s": 20,
        },
    });
    let expected = Common {
        timeout: Duration::from_secs(2),
        lease: Duration::from_secs(5),
        concurrency: 8,
        policy: Policy {
            schedule: vec![Duration::from_millis(500), Duration::from_secs(2)],
            jitter: 0.0,
            max_attempts: 3,
            max_age: Duration::from_mins(1),
            retry_after_min: Duration::from_secs(1),
            retry_after_max: Duration::from_secs(30),
            auth_config_wait: Duration::from_secs(20),
            on_unknown: OnUnknown::GiveUp,
            throttled: Some(vec![Duration::from_mins(1)]),
            unavailable: None,
            failover_after: Duration::from_secs(90),
        },
        limits: Limits {
            rate: Some(Rate { per_s: 100, burst: 20 }),
            breaker: Breaking {
                share: 0.5,
                calls_min: 4,
                window: Duration::from_mins(1),
                open: Duration::from_secs(5),
            },
            invalid_share: 0.9,
        },
    };
    assert_eq!(common(settings), Ok(expected));
}

#[test]
fn an_error_names_provider_key_problem_and_remedy() {
    let cases = [
        (json!(7), "provider \"acme\": the table is a number; make it a table of keys and values"),
        (
            json!({"tiemout_ms": 1}),
            "provider \"acme\": tiemout_ms is not a known key; use one of: timeout_ms, lease_ms, \
             concurrency, on_unknown, failover_after_s, \
             retry, rate_per_s, burst, invalid_targets_max, breaker",
        ),
        (
            json!({"timeout_ms": 0}),
            "provider \"acme\": timeout_ms is 0; make it a whole number from 10 to 600000",
        ),
        (
            json!({"concurrency": "many"}),
            "provider \"acme\": concurrency is a text and cannot be used; make it a whole number from 1 \
             to 10000",
        ),
        (
            json!({"timeout_ms": 5000, "lease_ms": 5000}),
            "provider \"acme\": lease_ms is 5000, which a call of timeout_ms 5000 can outlast; make it \
             at least timeout_ms + 1000",
        ),
        (
            json!({"on_unknown": "hope"}),
            "provider \"acme\": on_unknown is \"hope\"; make it \"retry\" or \"give_up\"",
        ),
        (
            json!({"retry": {"schedule_s": []}}),
            "provider \"acme\": retry.schedule_s has 0 entries; make it a list of 1 to 100 waits in \
             seconds, such as [10, 30, 60]",
        ),
        (
            json!({"retry": {"schedule_s": [-1]}}),
            "provider \"acme\": retry.schedule_s is -1; make it a number of seconds from 0 to 2592000",
        ),
        (
            json!({"retry": {"jitter": 2}}),
            "provider \"acme\": retry.jitter is 2; make it a number from 0 to 1, the part of a wait that \
             chance may add",
        ),
        (
            json!({"retry": {"retry_after_min_s": 20, "retry_after_max_s": 10}}),
            "provider \"acme\": retry.retry_after_min_s is more than retry_after_max_s; make it the \
             smaller of the two",
        ),
        (
            json!({"retry": {"max": 1}}),
            "provider \"acme\": retry.max is not a known key; use one of: schedule_s, \
             throttled_schedule_s, unavailable_schedule_s, jitter, max_attempts, max_age_s, retry_after_min_s, retry_after_max_s, auth_config_wait_s",
        ),
    ];
    for (settings, expected) in cases {
        assert_eq!(common(settings), Err(expected.to_owned()));
    }
}
