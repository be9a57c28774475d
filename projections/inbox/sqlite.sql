-- The inbox: items newest first, and exact counts of those that are shown and not archived.

create table inbox_items_{slot} (
    message_id      text not null,
    recipient_id    text not null,
    shard           integer not null,
    position        integer not null,
    title           text not null,
    body            text,
    category        text,
    link            text,
    image_url       text,
    data            text,
    locale          text,
    source          text,
    occurred_at_us  integer,
    received_at_us  integer not null,
    appeared_at_us  integer,
    expires_at_us   integer,
    seen_at_us      integer,
    read_at_us      integer,
    archived_at_us  integer,
    clicked_at_us   integer,
    state           integer not null,
    due_at_us       integer,
    last_position   integer not null,
    primary key (message_id)
) strict;

create table inbox_counters_{slot} (
    recipient_id   text not null,
    category       text not null,
    shard          integer not null,
    unseen         integer not null,
    unread         integer not null,
    total          integer not null,
    last_position  integer not null,
    primary key (recipient_id, category)
) strict, without rowid;

-- indexes
-- Every list is a merge of ranges of one of these: so many states, newest first.
create index inbox_items_{slot}_recipient on inbox_items_{slot} (recipient_id, state, position desc);
create index inbox_items_{slot}_category on inbox_items_{slot} (recipient_id, category, state, position desc);
-- What changed since a cursor.
create index inbox_items_{slot}_changes on inbox_items_{slot} (recipient_id, last_position);
-- What appears or goes by itself, and when.
create index inbox_items_{slot}_due on inbox_items_{slot} (due_at_us)
    where due_at_us is not null;
