//! The web client: its files, the headers they come with, and, in a browser, all that people do with it. What happens there
//! is in `tests/web`.

use crate::client::Reply;
use crate::server::Server;
use coop_bots::mock::MockBot;
use coop_core::Engine;
use coop_core::password::Cost;
use coop_core::store::memory::MemoryStore;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tokio::process::Command;

async fn get(server: &Server, path: &str, headers: &[(&str, &str)]) -> Reply {
    server.http().send("GET", path, headers, None).await
}

#[tokio::test]
async fn the_page_is_at_its_addresses_and_nowhere_else() {
    let server = Server::start().await;
    let page = get(&server, "/", &[]).await;
    assert_eq!(page.status, 200);
    assert!(page.body.starts_with("<!doctype html>"));
    for path in ["/login", "/chat", "/chat/7"] {
        assert_eq!(get(&server, path, &[]).await.body, page.body, "{path}");
    }
    for path in [
        "/chat/x",
        "/chat/7/8",
        "/chats",
        "/web/app.js",
        "/../Cargo.toml",
        "/app.js/",
    ] {
        assert_eq!(get(&server, path, &[]).await.status, 404, "{path}");
    }
    assert_eq!(server.http().send("POST", "/", &[], None).await.status, 405);
    assert_eq!(server.http().send("HEAD", "/", &[], None).await.status, 200);
}

#[tokio::test]
async fn every_file_has_its_type_and_the_policy() {
    let server = Server::start().await;
    for (path, kind) in [
        ("/", "text/html; charset=utf-8"),
        ("/app.js", "text/javascript; charset=utf-8"),
        ("/coop.js", "text/javascript; charset=utf-8"),
        ("/app.css", "text/css; charset=utf-8"),
        ("/icon.svg", "image/svg+xml"),
    ] {
        let file = get(&server, path, &[]).await;
        assert_eq!(file.header("content-type"), Some(kind), "{path}");
        let policy = file.header("content-security-policy").unwrap();
        for rule in [
            "default-src 'none'",
            "script-src 'self'",
            "style-src 'self'",
            "img-src 'self'",
            "connect-src 'self'",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
            "require-trusted-types-for 'script'",
            "trusted-types 'none'",
        ] {
            assert!(
                policy.split("; ").any(|found| found == rule),
                "{path}: {rule} is not in {policy}"
            );
        }
        assert!(!policy.contains("unsafe"));
        for (name, value) in [
            ("x-content-type-options", "nosniff"),
            ("referrer-policy", "no-referrer"),
            ("cross-origin-opener-policy", "same-origin"),
            ("cache-control", "no-cache"),
        ] {
            assert_eq!(file.header(name), Some(value), "{path}");
        }
    }
    // What is no file of the page is not kept by anybody.
    assert_eq!(
        get(&server, "/health", &[]).await.header("cache-control"),
        Some("no-store")
    );
}

#[tokio::test]
async fn a_file_that_is_known_is_not_sent_again() {
    let server = Server::start().await;
    let file = get(&server, "/app.js", &[]).await;
    let tag = file.header("etag").unwrap();
    assert!(tag.starts_with('"'), "a strong tag");
    let known = get(&server, "/app.js", &[("If-None-Match", tag)]).await;
    assert_eq!((known.status, known.body.as_str()), (304, ""));
    assert_eq!(known.header("etag"), Some(tag));
    let list = format!("\"other\", W/{tag}");
    assert_eq!(get(&server, "/app.js", &[("If-None-Match", &list)]).await.status, 304);
    assert_eq!(get(&server, "/app.css", &[("If-None-Match", tag)]).await.status, 200);
    let request = "HEAD /app.js HTTP/1.1\r\nHost: x\r\nAccept-Encoding: gzip\r\n\r\n";
    let packed = server.http().raw(request.as_bytes()).await;
    assert_eq!(packed.header("content-encoding"), Some("gzip"));
    assert_ne!(packed.header("etag"), Some(tag), "other bytes have another tag");
    let length = |reply: &Reply| reply.header("content-length").unwrap().parse::<usize>().unwrap();
    assert!(
        length(&packed) * 2 < length(&file),
        "{} of {}",
        length(&packed),
        length(&file)
    );
}

#[tokio::test]
async fn it_can_be_left_out_or_read_from_a_folder() {
    let without = Server::start_with(|api| api.web(false), None).await;
    assert_eq!(get(&without, "/", &[]).await.status, 404);
    assert_eq!(get(&without, "/health", &[]).await.status, 200);
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("app.js"), "// one").unwrap();
    let path = folder.path().to_owned();
    let server = Server::start_with(|api| api.web_dir(path), None).await;
    assert_eq!(get(&server, "/app.js", &[]).await.body, "// one");
    std::fs::write(folder.path().join("app.js"), "// two").unwrap();
    assert_eq!(get(&server, "/app.js", &[]).await.body, "// two");
    assert_eq!(get(&server, "/app.css", &[]).await.status, 404);
}

fn is_command(name: &str) -> bool {
    let paths = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&paths).any(|folder| folder.join(name).is_file())
}

/// What is missing for a browser, if something is.
fn missing(folder: &Path) -> Option<&'static str> {
    if !is_command("node") {
        return Some("there is no node");
    }
    if !is_command("chromium") {
        return Some("there is no chromium");
    }
    let is_installed = folder.join("node_modules/playwright-core/package.json").is_file();
    (!is_installed).then_some("coop-server/tests/web is not installed: `npm ci` there")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_a_browser() {
    let folder: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/web");
    if let Some(reason) = missing(&folder) {
        coop_core::testing::skipped("coop-server: the web client in a browser", reason);
        return;
    }
    let engine = Engine::builder(MemoryStore::new())
        .password_cost(Cost::cheap_for_tests())
        .bot(MockBot::named("mock"))
        .bot(MockBot::named("other"));
    // Where another page will be, of another origin.
    let free = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let elsewhere = format!("http://localhost:{}", free.port());
    let origins = [elsewhere.clone()];
    let server = Server::on(engine, |api| api.cors_origins(origins), None).await;
    let child = Command::new("node")
        .arg("run.mjs")
        .arg(format!("http://{}", server.address))
        .env("COOP_ELSEWHERE", elsewhere)
        .current_dir(&folder)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let ended = tokio::time::timeout(Duration::from_secs(600), child.wait_with_output());
    let output = ended.await.expect("the browser does not end").unwrap();
    let (told, complained) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    println!("{told}");
    assert!(output.status.success(), "{told}\n{complained}");
}
