-- The inbox: items newest first, and exact counts of those that are shown and not archived.

create table inbox_items_{slot} (
    message_id      text collate "C" not null,
    recipient_id    text collate "C" not null,
    shard           bigint not null,
    position        bigint not null,
    title           text not null,
    body            text,
    category        text collate "C",
    link            text,
    image_url       text,
    data            text,
    locale          text,
    source          text,
    occurred_at_us  bigint,
    received_at_us  bigint not null,
    appeared_at_us  bigint,
    expires_at_us   bigint,
    seen_at_us      bigint,
    read_at_us      bigint,
    archived_at_us  bigint,
    clicked_at_us   bigint,
    state           bigint not null,
    due_at_us       bigint,
    last_position   bigint not null,
    primary key (message_id)
);

create table inbox_counters_{slot} (
    recipient_id   text collate "C" not null,
    category       text collate "C" not null,
    shard          bigint not null,
    unseen         bigint not null,
    unread         bigint not null,
    total          bigint not null,
    last_position  bigint not null,
    primary key (recipient_id, category)
) with (fillfactor = 70);

-- indexes
-- Every list is a merge of ranges of one of these: so many states, newest first.
create index inbox_items_{slot}_recipient on inbox_items_{slot} (recipient_id, state, position desc);
create index inbox_items_{slot}_category on inbox_items_{slot} (recipient_id, category, state, position desc);
-- What changed since a cursor.
create index inbox_items_{slot}_changes on inbox_items_{slot} (recipient_id, last_position);
-- What appears or goes by itself, and when.
create index inbox_items_{slot}_due on inbox_items_{slot} (due_at_us)
    where due_at_us is not null;
