-- Keys of the API that are made and revoked while the service runs. A key itself is not kept, only its hash.
create table api_keys (
    key_id            varchar(64) collate "C" not null,
    name              text not null,
    hash              varchar(64) collate "C" not null,
    scopes            text not null,
    created_at_us     bigint not null,
    created_by        text not null,
    expires_at_us     bigint,
    last_used_at_us   bigint,
    revoked_at_us     bigint,
    revoked_by        text,
    primary key (key_id)
);
