//! `/v1/receipts`: what devices tell of pushes that reached them.

use std::sync::Arc;

use axum::{Json, extract::State, http::StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::{
    App,
    auth::{Caller, ReceiptsWrite},
    extract::{Body, bad_request},
    no_answer,
    openapi::Receipts,
    problem::{About, Kind, Problem, Rejected},
};
use crate::{
    event::Metadata,
    id::{Cursor, DeliveryId, MessageId},
    ledger::{LedgerError, reports::Reported},
    message::Rejection,
    stream::Report,
};

/// Receipts in one request at the most.
const BATCH_MAX: usize = 500;

/// `{"receipts": […]}` and nothing else; the receipts themselves are read one by one.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Envelope<'a> {
    #[serde(borrow)]
    receipts: Vec<&'a RawValue>,
}

/// What became of one.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
#[schema(as = ReceiptOutcome)]
enum Outcome {
    #[serde(rename_all = "camelCase")]
    Understood {
        message_id: MessageId,
        delivery_id: DeliveryId,
        /// `recorded`, `known` or `unknown`.
        result: &'static str,
        #[serde(skip_serializing_if = "Option::is_none")]
        cursor: Option<Cursor>,
    },
    Rejected(Rejected),
}

/// What became of all, in their order.
#[derive(Debug, Default, Serialize, ToSchema)]
#[schema(as = ReceiptResults)]
pub(super) struct Results {
    recorded: usize,
    known: usize,
    unknown: usize,
    rejected: usize,
    #[serde(rename = "results")]
    outcomes: Vec<Outcome>,
}

/// Records them, each by itself: one that is no receipt does not stop the others.
#[utoipa::path(
    post, path = "/v1/receipts", tag = "receipts", operation_id = "sendReceipts",
    request_body = Receipts,
    responses((status = OK, body = Results, description = "Each was dealt with")),
    security(("apiKey" = ["receipts:write"])),
)]
pub(super) async fn send(
    caller: Caller<ReceiptsWrite>,
    State(app): State<Arc<App>>,
    Body(body): Body,
) -> Result<Json<Results>, Problem> {
    let receipts = read(&body)?;
    let read: Vec<_> = receipts.iter().map(|it| Report::parse(it.get())).collect();
    let reports: Vec<_> = read.iter().flatten().cloned().collect();
    let metadata = Metadata {
        ingress: Some("http".to_owned()),
        actor: Some(caller.actor.as_ref().to_owned()),
        ..Metadata::default()
    };
    let answers = app.ledger.report(reports, &metadata).await;
    let answers = answers.into_iter().collect::<Result<Vec<_>, _>>().map_err(unfinished)?;
    let mut answers = answers.into_iter();
    let mut results = Results { outcomes: Vec::with_capacity(read.len()), ..Results::default() };
    for read in read {
        match read {
            Ok(report) => results.understood(report, answers.next().ok_or_else(no_answer)?),
            Err(rejection) => results.rejected(rejection),
        }
    }
    Ok(Json(results))
}

fn read(body: &[u8]) -> Result<Vec<&RawValue>, Problem> {
    let envelope: Result<Envelope<'_>, _> = serde_json::from_slice(body);
    let remedy = "send {\"receipts\": [{\"messageId\": …, \"deliveryId\": …, \"kind\": \"opened\"}]}";
    let envelope =
        envelope.map_err(|error| bad_request(format!("the body cannot be read: {error}"), remedy))?;
    match envelope.receipts.len() {
        count if count > BATCH_MAX => {
            let detail = format!("the request has {count} receipts, more than {BATCH_MAX}");
            let about = About { code: Some("too_large"), result: Some("rejected"), ..About::default() };
            Err(Problem::new(Kind::TooLarge, detail, "send them in several requests").about(about))
        }
        _ => Ok(envelope.receipts),
    }
}

/// Not all of them are durable. Which ones does not matter: the same request may be sent again.
fn unfinished(error: LedgerError) -> Problem {
    let problem = Problem::from(error);
    if problem.status() != StatusCode::SERVICE_UNAVAILABLE {
        return problem;
    }
    let detail = "the database does not answer; some of the receipts may be in the log, others are not";
    let remedy = "send the same request again; what is in the log is then answered as known";
    Problem::new(Kind::Unavailable, detail, remedy).retry_after(2)
}

impl Results {
    fn understood(&mut self, report: Report, reported: Reported) {
        let (count, result, cursor) = match reported {
            Reported::Recorded(cursor) => (&mut self.recorded, "recorded", Some(cursor)),
            Reported::Known(cursor) => (&mut self.known, "known", Some(cursor)),
            Reported::Unknown => (&mut self.unknown, "unknown", None),
        };
        *count += 1;
        let Report { message_id, delivery_id, .. } = report;
        self.outcomes.push(Outcome::Understood { message_id, delivery_id, result, cursor });
    }

    fn rejected(&mut self, rejection: Rejection) {
        self.rejected += 1;
        self.outcomes.push(Outcome::Rejected(rejection.into()));
    }
}
