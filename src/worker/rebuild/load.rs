//! The fold of a rebuild: large ranges of events, read ahead, folded in memory, loaded in bulk.
//!
//! For each shard three things go on at once: events are read and decoded, those read before are folded, and
//! what the range before came to is written. Rows stay in memory between ranges, so that an inbox's counters
//! are not read again for every message; how much stays, and how many shards are folded at a time, is
//! bounded whatever the log holds (BOUNDED). A range is one transaction with its checkpoint, so a rebuild that
//! is killed goes on after the last range it wrote.

use std::{num::NonZero, time::Duration};

use tokio::{
    sync::mpsc,
    task::{JoinError, JoinSet},
    time::Instant,
};

use super::{OnProgress, Rebuild, RebuildError, Tally};
use crate::{
    event::Recorded,
    id::{Position, Shard},
    projection::{Projection, Rows, fold_all, touched},
    store::{Ahead, Checkpoint, Loaded, Slot, Store, StoreError},
};

/// Reads that may wait for the fold, for each shard.
const AHEAD: usize = 4;
/// Events read at first, while nobody knows how large they are.
const FIRST_EVENTS: u64 = 100;
/// Events read at a time.
const READ_EVENTS: u64 = 500;
/// Bytes of the log read at a time, as far as events are of about the same size.
const READ_BYTES: u64 = 2 << 20;
/// Events in one transaction.
const RANGE_EVENTS: u64 = 5_000;
/// Events in one transaction while others append: on SQLite they wait for as long as it takes.
const SHORT_EVENTS: u64 = 500;
/// The longest rest while others append.
const REST_MAX: Duration = Duration::from_secs(1);
/// Memory that rows may take, over all shards that are folded at a time: those of a range, and as much of
/// those kept between ranges.
const ROWS_BYTES: usize = 64 << 20;
/// Shards folded at a time at the most.
const SHARDS_MAX: usize = 8;
/// How long to leave a shard alone that another process is at.
const PAUSE: Duration = Duration::from_millis(100);
/// How often a shard may be left alone without moving.
const PAUSES: u32 = 600;
/// How often the database may fail in a way that may pass.
const TRIES: u32 = 10;

/// How much is read and written at a time.
#[derive(Debug, Clone, Copy)]
pub struct Ranges {
    /// Events in one transaction.
    pub events: u64,
    /// Bytes of rows that are kept in memory, over all shards.
    pub bytes: usize,
}

impl Default for Ranges {
    fn default() -> Self {
        Self { events: RANGE_EVENTS, bytes: ROWS_BYTES }
    }
}

impl Rebuild {
    /// Folds every shard of a slot up to its target and not beyond.
    pub async fn load(
        &self,
        slot: Slot,
        targets: Vec<(Shard, Position)>,
        ranges: Ranges,
        progress: OnProgress<'_>,
    ) -> Result<(), RebuildError> {
        let tally = &Tally::new(&self.places(slot).await?, &targets, progress);
        let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
        let width = self.store.load_width().min(cores).clamp(1, SHARDS_MAX).min(targets.len().max(1));
        let bytes = ranges.bytes / width;
        let (folded, mut news) = mpsc::unbounded_channel();
        let shards = targets.into_iter().map(|(shard, target)| Load {
            store: self.store.clone(),
            projection: self.projection,
            slot,
            shard,
            target,
            ranges: Ranges { bytes, ..ranges },
            folded: folded.clone(),
        });
        let mut waiting = shards.collect::<Vec<_>>().into_iter();
        // Ends what it has begun when this future is dropped.
        let mut running = JoinSet::new();
        loop {
            while running.len() < width
                && let Some(load) = waiting.next()
            {
                running.spawn(load.run());
            }
            tokio::select! {
                biased;
                Some(events) = news.recv() => tally.add(events),
                ended = running.join_next() => match ended {
                    None => return Ok(()),
                    Some(ended) => if let Err(error) = joined(ended) {
                        running.shutdown().await;
                        return Err(error);
                    },
                },
            }
        }
    }
}

