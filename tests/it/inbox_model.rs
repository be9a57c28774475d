//! Any history of an inbox, by several clients at once and over two processes where the database takes
//! them, leaves the lists and counts that a simple model says: after every step, and while the
//! projection is rebuilt.

mod model;
mod step;

use std::{
    fmt::Write as _,
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures_util::future::{join_all, try_join_all};
use notification_ledger::{
    clock::{Clock, ManualClock, SystemClock, Timestamp},
    event::Recorded,
    id::{Cursor, Position, RecipientId, Shard},
    projection,
    store::{
        Store,
        inbox::{Archived, InboxFilter, Status},
    },
    worker::rebuild::Rebuild,
};
use proptest::{
    collection::vec,
    option,
    prelude::*,
    sample::select,
    test_runner::{TestCaseError, TestRunner},
};
use reqwest::Method;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{
    database::{Kind, TestDb, for_each_database},
    eventually, http_client,
    ledger::{manual_clock, open_store},
    served::Served,
};
use model::{Model, Note, Verb};
use step::{Call, Request, explain, same, told};

/// Histories on each database, unless `PROPTEST_CASES` says otherwise.
const CASES: u32 = 4;
/// Clients that ask at once.
const CLIENTS: usize = 5;
/// Recipients of a history.
const RECIPIENTS: usize = 2;
/// Ids that messages of a history have.
const IDS: u8 = 8;
const CATEGORIES: [&str; 2] = ["pass", "news"];
/// How long items may take to come and go, and a reader on MySQL to see a flip.
const PATIENCE: Duration = Duration::from_secs(10);

/// What happens: before the inbox is rebuilt, meanwhile, and afterwards.
#[derive(Debug, Clone)]
struct History {
    before: Vec<Step>,
    meanwhile: Vec<Step>,
    after: Vec<Step>,
}

/// What several clients do at once, and which lists are walked in pages then.
#[derive(Debug, Clone)]
struct Step {
    tries: Vec<Try>,
    walk: usize,
}

/// What one client does. Much of it is refused, as in life.
#[derive(Debug, Clone)]
enum Try {
    Send { id: u8, note: Note, deliver_s: Option<u64>, lasts_s: Option<u64> },
    Mark { whose: usize, verb: Verb, id: u8 },
    MarkNamed { whose: usize, verb: Verb, ids: Vec<u8> },
    MarkUpTo { whose: usize, verb: Verb, below: usize, filter: InboxFilter, since: Option<i64> },
}

fn histories() -> impl Strategy<Value = History> {
    let steps = |count| vec(steps(), count);
    // Something has to be there before anything can be done with it: one item comes later, one goes.
    let times = (1..9_u64, 2..12_u64);
    (vec(notes(), CLIENTS), times, steps(7..12), steps(5..9), steps(4..7)).prop_map(
        |(first, (comes, goes), before, meanwhile, after)| {
            let first = (0..).zip(first).map(|(id, note)| Try::Send {
                id,
                note,
                deliver_s: (id == 0).then_some(comes),
                lasts_s: (id == 1).then_some(goes),
            });
            let first = Step { tries: first.collect(), walk: 0 };
            History { before: [vec![first], before].concat(), meanwhile, after }
        },
    )
}

fn notes() -> impl Strategy<Value = Note> {
    let category = option::of(select(CATEGORIES.to_vec()));
    let note = (0..RECIPIENTS, category, 0..2_u8, proptest::bool::weighted(0.1));
    note.prop_map(|(to, category, title, push_only)| Note {
        to,
        category,
        title,
        push_only,
        deliver_at: None,
        expires_at: None,
    })
}

fn steps() -> impl Strategy<Value = Step> {
    (vec(tries(), 1..=CLIENTS), 0..1_000_usize).prop_map(|(tries, walk)| Step { tries, walk })
}

fn tries() -> impl Strategy<Value = Try> {
    let (ids, whose) = (|| 0..IDS, || 0..RECIPIENTS);
    let verbs = || select(Verb::ALL.to_vec());
    let category = || option::of(select(CATEGORIES.to_vec()));
    let seconds = || option::weighted(0.25, 0..6_u64);
    let filter = (select(STATUSES.to_vec()), select(ARCHIVED.to_vec()), category()).prop_map(
        |(status, archived, category)| InboxFilter {
            status,
            archived,
            category: category.map(str::to_owned),
            ..InboxFilter::default()
        },
    );
    let window = option::weighted(0.2, 0..4_i64);
    prop_oneof![
        2 => (ids(), notes(), seconds(), seconds())
            .prop_map(|(id, note, deliver_s, lasts_s)| Try::Send { id, note, deliver_s, lasts_s }),
        2 => (whose(), verbs(), ids()).prop_map(|(whose, verb, id)| Try::Mark { whose, verb, id }),
        2 => (whose(), verbs(), vec(ids(), 0..8))
            .prop_map(|(whose, verb, ids)| Try::MarkNamed { whose, verb, ids }),
        3 => (whose(), verbs(), 0..4_usize, filter, window).prop_map(
            |(whose, verb, below, filter, since)| Try::MarkUpTo { whose, verb, below, filter, since }
        ),
    ]
}

const STATUSES: [Status; 4] = [Status::All, Status::Unseen, Status::Unread, Status::Read];
const ARCHIVED: [Archived; 3] = [Archived::Exclude, Archived::Include, Archived::Only];

/// Every list there is, but for times.
fn lists() -> Vec<InboxFilter> {
    let categories = CATEGORIES.into_iter().chain(["never-heard-of"]).map(|it| Some(it.to_owned()));
    let categories: Vec<_> = categories.chain([None]).collect();
    let mut lists = Vec::new();
    for status in STATUSES {
        for archived in ARCHIVED {
            for category in categories.clone() {
                lists.push(InboxFilter { status, archived, category, ..InboxFilter::default() });
            }
        }
    }
    lists
}

/// The services, and what plays histories against them.
struct Stage {
    kind: Kind,
    served: Vec<Served>,
    /// Beside the services, for the log and the rebuild.
    store: Store,
    clock: Arc<ManualClock>,
    client: reqwest::Client,
    cases: AtomicUsize,
    _folders: Vec<TempDir>,
}

/// One history while it is played.
struct Play<'a> {
    stage: &'a Stage,
    name: String,
    model: Model,
    seen: Vec<Position>,
    log: Vec<Recorded>,
    began_at: Timestamp,
    /// MySQL's readers may see the old slot for a moment after a flip (decision 4).
    may_be_old: bool,
    /// The last cursor that was read of each inbox.
    cursors: [AtomicI64; RECIPIENTS],
}

