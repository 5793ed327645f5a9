//! What the running program counts and tells, and that none of it is about anybody.

use crate::binary::{Program, with_mock};
use crate::client::{Http, PASSWORD, Ws};
use crate::http::check_failure;
use serde_json::json;
use std::collections::BTreeMap;
use std::time::Duration;

/// The figures by name and labels.
async fn figures(http: &Http) -> BTreeMap<String, f64> {
    let reply = http.send("GET", "/metrics", &[], None).await;
    assert_eq!(reply.status, 200);
    assert_eq!(
        reply.header("content-type"),
        Some("text/plain; version=0.0.4; charset=utf-8")
    );
    let lines = reply
        .body
        .lines()
        .filter(|line| !line.starts_with('#') && !line.is_empty());
    let figure = |line: &str| {
        let (name, value) = line.rsplit_once(' ').expect("a name and a value");
        (name.to_owned(), value.parse().expect("a number"))
    };
    lines.map(figure).collect()
}

/// Once this figure is at least so much. What a socket got may be counted a moment after it has got it.
async fn once(http: &Http, name: &str, least: f64) -> BTreeMap<String, f64> {
    for _ in 0..500 {
        let figures = figures(http).await;
        if figures.get(name).is_some_and(|value| *value >= least) {
            return figures;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{name} does not get to {least}: {:#?}", figures(http).await);
}

#[tokio::test]
async fn what_happens_is_counted() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = with_mock(folder.path());
    command.env("COOP_LIMIT_LOGINS_PER_ACCOUNT", "1/1h burst 2");
    let program = Program::start_as(folder.path(), command).await;
    let http = program.http();
    let (alice, bob) = (http.person("secretalice").await, http.person("secretbob").await);
    let room = http.group(&alice, "secretroom", &[&bob]).await;
    let mut hers = Ws::open(program.address, &alice.token).await;
    let mut his = Ws::open(program.address, &bob.token).await;
    his.join(room).await;
    hers.join(room).await;
    hers.say(room, "secretword").await;
    his.of_type("message").await;
    let prompt = "/bot echo me";
    hers.say(room, prompt).await;
    his.of_type("bot_stream").await;
    let ended = r#"coop_turns_total{bot="mock",end="done"}"#;
    once(&http, ended, 1.0).await;
    for _ in 0..3 {
        let guess = json!({ "username": "secretbob", "password": "no" });
        http.send("POST", "/api/auth/login", &[], Some(&guess)).await;
    }
    let refused = http
        .send("BREW", "/secretpath", &[], Some(&json!({ "password": PASSWORD })))
        .await;
    check_failure(&refused, 404, "no such thing");
    his.send_text("nonsense").await;
    drop(hers);
    let lost = r#"coop_sockets_closed_total{why="lost"}"#;
    let seen = once(&http, lost, 1.0).await;

    let at_least = [
        ("coop_events_published_total", 5.0),
        ("coop_deltas_published_total", 1.0),
        (r#"coop_offers_total{kind="event"}"#, 8.0),
        (r#"coop_offers_total{kind="delta"}"#, 2.0),
        ("coop_fanout_seconds_count", 2.0),
        ("coop_commit_seconds_count", 3.0),
        (r#"coop_commit_seconds_bucket{le="+Inf"}"#, 3.0),
        ("coop_commit_intents_total", 4.0),
        (r#"coop_turn_first_piece_seconds_count{bot="mock"}"#, 1.0),
        ("coop_sent_bytes_total", 500.0),
        ("coop_rooms_in_memory", 1.0),
        (
            r#"coop_http_requests_total{method="POST",route="/api/chats",status="200"}"#,
            1.0,
        ),
        (
            r#"coop_http_requests_total{method="other",route="other",status="404"}"#,
            1.0,
        ),
        (r#"coop_http_request_seconds_count{route="/ws"}"#, 2.0),
    ];
    for (name, least) in at_least {
        assert!(seen.get(name).is_some_and(|value| *value >= least), "{name}: {seen:#?}");
    }
    let exactly = [
        ("coop_connections", 1.0),
        ("coop_turns_running", 0.0),
        ("coop_commit_failures_total", 0.0),
        (ended, 1.0),
        (lost, 1.0),
        (r#"coop_refused_total{limit="logins_per_account"}"#, 1.0),
        (
            r#"coop_http_requests_total{method="POST",route="/api/auth/login",status="429"}"#,
            1.0,
        ),
    ];
    for (name, value) in exactly {
        assert_eq!(seen.get(name), Some(&value), "{name}: {seen:#?}");
    }
    for (name, value) in &seen {
        assert!(name.starts_with("coop_"), "{name}");
        assert!(!name.contains("secret") && !name.contains("BREW"), "{name}");
        assert!(value.is_finite() && *value >= 0.0, "{name} {value}");
    }
    // A bus that is not there is not down.
    assert!(!seen.contains_key("coop_bus_up"));
}

#[tokio::test]
async fn figures_can_be_off() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = with_mock(folder.path());
    command.env("COOP_METRICS", "off");
    let program = Program::start_as(folder.path(), command).await;
    let reply = program.http().send("GET", "/metrics", &[], None).await;
    check_failure(&reply, 404, "metrics are off");
}
