-- The log: the only truth. Rows are never changed or removed.
create table ledger (
    id              smallint primary key default 1 check (id = 1),
    ledger_id       text     not null,
    shards          smallint not null check (shards between 1 and 1024),
    created_at_us   bigint   not null
);

-- One row a shard. Its lock is what makes positions gapless and visible in order.
create table log_shards (
    shard   smallint primary key,
    head    bigint   not null default 0
) with (fillfactor = 50);

create table notification_events (
    shard           smallint not null,
    position        bigint   not null,
    message_id      varchar(128) collate "C" not null,
    version         integer  not null,
    type            varchar(48)  collate "C" not null,
    schema_version  smallint not null,
    recipient_id    varchar(128) collate "C" not null,
    occurred_at_us  bigint   not null,
    recorded_at_us  bigint   not null,
    content_hash    bytea,
    payload         text     not null,
    metadata        text     not null,
    constraint notification_events_pkey primary key (shard, position),
    constraint notification_events_message unique (message_id, version),
    constraint notification_events_first check ((version = 0) = (content_hash is not null))
);

create function notification_events_refuse() returns trigger language plpgsql as $$
begin
    raise exception 'notification_events is append-only: % refused', tg_op using errcode = 'restrict_violation';
end
$$;

create trigger notification_events_append_only
    before update or delete on notification_events
    for each row execute function notification_events_refuse();

create trigger notification_events_no_truncate
    before truncate on notification_events
    for each statement execute function notification_events_refuse();

-- Evidence beside the log: how often a message came again, without an event for each time.
create table message_redeliveries (
    message_id      varchar(128) collate "C" primary key,
    redelivered     bigint not null,
    conflicting     bigint not null,
    last_at_us      bigint not null,
    last_ingress    text
);
