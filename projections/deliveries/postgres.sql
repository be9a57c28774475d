-- Deliveries and attempts. Keys begin with the message, whose id mostly grows with time; the id of a
-- delivery never does. An index on what is due turns the worker's search into a range.

create table push_deliveries_{slot} (
    message_id           text collate "C" not null,
    delivery_id          text collate "C" not null,
    recipient_id         text collate "C" not null,
    shard                bigint not null,
    position             bigint not null,
    target_kind          text collate "C",
    target               text,
    provider             text,
    status               text collate "C" not null,
    attempts             bigint not null,
    due_at_us            bigint,
    expires_at_us        bigint,
    last_class           text collate "C",
    last_code            text,
    last_error           text,
    provider_message_id  text,
    delivered_at_us      bigint,
    opened_at_us         bigint,
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
