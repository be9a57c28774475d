//! Quarantine: input that cannot become a message, kept whole until somebody decides.
//!
//! Rows change only by being seen again and by being decided upon; nothing here deletes one. The same
//! input (body and attributes) is one row however often it comes.

use sea_query::{Expr, ExprTrait, OnConflict, Order, Query, SelectStatement};
use sha2::{Digest, Sha256};
use sqlx::FromRow;

use super::{Mode, Store, StoreError};
use crate::{clock::Timestamp, id::QuarantineId};

/// Input to hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unreadable {
    /// The door it came in by, and where at it: `sqs:notifications message 5fea…`.
    pub source: String,
    /// The code of the rejection.
    pub code: String,
    /// What is wrong and what the producer should do.
    pub reason: String,
    /// The input itself, or its beginning where its source keeps no more.
    pub body: Vec<u8>,
    /// How many bytes the input had.
    pub size: u64,
    /// What came beside the body, as JSON.
    pub attributes: String,
}

/// Where an input in quarantine stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum HeldState {
    /// Nobody has decided yet.
    Held,
    /// It was read again and is a message now.
    Retried,
    /// Somebody decided that it is not needed.
    Discarded,
}

/// One input in quarantine, without its body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeldEntry {
    /// Its name.
    pub id: QuarantineId,
    /// Where it stands.
    pub state: HeldState,
    /// The door it first came in by.
    pub source: String,
    /// The code of the rejection.
    pub code: String,
    /// What is wrong and what the producer should do.
    pub reason: String,
    /// When it first came.
    pub first_at: Timestamp,
    /// When it last came.
    pub last_at: Timestamp,
    /// How often it came.
    pub times_seen: i64,
    /// Who decided what, where somebody has.
    pub decided: Option<Decided>,
}

/// Who decided, when, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decided {
    /// When.
    pub at: Timestamp,
    /// Who.
    pub by: String,
    /// In their own words.
    pub note: Option<String>,
}

/// One input in quarantine, whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// All about it.
    pub entry: HeldEntry,
    /// The input.
    pub body: Vec<u8>,
    /// What came beside it, as JSON.
    pub attributes: String,
}

/// What somebody decided about an input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// It was read again and is a message now.
    Retried,
    /// It is not needed.
    Discarded,
}

impl HeldState {
    /// Every state.
    pub const ALL: [Self; 3] = [Self::Held, Self::Retried, Self::Discarded];

    /// As written in the database, in answers and on the command line.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Held => "held",
            Self::Retried => "retried",
            Self::Discarded => "discarded",
        }
    }
}

impl HeldEntry {
    /// Who read it again and made it a message, where somebody did.
    #[must_use]
    pub fn retried(&self) -> Option<&Decided> {
        self.decided.as_ref().filter(|_| self.state == HeldState::Retried)
    }
}

impl Decision {
    /// The state it leads to.
    #[must_use]
    pub const fn state(self) -> HeldState {
        match self {
            Self::Retried => HeldState::Retried,
            Self::Discarded => HeldState::Discarded,
        }
    }

    /// The states it can follow on. What was discarded may still be retried; a message stays one.
    const fn follows(self) -> &'static [HeldState] {
        match self {
            Self::Retried => &[HeldState::Held, HeldState::Discarded],
            Self::Discarded => &[HeldState::Held],
        }
    }
}

impl Unreadable {
    /// SHA-256 of size, body and attributes as hexadecimal digits: equal input, equal fingerprint.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        let mut hash = Sha256::new();
        hash.update(self.size.to_be_bytes());
        hash.update(&self.body);
        hash.update(&self.attributes);
        hex::encode(hash.finalize())
    }
}

#[derive(FromRow)]
struct EntryRow {
    id: String,
    state: String,
    source: String,
    code: String,
    reason: String,
    first_at_us: i64,
    last_at_us: i64,
    times_seen: i64,
    decided_at_us: Option<i64>,
    decided_by: Option<String>,
    decided_note: Option<String>,
}

#[derive(FromRow)]
struct WholeRow {
    #[sqlx(flatten)]
    entry: EntryRow,
    body: Vec<u8>,
    attributes: String,
}

const ENTRY_COLUMNS: [&str; 11] = [
    "id",
    "state",
    "source",
    "code",
    "reason",
    "first_at_us",
    "last_at_us",
    "times_seen",
    "decided_at_us",
    "decided_by",
    "decided_note",
];

impl Store {
    /// Holds all of these, durably, in one transaction. What is held already, or was decided upon, is
    /// only counted.
    pub async fn quarantine_hold(&self, items: &[Unreadable], now: Timestamp) -> Result<(), StoreError> {
        let mut items: Vec<_> = items.iter().map(|item| (item.fingerprint(), item)).collect();
        // One order everywhere, so that two processes that hold the same input cannot deadlock.
        items.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
        let mut tx = self.db.begin(Mode::Write).await?;
        for (fingerprint, item) in items {
            tx.exec(&hold(fingerprint, item, now)).await?;
        }
        tx.commit().await
    }

