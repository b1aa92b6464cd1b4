//! The JSON Schema of `/exports/manifest.json`, made of the types that read it: an editor can tell of a mistake before `sysctr lint` does.

use anyhow::{Context, Result};

use super::manifest::Manifest;

/// The schema as text.
pub fn text() -> Result<String> {
    let mut schema = schemars::schema_for!(Manifest);
    schema.insert("title".to_owned(), "/exports/manifest.json of an image for sysctr, version 2.0".into());
    Ok(serde_json::to_string_pretty(&schema).context("writing the schema")? + "\n")
}

#[cfg(test)]
mod tests {
    use serde_json::{Value as Json, json};

    use super::*;
    use crate::model::manifest::only_objects;

    #[test]
    fn the_published_schema_is_that_of_the_types() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/manifest.schema.json");
        let text = text().expect("a schema");
        if std::env::var_os("UPDATE_DOCS").is_some() {
            std::fs::write(path, &text).expect("writing the document");
        }
        let stale = std::fs::read_to_string(path).expect("the document") != text;
        assert!(!stale, "docs/manifest.schema.json is not what the types say: UPDATE_DOCS=1 cargo test --lib schema");
    }

    /// Every key that there is, each with a value that is good.
    fn whole() -> Json {
        json!({
            "version": "2.0", "description": "a", "after": ["a"], "before": ["b.service"], "requires": ["c"], "wants": ["d"],
            "values": {
                "port": {"type": "integer", "default": 1, "minimum": 0, "maximum": 9, "description": "d", "required": false},
                "mode": {"type": "enum", "enum": ["a", "b"]}, "key": {"type": "string", "secret": true, "pattern": "a*"},
            },
            "container": {
                "network": "private", "user": "a:b", "args": ["/a"], "env": {"A": "b"}, "workdir": "/x",
                "capabilities": {"add": ["KILL"], "drop": []}, "mounts": [{"source": "/a", "target": "/b", "options": ["ro"]}],
                "devices": ["/dev/fuse"], "tmpfs": ["/c"], "notify": true, "userns": "auto", "readonly": false, "seccomp": "default",
            },
            "health": {"http": "80", "status": 200, "interval": "1s", "timeout": "1s", "retries": 1, "startPeriod": "1s"},
            "state": {"epoch": 1, "folders": [{"path": "/var/lib/a", "mode": "0700"}]},
        })
    }

    /// The same with one place changed, for every place.
    fn mutants(json: &Json) -> Vec<Json> {
        let mut all = Vec::new();
        let others = [
            json!(null),
            json!(true),
            json!(-1),
            json!("odd"),
            json!([]),
            json!(["a"]),
            json!([1]),
            json!({}),
            json!({"odd": 1}),
        ];
        match json {
            Json::Object(map) => {
                for (key, value) in map {
                    let with = |value: Option<Json>| {
                        let mut map = map.clone();
                        match value {
                            Some(value) => map.insert(key.clone(), value),
                            None => map.remove(key),
                        };
                        Json::Object(map)
                    };
                    all.push(with(None));
                    all.extend(others.iter().cloned().map(|other| with(Some(other))));
                    all.extend(mutants(value).into_iter().map(|inner| with(Some(inner))));
                }
                let mut more = map.clone();
                more.insert("odd".to_owned(), json!("odd"));
                all.push(Json::Object(more));
            }
            Json::Array(items) => {
                for (at, value) in items.iter().enumerate() {
                    let with = |value: Json| {
                        let mut items = items.clone();
                        items[at] = value;
                        Json::Array(items)
                    };
                    all.extend(others.iter().cloned().map(with));
                    all.extend(mutants(value).into_iter().map(with));
                }
            }
            _ => {}
        }
        all
    }

    #[test]
    fn schema_and_parser_agree_on_every_key_and_type() {
        let schema: Json = serde_json::from_str(&text().expect("a schema")).expect("JSON");
        let (mut schemas, mut compiler) = (boon::Schemas::new(), boon::Compiler::new());
        compiler.add_resource("manifest", schema).expect("a schema");
        let index = compiler.compile("manifest", &mut schemas).expect("a schema");
        let by_schema = |json: &Json| schemas.validate(json, index).is_ok();
        let by_types = |json: &Json| {
            let right = json["version"] == "2.0";
            right && only_objects(json).is_ok() && serde_json::from_value::<Manifest>(json.clone()).is_ok()
        };
        let whole = whole();
        Manifest::parse(&whole.to_string()).expect("a manifest");
        assert!(by_schema(&whole), "{:#}", schemas.validate(&whole, index).expect_err("it was refused"));
        let (mut taken, mut refused) = (0, 0);
        for mutant in mutants(&whole) {
            let (schema, types) = (by_schema(&mutant), by_types(&mutant));
            assert_eq!(schema, types, "schema {schema}, parser {types}: {mutant:#}");
            // What the parser checks beyond types, a schema need not; but never the other way round.
            assert!(schema || Manifest::parse(&mutant.to_string()).is_err(), "{mutant:#}");
            if schema { taken += 1 } else { refused += 1 }
        }
        assert!(taken > 100 && refused > 400, "{taken} taken, {refused} refused");
        let odd = json!({"version": "2.0", "values": {"a b": {"type": "string"}}});
        assert!(!by_schema(&odd) && Manifest::parse(&odd.to_string()).is_err());
    }
}
