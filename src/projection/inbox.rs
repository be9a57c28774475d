//! The inbox projection.

use super::{Ddl, Keys, Projection, Rows, Table};
use crate::event::Recorded;

/// The inbox projection.
#[derive(Debug, Clone, Copy)]
pub struct Inbox;

impl Projection for Inbox {
    fn name(&self) -> &'static str {
        "inbox"
    }

    fn version(&self) -> i32 {
        1
    }

    fn tables(&self) -> &'static [&'static Table] {
        &[]
    }

    fn ddl(&self) -> Ddl {
        Ddl { sqlite: "", postgres: "", mysql: "" }
    }

    fn touches<'e>(&self, _event: &'e Recorded, _keys: &mut Keys<'e>) {}

    fn fold(&self, _event: &Recorded, _rows: &mut Rows) {}
}
