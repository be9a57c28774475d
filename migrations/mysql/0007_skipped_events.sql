-- Events that an operator decided to leave out, because no release could fold them: every fold passes them over, now
-- and in every rebuild. Rows are never changed or removed.
create table skipped_events (
    shard           smallint not null,
    position        bigint   not null,
    reason          mediumtext character set utf8mb4 collate utf8mb4_bin not null,
    problem         mediumtext character set utf8mb4 collate utf8mb4_bin not null,
    actor           varchar(255) character set utf8mb4 collate utf8mb4_bin not null,
    skipped_at_us   bigint   not null,
    primary key (shard, position)
) engine = innodb;

create trigger skipped_events_no_update before update on skipped_events
for each row signal sqlstate '45000' set message_text = 'skipped_events is append-only: update refused';

create trigger skipped_events_no_delete before delete on skipped_events
for each row signal sqlstate '45000' set message_text = 'skipped_events is append-only: delete refused';
