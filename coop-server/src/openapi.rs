//! What the HTTP interface is, for programs: an OpenAPI 3.1 document, made of the types that requests are read into and
//! answers are written from. `GET /api/openapi.json`.
//!
//! It knows the shapes and serves nobody; a test holds it against the router and against real answers.

use crate::call::Call;
use crate::objects::{ChatObject, ChatRow, MessageObject, ReceiptObject, UserObject};
use crate::reply::{Answer, FailureObject, Reply, Said};
use crate::router::{Endpoint, Route, SURFACE};
use crate::routes::accounts::{Credentials, Deletion, PasswordChange, Registration, TokenObject};
use crate::routes::governing::{Changes, Usage};
use crate::routes::health::{Health, Ready};
use crate::routes::members::Invitation;
use crate::routes::messages::{MarkedObject, NewMessage, NewText, PageObject, SentObject};
use crate::routes::rooms::{Change, NewChat};
use crate::routes::turns::AskedObject;
use coop_core::{Message, Receipt, RoomEntry, RoomSettings, TurnInfo};
use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, SchemaGenerator};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::sync::OnceLock;

/// Where the document keeps schemas that have a name.
const SCHEMAS: &str = "/components/schemas";

/// Makes the schema of one shape.
type Shape = fn(&mut SchemaGenerator) -> Value;

fn shape<T: JsonSchema>(generator: &mut SchemaGenerator) -> Value {
    generator.subschema_for::<T>().to_value()
}

