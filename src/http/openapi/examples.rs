//! Examples of requests and answers: all of them were made and given. The test beside the routes that makes them
//! writes `examples.json` (`http/tests/examples.rs`).

use serde_json::{Value, json};

const EXAMPLES: &str = include_str!("examples.json");

/// Those of all operations, by their ids.
pub(super) struct Examples(Value);

impl Examples {
    pub(super) fn read() -> Self {
        Self(serde_json::from_str(EXAMPLES).unwrap_or_default())
    }

    /// Adds to an operation those that it has: of its parameters, of its body, and of its answers.
    pub(super) fn add_to(&self, operation: &mut Value) {
        let id = operation["operationId"].as_str().unwrap_or_default();
        for example in self.0[id].as_array().into_iter().flatten() {
            let name = example["name"].as_str().unwrap_or_default();
            let status = example["status"].to_string();
            let parameters = operation.get_mut("parameters").and_then(Value::as_array_mut);
            for parameter in parameters.into_iter().flatten() {
                let value = &example["parameters"][parameter["name"].as_str().unwrap_or_default()];
                if !value.is_null() && parameter["example"].is_null() {
                    parameter["example"] = value.clone();
                }
            }
            for (place, value) in [
                ("/requestBody/content".to_owned(), example.get("body")),
                (format!("/responses/{status}/content"), example.get("answer")),
            ] {
                let contents = operation.pointer_mut(&place).and_then(Value::as_object_mut);
                for content in contents.into_iter().flat_map(|it| it.values_mut()) {
                    if let Some(value) = value {
                        content["examples"][name] = json!({"value": value});
                    }
                }
            }
        }
    }
}
