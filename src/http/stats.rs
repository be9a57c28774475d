//! `/v1/stats`: how much of what happened, day by day or category by category, ready for a chart.

use std::{collections::BTreeMap, sync::Arc};

use axum::{extract::State, http::HeaderMap, response::Response};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::{
    App,
    auth::{Caller, MessagesRead},
    conditional::answer_unless_known,
    extract::{IfPosition, Params, bad_request, parsed},
    openapi::IfNoneMatch,
    problem::Problem,
};
use crate::{
    clock::Day,
    id::Cursor,
    projection::{
        Projection as _, Row as _,
        statistics::{DailyCount, Statistics},
    },
    store::statistics::{CountBy, CountFilter, DAYS_MAX},
};

/// How many days before the last one are counted unless somebody says since when.
const DAYS_BEFORE: u64 = 29;

/// What to count.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct StatsParams {
    /// The first day; without it, 29 days before the last.
    #[serde(default, deserialize_with = "parsed")]
    since: Option<Day>,
    /// The last day, at most 365 days after the first; without it, today.
    #[serde(default, deserialize_with = "parsed")]
    until: Option<Day>,
    /// Only messages of this category; empty for those without one, `*` for those that are not counted by name.
    category: Option<String>,
    /// What to tell apart.
    #[serde(default)]
    #[param(inline)]
    by: By,
    /// The cursor of a write that the answer must show.
    #[serde(default, deserialize_with = "parsed")]
    after: Option<Cursor>,
}

/// What is told apart.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum By {
    /// Days.
    #[default]
    Day,
    /// Categories.
    Category,
}

/// What happened, counted.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Stats {
    /// The first day.
    since: Day,
    /// The last day.
    until: Day,
    #[schema(inline)]
    by: By,
    /// Events of the log that are not counted yet.
    behind: i64,
    /// Every day in order, those without anything too; or the categories, those of most messages first, at most 200.
    series: Vec<Point>,
}

/// What happened on a day, or to messages of a category.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = StatsPoint)]
struct Point {
    /// The day, where days are told apart.
    #[serde(skip_serializing_if = "Option::is_none")]
    day: Option<Day>,
    /// The category, where these are told apart; empty for messages without one, `*` for those that are not counted by
    /// name.
    #[serde(skip_serializing_if = "Option::is_none")]
    category: Option<String>,
    #[serde(flatten)]
    counts: Counts,
}

/// Writes what an answer shows of a row: each count under its own name.
macro_rules! counts {
    ($($(#[$doc:meta])* $field:ident,)*) => {
        /// How often what happened. Every fact counts on the day on which the ledger wrote it down, in UTC.
        #[derive(Debug, Serialize, ToSchema)]
        #[serde(rename_all = "camelCase")]
        #[schema(as = StatsCounts)]
        struct Counts { $($(#[$doc])* $field: i64,)* }

        impl From<DailyCount> for Counts {
            fn from(it: DailyCount) -> Self {
                Self { $($field: it.$field,)* }
            }
        }
    };
}
counts! {
    /// Messages that came for the first time.
    messages_received,
    /// Contents that came under the id of another message.
    messages_conflicted,
    /// Messages that were cancelled.
    messages_cancelled,
    /// Items that appeared in an inbox.
    items_appeared,
    /// Items shown for the first time; what is read was seen.
    items_seen,
    /// Items read for the first time; what is clicked is read.
    items_read,
    /// Items clicked for the first time.
    items_clicked,
    /// Items that their recipients removed.
    items_deleted,
    /// Items whose end came, shown by then or not.
    items_expired,
    /// Deliveries planned, also in the place of others.
    deliveries_planned,
    /// Deliveries that were over and are taken up again.
    deliveries_reopened,
    /// Deliveries that a provider took.
    deliveries_accepted,
    /// Deliveries given up after a failure.
    deliveries_failed,
    /// Deliveries given up without anybody knowing.
    deliveries_unknown,
    /// Deliveries not sent because their end had come.
    deliveries_expired,
    /// Deliveries not sent because somebody cancelled.
    deliveries_cancelled,
    /// Deliveries not sent because there was nowhere to send them.
    deliveries_no_target,
    /// Deliveries not sent because the recipient does not want them.
    deliveries_opted_out,
    /// Deliveries not sent because a newer message took their place.
    deliveries_superseded,
    /// Deliveries that another took the place of, to where the device is now.
    deliveries_moved,
    /// Deliveries known to have reached the device.
    deliveries_delivered,
    /// Deliveries that a person is known to have opened.
    deliveries_opened,
    /// Calls to a provider.
    attempts_started,
    /// Those of them that were not the first of their delivery.
    attempts_retried,
    /// Calls answered with no, or not at all.
    attempts_failed,
    /// Calls of which nobody knows how they ended.
    attempts_lost,
}

/// How much of what happened.
#[utoipa::path(
    get, path = "/v1/stats", tag = "operations", operation_id = "showStats",
    params(StatsParams, IfPosition, IfNoneMatch),
    responses(
        (status = OK, body = Stats, description = "What was counted"),
        (status = NOT_MODIFIED, description = "The same as the one that If-None-Match names"),
    ),
    security(("apiKey" = ["messages:read"])),
)]
pub(super) async fn show(
    _: Caller<MessagesRead>,
    State(app): State<Arc<App>>,
    Params(params): Params<StatsParams>,
    IfPosition(position): IfPosition,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let (since, until) = app.days(&params)?;
    app.wait_for(Statistics.name(), params.after.or(position)).await?;
    let store = app.ledger.store();
    // Before the counts, so that what is said to be counted is.
    let behind = store.behind(Statistics.name()).await?;
    let filter = CountFilter { since, until, category: params.category };
    let series = match params.by {
        By::Day => every_day(since, until, store.counted(&filter, CountBy::Day).await?),
        By::Category => {
            let rows = store.counted(&filter, CountBy::Category).await?.into_iter();
            rows.map(|it| Point { day: None, category: Some(it.category.clone()), counts: it.into() })
                .collect()
        }
    };
    answer_unless_known(&headers, &Stats { since, until, by: params.by, behind, series })
}

impl App {
    /// From which day to which to count.
    fn days(&self, params: &StatsParams) -> Result<(Day, Day), Problem> {
        let until = params.until.unwrap_or_else(|| Day::of(self.ledger.now()));
        let since = params.since.unwrap_or_else(|| until.minus(DAYS_BEFORE));
        match until.since(since) + 1 {
            days if days < 1 => {
                let detail = format!("since is {since}, which is after {until}");
                Err(bad_request(detail, "name the earlier day first"))
            }
            days if days > DAYS_MAX => {
                let detail = format!("from {since} to {until} there are {days} days");
                Err(bad_request(detail, format!("ask for at most {DAYS_MAX} days at a time")))
            }
            _ => Ok((since, until)),
        }
    }
}

/// A point for each day, in order; those of which nothing is told are all zeros.
fn every_day(since: Day, until: Day, rows: Vec<DailyCount>) -> Vec<Point> {
    let mut told: BTreeMap<_, _> = rows.into_iter().map(|it| (it.day.clone(), it)).collect();
    let days = u64::try_from(until.since(since)).unwrap_or_default();
    let point = |day: Day| {
        let row = told.remove(&day.to_string()).unwrap_or_else(|| DailyCount::from_values(Vec::new()));
        Point { day: Some(day), category: None, counts: row.into() }
    };
    (0..=days).map(|it| since.plus(it)).map(point).collect()
}
