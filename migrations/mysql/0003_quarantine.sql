-- Input that cannot become a message, kept whole until somebody decides.
create table quarantine (
    id              varchar(36)  character set ascii collate ascii_bin primary key,
    fingerprint     varchar(64)  character set ascii collate ascii_bin not null,
    state           varchar(16)  character set ascii collate ascii_bin not null check (state in ('held', 'retried', 'discarded')),
    source          text         character set utf8mb4 collate utf8mb4_bin not null,
    code            varchar(48)  character set ascii collate ascii_bin not null,
    reason          text         character set utf8mb4 collate utf8mb4_bin not null,
    body            mediumblob   not null,
    attributes      mediumtext   character set utf8mb4 collate utf8mb4_bin not null,
    first_at_us     bigint       not null,
    last_at_us      bigint       not null,
    times_seen      bigint       not null,
    decided_at_us   bigint,
    decided_by      text         character set utf8mb4 collate utf8mb4_bin,
    decided_note    text         character set utf8mb4 collate utf8mb4_bin,
    constraint quarantine_fingerprint unique (fingerprint)
) engine = innodb;

create index quarantine_state on quarantine (state, id);
