-- Which projections there are, which slot of each is live, and how far each slot has folded each shard.
create table projections (
    name            varchar(48) character set ascii collate ascii_bin primary key,
    version         integer     not null,
    live_slot       varchar(8)  character set ascii collate ascii_bin not null,
    building_slot   varchar(8)  character set ascii collate ascii_bin,
    building_version integer,
    changed_at_us   bigint      not null
) engine = innodb;

create table projection_checkpoints (
    projection      varchar(48) character set ascii collate ascii_bin not null,
    slot            varchar(8)  character set ascii collate ascii_bin not null,
    shard           smallint    not null,
    position        bigint      not null default 0,
    parked_reason   text        character set utf8mb4 collate utf8mb4_bin,
    primary key (projection, slot, shard)
) engine = innodb;