/// One shard on its way.
struct Load {
    store: Store,
    projection: &'static dyn Projection,
    slot: Slot,
    shard: Shard,
    target: Position,
    ranges: Ranges,
    folded: mpsc::UnboundedSender<u64>,
}

/// A range on its way: what was folded and is not being written yet.
struct Range {
    /// The checkpoint before it.
    from: Position,
    /// Up to where it is folded.
    place: Position,
    events: u64,
    rows: Rows,
    /// The range before.
    writing: JoinSet<Result<Loaded, StoreError>>,
    pace: Pace,
}

/// How a shard gives way to those who append (GIVES-WAY): while there are any, its transactions are short and it rests as
/// long as it works, so that half of what the machine and the database can do is left.
struct Pace {
    /// The end of the log, over all shards, when it last looked.
    head: Option<i64>,
    others_append: bool,
    /// Since when it works without a rest.
    since: Instant,
}

/// Why a shard does not go on from what is in memory.
enum Halt {
    /// Another process is at it.
    Overtaken,
    Failed(RebuildError),
}

impl<E: Into<RebuildError>> From<E> for Halt {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}

impl Load {
    /// Folds to the target, from the checkpoint again whenever somebody else has moved it or the database
    /// was away for a moment. Where the fold fails at an event, all before it is folded.
    async fn run(mut self) -> Result<(), RebuildError> {
        let (mut refused, mut last, mut fault) = (0, None, None);
        loop {
            let contended = RebuildError::Contended(self.projection.name());
            let (error, tries) = match self.fold_on().await {
                Ok(None) => {
                    let Some(fault) = fault else { return Ok(()) };
                    let place = (self.shard, self.target);
                    return Err(self.store.park_slot(self.projection, self.slot, place, fault).await.into());
                }
                Err(RebuildError::Store(StoreError::Fold(found))) => {
                    self.target = Position(found.event.position.0 - 1);
                    fault = Some(found.into());
                    continue;
                }
                Ok(from) => {
                    refused = if last == from { refused } else { 0 };
                    last = from;
                    (contended, PAUSES)
                }
                Err(RebuildError::Store(error)) if error.is_transient() => (error.into(), TRIES),
                Err(error) => return Err(error),
            };
            refused += 1;
            if refused >= tries {
                return Err(error);
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Folds on from the checkpoint; answers with the checkpoint where somebody else has moved it.
    async fn fold_on(&self) -> Result<Option<Position>, RebuildError> {
        let checkpoints = self.store.checkpoints().await?;
        let is_own = |it: &Checkpoint| {
            it.projection == self.projection.name() && it.slot == self.slot && it.shard == self.shard
        };
        let Some(from) = checkpoints.into_iter().find(is_own).map(|it| it.position) else {
            return Err(RebuildError::Contended(self.projection.name()));
        };
        match self.fold_from(from).await {
            Ok(()) => Ok(None),
            Err(Halt::Overtaken) => Ok(Some(from)),
            Err(Halt::Failed(error)) => Err(error),
        }
    }

    async fn fold_from(&self, from: Position) -> Result<(), Halt> {
        let (sender, mut reads) = mpsc::channel(AHEAD);
        let mut reader = JoinSet::new();
        let (store, shard, target, most) = (self.store.clone(), self.shard, self.target, self.ranges.events);
        reader.spawn(async move { read_on(&store, shard, (from, target), most, sender).await });
        let pace = Pace { head: None, others_append: false, since: Instant::now() };
        let (rows, writing) = (Rows::default(), JoinSet::new());
        let mut range = Range { from, place: from, events: 0, rows, writing, pace };
        while let Some(read) = reads.recv().await {
            let Ahead { events, stopped, .. } = read?;
            self.fold(&events, &mut range).await?;
            let most = if range.pace.others_append { SHORT_EVENTS } else { RANGE_EVENTS };
            if range.events >= most.min(self.ranges.events) || range.rows.fresh_bytes() >= self.ranges.bytes {
                self.write(&mut range).await?;
                self.rest(&mut range).await?;
            }
            if let Some(source) = stopped {
                self.write(&mut range).await?;
                range.written().await?;
                let at = (self.shard, range.place);
                return Err(self.store.park_slot(self.projection, self.slot, at, source).await.into());
            }
        }
        // Where it ended badly, the events that were read are not all there are.
        while let Some(ended) = reader.join_next().await {
            joined(ended);
        }
        self.write(&mut range).await?;
        range.written().await
    }

    /// Looks whether others append, and gives way if they do.
    async fn rest(&self, range: &mut Range) -> Result<(), Halt> {
        let head = self.store.heads().await?.iter().map(|it| it.position.0).sum();
        range.pace.others_append = range.pace.head.replace(head).is_some_and(|before| before < head);
        if range.pace.others_append {
            // What was handed on is written first, so that the rest is one.
            range.written().await?;
            tokio::time::sleep(range.pace.since.elapsed().min(REST_MAX)).await;
        }
        range.pace.since = Instant::now();
        Ok(())
    }

    /// Folds events into the rows of the range.
    async fn fold(&self, events: &[Recorded], range: &mut Range) -> Result<(), StoreError> {
        let Some(last) = events.last() else { return Ok(()) };
        debug_assert!(last.position > range.place, "positions become visible in order");
        let keys = touched(self.projection, events);
        self.store.read_slot(self.projection, self.slot, &keys, &mut range.rows).await?;
        fold_all(self.projection, events, &mut range.rows)?;
        range.place = last.position;
        range.events += events.len() as u64;
        Ok(())
    }

    /// Begins to write a range once the one before is there. What was written before may be forgotten then,
    /// and read from the database again; what is being written may not.
    async fn write(&self, range: &mut Range) -> Result<(), Halt> {
        range.written().await?;
        if range.events == 0 {
            return Ok(());
        }
        let changes = range.rows.changes(self.projection.tables());
        let (store, projection, slot) = (self.store.clone(), self.projection, self.slot);
        let (way, events) = ((self.shard, range.from, range.place), range.events);
        let folded = self.folded.clone();
        range.writing.spawn(async move {
            let loaded = store.load_slot(projection, slot, way, changes).await?;
            if loaded == Loaded::Done {
                // Nobody listens any more where the whole was given up.
                let _ = folded.send(events);
            }
            Ok(loaded)
        });
        (range.from, range.events) = (range.place, 0);
        range.rows.forget(self.ranges.bytes);
        Ok(())
    }
}

impl Range {
    /// Waits until the range before is written.
    async fn written(&mut self) -> Result<(), Halt> {
        match self.writing.join_next().await.map(joined).transpose()? {
            Some(Loaded::Overtaken) => Err(Halt::Overtaken),
            Some(Loaded::Done) | None => Ok(()),
        }
    }
}

/// Reads the events of a shard between two positions one piece after the other, as far as there are any.
async fn read_on(
    store: &Store,
    shard: Shard,
    (from, target): (Position, Position),
    most: u64,
    sender: mpsc::Sender<Result<Ahead, StoreError>>,
) {
    let (mut after, mut limit) = (from, FIRST_EVENTS.min(most));
    while after < target {
        let read = store.read_ahead(shard, after, target, limit).await;
        let (mut goes_on, count) = (false, read.as_ref().map_or(0, |it| it.events.len() as u64));
        if let Ok(Ahead { events, bytes, stopped }) = &read {
            if let Some(last) = events.last() {
                after = last.position;
                goes_on = stopped.is_none();
                let each = (*bytes as u64 / count).max(1);
                limit = (READ_BYTES / each).clamp(1, READ_EVENTS).min(most);
            } else if stopped.is_none() {
                return;
            }
        }
        if sender.send(read).await.is_err() || !goes_on {
            return;
        }
    }
}

/// What a task answered; its panic goes on here.
fn joined<T>(ended: Result<T, JoinError>) -> T {
    match ended {
        Ok(answer) => answer,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(error) => unreachable!("nobody else ends these tasks: {error}"),
        },
    }
}
