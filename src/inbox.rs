//! What is seen of an inbox: which items a list shows, and the counts beside them.
//!
//! Pure: the store asks the tables for it as they are, [`past`] makes it out of events as it was at any place of
//! the log, and [`difference`] says what two places differ in.

pub mod difference;
pub mod past;

use serde::Deserialize;

use crate::{
    clock::Timestamp,
    id::Position,
    projection::inbox::{InboxItem, ItemState},
};

/// Which items of an inbox; all that is given has to be so.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct InboxFilter {
    /// Older than the item at this position.
    pub before: Option<Position>,
    /// How far the recipient has come with them.
    pub status: Status,
    /// Those that were put away.
    pub archived: Archived,
    /// Of this category.
    pub category: Option<String>,
    /// Appeared at this time or later.
    pub since: Option<Timestamp>,
    /// Appeared before this time.
    pub until: Option<Timestamp>,
}

/// How far a recipient has come with items.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Wherever.
    #[default]
    All,
    /// They were never shown.
    Unseen,
    /// They are not read, shown or not.
    Unread,
    /// They are read.
    Read,
}

/// What to do with items that were put away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Archived {
    /// Leave them out.
    #[default]
    Exclude,
    /// Take them with the others.
    Include,
    /// Take nothing else.
    Only,
}

/// A part of an inbox, with the counts of the same moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InboxPage {
    /// Newest first.
    pub items: Vec<InboxItem>,
    /// Whether older ones follow.
    pub more: bool,
    /// Of the whole inbox, archived items left out.
    pub counts: InboxCounts,
}

/// How many items are in each state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Never shown.
    pub unseen: i64,
    /// Not read.
    pub unread: i64,
    /// All.
    pub total: i64,
}

/// The counts of an inbox.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct InboxCounts {
    /// Of the whole inbox.
    pub overall: Counts,
    /// Of each category that has, or had, an item; items without a category are in none.
    pub by_category: Vec<(String, Counts)>,
    /// The last change of any of it, which is the cursor of the whole inbox; zero where there was none yet.
    pub last: Position,
}

impl InboxFilter {
    /// The values of the column `state` that are asked for.
    #[must_use]
    pub fn states(&self) -> Vec<i64> {
        let states: &[ItemState] = match self.status {
            Status::All => &[ItemState::Unseen, ItemState::Unread, ItemState::Read],
            Status::Unseen => &[ItemState::Unseen],
            Status::Unread => &[ItemState::Unseen, ItemState::Unread],
            Status::Read => &[ItemState::Read],
        };
        let archived: &[bool] = match self.archived {
            Archived::Exclude => &[false],
            Archived::Include => &[false, true],
            Archived::Only => &[true],
        };
        archived.iter().flat_map(|&archived| states.iter().map(move |it| it.number(archived))).collect()
    }

    /// Whether an item is one of those: what a list that is read from the tables asks in SQL.
    #[must_use]
    pub fn takes(&self, item: &InboxItem) -> bool {
        let is_of_time = |bound: Option<Timestamp>, holds: fn(Timestamp, Timestamp) -> bool| {
            bound.is_none_or(|bound| item.appeared_at_us.is_some_and(|at| holds(at, bound)))
        };
        self.states().contains(&item.state)
            && self.before.is_none_or(|before| item.position < before.0)
            && self.category.as_ref().is_none_or(|it| item.category.as_ref() == Some(it))
            && is_of_time(self.since, |at, since| at >= since)
            && is_of_time(self.until, |at, until| at < until)
    }
}

impl InboxCounts {
    /// Takes in the counter of one category, or of the whole inbox, which has no name.
    pub fn take(&mut self, category: String, counts: Counts, last: i64) {
        if category.is_empty() {
            (self.overall, self.last) = (counts, Position(last));
        } else {
            self.by_category.push((category, counts));
        }
    }
}

#[cfg(test)]
mod tests;
