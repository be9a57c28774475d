-- Keys of the API that are made and revoked while the service runs. A key itself is not kept, only its hash.
create table api_keys (
    key_id            varchar(64) character set ascii collate ascii_bin not null,
    name              text character set utf8mb4 collate utf8mb4_bin not null,
    hash              varchar(64) character set ascii collate ascii_bin not null,
    scopes            text character set ascii collate ascii_bin not null,
    created_at_us     bigint not null,
    created_by        text character set utf8mb4 collate utf8mb4_bin not null,
    expires_at_us     bigint,
    last_used_at_us   bigint,
    revoked_at_us     bigint,
    revoked_by        text character set utf8mb4 collate utf8mb4_bin,
    primary key (key_id)
) engine = innodb;
