//! Keys of the API that are made and revoked while the service runs. Rows stay when a key is revoked; nothing
//! here knows a key itself, only its hash.

use sea_query::{CaseStatement, Expr, ExprTrait, Order, Query};
use sqlx::FromRow;

use super::{Mode, Store, StoreError};
use crate::clock::Timestamp;

/// Keys whose use is noted by one statement.
const TOUCHED_AT_ONCE: usize = 200;

/// More keys are not listed.
pub const API_KEYS_MAX: u64 = 1000;

/// A key, without the key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiKey {
    /// Its public part.
    pub key_id: String,
    /// Who calls with it; several keys may have one name, so that one takes over from another.
    pub name: String,
    /// SHA-256 of the whole key, in hexadecimal.
    pub hash: String,
    /// What it opens, with blanks between.
    pub scopes: String,
    /// When it was made.
    pub created_at: Timestamp,
    /// By whom.
    pub created_by: String,
    /// When it ends by itself.
    pub expires_at: Option<Timestamp>,
    /// When it was last used; written down within a minute.
    pub last_used_at: Option<Timestamp>,
    /// When and by whom it was revoked.
    pub revoked: Option<(Timestamp, String)>,
}

/// What revoking a key came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Revoked {
    /// It is revoked now.
    Now,
    /// It was before.
    Before,
    /// There is no such key.
    Unknown,
}

#[derive(FromRow)]
struct Row {
    key_id: String,
    name: String,
    hash: String,
    scopes: String,
    created_at_us: i64,
    created_by: String,
    expires_at_us: Option<i64>,
    last_used_at_us: Option<i64>,
    revoked_at_us: Option<i64>,
    revoked_by: Option<String>,
}

const COLUMNS: [&str; 10] = [
    "key_id",
    "name",
    "hash",
    "scopes",
    "created_at_us",
    "created_by",
    "expires_at_us",
    "last_used_at_us",
    "revoked_at_us",
    "revoked_by",
];

impl Store {
    /// Keeps a new key.
    pub async fn add_api_key(&self, key: &ApiKey) -> Result<(), StoreError> {
        let micros = |it: Option<Timestamp>| it.map(Timestamp::as_micros);
        let (revoked_at, revoked_by) = key.revoked.clone().unzip();
        let insert = Query::insert()
            .into_table("api_keys")
            .columns(COLUMNS)
            .values([
                key.key_id.as_str().into(),
                key.name.as_str().into(),
                key.hash.as_str().into(),
                key.scopes.as_str().into(),
                key.created_at.as_micros().into(),
                key.created_by.as_str().into(),
                micros(key.expires_at).into(),
                micros(key.last_used_at).into(),
                micros(revoked_at).into(),
                revoked_by.into(),
            ])
            .map_err(|error| StoreError::Corrupt(format!("a key's columns and values differ: {error}")))?
            .to_owned();
        let mut tx = self.db.begin(Mode::Write).await?;
        tx.exec(&insert).await?;
        tx.commit().await
    }

    /// The key with this public part.
    pub async fn api_key(&self, key_id: &str) -> Result<Option<ApiKey>, StoreError> {
        let statement = select().and_where(Expr::col("key_id").eq(key_id)).to_owned();
        let rows: Vec<Row> = self.db.all(&statement).await?;
        Ok(rows.into_iter().next().map(Row::read))
    }

    /// All keys, dead ones too, the newest first.
    pub async fn api_keys(&self) -> Result<Vec<ApiKey>, StoreError> {
        let statement = select()
            .order_by("created_at_us", Order::Desc)
            .order_by("key_id", Order::Asc)
            .limit(API_KEYS_MAX)
            .to_owned();
        let rows: Vec<Row> = self.db.all(&statement).await?;
        Ok(rows.into_iter().map(Row::read).collect())
    }

    /// Whether a key was ever made.
    pub async fn has_api_keys(&self) -> Result<bool, StoreError> {
        let rows: Vec<Row> = self.db.all(&select().limit(1).to_owned()).await?;
        Ok(!rows.is_empty())
    }

    /// Revokes a key; nothing brings it back.
    pub async fn revoke_api_key(
        &self,
        key_id: &str,
        by: &str,
        now: Timestamp,
    ) -> Result<Revoked, StoreError> {
        let update = Query::update()
            .table("api_keys")
            .value("revoked_at_us", now.as_micros())
            .value("revoked_by", by)
            .and_where(Expr::col("key_id").eq(key_id))
            .and_where(Expr::col("revoked_at_us").is_null())
            .to_owned();
        let mut tx = self.db.begin(Mode::Write).await?;
        let revoked = tx.exec(&update).await? > 0;
        tx.commit().await?;
        if revoked {
            return Ok(Revoked::Now);
        }
        Ok(if self.api_key(key_id).await?.is_some() { Revoked::Before } else { Revoked::Unknown })
    }

    /// Notes when keys were used; one that was used later stays so.
    pub async fn touch_api_keys(&self, used: &[(String, Timestamp)]) -> Result<(), StoreError> {
        let mut tx = self.db.begin(Mode::Write).await?;
        for used in used.chunks(TOUCHED_AT_ONCE) {
            let at = used.iter().fold(CaseStatement::new(), |case, (key_id, at)| {
                case.case(Expr::col("key_id").eq(key_id.as_str()), at.as_micros())
            });
            let at: Expr = at.into();
            let last = Expr::col("last_used_at_us");
            let update = Query::update()
                .table("api_keys")
                .value("last_used_at_us", at.clone())
                .and_where(Expr::col("key_id").is_in(used.iter().map(|(key_id, _)| key_id.as_str())))
                .and_where(last.clone().is_null().or(last.lt(at)))
                .to_owned();
            tx.exec(&update).await?;
        }
        tx.commit().await
    }
}

fn select() -> sea_query::SelectStatement {
    Query::select().columns(COLUMNS).from("api_keys").to_owned()
}

impl Row {
    fn read(self) -> ApiKey {
        let revoked_by = self.revoked_by.unwrap_or_default();
        ApiKey {
            key_id: self.key_id,
            name: self.name,
            hash: self.hash,
            scopes: self.scopes,
            created_at: Timestamp::from_micros(self.created_at_us),
            created_by: self.created_by,
            expires_at: self.expires_at_us.map(Timestamp::from_micros),
            last_used_at: self.last_used_at_us.map(Timestamp::from_micros),
            revoked: self.revoked_at_us.map(|at| (Timestamp::from_micros(at), revoked_by)),
        }
    }
}
