-- Which projections there are, which slot of each is live, and how far each slot has folded each shard.
create table projections (
    name            text    primary key,
    version         integer not null,
    live_slot       text    not null,
    building_slot   text,
    building_version integer,
    changed_at_us   integer not null
) without rowid;

create table projection_checkpoints (
    projection      text    not null,
    slot            text    not null,
    shard           integer not null,
    position        integer not null default 0,
    parked_reason   text,
    primary key (projection, slot, shard)
) without rowid;
