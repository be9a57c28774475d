-- The inbox: items newest first, and exact counts of those that are shown and not archived.

create table inbox_items_{slot} (
    message_id      varchar(128) character set ascii collate ascii_bin not null,
    recipient_id    varchar(128) not null,
    shard           bigint not null,
    position        bigint not null,
    title           mediumtext not null,
    body            mediumtext,
    category        varchar(128),
    link            mediumtext,
    image_url       mediumtext,
    data            mediumtext,
    locale          mediumtext,
    source          mediumtext,
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
) engine = innodb default character set utf8mb4 collate utf8mb4_bin;

create table inbox_counters_{slot} (
    recipient_id   varchar(128) not null,
    category       varchar(128) not null,
    shard          bigint not null,
    unseen         bigint not null,
    unread         bigint not null,
    total          bigint not null,
    last_position  bigint not null,
    primary key (recipient_id, category)
) engine = innodb default character set utf8mb4 collate utf8mb4_bin;

-- indexes
-- Every list is a merge of ranges of one of these: so many states, newest first.
create index inbox_items_{slot}_recipient on inbox_items_{slot} (recipient_id, state, position desc);
create index inbox_items_{slot}_category on inbox_items_{slot} (recipient_id, category, state, position desc);
-- What changed since a cursor.
create index inbox_items_{slot}_changes on inbox_items_{slot} (recipient_id, last_position);
-- What appears or goes by itself, and when.
create index inbox_items_{slot}_due on inbox_items_{slot} (due_at_us);
