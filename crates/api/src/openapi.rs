use http::Method;
use schemars::SchemaGenerator;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

use crate::error::ErrorBody;
use crate::exchange::json_content;
use crate::operation::{Description, Operation};
use crate::operations::{SERVED, not_yet};
use crate::{AccessToken, Scope};

/// Describes the API in OpenAPI 3.1, from the same table that the routes are made from.
pub fn openapi() -> Value {
    let mut schemas = SchemaSettings::draft2020_12()
        .with(|settings| settings.definitions_path = "/components/schemas".into())
        .into_generator();
    let error = json_content::<ErrorBody>(&mut schemas);
    let mut paths = Map::new();
    for operation in SERVED {
        for (at, path) in operation.paths.iter().enumerate() {
            put(&mut paths, path, &operation.method, describe(operation, at > 0, &mut schemas));
        }
    }
    for operation in not_yet() {
        for (at, path) in operation.paths.iter().enumerate() {
            put(&mut paths, path, &operation.method, describe_unserved(&operation, at > 0));
        }
    }
    put(&mut paths, "/oauth/token", &Method::POST, describe_token(&mut schemas));
    put(&mut paths, "/oauth/token-exchange", &Method::POST, describe_exchange());
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Towline coordination server",
            "version": "v2",
            "description": "The REST API of a coordination server, compatible with the official API v2. Operations that \
                            answer 501 are marked with x-not-served.",
        },
        "servers": [{"url": "/api/v2"}],
        "security": [{"bearerAuth": []}, {"basicAuth": []}],
        "paths": paths,
        "components": {
            "securitySchemes": {
                "bearerAuth": {"type": "http", "scheme": "bearer"},
                "basicAuth": {"type": "http", "scheme": "basic"},
            },
            "responses": {"Error": {"description": "Why it was not done, as JSON.", "content": error}},
            "schemas": schemas.take_definitions(true),
        },
    })
}

fn put(paths: &mut Map<String, Value>, path: &str, method: &Method, described: Value) {
    let entry = paths.entry(path).or_insert_with(|| json!({}));
    entry[method.as_str().to_ascii_lowercase()] = described;
}

fn describe(operation: &Operation, alias: bool, schemas: &mut SchemaGenerator) -> Value {
    let Some(describe) = operation.describe else { return describe_unserved(operation, alias) };
    let Description { path, query, payload, reply } = describe(schemas);
    let mut parameters: Vec<Value> = path.iter().map(|name| path_parameter(name)).collect();
    parameters.extend(query.iter().map(|parameter| {
        let values = (!parameter.values.is_empty()).then(|| json!({"type": "string", "enum": parameter.values}));
        let schema = values.unwrap_or_else(|| json!({"type": "string"}));
        json!({"name": parameter.name, "in": "query", "required": parameter.required, "schema": schema})
    }));
    let headers = payload.as_ref().map(|payload| payload.headers.as_slice()).unwrap_or_default();
    parameters.extend(
        headers
            .iter()
            .map(|name| json!({"name": name, "in": "header", "required": false, "schema": {"type": "string"}})),
    );
    let mut described = json!({
        "operationId": id(operation, alias),
        "tags": [operation.section],
        "summary": operation.summary.trim(),
        "parameters": parameters,
        "x-any-of-scopes": operation.any_of.iter().map(Scope::to_string).collect::<Vec<_>>(),
        "responses": {
            "200": {"description": "Done.", "content": reply},
            "default": {"$ref": "#/components/responses/Error"},
        },
    });
    if operation.or_own {
        described["x-or-own"] = json!(true);
    }
    if let Some(payload) = payload.filter(|payload| !payload.content.is_null()) {
        described["requestBody"] = json!({"required": true, "content": payload.content});
    }
    described
}

/// The same operation at another path needs another name.
fn id(operation: &Operation, alias: bool) -> String {
    if alias { format!("{}Alias", operation.id) } else { operation.id.to_owned() }
}

fn describe_unserved(operation: &Operation, alias: bool) -> Value {
    let path = operation.paths.first().copied().unwrap_or("");
    let names = path.split('/').filter_map(|piece| piece.strip_prefix('{')?.strip_suffix('}'));
    json!({
        "operationId": id(operation, alias),
        "tags": [operation.section],
        "parameters": names.map(path_parameter).collect::<Vec<_>>(),
        "x-not-served": true,
        "responses": {"501": {"$ref": "#/components/responses/Error"}},
    })
}

fn describe_token(schemas: &mut SchemaGenerator) -> Value {
    let text = json!({"type": "string"});
    json!({
        "operationId": "issueToken",
        "tags": ["OAuth"],
        "summary": "Gives an access token for a client's secret or a user's password.",
        "security": [],
        "requestBody": {"required": true, "content": {"application/x-www-form-urlencoded": {"schema": {
            "type": "object",
            "properties": {
                "grant_type": {"type": "string", "enum": ["client_credentials", "password"]},
                "client_id": text, "client_secret": text, "username": text, "password": text, "scope": text, "tags": text,
            },
        }}}},
        "responses": {
            "200": {"description": "The token.", "content": json_content::<AccessToken>(schemas)},
            "default": {"$ref": "#/components/responses/Error"},
        },
    })
}

fn describe_exchange() -> Value {
    json!({
        "operationId": "exchangeToken",
        "tags": ["OAuth"],
        "security": [],
        "x-not-served": true,
        "responses": {"501": {"$ref": "#/components/responses/Error"}},
    })
}

fn path_parameter(name: &str) -> Value {
    json!({"name": name, "in": "path", "required": true, "schema": {"type": "string"}})
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Run with `TOWLINE_BLESS=1` to write the file anew.
    #[test]
    fn the_published_description_is_the_table() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/openapi.json");
        let text = format!("{}\n", serde_json::to_string_pretty(&openapi()).unwrap());
        if std::env::var_os("TOWLINE_BLESS").is_some() {
            std::fs::write(path, &text).unwrap();
        }
        let published = std::fs::read_to_string(path).unwrap();
        assert!(published == text, "openapi.json is not what the table says: run this test with TOWLINE_BLESS=1");
    }

    #[test]
    fn every_reference_leads_somewhere() {
        let document = openapi();
        let mut pending = vec![&document];
        while let Some(value) = pending.pop() {
            match value {
                Value::Object(fields) => {
                    if let Some(Value::String(target)) = fields.get("$ref") {
                        let pointer = target.strip_prefix('#').unwrap();
                        assert!(document.pointer(pointer).is_some(), "{target}");
                    }
                    pending.extend(fields.values());
                }
                Value::Array(values) => pending.extend(values),
                _ => {}
            }
        }
    }
}