    /// Up to `limit` inputs in quarantine, the oldest first, after `after`; only those in `state`, where
    /// one is given.
    pub async fn quarantine_list(
        &self,
        state: Option<HeldState>,
        after: Option<QuarantineId>,
        limit: u64,
    ) -> Result<Vec<HeldEntry>, StoreError> {
        let mut statement = select(&ENTRY_COLUMNS);
        statement.order_by("id", Order::Asc).limit(limit);
        if let Some(state) = state {
            statement.and_where(Expr::col("state").eq(state.as_str()));
        }
        if let Some(after) = after {
            statement.and_where(Expr::col("id").gt(after.to_string()));
        }
        let rows: Vec<EntryRow> = self.db.all(&statement).await?;
        rows.into_iter().map(EntryRow::decode).collect()
    }

    /// One input in quarantine.
    pub async fn quarantine_get(&self, id: QuarantineId) -> Result<Option<Held>, StoreError> {
        let mut statement = select(&ENTRY_COLUMNS);
        statement.columns(["body", "attributes"]).and_where(Expr::col("id").eq(id.to_string()));
        let row: Option<WholeRow> = self.db.first(&statement).await?;
        let whole = |row: WholeRow| {
            Ok(Held { entry: row.entry.decode()?, body: row.body, attributes: row.attributes })
        };
        row.map(whole).transpose()
    }

    /// Writes down what was decided; false when there is no such input, or when it stands where this
    /// cannot follow.
    pub async fn quarantine_decide(
        &self,
        id: QuarantineId,
        decision: Decision,
        decided: &Decided,
    ) -> Result<bool, StoreError> {
        let follows = decision.follows().iter().map(|it| it.as_str());
        let statement = Query::update()
            .table("quarantine")
            .value("state", decision.state().as_str())
            .value("decided_at_us", decided.at.as_micros())
            .value("decided_by", decided.by.as_str())
            .value("decided_note", decided.note.clone())
            .and_where(Expr::col("id").eq(id.to_string()))
            .and_where(Expr::col("state").is_in(follows))
            .to_owned();
        Ok(self.db.exec(&statement).await? > 0)
    }
}

fn hold(fingerprint: String, item: &Unreadable, now: Timestamp) -> sea_query::InsertStatement {
    let again = OnConflict::column("fingerprint")
        .value("times_seen", Expr::col(("quarantine", "times_seen")).add(1_i64))
        .value("last_at_us", now.as_micros())
        .to_owned();
    Query::insert()
        .into_table("quarantine")
        .columns([
            "id",
            "fingerprint",
            "state",
            "source",
            "code",
            "reason",
            "body",
            "attributes",
            "first_at_us",
            "last_at_us",
            "times_seen",
        ])
        .values_panic([
            Expr::value(QuarantineId::random(now).to_string()),
            Expr::value(fingerprint),
            Expr::value(HeldState::Held.as_str()),
            Expr::value(item.source.as_str()),
            Expr::value(item.code.as_str()),
            Expr::value(item.reason.as_str()),
            Expr::value(item.body.clone()),
            Expr::value(item.attributes.as_str()),
            Expr::value(now.as_micros()),
            Expr::value(now.as_micros()),
            Expr::value(1_i64),
        ])
        .on_conflict(again)
        .to_owned()
}

fn select(columns: &'static [&'static str]) -> SelectStatement {
    Query::select().columns(columns.iter().copied()).from("quarantine").to_owned()
}

impl EntryRow {
    fn decode(self) -> Result<HeldEntry, StoreError> {
        let corrupt = |what: &str, value: &str| StoreError::Corrupt(format!("quarantine.{what} {value:?}"));
        let state = HeldState::ALL.into_iter().find(|it| it.as_str() == self.state);
        let decided = self.decided_at_us.map(|at| Decided {
            at: Timestamp::from_micros(at),
            by: self.decided_by.unwrap_or_default(),
            note: self.decided_note,
        });
        Ok(HeldEntry {
            id: self.id.parse().map_err(|_| corrupt("id", &self.id))?,
            state: state.ok_or_else(|| corrupt("state", &self.state))?,
            source: self.source,
            code: self.code,
            reason: self.reason,
            first_at: Timestamp::from_micros(self.first_at_us),
            last_at: Timestamp::from_micros(self.last_at_us),
            times_seen: self.times_seen,
            decided,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn input(body: &[u8], attributes: &str) -> Unreadable {
        Unreadable {
            source: "ndjson:a line 1".to_owned(),
            code: "not_json".to_owned(),
            reason: "the body is not JSON".to_owned(),
            body: body.to_vec(),
            size: body.len() as u64,
            attributes: attributes.to_owned(),
        }
    }

    #[test]
    fn the_same_input_has_one_fingerprint_wherever_it_comes_from() {
        let one = input(b"a", "{}");
        let elsewhere = Unreadable { source: "ndjson:b line 2".to_owned(), ..one.clone() };
        assert_eq!(one.fingerprint(), elsewhere.fingerprint());
        let others = [input(b"b", "{}"), input(b"a{", "}"), Unreadable { size: 2, ..one.clone() }];
        for other in others {
            assert_ne!(one.fingerprint(), other.fingerprint());
        }
        assert_eq!(one.fingerprint().len(), 64);
    }
}
