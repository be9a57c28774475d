-- Deliveries and attempts. Keys begin with the message, whose id mostly grows with time; the id of a
-- delivery never does. An index on what is due turns the worker's search into a range; one on what did not
-- end well serves whoever looks after it; one on collapse keys finds what a newer push takes the place of.

create table push_deliveries_{slot} (
    message_id           text not null,
    delivery_id          text not null,
    recipient_id         text not null,
    shard                integer not null,
    position             integer not null,
    target_kind          text,
    target               text,
    device_id            text,
    provider             text,
    route                text,
    collapse_key         text,
    status               text not null,
    attempts             integer not null,
    uncounted            integer not null,
    due_at_us            integer,
    first_due_at_us      integer not null,
    pending_since_us     integer,
    expires_at_us        integer,
    last_class           text,
    last_code            text,
    last_error           text,
    provider_message_id  text,
    delivered_at_us      integer,
    opened_at_us         integer,
    dismissed_at_us      integer,
    created_at_us        integer not null,
    updated_at_us        integer not null,
    last_position        integer not null,
    primary key (message_id, delivery_id)
) strict;

create table push_attempts_{slot} (
    message_id           text not null,
    delivery_id          text not null,
    attempt              integer not null,
    shard                integer not null,
    provider             text not null,
    worker               text not null,
    started_at_us        integer not null,
    lease_until_us       integer not null,
    ended_at_us          integer,
    outcome              text,
    code                 text,
    status               integer,
    answer               text,
    duration_ms          integer,
    provider_message_id  text,
    retry_at_us          integer,
    decision             text,
    settles              integer not null,
    last_position        integer not null,
    primary key (message_id, delivery_id, attempt)
) strict;

-- indexes
create index push_deliveries_{slot}_due on push_deliveries_{slot} (status, provider, due_at_us,
    message_id, delivery_id) where due_at_us is not null;
create index push_deliveries_{slot}_ended on push_deliveries_{slot} (status, updated_at_us, message_id,
    delivery_id) where status in ('failed', 'unknown', 'suppressed');
create index push_deliveries_{slot}_collapse on push_deliveries_{slot} (recipient_id, collapse_key,
    position) where collapse_key is not null;
