-- One row a message, with its state on both axes.

create table messages_{slot} (
    message_id             text collate "C" not null,
    recipient_id           text collate "C" not null,
    shard                  bigint not null,
    position               bigint not null,
    source                 text collate "C",
    ingress                text,
    category               text collate "C",
    title                  text not null,
    channels               text collate "C" not null,
    received_at_us         bigint not null,
    occurred_at_us         bigint,
    deliver_at_us          bigint,
    expires_at_us          bigint,
    conflicts              bigint not null,
    deliveries             bigint not null,
    accepted               bigint not null,
    failed                 bigint not null,
    unknown                bigint not null,
    suppressed             bigint not null,
    attempts               bigint not null,
    push_state             text collate "C" not null,
    first_accepted_at_us   bigint,
    first_delivered_at_us  bigint,
    first_opened_at_us     bigint,
    engagement             text collate "C" not null,
    seen_at_us             bigint,
    read_at_us             bigint,
    archived_at_us         bigint,
    deleted_at_us          bigint,
    cancelled_at_us        bigint,
    erased_at_us           bigint,
    last_error             text,
    last_position          bigint not null,
    primary key (message_id)
);

-- indexes
create index messages_{slot}_recipient on messages_{slot} (recipient_id, position desc);
create index messages_{slot}_source on messages_{slot} (source, received_at_us);
create index messages_{slot}_push_state on messages_{slot} (push_state, received_at_us);
