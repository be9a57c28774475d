-- One row a message, with its state on both axes.

create table messages_{slot} (
    message_id             varchar(128) character set ascii collate ascii_bin not null,
    recipient_id           varchar(128) not null,
    shard                  bigint not null,
    position               bigint not null,
    source                 varchar(128),
    ingress                mediumtext,
    category               varchar(128),
    title                  mediumtext not null,
    channels               varchar(32) character set ascii collate ascii_bin not null,
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
    push_state             varchar(32) character set ascii collate ascii_bin not null,
    first_accepted_at_us   bigint,
    first_delivered_at_us  bigint,
    first_opened_at_us     bigint,
    engagement             varchar(32) character set ascii collate ascii_bin not null,
    seen_at_us             bigint,
    read_at_us             bigint,
    archived_at_us         bigint,
    deleted_at_us          bigint,
    cancelled_at_us        bigint,
    erased_at_us           bigint,
    last_error             mediumtext,
    last_position          bigint not null,
    primary key (message_id)
) engine = innodb default character set utf8mb4 collate utf8mb4_bin;

-- indexes
create index messages_{slot}_recipient on messages_{slot} (recipient_id, position desc);
create index messages_{slot}_source on messages_{slot} (source, received_at_us);
create index messages_{slot}_push_state on messages_{slot} (push_state, received_at_us);
