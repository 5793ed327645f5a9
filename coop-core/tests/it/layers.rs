//! The order of the modules and the absences that are rules, read from the sources as words.
//!
//! A module names only modules above it in [`ORDER`]. Comments, strings and a closing `mod tests` do not count, nor does
//! `lib.rs`, which re-exports from everywhere. It is read line by line and knows no aliases: it catches slips, not tricks.

use std::{fs, path::Path};

/// Top to bottom. `store` is `store.rs` or `store/mod.rs`, `store/*` what else lies in that folder.
#[rustfmt::skip]
const ORDER: &[&str] = &[
    "id", "time", "error", "bounds", "model", "event", "search", "mutant", "sync", "metrics", // 0 words
    "store", "bot", "bus",                                     // 1 boundaries
    "names", "command", "context", "password", "live", "gate", // 2 mechanisms
    "engine", "writer",                                        // 3 heart
    "turn", "relay", "others", "attachment", "subscription", "room", "user", "account",
    "builder", "archive",                                      // 4 verbs
    "store/*", "bus/*", "testing",                             // 5 plugs
];

/// `(user, used, why)`: upward uses that stay. One that is no longer made fails the test too.
const EXCEPTIONS: &[(&str, &str, &str)] = &[
    (
        "engine",
        "writer",
        "a sender starts the room's writer if there is none, under the registry's lock",
    ),
    (
        "writer",
        "turn",
        "a turn that a commit has started is run, and reports back through the writer's mailbox",
    ),
    (
        "archive",
        "store/*",
        "an archive is the rows of a room, as `store::plan` knows them, in another form",
    ),
];

#[test]
fn modules_keep_their_layers() {
    let mut files = Vec::new();
    collect(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), "", &mut files);
    assert!(files.iter().any(|(path, _)| path == "lib.rs"));
    let broken = violations(&files, EXCEPTIONS);
    assert!(broken.is_empty(), "\n{}\n", broken.join("\n"));
}

fn collect(dir: &Path, prefix: &str, files: &mut Vec<(String, String)>) {
    for entry in fs::read_dir(dir).expect("a folder of sources").flatten() {
        let name = format!("{prefix}{}", entry.file_name().display());
        if entry.path().is_dir() {
            collect(&entry.path(), &format!("{name}/"), files);
        } else if name.ends_with(".rs") && !name.ends_with("tests.rs") {
            let text = fs::read_to_string(entry.path()).expect("a source in UTF-8");
            files.push((name, text));
        }
    }
}

/// What is wrong with these files, each a path below `src` and its text.
fn violations(files: &[(String, String)], exceptions: &[(&str, &str, &str)]) -> Vec<String> {
    let rank = |unit: &str| ORDER.iter().position(|known| *known == unit);
    let plug = |top: &str, sub: &str| {
        let is = |file: String| files.iter().any(|(path, _)| *path == file);
        matches!(top, "store" | "bus") && (is(format!("{top}/{sub}.rs")) || is(format!("{top}/{sub}/mod.rs")))
    };
    let (mut broken, mut needed) = (Vec::new(), Vec::new());
    for (path, text) in files {
        let module = path.trim_end_matches(".rs").trim_end_matches("/mod");
        let me = match module.split_once('/') {
            Some((top @ ("store" | "bus"), _)) => format!("{top}/*"),
            Some((top, _)) => top.to_owned(),
            None => module.to_owned(),
        };
        let mut say = |what: String| broken.push(format!("{path}: {what}"));
        // `super` means the crate where it leads to its root.
        let up = "super :: ".repeat(1 + module.matches('/').count());
        let code = words(text).replace(&up, "crate :: ");
        let code: Vec<&str> = code.split(' ').collect();
        if me != "lib" {
            let my = rank(&me).unwrap_or_else(|| {
                say(format!("`{me}` has no place in ORDER"));
                ORDER.len()
            });
            for (top, sub) in heads(&code, "crate") {
                let it = match plug(top, sub) {
                    true => format!("{top}/*"),
                    false => top.to_owned(),
                };
                if exceptions.iter().any(|(a, b, _)| *a == me && *b == it) {
                    needed.push((me.clone(), it));
                } else if it != me && rank(&it).is_some_and(|rank| rank > my) {
                    say(format!("`{me}` must not use `{it}`"));
                }
            }
        }
        let has = |phrase: &str| {
            let phrase: Vec<&str> = phrase.split(' ').collect();
            code.windows(phrase.len()).any(|words| words == phrase)
        };
        if has("sqlx") && !matches!(&me[..], "store" | "store/*") {
            say("sqlx outside src/store".into());
        }
        if has("hyper") || has("TcpStream") {
            say("a socket in the core".into());
        }
        let json = heads(&code, "serde_json");
        if json.iter().any(|(a, b)| *a == "Value" || *b == "Value") {
            say("serde_json::Value in the core".into());
        }
        // Tokio's clock is paused in tests, so it may be read; a bare `Instant` is Tokio's if the file imports that.
        let tokio = has("tokio :: time") && !has("std :: time :: Instant");
        let clock = has("SystemTime :: now") || has("Instant :: now") && !tokio;
        if clock && rank(&me) < rank("turn") {
            say("a clock is read above the verbs".into());
        }
        let commits = has(". commit (") || has(":: commit (");
        if commits && !matches!(&me[..], "writer" | "store/*" | "testing") {
            say("only the room's writer commits".into());
        }
    }
    for (user, used, _) in exceptions {
        if !needed.iter().any(|(a, b)| a == user && b == used) {
            broken.push(format!("exception `{user}` -> `{used}` is not needed"));
        }
    }
    broken.dedup();
    broken
}

