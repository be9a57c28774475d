//! Looking back: an inbox as it was at any moment since the first event, and what two moments differ in.
//!
//! Only the messages of the one recipient are read, a part at a time; what is held is a part and the answer.

use crate::{
    clock::Timestamp,
    event::Recorded,
    id::{Cursor, Position, RecipientId, Shard},
    inbox::{
        InboxFilter, InboxPage,
        difference::{Comparison, Difference},
        past::{PastPage, Point},
    },
    store::{Store, StoreError, StreamsFound},
};

/// Why the past cannot be shown.
#[derive(Debug, thiserror::Error)]
pub enum PastError {
    /// The place is not one of this recipient.
    #[error("{0} is not a place of this recipient, whose events are in shard {1}")]
    Elsewhere(Cursor, Shard),
    /// The place is not there yet.
    #[error("{0} is beyond the end of the log, which is {1}")]
    BeyondEnd(Cursor, Cursor),
    /// The time is not there yet.
    #[error("{0} is in the future; it is {1}")]
    Future(Timestamp, Timestamp),
    /// The first of two places is after the second.
    #[error("the inbox is compared from {0} to {1}, which is before it")]
    Backwards(Cursor, Cursor),
    /// The messages of the recipient are not known up to there.
    #[error("the messages projection has come to {1}, and {0} is asked for")]
    Behind(Cursor, Cursor),
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl PastError {
    /// What to do about it; none where that depends on the database.
    #[must_use]
    pub const fn remedy(&self) -> Option<&'static str> {
        match self {
            Self::Elsewhere(..) => Some("use the cursor of an answer about this recipient, or a time"),
            Self::BeyondEnd(..) | Self::Future(..) => {
                Some("use an earlier one; the inbox as it is needs none")
            }
            Self::Backwards(..) => Some("put the earlier one first"),
            Self::Behind(..) => Some("ask again when the projection has caught up, or for an earlier moment"),
            Self::Store(_) => None,
        }
    }
}

/// The past of a ledger, seen from now.
#[derive(Debug, Clone, Copy)]
pub struct Past<'a> {
    /// Where it is kept.
    pub store: &'a Store,
    /// What is later than this is refused.
    pub now: Timestamp,
}

impl Past<'_> {
    /// The place in the recipient's shard that a moment stands for.
    pub async fn place_of(&self, recipient: &RecipientId, point: Point) -> Result<Cursor, PastError> {
        let end = self.end_of(recipient).await?;
        let Cursor { shard, position: head } = end;
        let position = match point {
            Point::Place(place) if place.shard != shard => return Err(PastError::Elsewhere(place, shard)),
            Point::Place(place) if place.position > head => {
                return Err(PastError::BeyondEnd(place, end));
            }
            Point::Place(place) => place.position,
            Point::Time(time) if time > self.now => return Err(PastError::Future(time, self.now)),
            Point::Time(time) => self.store.place_at(shard, time, head).await?,
        };
        Ok(Cursor { shard, position })
    }

    /// The end of the recipient's shard.
    pub async fn end_of(&self, recipient: &RecipientId) -> Result<Cursor, PastError> {
        let shard = self.store.shard_of(recipient);
        Ok(Cursor { shard, position: self.store.head_of(shard).await? })
    }

    /// The places of two moments, the second of which is the end of the log if it is not given.
    pub async fn places(
        &self,
        recipient: &RecipientId,
        from: Point,
        to: Option<Point>,
    ) -> Result<[Cursor; 2], PastError> {
        let from = self.place_of(recipient, from).await?;
        let to = match to {
            Some(point) => self.place_of(recipient, point).await?,
            None => self.end_of(recipient).await?,
        };
        if from.position > to.position { Err(PastError::Backwards(from, to)) } else { Ok([from, to]) }
    }

    /// A list of the inbox as it was at a place of the recipient's shard, with the counts of that moment.
    pub async fn inbox(
        &self,
        recipient: &RecipientId,
        at: Cursor,
        filter: InboxFilter,
        limit: usize,
    ) -> Result<InboxPage, PastError> {
        let mut page = PastPage::new(at.position, filter, limit);
        let mut parts = Parts::new(recipient, at);
        while let Some(events) = parts.next(self.store).await? {
            page.take(&events);
        }
        Ok(page.finish())
    }

    /// What the inbox differs in between two [places](Self::places): at most `limit` changes, those that
    /// were made last before the place `before`, if there is one.
    pub async fn difference(
        &self,
        recipient: &RecipientId,
        [from, to]: [Cursor; 2],
        before: Option<Position>,
        limit: usize,
    ) -> Result<Difference, PastError> {
        let mut comparison = Comparison::new(from.position, to.position, before, limit);
        let mut parts = Parts::new(recipient, to);
        while let Some(events) = parts.next(self.store).await? {
            comparison.take(&events);
        }
        Ok(comparison.finish())
    }
}

/// The messages of a recipient at a place, part after part.
struct Parts<'a> {
    recipient: &'a RecipientId,
    at: Cursor,
    before: Option<Position>,
    is_over: bool,
}

impl<'a> Parts<'a> {
    /// Before the first event there is no message to ask for.
    const fn new(recipient: &'a RecipientId, at: Cursor) -> Self {
        Self { recipient, at, before: None, is_over: at.position.0 == 0 }
    }

    async fn next(&mut self, store: &Store) -> Result<Option<Vec<Recorded>>, PastError> {
        if self.is_over {
            return Ok(None);
        }
        match store.streams_at(self.recipient, self.at, self.before).await? {
            StreamsFound::Here(streams) => {
                (self.before, self.is_over) = (streams.next, streams.next.is_none());
                Ok(Some(streams.events))
            }
            StreamsFound::Behind(position) => {
                Err(PastError::Behind(self.at, Cursor { shard: self.at.shard, position }))
            }
        }
    }
}
