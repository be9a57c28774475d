-- The log: the only truth. Rows are never changed or removed.
create table ledger (
    id              integer primary key default 1 check (id = 1),
    ledger_id       text    not null,
    shards          integer not null check (shards between 1 and 1024),
    created_at_us   integer not null
);

-- One row a shard. The database's write lock is what makes positions gapless and visible in order.
create table log_shards (
    shard   integer primary key,
    head    integer not null default 0
);

create table notification_events (
    shard           integer not null,
    position        integer not null,
    message_id      text    not null,
    version         integer not null,
    type            text    not null,
    schema_version  integer not null,
    recipient_id    text    not null,
    occurred_at_us  integer not null,
    recorded_at_us  integer not null,
    content_hash    blob,
    payload         text    not null,
    metadata        text    not null,
    primary key (shard, position),
    constraint notification_events_message unique (message_id, version),
    constraint notification_events_first check ((version = 0) = (content_hash is not null))
) without rowid;

create trigger notification_events_no_update before update on notification_events
begin
    select raise(abort, 'notification_events is append-only: update refused');
end;

create trigger notification_events_no_delete before delete on notification_events
begin
    select raise(abort, 'notification_events is append-only: delete refused');
end;

-- `insert or replace` removes the old row without firing the trigger above. This one fires before the
-- unique constraints are looked at, so it also is what refuses a plain second insert.
create trigger notification_events_no_replace before insert on notification_events
when exists (select 1 from notification_events where shard = new.shard and position = new.position)
    or exists (select 1 from notification_events where message_id = new.message_id and version = new.version)
begin
    select raise(abort, 'notification_events is append-only: replace refused');
end;

-- Evidence beside the log: how often a message came again, without an event for each time.
create table message_redeliveries (
    message_id      text primary key,
    redelivered     integer not null,
    conflicting     integer not null,
    last_at_us      integer not null,
    last_ingress    text
) without rowid;
