//! The messages projection.

use super::{Ddl, Keys, Projection, Rows, Table};
use crate::event::Recorded;

/// The messages projection.
#[derive(Debug, Clone, Copy)]
pub struct Messages;

impl Projection for Messages {
    fn name(&self) -> &'static str {
        "messages"
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
