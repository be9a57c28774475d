-- Counts by day and category, and what has to be known of each message to count on.

create table daily_counts_{slot} (
    slice                  varchar(32) character set ascii collate ascii_bin not null,
    category               varchar(128) not null,
    day                    varchar(16) character set ascii collate ascii_bin not null,
    shard                  bigint not null,
    messages_received      bigint not null,
    messages_conflicted    bigint not null,
    messages_cancelled     bigint not null,
    items_appeared         bigint not null,
    items_seen             bigint not null,
    items_read             bigint not null,
    items_clicked          bigint not null,
    items_deleted          bigint not null,
    items_expired          bigint not null,
    deliveries_planned     bigint not null,
    deliveries_reopened    bigint not null,
    deliveries_accepted    bigint not null,
    deliveries_failed      bigint not null,
    deliveries_unknown     bigint not null,
    deliveries_expired     bigint not null,
    deliveries_cancelled   bigint not null,
    deliveries_no_target   bigint not null,
    deliveries_opted_out   bigint not null,
    deliveries_superseded  bigint not null,
    deliveries_moved       bigint not null,
    deliveries_delivered   bigint not null,
    deliveries_opened      bigint not null,
    attempts_started       bigint not null,
    attempts_retried       bigint not null,
    attempts_failed        bigint not null,
    attempts_lost          bigint not null,
    last_position          bigint not null,
    primary key (slice, category)
) engine = innodb default character set utf8mb4 collate utf8mb4_bin;

create table counted_messages_{slot} (
    message_id     varchar(128) character set ascii collate ascii_bin not null,
    shard          bigint not null,
    category       varchar(128) not null,
    seen           bigint not null,
    is_read        bigint not null,
    clicked        bigint not null,
    last_position  bigint not null,
    primary key (message_id)
) engine = innodb default character set utf8mb4 collate utf8mb4_bin;