for_each_database! {
    /// Lists and counts are what the model says after every step, every answer is true at some moment of
    /// its step, and a mark up to a cursor never touches what came after it.
    async fn any_history_leaves_what_the_model_says(db: TestDb) {
        let stage = Stage::new(&db).await;
        let mut config = ProptestConfig { failure_persistence: None, ..ProptestConfig::default() };
        if std::env::var_os("PROPTEST_CASES").is_none() {
            config.cases = CASES;
        }
        config.max_shrink_iters = 100;
        config.max_shrink_time = 120_000;
        let result = tokio::task::block_in_place(|| {
            let runtime = tokio::runtime::Handle::current();
            TestRunner::new(config).run(&histories(), |history| {
                runtime.block_on(stage.play(&history)).map_err(TestCaseError::fail)
            })
        });
        if let Err(error) = result {
            panic!("{error}");
        }
        let proof = stage.rebuild().verify(false, &|_, _| {}).await.unwrap();
        assert_eq!(proof.differing, 0, "{proof:?}");
        stage.close().await;
    }
}

impl Stage {
    async fn new(db: &TestDb) -> Self {
        let mut config = format!(
            "[database]\nurl = \"{}\"\npooler = {}\ndirect_url = \"{}\"\n[log]\nshards = 2\n\
             [api]\nwait_for_projection_ms = 20000\n[projection]\npoll_ms = 20\n",
            db.url(),
            db.is_pooled(),
            db.direct_url().unwrap_or_default(),
        );
        for client in 0..CLIENTS {
            write!(
                config,
                "[[api.keys]]\nname = \"client-{client}\"\nsecret = \"file:{{folder}}/{client}\"\n\
                 scopes = [\"messages:write\", \"inbox:read\", \"inbox:write\"]\n"
            )
            .unwrap();
        }
        let clock = manual_clock();
        // A file of SQLite is for one process.
        let processes = if db.kind() == Kind::Sqlite { 1 } else { 2 };
        let (mut served, mut folders) = (Vec::new(), Vec::new());
        for _ in 0..processes {
            let folder = tempfile::tempdir().unwrap();
            for client in 0..CLIENTS {
                std::fs::write(folder.path().join(client.to_string()), secret(client)).unwrap();
            }
            served.push(Served::start(&config, &folder, clock.clone()).await);
            folders.push(folder);
        }
        Self {
            kind: db.kind(),
            served,
            store: open_store(db, 2).await,
            clock,
            client: http_client(),
            cases: AtomicUsize::new(0),
            _folders: folders,
        }
    }

