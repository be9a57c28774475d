-- Devices as their apps registered them: a registry that changes in place. What was sent to which of them
-- stands in the log.
create table devices (
    recipient_id      varchar(128) collate "C" not null,
    device_id         varchar(128) collate "C" not null,
    app               varchar(128) collate "C" not null,
    platform          varchar(64) collate "C" not null,
    kind              varchar(64) collate "C" not null,
    environment       varchar(64) collate "C" not null,
    target_kind       varchar(64) collate "C" not null,
    target            text not null,
    target_hash       varchar(64) collate "C" not null,
    locale            text,
    time_zone         text,
    created_at_us     bigint not null,
    registered_at_us  bigint not null,
    last_seen_at_us   bigint not null,
    dead_at_us        bigint,
    dead_by           text,
    dead_reason       text,
    primary key (recipient_id, device_id)
);

create unique index devices_target on devices (target_hash, kind);

-- Who paused and resumed which provider, and why; the last row of each is what holds.
create table provider_controls (
    provider          varchar(64) collate "C" not null,
    number            bigint not null,
    action            varchar(64) collate "C" not null check (action in ('pause', 'resume')),
    cause             varchar(64) collate "C" not null check (cause in ('operator', 'auth_config', 'invalid_targets')),
    actor             text not null,
    reason            text not null,
    at_us             bigint not null,
    until_us          bigint,
    primary key (provider, number)
);
