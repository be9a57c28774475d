-- Counts by day and category, and what has to be known of each message to count on.

create table daily_counts_{slot} (
    slice                  text not null,
    category               text not null,
    day                    text not null,
    shard                  integer not null,
    messages_received      integer not null,
    messages_conflicted    integer not null,
    messages_cancelled     integer not null,
    items_appeared         integer not null,
    items_seen             integer not null,
    items_read             integer not null,
    items_clicked          integer not null,
    items_deleted          integer not null,
    items_expired          integer not null,
    deliveries_planned     integer not null,
    deliveries_reopened    integer not null,
    deliveries_accepted    integer not null,
    deliveries_failed      integer not null,
    deliveries_unknown     integer not null,
    deliveries_expired     integer not null,
    deliveries_cancelled   integer not null,
    deliveries_no_target   integer not null,
    deliveries_opted_out   integer not null,
    deliveries_superseded  integer not null,
    deliveries_moved       integer not null,
    deliveries_delivered   integer not null,
    deliveries_opened      integer not null,
    attempts_started       integer not null,
    attempts_retried       integer not null,
    attempts_failed        integer not null,
    attempts_lost          integer not null,
    last_position          integer not null,
    primary key (slice, category)
) strict, without rowid;

create table counted_messages_{slot} (
    message_id     text not null,
    shard          integer not null,
    category       text not null,
    seen           integer not null,
    is_read        integer not null,
    clicked        integer not null,
    last_position  integer not null,
    primary key (message_id)
) strict, without rowid;
