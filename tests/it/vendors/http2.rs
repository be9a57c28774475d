//! APNs as nginx plays it: many pushes over one HTTP/2 connection, connections that end in between, and a
//! service that takes one at a time.

use std::{collections::HashSet, time::Duration};

use futures_util::{StreamExt, stream};
use notification_ledger::{
    event::FailureClass,
    provider::{Outcome, Push},
};

use super::cases::{apns_settings, provider, push, said, token};
use crate::support::{counterparts::Keys, nginx::Nginx};

/// Makes so many pushes.
async fn pushed(nginx: &Nginx, pushes: usize) -> Vec<(Push, Outcome)> {
    let settings = apns_settings(&nginx.url());
    let (apns, _folder) = provider("apns", &settings, &Keys::p256().private_pem);
    let pushes = (0..pushes).map(|it| push(&format!("m-{it}"), token("0a")));
    let call = |push: Push| {
        let apns = apns.clone();
        async move {
            let outcome = apns.push(&push).await;
            (push, outcome)
        }
    };
    let all = stream::iter(pushes).map(call).buffer_unordered(64).collect();
    tokio::time::timeout(Duration::from_mins(2), all).await.expect("no call waits for ever")
}

/// One connection after the other, each of which ends after a hundred requests. On one thread: on several,
/// the HTTP client forgets a request now and then (seen once in some thousands, when a connection ended),
/// which the timeout then ends.
#[tokio::test]
async fn a_connection_that_ends_takes_no_push_along() {
    let nginx = Nginx::start(100, 100).await;
    let outcomes = pushed(&nginx, 10_000).await;
    let failed = outcomes.iter().find(|it| !matches!(it.1, Outcome::Accepted { .. }));
    assert!(failed.is_none(), "{failed:?}");
    let answered = nginx.answered();
    let ids: HashSet<_> = answered.iter().map(|it| &it.apns_id).collect();
    assert_eq!((answered.len(), ids.len()), (10_000, 10_000), "none lost, none twice");
    let connections: HashSet<_> = answered.iter().map(|it| it.connection).collect();
    assert!((100..=110).contains(&connections.len()), "{} connections", connections.len());
}

/// Where connections end faster than anybody can keep up, what the service never came to is not unknown.
#[tokio::test]
async fn a_push_that_was_never_looked_at_is_known_to_be_none() {
    let nginx = Nginx::start(100, 10).await;
    let outcomes = pushed(&nginx, 2_000).await;
    let answered: HashSet<_> = nginx.answered().into_iter().map(|it| it.apns_id).collect();
    let mut refused = 0;
    for (push, outcome) in &outcomes {
        let is_answered = answered.contains(&push.delivery_id.to_string());
        if matches!(outcome, Outcome::Accepted { .. }) {
            assert!(is_answered, "{push:?}");
        } else {
            let (class, code, ..) = said(outcome);
            assert_eq!((class, code, is_answered), (FailureClass::Retry, "refused", false), "{outcome:?}");
            refused += 1;
        }
    }
    assert!(refused > 0, "otherwise nothing is proved here");
    assert_eq!(answered.len() + refused, 2_000);
}

#[tokio::test]
async fn a_service_that_takes_one_push_at_a_time_is_no_dead_end() {
    let nginx = Nginx::start(1, 1_000_000).await;
    let outcomes = pushed(&nginx, 500).await;
    assert!(outcomes.iter().all(|it| matches!(it.1, Outcome::Accepted { .. })));
    let connections: HashSet<_> = nginx.answered().iter().map(|it| it.connection).collect();
    assert_eq!(connections.len(), 1);
}
