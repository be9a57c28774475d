-- Input that cannot become a message, kept whole until somebody decides.
create table quarantine (
    id              text    primary key,
    fingerprint     text    not null,
    state           text    not null check (state in ('held', 'retried', 'discarded')),
    source          text    not null,
    code            text    not null,
    reason          text    not null,
    body            blob    not null,
    attributes      text    not null,
    first_at_us     integer not null,
    last_at_us      integer not null,
    times_seen      integer not null,
    decided_at_us   integer,
    decided_by      text,
    decided_note    text,
    constraint quarantine_fingerprint unique (fingerprint)
);

create index quarantine_state on quarantine (state, id);
