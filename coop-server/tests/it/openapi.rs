//! The description of the interface, held against what the server really answers in every transcript.

use crate::golden::{is_of, transcripts};
use crate::server::Server;
use serde_json::{Value, json};

struct Described {
    method: String,
    path: String,
    operation: Value,
}

/// A request of a transcript, and what came.
struct Exchange<'a> {
    method: &'a str,
    path: &'a str,
    body: Option<&'a str>,
    status: u16,
    came: &'a str,
}

/// The exchanges of a transcript whose answers are JSON.
fn exchanges(text: &str) -> Vec<Exchange<'_>> {
    let lines: Vec<_> = text.lines().collect();
    let mut found = Vec::new();
    for (at, line) in lines.iter().enumerate() {
        let mut words = line.splitn(4, ' ').skip(1);
        let (Some(method), Some(path)) = (words.next(), words.next()) else {
            continue;
        };
        if !["GET", "POST", "PUT", "PATCH", "DELETE"].contains(&method) || line.starts_with(' ') {
            continue;
        }
        let mut came = lines[at + 1..].iter().skip_while(|line| line.starts_with("+ "));
        let head = came
            .next()
            .and_then(|line| line.strip_prefix("    "))
            .unwrap_or_default();
        let Some((status, "application/json")) = head.split_once(' ') else {
            continue;
        };
        let body = came.map(|line| line.strip_prefix("    ").unwrap_or_default());
        let body = body
            .take_while(|line| !line.is_empty())
            .find(|line| line.starts_with(['{', '[']));
        found.push(Exchange {
            method,
            path,
            body: words.next().filter(|body| body.starts_with('{')),
            status: status.parse().unwrap(),
            came: body.unwrap_or_default(),
        });
    }
    found
}

/// A text of a transcript as it was before what differs each time was taken out.
fn parsed(text: &str) -> Value {
    let text = text.replace("\"<epoch>\"", "1");
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// What is wrong with a value, by a schema of the document.
fn faults(document: &Value, schema: &Value, value: &Value) -> Vec<String> {
    let whole = json!({ "components": document["components"], "allOf": [schema] });
    let validator = jsonschema::draft202012::new(&whole).expect("a schema");
    let faults = validator.iter_errors(value);
    faults
        .map(|fault| format!("{}: {fault}", fault.instance_path()))
        .collect()
}

#[tokio::test]
async fn every_answer_is_as_it_is_described() {
    let server = Server::start().await;
    let reply = server.http().send("GET", "/api/openapi.json", &[], None).await;
    assert_eq!(
        (reply.status, reply.header("content-type")),
        (200, Some("application/json"))
    );
    let document = reply.json();
    assert_eq!(document["openapi"], "3.1.0");
    let mut described = Vec::new();
    for (path, operations) in document["paths"].as_object().unwrap() {
        for (method, operation) in operations.as_object().unwrap() {
            described.push(Described {
                method: method.to_uppercase(),
                path: path.clone(),
                operation: operation.clone(),
            });
        }
    }
    let failure = document["components"]["responses"]["failure"]["content"]["application/json"]["schema"].clone();
    let (mut answers, mut failures, mut bodies) = (0, 0, 0);
    for (name, text) in transcripts() {
        for exchange in exchanges(&text) {
            let what = format!("{}: {} {}", name.display(), exchange.method, exchange.path);
            let value = parsed(exchange.came);
            if exchange.status != 200 {
                assert_eq!(faults(&document, &failure, &value), [""; 0], "{what}");
                failures += 1;
                continue;
            }
            // Of two that fit the one without a parameter there is the one.
            let fits = described
                .iter()
                .filter(|one| one.method == exchange.method && is_of(exchange.path, &one.path));
            let operation = &fits
                .min_by_key(|one| one.path.matches('{').count())
                .expect("described")
                .operation;
            let schema = &operation["responses"]["200"]["content"]["application/json"]["schema"];
            assert!(schema.is_object(), "{what}");
            assert_eq!(faults(&document, schema, &value), [""; 0], "{what}: {value}");
            // A word more or less would be noticed.
            if let Some(required) = value.as_object().and_then(|fields| fields.keys().next()) {
                let mut less = value.clone();
                let optional = less.as_object_mut().unwrap().remove(required).is_none();
                let noticed = !faults(&document, schema, &less).is_empty();
                answers += usize::from(noticed && !optional);
            }
            if let Some(body) = exchange.body {
                let schema = &operation["requestBody"]["content"]["application/json"]["schema"];
                if schema.is_object() {
                    assert_eq!(faults(&document, schema, &parsed(body)), [""; 0], "{what}: {body}");
                    bodies += 1;
                }
            }
            for name in exchange.path.split_once('?').map_or("", |(_, query)| query).split('&') {
                let name = name.split('=').next().unwrap();
                let parameters = operation["parameters"].as_array().unwrap();
                assert!(
                    name.is_empty() || parameters.iter().any(|one| one["name"] == name && one["in"] == "query"),
                    "{what}: {name} is not described"
                );
            }
        }
    }
    assert!(
        answers >= 25 && failures >= 20 && bodies >= 10,
        "{answers} {failures} {bodies}"
    );
}