/// The code's words and signs, one space between them.
fn words(text: &str) -> String {
    let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or(text);
    let mut out = String::new();
    for line in code.lines() {
        let line: String = line.split('"').step_by(2).collect();
        let line = line.split("//").next().unwrap_or_default();
        for c in line.replace("::", "\u{1}").chars() {
            match c {
                '\u{1}' => out.push_str(" :: "),
                c if c.is_alphanumeric() || c == '_' => out.push(c),
                c => out.extend([' ', c, ' ']),
            }
        }
        out.push(' ');
    }
    out.split_whitespace().collect::<Vec<_>>().join(" ") + " "
}

/// What is named right below `root`, and below that if it is a path: `root::{a, b::{c}}` is `(a, "")`, `(b, "{")`.
fn heads<'a>(code: &[&'a str], root: &str) -> Vec<(&'a str, &'a str)> {
    let word = |at: usize| code.get(at).copied().unwrap_or_default();
    let head = |at| match word(at + 1) {
        "::" => (word(at), word(at + 2)),
        _ => (word(at), ""),
    };
    let mut found = Vec::new();
    for at in (0..code.len()).filter(|&at| word(at) == root && word(at + 1) == "::") {
        found.push(head(at + 2));
        let mut depth = 0;
        for at in at + 2..code.len() {
            match word(at) {
                "{" => depth += 1,
                "}" => depth -= 1,
                _ => {}
            }
            match word(at) {
                _ if depth == 0 => break,
                "{" | "," if depth == 1 => found.push(head(at + 1)),
                _ => {}
            }
        }
    }
    found
}

/// The checker finds what it is for, and only that; otherwise its silence would say nothing.
#[test]
#[rustfmt::skip]
fn forged_violations_are_found() {
    let check = |path: &str, text: &str| {
        let files = [(path, text), ("store/sqlite.rs", "")].map(|(p, t)| (p.to_owned(), t.to_owned()));
        violations(&files, &[])
    };
    for (path, text, says) in [
        ("live.rs", "use crate::engine::Engine;", "`live` must not use `engine`"),
        ("live.rs", "use crate::{id::{A, B}, engine::{self, Engine}};", "`live` must not use `engine`"),
        ("live.rs", "use crate::{\n    id::RoomId, // who\n    gate,\n};", "`live` must not use `gate`"),
        ("live.rs", "fn f() -> crate::room::Room { g(\"http://\") }", "`live` must not use `room`"),
        ("live/mod.rs", "use super::writer;", "`live` must not use `writer`"),
        ("live/queue.rs", "use super::super::{id, turn::Turn};", "`live` must not use `turn`"),
        ("room.rs", "use crate::store::sqlite::Sqlite;", "`room` must not use `store/*`"),
        ("store/mod.rs", "use crate::bus::Bus;", "`store` must not use `bus`"),
        ("helpers.rs", "", "`helpers` has no place in ORDER"),
        ("error.rs", "fn f(e: sqlx::Error) {}", "sqlx outside src/store"),
        ("lib.rs", "use hyper::Body;", "a socket in the core"),
        ("bus/redis.rs", "use tokio::net::{TcpStream};", "a socket in the core"),
        ("bot.rs", "use serde_json::{Map, Value};", "serde_json::Value in the core"),
        ("bot.rs", "fn f(v: &serde_json::Value) {}", "serde_json::Value in the core"),
        ("bot.rs", "fn f() { serde_json::Value::Null; }", "serde_json::Value in the core"),
        ("time.rs", "fn f() { SystemTime::now(); }", "a clock is read above the verbs"),
        ("gate.rs", "use std::time::Instant; fn f() { Instant::now(); }", "a clock is read above the verbs"),
        ("engine.rs", "fn f() { std::time::Instant::now(); }", "a clock is read above the verbs"),
        ("turn.rs", "async fn f() { store.commit(batch).await }", "only the room's writer commits"),
        ("engine.rs", "async fn f() { RoomStore::commit(store, batch).await }", "only the room's writer commits"),
    ] {
        assert_eq!(check(path, text), [format!("{path}: {says}")], "{text}");
    }
    for (path, text) in [
        ("writer.rs", "use crate::{engine, live::*}; async fn f() { s.commit(b).await }"),
        ("live/queue.rs", "use super::Live; use crate::live::reader; use super::super::id;"),
        ("store/sql.rs", "use super::{RoomStore, sqlite}; use crate::store::sqlite::X; fn f() { sqlx::q(); t.commit() }"),
        ("store/mod.rs", "mod sqlite; use crate::model::Message;"),
        ("live.rs", "//! crate::engine\n/// crate::room\nfn f() { g(\"crate::engine\") } // sqlx"),
        ("live.rs", "#[cfg(test)]\nmod tests {\n    use crate::engine::Engine;\n}\n"),
        ("live.rs", "mod inner { use super::Queue; } fn hyperbola() {}"),
        ("live.rs", "use tokio::time::{Instant, sleep}; fn f<'a>() { Instant::now(); }"),
        ("room.rs", "use std::time::Instant; fn f() { Instant::now(); }"),
        ("lib.rs", "pub use crate::engine::Engine; pub use serde_json::value::RawValue;"),
    ] {
        assert_eq!(check(path, text), [""; 0], "{text}");
    }
    let excepted = [("live", "engine", "to try")];
    let live = |text: &str| violations(&[("live.rs".to_owned(), text.to_owned())], &excepted);
    assert_eq!(live("use crate::engine;"), [""; 0]);
    assert_eq!(live(""), ["exception `live` -> `engine` is not needed"]);
}
