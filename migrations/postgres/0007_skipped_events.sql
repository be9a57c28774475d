-- Events that an operator decided to leave out, because no release could fold them: every fold passes them over, now
-- and in every rebuild. Rows are never changed or removed.
create table skipped_events (
    shard           smallint not null,
    position        bigint   not null,
    reason          text     not null,
    problem         text     not null,
    actor           text     not null,
    skipped_at_us   bigint   not null,
    constraint skipped_events_pkey primary key (shard, position)
);

create function skipped_events_refuse() returns trigger language plpgsql as $$
begin
    raise exception 'skipped_events is append-only: % refused', tg_op using errcode = 'restrict_violation';
end
$$;

create trigger skipped_events_append_only
    before update or delete on skipped_events
    for each row execute function skipped_events_refuse();

create trigger skipped_events_no_truncate
    before truncate on skipped_events
    for each statement execute function skipped_events_refuse();
