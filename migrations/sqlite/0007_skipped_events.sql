-- Events that an operator decided to leave out, because no release could fold them: every fold passes them over, now
-- and in every rebuild. Rows are never changed or removed.
create table skipped_events (
    shard           integer not null,
    position        integer not null,
    reason          text    not null,
    problem         text    not null,
    actor           text    not null,
    skipped_at_us   integer not null,
    primary key (shard, position)
) without rowid;

create trigger skipped_events_no_update before update on skipped_events
begin
    select raise(abort, 'skipped_events is append-only: update refused');
end;

create trigger skipped_events_no_delete before delete on skipped_events
begin
    select raise(abort, 'skipped_events is append-only: delete refused');
end;
