-- Which projections there are, which slot of each is live, and how far each slot has folded each shard.
create table projections (
    name            varchar(48) collate "C" primary key,
    version         integer     not null,
    live_slot       varchar(8)  not null,
    building_slot   varchar(8),
    building_version integer,
    changed_at_us   bigint      not null
);

create table projection_checkpoints (
    projection      varchar(48) collate "C" not null,
    slot            varchar(8)  not null,
    shard           smallint    not null,
    position        bigint      not null default 0,
    parked_reason   text,
    primary key (projection, slot, shard)
) with (fillfactor = 50);
