-- Deliveries and attempts. Keys begin with the message, whose id mostly grows with time; the id of a
-- delivery never does. An index on what is due turns the worker's search into a range; one on what did not
-- end well serves whoever looks after it; one on collapse keys finds what a newer push takes the place of.

create table push_deliveries_{slot} (
    message_id           text collate "C" not null,
    delivery_id          text collate "C" not null,
    recipient_id         text collate "C" not null,
    shard                bigint not null,
    position             bigint not null,
    target_kind          text collate "C",
    target               text,
    device_id            text collate "C",
    provider             text,
    route                text,
    collapse_key         text,
    status               text collate "C" not null,
    attempts             bigint not null,
    uncounted            bigint not null,
    due_at_us            bigint,
    first_due_at_us      bigint not null,
    pending_since_us     bigint,
    expires_at_us        bigint,
    last_class           text collate "C",
    last_code            text,
    last_error           text,
    provider_message_id  text,
    delivered_at_us      bigint,
    opened_at_us         bigint,
    dismissed_at_us      bigint,
    created_at_us        bigint not null,
    updated_at_us        bigint not null,
    last_position        bigint not null,
    primary key (message_id, delivery_id)
);

create table push_attempts_{slot} (
    message_id           text collate "C" not null,
    delivery_id          text collate "C" not null,
    attempt              bigint not null,
    shard                bigint not null,
    provider             text not null,
    worker               text not null,
    started_at_us        bigint not null,
    lease_until_us       bigint not null,
    ended_at_us          bigint,
    outcome              text collate "C",
    code                 text,
    status               bigint,
    answer               text,
    duration_ms          bigint,
    provider_message_id  text,
    retry_at_us          bigint,
    decision             text,
    settles              bigint not null,
    last_position        bigint not null,
    primary key (message_id, delivery_id, attempt)
);

-- indexes
create index push_deliveries_{slot}_due on push_deliveries_{slot} (status, provider, due_at_us,
    message_id, delivery_id) where due_at_us is not null;
create index push_deliveries_{slot}_ended on push_deliveries_{slot} (status, updated_at_us, message_id,
    delivery_id) where status in ('failed', 'unknown', 'suppressed');
create index push_deliveries_{slot}_collapse on push_deliveries_{slot} (recipient_id, collapse_key,
    position) where collapse_key is not null;
