-- Devices as their apps registered them: a registry that changes in place. What was sent to which of them
-- stands in the log.
create table devices (
    recipient_id      varchar(128) character set utf8mb4 collate utf8mb4_bin not null,
    device_id         varchar(128) character set ascii collate ascii_bin not null,
    app               varchar(128) character set utf8mb4 collate utf8mb4_bin not null,
    platform          varchar(64) character set ascii collate ascii_bin not null,
    kind              varchar(64) character set ascii collate ascii_bin not null,
    environment       varchar(64) character set ascii collate ascii_bin not null,
    target_kind       varchar(64) character set ascii collate ascii_bin not null,
    target            mediumtext character set utf8mb4 collate utf8mb4_bin not null,
    target_hash       varchar(64) character set ascii collate ascii_bin not null,
    locale            text character set utf8mb4 collate utf8mb4_bin,
    time_zone         text character set utf8mb4 collate utf8mb4_bin,
    created_at_us     bigint not null,
    registered_at_us  bigint not null,
    last_seen_at_us   bigint not null,
    dead_at_us        bigint,
    dead_by           text character set utf8mb4 collate utf8mb4_bin,
    dead_reason       text character set utf8mb4 collate utf8mb4_bin,
    primary key (recipient_id, device_id)
) engine = innodb;

create unique index devices_target on devices (target_hash, kind);

-- Who paused and resumed which provider, and why; the last row of each is what holds.
create table provider_controls (
    provider          varchar(64) character set ascii collate ascii_bin not null,
    number            bigint not null,
    action            varchar(64) character set ascii collate ascii_bin not null check (action in ('pause', 'resume')),
    cause             varchar(64) character set ascii collate ascii_bin not null check (cause in ('operator', 'auth_config', 'invalid_targets')),
    actor             text character set utf8mb4 collate utf8mb4_bin not null,
    reason            text character set utf8mb4 collate utf8mb4_bin not null,
    at_us             bigint not null,
    until_us          bigint,
    primary key (provider, number)
) engine = innodb;
