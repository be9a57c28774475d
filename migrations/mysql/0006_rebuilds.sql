-- Who is rebuilding a projection, since when, and when it was last seen at it: one at a time, without a session's
-- lock. What the slot that is not live was made with, whether the live one is one that was gone back to, and how
-- the last rebuild ended.
alter table projections add column building_by          varchar(255) character set utf8mb4 collate utf8mb4_bin;
alter table projections add column building_since_us    bigint;
alter table projections add column building_seen_us     bigint;
alter table projections add column building_from_events bigint;
alter table projections add column building_goes_on     integer;
alter table projections add column old_version          integer;
alter table projections add column rolled_back_at_us    bigint;
alter table projections add column last_result          longtext character set utf8mb4 collate utf8mb4_bin;
