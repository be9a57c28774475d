-- One row a message, with its state on both axes.

create table messages_{slot} (
    message_id             text not null,
    recipient_id           text not null,
    shard                  integer not null,
    position               integer not null,
    source                 text,
    ingress                text,
    category               text,
    title                  text not null,
    channels               text not null,
    received_at_us         integer not null,
    occurred_at_us         integer,
    deliver_at_us          integer,
    expires_at_us          integer,
    conflicts              integer not null,
    deliveries             integer not null,
    accepted               integer not null,
    failed                 integer not null,
    unknown                integer not null,
    suppressed             integer not null,
    attempts               integer not null,
    push_state             text not null,
    first_accepted_at_us   integer,
    first_delivered_at_us  integer,
    first_opened_at_us     integer,
    engagement             text not null,
    seen_at_us             integer,
    read_at_us             integer,
    archived_at_us         integer,
    deleted_at_us          integer,
    cancelled_at_us        integer,
    erased_at_us           integer,
    last_error             text,
    last_position          integer not null,
    primary key (message_id)
) strict;

-- indexes
create index messages_{slot}_recipient on messages_{slot} (recipient_id, position desc);
create index messages_{slot}_source on messages_{slot} (source, received_at_us);
create index messages_{slot}_push_state on messages_{slot} (push_state, received_at_us);
