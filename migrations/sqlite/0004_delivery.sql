-- Devices as their apps registered them: a registry that changes in place. What was sent to which of them
-- stands in the log.
create table devices (
    recipient_id      text not null,
    device_id         text not null,
    app               text not null,
    platform          text not null,
    kind              text not null,
    environment       text not null,
    target_kind       text not null,
    target            text not null,
    target_hash       text not null,
    locale            text,
    time_zone         text,
    created_at_us     integer not null,
    registered_at_us  integer not null,
    last_seen_at_us   integer not null,
    dead_at_us        integer,
    dead_by           text,
    dead_reason       text,
    primary key (recipient_id, device_id)
);

create unique index devices_target on devices (target_hash, kind);

-- Who paused and resumed which provider, and why; the last row of each is what holds.
create table provider_controls (
    provider          text not null,
    number            integer not null,
    action            text not null check (action in ('pause', 'resume')),
    cause             text not null check (cause in ('operator', 'auth_config', 'invalid_targets')),
    actor             text not null,
    reason            text not null,
    at_us             integer not null,
    until_us          integer,
    primary key (provider, number)
);
