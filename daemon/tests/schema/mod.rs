//! Whether a document is what `console-web/openapi.json` promises: all that is required, nothing that it
//! does not name, and everything of its type. As much of JSON Schema as that file uses; what it does
//! not know fails.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::{Map, Value};

/// The golden document of the API.
pub(crate) struct Schema(Value);

type Names = BTreeSet<String>;

impl Schema {
    pub(crate) fn golden() -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../console-web/openapi.json");
        Self(serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap())
    }

    /// Panics where `value` is no document of that name.
    pub(crate) fn holds(&self, name: &str, value: &Value) {
        if let Err(why) = self.whole(&self.0["components"]["schemas"][name], value) {
            panic!("no {name}: {why}\n{value}");
        }
    }

    /// It fits, and has no field that is not named.
    fn whole(&self, schema: &Value, value: &Value) -> Result<(), String> {
        let named = self.fits(schema, value)?;
        let fields = value.as_object().into_iter().flat_map(Map::keys);
        match fields.into_iter().find(|field| !named.contains(*field)) {
            Some(field) => Err(format!("{field} is not named")),
            None => Ok(()),
        }
    }

    /// The fields of `value` that the schema names.
    fn fits(&self, schema: &Value, value: &Value) -> Result<Names, String> {
        let mut named = Names::new();
        for (rule, what) in schema.as_object().ok_or("there is no such schema")? {
            match rule.as_str() {
                "description" | "format" | "required" | "propertyNames" => {}
                "$ref" => {
                    let at = what.as_str().unwrap().strip_prefix('#').unwrap();
                    named.extend(self.fits(self.0.pointer(at).ok_or("no such schema")?, value)?);
                }
                "allOf" => {
                    for all in what.as_array().unwrap() {
                        named.extend(self.fits(all, value)?);
                    }
                }
                "oneOf" => {
                    let each = what.as_array().unwrap().iter().map(|one| self.fits(one, value));
                    let (fitting, not): (Vec<_>, Vec<_>) = each.partition(Result::is_ok);
                    let [one] = <[_; 1]>::try_from(fitting)
                        .map_err(|many| format!("{} of {} fit: {not:?}", many.len(), not.len()))?;
                    named.extend(one?);
                }
                "enum" if what.as_array().unwrap().contains(value) => {}
                "enum" => return Err(format!("{value} is none of {what}")),
                "type" if is_of(what, value) => {}
                "type" => return Err(format!("{value} is no {what}")),
                "minimum" if value.is_null() || value.as_u64() >= what.as_u64() => {}
                "minimum" => return Err(format!("{value} is below {what}")),
                "items" => {
                    for (at, item) in value.as_array().into_iter().flatten().enumerate() {
                        self.whole(what, item).map_err(|why| format!("{at}: {why}"))?;
                    }
                }
                "properties" => {
                    for (name, property) in what.as_object().unwrap() {
                        named.insert(name.clone());
                        if let Some(value) = value.get(name) {
                            self.whole(property, value).map_err(|why| format!("{name}: {why}"))?;
                        }
                    }
                }
                "additionalProperties" => {
                    for (name, value) in value.as_object().into_iter().flatten() {
                        named.insert(name.clone());
                        self.whole(what, value).map_err(|why| format!("{name}: {why}"))?;
                    }
                }
                rule => return Err(format!("{rule} is not known here")),
            }
        }
        let required = schema["required"].as_array().into_iter().flatten();
        match required.into_iter().find(|name| value.get(name.as_str().unwrap()).is_none()) {
            Some(name) => Err(format!("{name} is missing")),
            None => Ok(named),
        }
    }
}

fn is_of(kind: &Value, value: &Value) -> bool {
    match kind.as_str() {
        None => kind.as_array().unwrap().iter().any(|one| is_of(one, value)),
        Some("null") => value.is_null(),
        Some("boolean") => value.is_boolean(),
        Some("integer") => value.is_i64() || value.is_u64(),
        Some("number") => value.is_number(),
        Some("string") => value.is_string(),
        Some("array") => value.is_array(),
        Some("object") => value.is_object(),
        Some(other) => panic!("{other} is no type"),
    }
}
