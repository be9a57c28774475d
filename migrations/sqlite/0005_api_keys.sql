-- Keys of the API that are made and revoked while the service runs. A key itself is not kept, only its hash.
create table api_keys (
    key_id            text not null,
    name              text not null,
    hash              text not null,
    scopes            text not null,
    created_at_us     integer not null,
    created_by        text not null,
    expires_at_us     integer,
    last_used_at_us   integer,
    revoked_at_us     integer,
    revoked_by        text,
    primary key (key_id)
);
