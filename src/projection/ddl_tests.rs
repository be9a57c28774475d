//! Holds the dialect files of every projection against the row types: same tables, same columns in
//! the same order, same keys, and the slot in every name.

use super::{ALL, Column, ColumnKind, Ddl, Table, statements};

const INT: &[&str] = &["integer", "bigint"];
const TEXT: &[&str] = &["text", "varchar", "char", "mediumtext"];

#[test]
fn dialect_files_hold_the_tables_of_the_rows() {
    for projection in ALL {
        let Ddl { sqlite, postgres, mysql } = projection.ddl();
        for (dialect, ddl) in [("sqlite", sqlite), ("postgres", postgres), ("mysql", mysql)] {
            let (tables, indexes) = statements(ddl, "b");
            let name = projection.name();
            assert_eq!(tables.len(), projection.tables().len(), "{name}/{dialect}.sql");
            for (text, table) in tables.iter().zip(projection.tables()) {
                check_table(text, table, &format!("{name}/{dialect}.sql"));
            }
            for index in indexes {
                let words: Vec<_> = index.split_whitespace().collect();
                assert_eq!((words[0], words[1], words[3]), ("create", "index", "on"), "{index}");
                let table = projection.tables().iter().find(|it| words[4] == format!("{}_b", it.name));
                let table = table.unwrap_or_else(|| panic!("{index} is on none of the tables of {name}"));
                assert!(words[2].starts_with(&format!("{}_b_", table.name)), "{index} is named otherwise");
            }
        }
    }
}

fn check_table(text: &str, table: &Table, file: &str) {
    assert!(text.starts_with(&format!("create table {}_b (\n", table.name)), "{file}: {text}");
    let lines = text.lines().skip(1).map(|it| it.trim().trim_end_matches(','));
    let (keys, columns): (Vec<_>, Vec<_>) =
        lines.take_while(|it| !it.starts_with(')')).partition(|it| it.starts_with("primary key"));

    let key: Vec<_> = table.columns[..table.key_len].iter().map(|it| it.name).collect();
    assert_eq!(keys, [format!("primary key ({})", key.join(", "))], "{file}: {}", table.name);
    assert_eq!(columns.len(), table.columns.len(), "{file}: {}", table.name);
    for (line, column) in columns.into_iter().zip(table.columns) {
        assert!(declares(line, column), "{file}: {column:?} is not declared by {line:?}");
    }
}

fn declares(line: &str, column: &Column) -> bool {
    let mut words = line.split(|it: char| it.is_whitespace() || it == '(').filter(|it| !it.is_empty());
    let (name, kind) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let kinds = match column.kind {
        ColumnKind::Int => INT,
        ColumnKind::Text => TEXT,
    };
    name == column.name && kinds.contains(&kind) && line.ends_with("not null") != column.nullable
}

#[test]
fn rows_are_found_by_a_text_and_belong_to_a_shard() {
    for table in ALL.iter().flat_map(|it| it.tables()) {
        let Column { kind, nullable, .. } = table.columns[0];
        assert_eq!((kind, nullable), (ColumnKind::Text, false), "the first key column of {}", table.name);
        for required in ["shard", "last_position"] {
            assert!(table.columns.iter().any(|it| it.name == required), "{} has no {required}", table.name);
        }
    }
}
