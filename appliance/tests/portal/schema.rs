//! As much of JSON Schema as the API's document uses. An unknown keyword is an error, so that nothing
//! goes unchecked.

use serde_json::Value;

/// What is wrong with a value; empty when nothing is. Fields that the document does not name are wrong, too.
pub fn errors(document: &Value, schema: &Value, value: &Value, place: &str) -> Vec<String> {
    let schema = resolved(document, schema);
    let mut wrong = Vec::new();
    for (keyword, rule) in schema.as_object().unwrap() {
        match keyword.as_str() {
            "description" | "required" | "minItems" | "maxItems" => {}
            "type" => {
                let types: Vec<_> = match rule {
                    Value::Array(types) => types.iter().filter_map(Value::as_str).collect(),
                    one => one.as_str().into_iter().collect(),
                };
                if !types.iter().any(|name| is_type(value, name)) {
                    wrong.push(format!("{place}: {value} is no {rule}"));
                }
            }
            "enum" => {
                if !rule.as_array().unwrap().contains(value) {
                    wrong.push(format!("{place}: {value} is none of {rule}"));
                }
            }
            "oneOf" => {
                let ways = rule.as_array().unwrap().iter();
                let tries: Vec<_> = ways
                    .map(|way| errors(document, way, value, place))
                    .collect();
                if tries.iter().filter(|errors| errors.is_empty()).count() != 1 {
                    wrong.extend(tries.into_iter().flatten());
                }
            }
            "properties" => {
                for (name, field) in value.as_object().into_iter().flatten() {
                    match rule.get(name) {
                        Some(rule) => {
                            wrong.extend(errors(document, rule, field, &format!("{place}.{name}")));
                        }
                        None => wrong.push(format!("{place}.{name}: not in the document")),
                    }
                }
            }
            "items" => {
                for (n, item) in value.as_array().into_iter().flatten().enumerate() {
                    wrong.extend(errors(document, rule, item, &format!("{place}[{n}]")));
                }
            }
            other => wrong.push(format!("{place}: keyword {other} is not understood")),
        }
    }
    let required = schema.get("required").and_then(Value::as_array);
    for name in required.into_iter().flatten().filter_map(Value::as_str) {
        if value.is_object() && value.get(name).is_none() {
            wrong.push(format!("{place}.{name}: missing"));
        }
    }
    let length = value.as_array().map(Vec::len);
    let bound = |name: &str| schema.get(name).and_then(Value::as_u64);
    if let Some(length) = length.map(|length| length as u64)
        && (bound("minItems").is_some_and(|least| length < least)
            || bound("maxItems").is_some_and(|most| length > most))
    {
        wrong.push(format!("{place}: {length} items"));
    }
    wrong
}

/// What a reference refers to.
pub fn resolved<'a>(document: &'a Value, node: &'a Value) -> &'a Value {
    match node.get("$ref").and_then(Value::as_str) {
        Some(reference) => document.pointer(reference.trim_start_matches('#')).unwrap(),
        None => node,
    }
}

fn is_type(value: &Value, name: &str) -> bool {
    match name {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "string" => value.is_string(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        _ => false,
    }
}
