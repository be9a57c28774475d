-- Input that cannot become a message, kept whole until somebody decides.
create table quarantine (
    id              varchar(36)  collate "C" primary key,
    fingerprint     varchar(64)  collate "C" not null,
    state           varchar(16)  not null check (state in ('held', 'retried', 'discarded')),
    source          text         not null,
    code            varchar(48)  not null,
    reason          text         not null,
    body            bytea        not null,
    attributes      text         not null,
    first_at_us     bigint       not null,
    last_at_us      bigint       not null,
    times_seen      bigint       not null,
    decided_at_us   bigint,
    decided_by      text,
    decided_note    text,
    constraint quarantine_fingerprint unique (fingerprint)
);

create index quarantine_state on quarantine (state, id);