/// What comes back.
enum Gives {
    Json(Shape),
    /// Something else, of this type.
    Other(&'static str),
    /// The connection becomes a WebSocket.
    Upgrade,
}

/// What may stand behind the `?`.
struct Parameter {
    name: &'static str,
    required: bool,
    is_number: bool,
    words: &'static str,
}

/// One thing that can be asked.
struct Operation {
    method: &'static str,
    path: &'static str,
    summary: &'static str,
    query: Vec<Parameter>,
    body: Option<Shape>,
    gives: Gives,
}

fn on(method: &'static str, path: &'static str, summary: &'static str) -> Operation {
    Operation {
        method,
        path,
        summary,
        query: Vec::new(),
        body: None,
        gives: Gives::Json(shape::<Said<'static>>),
    }
}

impl Operation {
    fn takes<T: JsonSchema>(self) -> Self {
        Self {
            body: Some(shape::<T>),
            ..self
        }
    }

    fn gives<T: JsonSchema>(self) -> Self {
        Self {
            gives: Gives::Json(shape::<T>),
            ..self
        }
    }

    fn gives_other(self, kind: &'static str) -> Self {
        Self {
            gives: Gives::Other(kind),
            ..self
        }
    }

    fn number(mut self, name: &'static str, words: &'static str) -> Self {
        self.query.push(Parameter {
            name,
            required: false,
            is_number: true,
            words,
        });
        self
    }

    fn text(mut self, name: &'static str, required: bool, words: &'static str) -> Self {
        self.query.push(Parameter {
            name,
            required,
            is_number: false,
            words,
        });
        self
    }

    /// Part of a history.
    fn paged(self) -> Self {
        self.number("before", "Only what stands before this position of the log")
            .number("limit", "At most so many, up to 200; 50 if nobody says")
    }
}

/// Everything that can be asked, in the order of the router.
#[rustfmt::skip]
fn operations() -> Vec<Operation> {
    type User = UserObject<'static>;
    type Chat = ChatObject<'static>;
    vec![
        on("get", "/health", "Whether the process lives").gives::<Health>(),
        on("get", "/ready", "Whether the server can serve").gives::<Ready>(),
        on("get", "/api/openapi.json", "This document").gives::<Map<String, Value>>(),
        on("get", "/metrics", "Figures, in Prometheus' format").gives_other("text/plain"),
        on("post", "/api/auth/register", "Make an account").takes::<Registration>().gives::<User>(),
        on("post", "/api/auth/login", "Get a token").takes::<Credentials>().gives::<TokenObject<'static>>(),
        on("get", "/api/auth/me", "Who one is").gives::<User>(),
        on("delete", "/api/auth/me", "Delete one's account").takes::<Deletion>(),
        on("post", "/api/auth/password", "Change one's password, which ends all tokens but the one that comes back")
            .takes::<PasswordChange>().gives::<TokenObject<'static>>(),
        on("post", "/api/auth/logout-everywhere", "End all of one's tokens and sockets"),
        on("get", "/api/users/search", "Find people by a part of their name")
            .text("query", true, "At least two characters").number("limit", "At most so many, up to 50").gives::<Vec<User>>(),
        on("get", "/api/chats", "One's rooms, newest activity first").gives::<Vec<ChatRow<'static>>>(),
        on("post", "/api/chats", "Make a room").takes::<NewChat>().gives::<Chat>(),
        on("get", "/api/chats/{id}", "One room").gives::<Chat>(),
        on("delete", "/api/chats/{id}", "Delete a room, as its owner"),
        on("get", "/api/chats/{id}/messages", "The newest messages, or some before or after a position, oldest first").paged()
            .number("after", "Only what stands after this position of the log").gives::<Vec<MessageObject<'static>>>(),
        on("get", "/api/chats/{id}/read-receipts", "Who has read each author's newest message, by its id")
            .gives::<BTreeMap<String, Vec<ReceiptObject<'static>>>>(),
        on("post", "/api/chats/{id}/mark-read", "Mark everything as read").gives::<MarkedObject>(),
        on("get", "/api/chats/{id}/participants", "Everybody in a room").gives::<Vec<User>>(),
        on("post", "/api/chats/{id}/invite", "Make somebody a member").takes::<Invitation>(),
        on("post", "/api/chats/{id}/leave", "Leave a room"),
        on("delete", "/api/chats/{id}/participants/{member}", "Remove somebody, as the owner"),
        on("get", "/api/rooms/{id}", "One room, as one has it in one's list").gives::<RoomEntry>(),
        on("patch", "/api/rooms/{id}", "Rename a room or hand it over, as its owner").takes::<Change>().gives::<RoomEntry>(),
        on("get", "/api/rooms/{id}/events", "What happens in a room, as server-sent events; see PROTOCOL.md")
            .number("after", "Begin after this position of the log, instead of with a snapshot").gives_other("text/event-stream"),
        on("get", "/api/rooms/{id}/search", "Messages that have all these words, or words that begin so")
            .text("query", true, "Words").paged().gives::<PageObject<'static>>(),
        on("get", "/api/rooms/{id}/messages", "The newest messages, or some before or after a position, oldest first").paged()
            .number("after", "Only what stands after this position of the log").gives::<PageObject<'static>>(),
        on("post", "/api/rooms/{id}/messages", "Say something").takes::<NewMessage>().gives::<SentObject<'static>>(),
        on("patch", "/api/rooms/{id}/messages/{message}", "Change what one said").takes::<NewText>().gives::<Message>(),
        on("delete", "/api/rooms/{id}/messages/{message}", "Take back what one said, or as the owner what anybody said"),
        on("get", "/api/rooms/{id}/settings", "How bots are governed here").gives::<RoomSettings>(),
        on("patch", "/api/rooms/{id}/settings", "Change that, as the owner").takes::<Changes>().gives::<RoomSettings>(),
        on("get", "/api/rooms/{id}/turns", "The turns that have not ended, the oldest first").gives::<Vec<TurnInfo>>(),
        on("post", "/api/rooms/{id}/turns/{turn}/stop", "End a turn for everyone"),
        on("post", "/api/rooms/{id}/turns/{turn}/retry", "Ask the same again").gives::<AskedObject<'static>>(),
        on("post", "/api/rooms/{id}/messages/{message}/stop", "End the turn whose answer this is"),
        on("post", "/api/rooms/{id}/messages/{message}/retry", "Ask again what this answers").gives::<AskedObject<'static>>(),
        on("get", "/api/rooms/{id}/messages/{message}/turn", "The turn whose answer this is").gives::<TurnInfo>(),
        on("get", "/api/rooms/{id}/messages/{message}/receipt", "What the bot had read whose answer this is").gives::<Receipt>(),
        on("get", "/api/rooms/{id}/usage", "The tokens that were used in a room").gives::<Usage>(),
        on("get", "/api/usage", "The tokens that were used for what one has asked").gives::<Usage>(),
        Operation { gives: Gives::Upgrade, ..on("get", "/ws", "A WebSocket: `coop.v1` if it is offered as a subprotocol, else the \
            first system's; see PROTOCOL.md").text("token", false, "The token, where no header can be set") },
    ]
}

/// Whether it needs no token; the WebSocket checks its own.
fn is_open(operation: &Operation) -> bool {
    let same =
        |route: &&Route| route.path == operation.path && route.method.as_str().eq_ignore_ascii_case(operation.method);
    let route = SURFACE.iter().find(same);
    !route.is_some_and(|route| matches!(route.endpoint, Endpoint::Signed(_)))
}

/// Answers with the document.
#[allow(clippy::unused_async, reason = "endpoints are async")]
pub(crate) async fn serve(_: Call) -> Answer {
    static DOCUMENT: OnceLock<String> = OnceLock::new();
    let text = DOCUMENT.get_or_init(|| document().to_string());
    Ok(Reply::text("application/json", text.clone()))
}

/// The document.
fn document() -> Value {
    let settings = || SchemaSettings::draft2020_12().with(|settings| settings.meta_schema = None);
    // What is written has a name; what is read differs in what may be left out, and stands where it is read.
    let mut written = settings()
        .with(|settings| settings.definitions_path = SCHEMAS.into())
        .for_serialize()
        .into_generator();
    let mut read = settings()
        .with(|settings| settings.inline_subschemas = true)
        .for_deserialize()
        .into_generator();
    let failure = shape::<FailureObject<'static>>(&mut written);
    let mut paths: Map<String, Value> = Map::new();
    for operation in operations() {
        let described = describe(&operation, &mut written, &mut read);
        let path = paths.entry(operation.path).or_insert_with(|| json!({}));
        path[operation.method] = described;
    }
    let mut schemas = Value::Object(written.take_definitions(true));
    tidy(&mut schemas);
    let mut paths = Value::Object(paths);
    tidy(&mut paths);
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Gemini Coop",
            "version": env!("CARGO_PKG_VERSION"),
            "summary": "A chat server in which people and bots share rooms",
            "license": { "name": "MIT OR Apache-2.0", "identifier": "MIT OR Apache-2.0" },
        },
        "security": [{ "token": [] }],
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": { "token": { "type": "http", "scheme": "bearer", "bearerFormat": "JWT" } },
            "responses": {
                "failure": {
                    "description": "It was not done, and why. 429 and 503 say in Retry-After when to come back.",
                    "headers": { "Retry-After": { "description": "Seconds", "schema": { "type": "integer", "minimum": 0 } } },
                    "content": { "application/json": { "schema": failure } },
                },
            },
        },
    })
}

