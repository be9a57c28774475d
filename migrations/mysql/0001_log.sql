-- The log: the only truth. Rows are never changed or removed.
create table ledger (
    id              smallint primary key default 1 check (id = 1),
    ledger_id       varchar(64) character set ascii collate ascii_bin not null,
    shards          smallint not null check (shards between 1 and 1024),
    created_at_us   bigint   not null
) engine = innodb;

-- One row a shard. Its lock is what makes positions gapless and visible in order.
create table log_shards (
    shard   smallint primary key,
    head    bigint   not null default 0
) engine = innodb;

create table notification_events (
    shard           smallint not null,
    position        bigint   not null,
    message_id      varchar(128) character set ascii collate ascii_bin not null,
    version         integer  not null,
    type            varchar(48)  character set ascii collate ascii_bin not null,
    schema_version  smallint not null,
    recipient_id    varchar(128) character set utf8mb4 collate utf8mb4_bin not null,
    occurred_at_us  bigint   not null,
    recorded_at_us  bigint   not null,
    content_hash    binary(32),
    payload         mediumtext character set utf8mb4 collate utf8mb4_bin not null,
    metadata        mediumtext character set utf8mb4 collate utf8mb4_bin not null,
    primary key (shard, position),
    constraint notification_events_message unique (message_id, version),
    constraint notification_events_first check ((version = 0) = (content_hash is not null))
) engine = innodb;

create trigger notification_events_no_update before update on notification_events
for each row signal sqlstate '45000' set message_text = 'notification_events is append-only: update refused';

create trigger notification_events_no_delete before delete on notification_events
for each row signal sqlstate '45000' set message_text = 'notification_events is append-only: delete refused';

-- Always empty. No trigger fires for `truncate`, but a table that another refers to is not truncated; an
-- insert into the log does not look here.
create table notification_events_append_only (
    shard       smallint not null,
    position    bigint   not null,
    primary key (shard, position),
    constraint notification_events_append_only
        foreign key (shard, position) references notification_events (shard, position)
) engine = innodb;

-- Evidence beside the log: how often a message came again, without an event for each time.
create table message_redeliveries (
    message_id      varchar(128) character set ascii collate ascii_bin primary key,
    redelivered     bigint not null,
    conflicting     bigint not null,
    last_at_us      bigint not null,
    last_ingress    varchar(255) character set utf8mb4 collate utf8mb4_bin
) engine = innodb;
