//! The deliveries projection.

use super::{Ddl, Keys, Projection, Rows, Table};
use crate::event::Recorded;

/// The deliveries projection.
#[derive(Debug, Clone, Copy)]
pub struct Deliveries;

impl Projection for Deliveries {
    fn name(&self) -> &'static str {
        "deliveries"
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