fn describe(operation: &Operation, written: &mut SchemaGenerator, read: &mut SchemaGenerator) -> Value {
    let mut parameters: Vec<Value> = operation
        .path
        .split('/')
        .filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'))
        .map(|name| {
            let id = json!({ "type": "integer", "minimum": 1, "maximum": coop_core::id::MAX_ID });
            json!({ "name": name, "in": "path", "required": true, "schema": id })
        })
        .collect();
    parameters.extend(operation.query.iter().map(|parameter| {
        let kind = if parameter.is_number { "integer" } else { "string" };
        json!({
            "name": parameter.name,
            "in": "query",
            "required": parameter.required,
            "description": parameter.words,
            "schema": { "type": kind },
        })
    }));
    let (status, done) = match operation.gives {
        Gives::Json(shape) => {
            let content = json!({ "application/json": { "schema": shape(written) } });
            ("200", json!({ "description": "Done", "content": content }))
        }
        Gives::Other(kind) => {
            let content = json!({ kind: { "schema": { "type": "string" } } });
            ("200", json!({ "description": "Done", "content": content }))
        }
        Gives::Upgrade => ("101", json!({ "description": "The connection is a WebSocket" })),
    };
    let mut described = json!({
        "operationId": id_of(operation),
        "summary": operation.summary,
        "parameters": parameters,
        "responses": { status: done, "default": { "$ref": "#/components/responses/failure" } },
    });
    if let Some(body) = operation.body {
        let content = json!({ "application/json": { "schema": body(read) } });
        described["requestBody"] = json!({ "required": true, "content": content });
    }
    if is_open(operation) {
        described["security"] = json!([]);
    }
    described
}