    fn rebuild(&self) -> Rebuild {
        let projection = projection::by_name("inbox").unwrap();
        Rebuild { store: self.store.clone(), projection, clock: Arc::new(SystemClock) }
    }

    /// Plays a history to recipients of its own; tells where it differs from the model.
    async fn play(&self, history: &History) -> Result<(), String> {
        let name = format!("c{}", self.cases.fetch_add(1, Ordering::Relaxed));
        let seen = self.store.heads().await.unwrap().into_iter().map(|it| it.position).collect();
        let mut play = Play {
            stage: self,
            name,
            model: Model::default(),
            seen,
            log: Vec::new(),
            began_at: self.clock.now(),
            may_be_old: false,
            cursors: Default::default(),
        };
        play.steps(&history.before).await?;
        play.may_be_old = self.kind == Kind::Mysql;
        let again = self.rebuild();
        let rebuilding = async {
            let rebuilt = again.rebuild(false, false, &|_, _| {}).await.unwrap();
            if rebuilt.flipped { Ok(()) } else { Err(format!("the rebuilt inbox differs: {rebuilt:?}")) }
        };
        tokio::try_join!(rebuilding, play.steps(&history.meanwhile))?;
        play.may_be_old = false;
        play.steps(&history.after).await
    }

    async fn close(self) {
        for served in self.served {
            served.stop().await;
        }
        self.store.close().await;
    }

    /// What one client asks of one of the processes.
    async fn call(&self, client: usize, method: Method, path: &str, body: Option<&Value>) -> (u16, Value) {
        let served = &self.served[client % self.served.len()];
        let mut request = self.client.request(method, served.url(path)).bearer_auth(secret(client));
        if let Some(body) = body {
            request = request.json(body);
        }
        let answer = request.send().await.unwrap();
        (answer.status().as_u16(), answer.json().await.unwrap())
    }
}

