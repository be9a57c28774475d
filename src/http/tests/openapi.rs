//! The description of the API: it is what is checked in, it is whole, and it says of every route what the
//! table of scopes says.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::{
    Fixture,
    scopes::{Asks, ROUTES},
};
use crate::http::openapi::document;

fn described() -> Value {
    serde_json::from_str(&document()).unwrap()
}

/// Every operation with its path.
fn operations(document: &Value) -> Vec<(String, &Value)> {
    let paths = document["paths"].as_object().unwrap().iter();
    paths
        .flat_map(|(path, item)| {
            let named = move |(method, it): (&String, _)| (format!("{} {path}", method.to_uppercase()), it);
            item.as_object().unwrap().iter().map(named)
        })
        .collect()
}

#[test]
fn the_description_is_the_one_that_is_checked_in() {
    let checked_in = include_str!("../../../docs/openapi.json");
    assert!(
        document() == checked_in,
        "docs/openapi.json is not what the routes say; renew it:\n\
         cargo run -- openapi > docs/openapi.json"
    );
}

#[tokio::test]
async fn the_description_is_served_to_everybody() {
    let answer = Fixture::new().await.get("/openapi.json").await;
    assert_eq!(answer.header("content-type"), Some("application/json"));
    assert_eq!(answer.json(), described());
}

#[test]
fn every_operation_has_an_id_of_its_own_and_every_reference_leads_somewhere() {
    let document = described();
    let operations = operations(&document);
    let ids: BTreeSet<_> = operations.iter().map(|(_, it)| it["operationId"].as_str().unwrap()).collect();
    assert_eq!(ids.len(), operations.len());
    let mut waiting = vec![&document];
    while let Some(value) = waiting.pop() {
        match value {
            Value::Object(members) => {
                if let Some(Value::String(reference)) = members.get("$ref") {
                    let place = reference.strip_prefix('#').unwrap();
                    assert!(document.pointer(place).is_some(), "{reference} leads nowhere");
                }
                waiting.extend(members.values());
            }
            Value::Array(items) => waiting.extend(items),
            _ => {}
        }
    }
}

#[test]
fn every_route_is_described_with_what_it_asks_of_its_caller() {
    let document = described();
    let described: BTreeMap<String, &Value> = operations(&document).into_iter().collect();
    assert_eq!(described.len(), ROUTES.len(), "{:?}", described.keys());
    for (method, path, asks) in ROUTES {
        let expected = match asks {
            Asks::Nothing => json!([]),
            Asks::A(scope) => json!([{"apiKey": [scope.as_str()]}]),
            Asks::User => json!([{"endUser": []}]),
        };
        assert_eq!(described[&format!("{method} {path}")]["security"], expected, "{method} {path}");
    }
}