/// A name for it that generators of clients can use: `get_api_chats_id`.
fn id_of(operation: &Operation) -> String {
    let words = operation.path.split(|c: char| !c.is_ascii_alphanumeric());
    let words = words.filter(|word| !word.is_empty());
    std::iter::once(operation.method)
        .chain(words)
        .collect::<Vec<_>>()
        .join("_")
}

/// Takes out of descriptions what only rustdoc understands: the targets of links.
fn tidy(value: &mut Value) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(tidy),
        Value::Object(fields) => {
            for (name, field) in fields {
                match field {
                    Value::String(text) if name == "description" => *text = without_links(text),
                    field => tidy(field),
                }
            }
        }
        _ => {}
    }
}

fn without_links(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('[') {
        let (before, link) = rest.split_at(at);
        plain.push_str(before);
        let Some(end) = link.find(']') else {
            rest = link;
            break;
        };
        plain.push_str(&link[1..end]);
        rest = &link[end + 1..];
        if let Some(target) = rest.strip_prefix('(')
            && let Some(end) = target.find(')')
        {
            rest = &target[end + 1..];
        }
    }
    plain.push_str(rest);
    plain
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn it_has_what_the_router_has_and_nothing_else() {
        let routed: BTreeSet<_> = SURFACE
            .iter()
            .map(|route| (route.method.as_str().to_lowercase(), route.path.to_owned()))
            .collect();
        let document = document();
        let mut told = BTreeSet::new();
        let mut ids = BTreeSet::new();
        for (path, operations) in document["paths"].as_object().unwrap() {
            for (method, operation) in operations.as_object().unwrap() {
                told.insert((method.clone(), path.clone()));
                assert!(ids.insert(operation["operationId"].as_str().unwrap().to_owned()));
            }
        }
        assert_eq!(told, routed);
        let of = |path: &str, method: &str| document["paths"][path][method].get("security").cloned();
        assert_eq!(of("/api/auth/login", "post"), Some(json!([])));
        assert_eq!(
            of("/api/auth/me", "get"),
            None,
            "as everything is, unless it says otherwise"
        );
    }

    #[test]
    fn every_reference_leads_somewhere_and_no_words_are_for_rustdoc() {
        fn walk(value: &Value, seen: &mut impl FnMut(&str, &Value)) {
            match value {
                Value::Array(items) => items.iter().for_each(|item| walk(item, seen)),
                Value::Object(fields) => fields.iter().for_each(|(name, field)| {
                    seen(name, field);
                    walk(field, seen);
                }),
                _ => {}
            }
        }
        let document = document();
        let mut references = 0;
        walk(&document, &mut |name, value| match (name, value) {
            ("$ref", Value::String(target)) => {
                references += 1;
                let at = target.strip_prefix('#').unwrap();
                assert!(document.pointer(at).is_some(), "{target}");
            }
            ("description", Value::String(words)) => {
                assert!(!words.contains("](") && !words.contains("::"), "{words}");
            }
            _ => {}
        });
        assert!(references > 40, "{references}");
        assert!(document["components"]["schemas"]["Message"]["properties"]["text"].is_object());
    }

    #[test]
    fn links_become_words() {
        for (text, plain) in [
            ("as [`send`](Self::send) does", "as `send` does"),
            ("see [`Rate`].", "see `Rate`."),
            ("[a](b)[c](d) e", "ac e"),
            ("x[0", "x[0"),
            ("", ""),
        ] {
            assert_eq!(without_links(text), plain);
        }
    }
}
