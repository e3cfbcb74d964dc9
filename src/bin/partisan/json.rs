//! Values in JSON, for `--json`.
//!
//! | value | JSON |
//! |---|---|
//! | `true`, `false` | the same |
//! | `undefined`, `nil`, `null` | null |
//! | another atom, a binary in UTF-8 | string |
//! | integer of 64 bits, float | number |
//! | larger integer | `{"$integer": "digits"}` |
//! | another binary | `{"$binary": "hex digits"}` |
//! | tuple, list | array; Erlang's strings are arrays of numbers |
//! | map | object; keys that are neither atoms nor text are written as terms |
//! | map with keys that would be equal in JSON | `{"$map": [[key, value], …]}` |
//! | anything else | `{"$term": "as Erlang writes it"}` |

use partisan::Value;
use serde_json::{Map, Value as Json, json};

/// The JSON of a value.
pub(crate) fn json(value: &Value) -> Json {
    match value {
        Value::Atom(atom) => match atom.as_str() {
            "true" => true.into(),
            "false" => false.into(),
            "undefined" | "nil" | "null" => Json::Null,
            text => text.into(),
        },
        Value::Integer(number) => (*number).into(),
        Value::BigInteger(number) => match u64::try_from(number) {
            Ok(number) => number.into(),
            Err(_) => json!({"$integer": number.to_string()}),
        },
        Value::Float(number) => (*number).into(),
        Value::Binary(bytes) => match std::str::from_utf8(bytes) {
            Ok(text) => text.into(),
            Err(_) => {
                let digits = bytes.iter().map(|byte| format!("{byte:02x}"));
                json!({"$binary": digits.collect::<String>()})
            }
        },
        Value::Tuple(elements) | Value::List(elements) => elements.iter().map(json).collect(),
        Value::Map(pairs) => map(pairs),
        other => json!({"$term": other.to_string()}),
    }
}

fn map(pairs: &[(Value, Value)]) -> Json {
    let mut object = Map::new();
    for (key, value) in pairs {
        if object.insert(name(key), json(value)).is_some() {
            let pairs = pairs
                .iter()
                .map(|(key, value)| json!([json(key), json(value)]));
            return json!({"$map": pairs.collect::<Json>()});
        }
    }
    object.into()
}

fn name(key: &Value) -> String {
    match key {
        Value::Atom(atom) => atom.as_str().to_owned(),
        Value::Binary(bytes) => match std::str::from_utf8(bytes) {
            Ok(text) => text.to_owned(),
            Err(_) => key.to_string(),
        },
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mapping() {
        let cases = [
            ("{ok, true, undefined}", json!(["ok", true, null])),
            ("[1, 2.5, -3]", json!([1, 2.5, -3])),
            ("18446744073709551615", json!(u64::MAX)),
            (
                "18446744073709551616",
                json!({"$integer": "18446744073709551616"}),
            ),
            ("<<\"ä\"/utf8>>", json!("ä")),
            ("<<255, 0>>", json!({"$binary": "ff00"})),
            ("\"ab\"", json!([97, 98])),
            (
                "#{a => 1, <<\"b\">> => #{}, 3 => []}",
                json!({"a": 1, "b": {}, "3": []}),
            ),
            (
                "#{a => 1, <<\"a\">> => 2}",
                json!({"$map": [["a", 1], ["a", 2]]}),
            ),
            ("[a|b]", json!({"$term": "[a|b]"})),
            ("fun a:b/1", json!({"$term": "fun a:b/1"})),
            ("<<5:3>>", json!({"$term": "<<5:3>>"})),
        ];
        for (text, expected) in cases {
            assert_eq!(json(&text.parse().unwrap()), expected, "{text}");
        }
    }
}
