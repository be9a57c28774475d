-- Deliveries and attempts. Keys begin with the message, whose id mostly grows with time; the id of a
-- delivery never does. An index on what is due turns the worker's search into a range; one on what did not
-- end well serves whoever looks after it; one on collapse keys finds what a newer push takes the place of.

create table push_deliveries_{slot} (
    message_id           varchar(128) character set ascii collate ascii_bin not null,
    delivery_id          char(36) character set ascii collate ascii_bin not null,
    recipient_id         varchar(128) not null,
    shard                bigint not null,
    position             bigint not null,
    target_kind          varchar(32) character set ascii collate ascii_bin,
    target               mediumtext,
    device_id            varchar(128) character set ascii collate ascii_bin,
    provider             varchar(64),
    route                mediumtext,
    collapse_key         varchar(128),
    status               varchar(32) character set ascii collate ascii_bin not null,
    attempts             bigint not null,
    uncounted            bigint not null,
    due_at_us            bigint,
    first_due_at_us      bigint not null,
    pending_since_us     bigint,
    expires_at_us        bigint,
    last_class           varchar(32) character set ascii collate ascii_bin,
    last_code            mediumtext,
    last_error           mediumtext,
    provider_message_id  mediumtext,
    delivered_at_us      bigint,
    opened_at_us         bigint,
    dismissed_at_us      bigint,
    created_at_us        bigint not null,
    updated_at_us        bigint not null,
    last_position        bigint not null,
    primary key (message_id, delivery_id)
) engine = innodb default character set utf8mb4 collate utf8mb4_bin;

create table push_attempts_{slot} (
    message_id           varchar(128) character set ascii collate ascii_bin not null,
    delivery_id          char(36) character set ascii collate ascii_bin not null,
    attempt              bigint not null,
    shard                bigint not null,
    provider             mediumtext not null,
    worker               mediumtext not null,
    started_at_us        bigint not null,
    lease_until_us       bigint not null,
    ended_at_us          bigint,
    outcome              varchar(32) character set ascii collate ascii_bin,
    code                 mediumtext,
    status               bigint,
    answer               mediumtext,
    duration_ms          bigint,
    provider_message_id  mediumtext,
    retry_at_us          bigint,
    decision             mediumtext,
    settles              bigint not null,
    last_position        bigint not null,
    primary key (message_id, delivery_id, attempt)
) engine = innodb default character set utf8mb4 collate utf8mb4_bin;

-- indexes
create index push_deliveries_{slot}_due on push_deliveries_{slot} (status, provider, due_at_us,
    message_id, delivery_id);
create index push_deliveries_{slot}_ended on push_deliveries_{slot} (status, updated_at_us, message_id,
    delivery_id);
create index push_deliveries_{slot}_collapse on push_deliveries_{slot} (recipient_id, collapse_key,
    position);