impl Play<'_> {
    async fn steps(&mut self, steps: &[Step]) -> Result<(), String> {
        for step in steps {
            self.stage.clock.advance(Duration::from_secs(1));
            let told_before = self.log.len();
            if let Err(why) = self.step(step).await {
                let mut told_all = String::new();
                for (number, event) in self.log.iter().enumerate() {
                    let mark = if number < told_before { ' ' } else { '>' };
                    writeln!(told_all, "{mark} {}", told(event)).unwrap();
                }
                return Err(format!("in {step:?}:\n{why}\nthe log, with > for this step:\n{told_all}"));
            }
        }
        Ok(())
    }

    async fn step(&mut self, step: &Step) -> Result<(), String> {
        let requests: Vec<_> = step.tries.iter().map(|it| self.request(it)).collect();
        let calls = join_all(requests.into_iter().enumerate().map(|(client, it)| self.ask(client, it))).await;
        let (mut events, mut explained) = (Vec::new(), Ok(()));
        let (before, now) = (std::mem::take(&mut self.model), self.stage.clock.now());
        eventually("what comes and goes by itself has done so", PATIENCE, async || {
            events.extend(self.news().await);
            self.model = before.clone();
            explained = explain(&mut self.model, &events, &calls, RECIPIENTS, self.may_be_old);
            explained.is_err() || !self.model.messages.values().any(|it| it.is_due(now))
        })
        .await;
        self.log.extend(events);
        explained?;
        if self.may_be_old {
            let mut found = Ok(());
            eventually("the lists are those of the model", PATIENCE, async || {
                found = self.compare(step.walk).await;
                found.is_ok()
            })
            .await;
            return found;
        }
        self.compare(step.walk).await
    }

    /// What the log has beyond what was read of it.
    async fn news(&mut self) -> Vec<Recorded> {
        let mut events = Vec::new();
        for (shard, seen) in (0..).map(Shard).zip(&mut self.seen) {
            let new = self.stage.store.events_after(shard, *seen, 10_000).await.unwrap();
            *seen = new.last().map_or(*seen, |it| it.position);
            // An item of an earlier history may come or go meanwhile.
            let own = format!("{}-", self.name);
            events.extend(new.into_iter().filter(|it| it.message_id.as_str().starts_with(&own)));
        }
        events
    }

    /// What somebody tries, as it is now: the cursor of an item that is there, times of this history.
    fn request(&self, it: &Try) -> Request {
        let id = |it: &u8| format!("{}-m-{it}", self.name);
        match it {
            Try::Send { id: number, note, deliver_s, lasts_s } => {
                let at = |seconds: u64| self.began_at.plus(Duration::from_secs(seconds));
                let expires_at = lasts_s.map(|it| at(deliver_s.unwrap_or(0) + 1 + it));
                let note = Note { deliver_at: deliver_s.map(at), expires_at, ..*note };
                Request::Send { id: id(number), note }
            }
            Try::Mark { whose, verb, id: number } => {
                Request::Mark { whose: *whose, verb: *verb, id: id(number) }
            }
            Try::MarkNamed { whose, verb, ids } => {
                Request::MarkNamed { whose: *whose, verb: *verb, ids: ids.iter().map(id).collect() }
            }
            Try::MarkUpTo { whose, verb, below, filter, since } => {
                let everything = InboxFilter { archived: Archived::Include, ..InboxFilter::default() };
                let items = self.model.list(*whose, &everything);
                let item = items.get(*below).and_then(|it| it["cursor"].as_str());
                let up_to = item.map_or_else(|| self.head(*whose), |it| it.parse().unwrap());
                let since = since.map(|it| self.began_at.plus(Duration::from_secs(it.unsigned_abs())));
                let filter = InboxFilter { since, ..filter.clone() };
                Request::MarkUpTo { whose: *whose, verb: *verb, up_to, filter }
            }
        }
    }

    /// The last place of a recipient's shard that was there before this step.
    fn head(&self, whose: usize) -> Cursor {
        let shard = Shard::of(&RecipientId::new(&self.recipient(whose)).unwrap(), 2);
        Cursor { shard, position: self.seen[usize::from(shard.0)] }
    }

    fn recipient(&self, whose: usize) -> String {
        format!("{}-user-{whose}", self.name)
    }

    async fn ask(&self, client: usize, request: Request) -> Call {
        let inbox = |whose: &usize| format!("/v1/recipients/{}/inbox", self.recipient(*whose));
        let (path, body) = match &request {
            Request::Send { id, note } => {
                let kind = if note.push_only { "PUSH" } else { "APP_NOTIFICATION" };
                let mut body = json!({
                    "messageId": id, "recipientId": self.recipient(note.to), "notificationType": kind,
                    "title": format!("title {}", note.title), "category": note.category,
                });
                for (name, at) in [("deliverAt", note.deliver_at), ("expiresAt", note.expires_at)] {
                    if let Some(at) = at {
                        body[name] = at.to_string().into();
                    }
                }
                ("/v1/messages".to_owned(), Some(body))
            }
            Request::Mark { whose, verb, id } => (format!("{}/{id}/{}", inbox(whose), verb.word()), None),
            Request::MarkNamed { whose, verb, ids } => {
                (format!("{}/{}", inbox(whose), verb.word()), Some(json!({"messageIds": ids})))
            }
            Request::MarkUpTo { whose, verb, up_to, filter } => {
                let mut body = json!({"upTo": up_to});
                for (name, value) in words(filter) {
                    body[name] = value.into();
                }
                (format!("{}/{}", inbox(whose), verb.word()), Some(body))
            }
        };
        let (status, answer) = self.stage.call(client, Method::POST, &path, body.as_ref()).await;
        Call { actor: format!("client-{client}"), request, status, answer }
    }

    /// The counts, everything that is in the inbox, some other lists (all of them in every eighth step), and some
    /// page by page: all with everything so far, from any process.
    async fn compare(&self, walk: usize) -> Result<(), String> {
        let lists = lists();
        for whose in 0..RECIPIENTS {
            let counts = self.model.counts(whose);
            let (_, found) = self.read(walk, whose, "/counts", &InboxFilter::default(), "").await;
            same(&found, &counts)?;
            let everything = InboxFilter { archived: Archived::Include, ..InboxFilter::default() };
            self.compare_list(walk, whose, &everything, 100).await?;
            let is_thorough = walk.is_multiple_of(8);
            let whole = |(number, filter)| self.compare_list(number + walk, whose, filter, 100);
            let chosen = |(number, _): &(usize, &InboxFilter)| is_thorough || number % 7 == walk % 7;
            try_join_all(lists.iter().enumerate().filter(chosen).map(whole)).await?;
            for n in 0..2 {
                let filter = &lists[(walk + n * 11) % lists.len()];
                self.compare_list(walk + n, whose, filter, 1 + (walk + n) % 3).await?;
            }
            let at = |seconds: usize| Some(self.began_at.plus(Duration::from_secs(seconds as u64)));
            let since = InboxFilter { since: at(walk % 4), ..lists[walk % lists.len()].clone() };
            self.compare_list(walk, whose, &since, 3).await?;
            let until = InboxFilter { until: at(walk % 5), since: None, ..since };
            self.compare_list(walk + 1, whose, &until, 3).await?;
        }
        Ok(())
    }

    /// Walks a list from its newest page to its end: no item is missing and none comes twice.
    async fn compare_list(
        &self,
        client: usize,
        whose: usize,
        filter: &InboxFilter,
        limit: usize,
    ) -> Result<(), String> {
        let (expected, counts) = (self.model.list(whose, filter), self.model.counts(whose));
        let mut before = String::new();
        let mut pages = expected.chunks(limit).peekable();
        loop {
            let page = pages.next().unwrap_or_default();
            let query = format!("&limit={limit}{before}");
            let (status, mut found) = self.read(client, whose, "", filter, &query).await;
            let cursor = found.as_object_mut().and_then(|it| it.remove("cursor"));
            self.check_cursor(whose, cursor.as_ref())?;
            let next = page.last().filter(|_| pages.peek().is_some()).map(|it| it["cursor"].clone());
            let mut expected = json!({"items": page, "counts": counts});
            if let Some(next) = &next {
                expected["next"] = next.clone();
            }
            same(&(status, found), &(200, expected)).map_err(|why| {
                format!("the list of {} by {filter:?}{query}: {why}", self.recipient(whose))
            })?;
            let Some(next) = next else { return Ok(()) };
            before = format!("&before={}", next.as_str().unwrap_or_default());
        }
    }

    /// The cursor of a whole inbox: with every mark so far, not beyond its last event, and it never goes back.
    fn check_cursor(&self, whose: usize, found: Option<&Value>) -> Result<(), String> {
        let found = found.and_then(Value::as_str).ok_or("the list has no cursor")?;
        let cursor: Cursor = found.parse().map_err(|it| format!("{it}"))?;
        same(&cursor.shard, &self.head(whose).shard)?;
        let recipient = self.recipient(whose);
        let own = || self.log.iter().filter(|it| it.recipient_id.as_str() == recipient);
        let last_mark = own().filter(|it| Verb::told_by(&it.body).is_some()).map(|it| it.position).max();
        let (least, most) = (last_mark.unwrap_or(Position(0)), own().map(|it| it.position).max());
        let before = Position(self.cursors[whose].fetch_max(cursor.position.0, Ordering::Relaxed));
        let is_back = cursor.position < before.max(least) && !self.may_be_old;
        if is_back || cursor.position > most.unwrap_or(Position(0)) {
            return Err(format!(
                "the inbox of {recipient} has the cursor {cursor}: the last mark is {least:?}, the last event \
                 {most:?}, the cursor was {before}"
            ));
        }
        Ok(())
    }

    async fn read(
        &self,
        client: usize,
        whose: usize,
        what: &str,
        filter: &InboxFilter,
        query: &str,
    ) -> (u16, Value) {
        let mut path =
            format!("/v1/recipients/{}/inbox{what}?after={}", self.recipient(whose), self.head(whose));
        if what.is_empty() {
            for (name, value) in words(filter) {
                write!(path, "&{name}={value}").unwrap();
            }
        }
        self.stage.call(client % CLIENTS, Method::GET, &format!("{path}{query}"), None).await
    }
}

/// A filter in the words of the API.
fn words(filter: &InboxFilter) -> Vec<(&'static str, String)> {
    let mut words = vec![
        ("status", format!("{:?}", filter.status).to_lowercase()),
        ("archived", format!("{:?}", filter.archived).to_lowercase()),
    ];
    words.extend(filter.category.clone().map(|it| ("category", it)));
    words.extend(filter.since.map(|it| ("since", it.to_string())));
    words.extend(filter.until.map(|it| ("until", it.to_string())));
    words
}

fn secret(client: usize) -> String {
    format!("the-secret-of-client-{client}-which-nobody-can-guess")
}
