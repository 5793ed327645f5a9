//! The command line of the program itself: every verb, what it prints where, and what it ends with.

use crate::binary::{Program, command, with_mock};
use crate::client::{PATIENCE, Ws};
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};

/// What a command that ended has left.
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

pub(crate) async fn run_with(folder: &Path, arguments: &[&str], variables: &[(&str, &str)], input: &str) -> Ended {
    let mut command = command(folder);
    command
        .args(arguments)
        .envs(variables.iter().copied())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    // It may end without reading.
    let _ = stdin.write_all(input.as_bytes()).await;
    drop(stdin);
    let output = timeout(PATIENCE, child.wait_with_output()).await;
    let output = output.unwrap_or_else(|_| panic!("{arguments:?} goes on")).unwrap();
    Ended {
        code: output.status.code(),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

pub(crate) async fn run(folder: &Path, arguments: &[&str]) -> Ended {
    run_with(folder, arguments, &[], "").await
}

/// What it prints where all goes well.
pub(crate) async fn prints(folder: &Path, arguments: &[&str]) -> String {
    let ended = run(folder, arguments).await;
    assert_eq!(ended.code, Some(0), "{arguments:?}: {}", ended.err);
    ended.out.trim_end().to_owned()
}

pub(crate) fn folder() -> TempDir {
    tempfile::tempdir().unwrap()
}

#[tokio::test]
async fn it_says_what_it_is_and_what_it_can() {
    let folder = folder();
    let version = format!("coop-server {}", env!("CARGO_PKG_VERSION"));
    assert_eq!(prints(folder.path(), &["--version"]).await, version);
    let help = prints(folder.path(), &["--help"]).await;
    for told in [
        "serve",
        "migrate",
        "token",
        "user",
        "config",
        "health",
        "--listen",
        "--port-file",
        "--database",
        "--token-ttl",
        "--cors-origin",
        "--trusted-proxy",
        "--registration",
        "--bot",
        "--turn-timeout",
        "--limits",
        "--config",
        "--log",
        "--log-format",
        "--shutdown-grace",
        "COOP_DATABASE_URL",
    ] {
        assert!(help.contains(told), "{told} is not in\n{help}");
    }
    let wrong = run(folder.path(), &["--lisen", "127.0.0.1:0"]).await;
    assert_eq!((wrong.code, wrong.out.as_str()), (Some(2), ""));
    assert!(wrong.err.contains("--listen"), "no suggestion in {}", wrong.err);
    assert_eq!(run(folder.path(), &["sing"]).await.code, Some(2));
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "nothing is made");
}

#[tokio::test]
async fn the_default_file_is_good_and_a_misspelt_one_is_told() {
    let folder = folder();
    let path = folder.path();
    std::fs::write(path.join("coop.toml"), prints(path, &["config", "default"]).await).unwrap();
    let checked = run(path, &["config", "check", "--config", "coop.toml"]).await;
    assert_eq!((checked.code, checked.out.as_str()), (Some(0), ""), "{}", checked.err);
    std::fs::write(path.join("wrong.toml"), "log = \"info\"\nlissten = \"127.0.0.1:1\"\n").unwrap();
    for arguments in [&["config", "check"][..], &["serve"], &[]] {
        let refused = run_with(path, arguments, &[("COOP_CONFIG", "wrong.toml")], "").await;
        assert_eq!(refused.code, Some(2), "{arguments:?}");
        let words = "coop-server: wrong.toml:2: unknown key `lissten`; did you mean `listen`?";
        assert_eq!(refused.err.trim_end(), words);
    }
    assert_eq!(
        run(path, &["config", "check", "--config", "nowhere.toml"]).await.code,
        Some(2)
    );
    let unknown = run(path, &["config", "check", "--bot", "a=gpt"]).await;
    assert_eq!(unknown.code, Some(2));
    assert!(
        unknown.err.contains("there is no kind of bot called gpt"),
        "{}",
        unknown.err
    );
    assert!(!path.join("coop.db").exists(), "checking makes nothing");
}

/// Starts a server with these arguments and this in the environment, and gives it with what it has logged when ready.
async fn started(folder: &Path, arguments: &[&str], variables: &[(&str, &str)]) -> (Program, String) {
    let log = folder.join("log");
    let mut command = command(folder);
    command
        .args(arguments)
        .envs(variables.iter().copied())
        .stderr(std::fs::File::create(&log).unwrap());
    let program = Program::start_as(folder, command).await;
    // The port file is written just before the line that says so.
    let ready = async {
        loop {
            let text = std::fs::read_to_string(&log).unwrap();
            if text.to_lowercase().contains("ready") {
                return text;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let text = timeout(PATIENCE, ready).await.expect("it says that it is ready");
    (program, text)
}

/// The engine's figures, too, are the operator's to change, and clients are told those that concern them.
#[tokio::test]
async fn passwords_texts_rooms_and_pages_are_as_large_as_is_set() {
    let folder = folder();
    let variables = [
        ("COOP_LIMIT_PASSWORD_MIN_CHARS", "16"),
        ("COOP_LIMIT_PASSWORD_CHARS", "17"),
        ("COOP_LIMIT_HASH_MEMORY", "64KiB"),
        ("COOP_LIMIT_TEXT_BYTES", "10"),
        ("COOP_LIMIT_ROOM_MEMBERS", "2"),
        ("COOP_LIMIT_ROOM_NAME_CHARS", "5"),
        ("COOP_LIMIT_PAGE", "3"),
    ];
    let (program, _) = started(folder.path(), &[], &variables).await;
    let http = program.http();
    let [alice, bob] = [http.person("alice").await, http.person("bob").await];
    for (password, words) in [
        ("fifteen letters", "The password needs at least 16 characters."),
        (
            "eighteen letters..",
            "The password is too long: at most 17 characters and 512 bytes.",
        ),
    ] {
        let account = json!({ "username": "carol", "email": "carol@example.org", "password": password });
        let refused = http.send("POST", "/api/auth/register", &[], Some(&account)).await;
        assert_eq!((refused.status, refused.detail().as_str()), (400, words));
    }
    let three = json!({ "name": "all", "is_group": true, "participant_usernames": ["bob", "carol"] });
    let room = http.group(&alice, "lab", &[&bob]).await;
    let carol = http.person("carol").await;
    assert_eq!(http.post(&alice, "/api/chats", three).await.status, 413);
    let invited = http
        .post(
            &alice,
            &format!("/api/chats/{room}/invite"),
            json!({ "username": "carol" }),
        )
        .await;
    assert_eq!((invited.status, carol.id), (413, 3), "{invited:?}");
    let long = http
        .post(&alice, "/api/chats", json!({ "name": "kitche", "is_group": true }))
        .await;
    assert_eq!(long.status, 400, "{long:?}");
    let path = format!("/api/rooms/{room}/messages");
    for n in 0..4 {
        assert_eq!(
            http.post(&alice, &path, json!({ "text": format!("012345678{n}") }))
                .await
                .status,
            200
        );
    }
    assert_eq!(
        http.post(&alice, &path, json!({ "text": "0123456789." })).await.status,
        413
    );
    assert_eq!(
        http.get(&alice, &format!("{path}?limit=200")).await.json()["messages"]
            .as_array()
            .unwrap()
            .len(),
        3
    );
    let mut socket = Ws::open_in(program.address, &alice.token, "coop.v1").await;
    let limits = &socket.of_type("ready").await["limits"];
    assert_eq!((&limits["text_bytes"], &limits["page"]), (&json!(10), &json!(3)));

    let refused = run_with(
        folder.path(),
        &["config", "check"],
        &[("COOP_LIMIT_HASH_MEMORY", "1KiB")],
        "",
    )
    .await;
    assert_eq!(refused.code, Some(2), "{}", refused.err);
    assert!(refused.err.contains("hash_memory must be"), "{}", refused.err);
}

#[tokio::test]
async fn a_flag_beats_a_variable_beats_the_file() {
    let folder = folder();
    std::fs::write(
        folder.path().join("coop.toml"),
        "bots = [\"filed=mock\"]\ndatabase = \"sqlite:filed.db\"\n",
    )
    .unwrap();
    let file = ("COOP_CONFIG", "coop.toml");
    let variable = ("COOP_BOTS", "named=mock,second=mock");
    let text = ["--log-format", "text"];
    let flag = ["--log-format", "text", "--bot", "flagged=mock", "--bot", "other=mock"];
    for (arguments, variables, bots) in [
        (&text[..], &[file][..], "filed"),
        (&text, &[file, variable], "named second"),
        (&flag, &[file, variable], "flagged other"),
    ] {
        let (program, said) = started(folder.path(), arguments, variables).await;
        assert!(said.contains(&format!("  bots      {bots}\n")), "{said}");
        program.terminate().await;
        assert_eq!(program.ends_with().await, Some(0));
        assert!(folder.path().join("filed.db").exists());
    }
}

#[tokio::test]
async fn it_introduces_itself_to_people_and_to_programs() {
    let folder = folder();
    let (program, said) = started(folder.path(), &["--log-format", "text"], &[]).await;
    let lines: Vec<_> = said.lines().collect();
    let version = env!("CARGO_PKG_VERSION");
    let expected = [
        format!("coop-server {version} (sqlite)"),
        "  database  coop.db, schema ".to_owned(),
        "  bus       none: one server".to_owned(),
        "  bots      scribe (gemini is off: GEMINI_API_KEY is not set)".to_owned(),
        "  accounts  anybody may register".to_owned(),
        format!("Ready on http://{}", program.address),
    ];
    assert_eq!(lines.len(), expected.len(), "{said}");
    for (line, expected) in lines.iter().zip(&expected) {
        assert!(line.starts_with(expected), "{line} is not {expected}");
    }
    program.terminate().await;
    assert_eq!(program.ends_with().await, Some(0));
    // Where nobody looks, and when it is asked for.
    for arguments in [&[][..], &["--log-format", "json", "--registration", "closed"]] {
        let (program, _) = started(folder.path(), arguments, &[]).await;
        let address = program.address;
        program.terminate().await;
        assert_eq!(program.ends_with().await, Some(0));
        let said = std::fs::read_to_string(folder.path().join("log")).unwrap();
        let entries: Vec<Value> = said
            .lines()
            .map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("not JSON: {line}")))
            .collect();
        let fields = |message: &str| {
            let found = entries.iter().find(|entry| entry["fields"]["message"] == message);
            found.unwrap_or_else(|| panic!("no {message} in {said}"))["fields"].clone()
        };
        assert_eq!(fields("ready")["url"], format!("http://{address}"));
        assert_eq!(fields("starting")["bots"], "scribe");
        let closed = fields("starting")["accounts"].as_str().unwrap().contains("closed");
        assert_eq!(closed, !arguments.is_empty());
        fields("ending");
    }
}

#[tokio::test]
async fn the_schema_is_shown_and_brought_up_to_date() {
    let folder = folder();
    let path = folder.path();
    let pending = prints(path, &["migrate", "--status"]).await;
    assert!(pending.lines().count() > 0);
    assert!(pending.lines().all(|line| line.contains("\tpending\t")), "{pending}");
    assert_eq!(prints(path, &["migrate", "--dry-run"]).await, pending);
    assert!(!path.join("coop.db").exists(), "looking makes nothing");
    let taken = prints(path, &["migrate"]).await;
    assert_eq!(taken, pending.replace("\tpending\t", "\tapplied\t"));
    assert_eq!(prints(path, &["migrate", "--status"]).await, taken);
    assert_eq!(prints(path, &["migrate", "--dry-run"]).await, "");
    let again = run(path, &["migrate"]).await;
    assert_eq!((again.code, again.out.as_str()), (Some(0), ""));
    assert!(again.err.contains("up to date"), "{}", again.err);
    std::fs::write(
        path.join("other.db"),
        "not a database at all, but long enough to look at. ".repeat(50),
    )
    .unwrap();
    let other = run(path, &["migrate", "--database", "sqlite:other.db"]).await;
    assert_eq!(other.code, Some(3), "{}", other.err);
}

#[tokio::test]
async fn accounts_and_tokens_are_made_by_hand() {
    let folder = folder();
    let path = folder.path();
    let absent = run(path, &["user", "password", "anna"]).await;
    assert_eq!(absent.code, Some(3), "{}", absent.err);
    let add = ["user", "add", "anna", "--email", "anna@example.org", "--password-stdin"];
    assert_eq!(run_with(path, &add, &[], "short\n").await.code, Some(2));
    let made = run_with(path, &add, &[], "a password of hers\nand more\n").await;
    assert_eq!((made.code, made.out.as_str()), (Some(0), ""), "{}", made.err);
    let twice = run_with(path, &add, &[], "a password of hers\n").await;
    assert_eq!(twice.code, Some(1), "{}", twice.err);
    let bot = run(path, &["user", "add", "scribe", "--email", "m@example.org"]).await;
    assert_ne!(bot.code, Some(0), "a bot's name is nobody's");
    assert_eq!(run(path, &["user", "password", "nobody"]).await.code, Some(1));
    assert_eq!(run(path, &["token", "--user", "nobody"]).await.code, Some(1));

    let token = prints(path, &["token", "--user", "anna", "--ttl", "90m", "-q"]).await;
    assert!(!token.contains('\n') && token.split('.').count() == 3, "{token}");
    let shown = prints(path, &["token", "--check", &token]).await;
    assert!(shown.starts_with("user\t1\nname\tanna\nleft\t1h"), "{shown}");
    let forged = token.replace('.', "A.");
    let refused = run(path, &["token", "--check", &forged]).await;
    assert_eq!((refused.code, refused.out.as_str()), (Some(1), ""));
    let loud = run(path, &["token", "--user", "anna"]).await;
    assert!(loud.err.contains("good for 24h"), "{}", loud.err);
    // Another secret, other tokens.
    let other = [("COOP_JWT_SECRET", "another secret of more than thirty-two bytes")];
    assert_eq!(
        run_with(path, &["token", "--check", &token], &other, "").await.code,
        Some(1)
    );

    assert_eq!(prints(path, &["user", "delete", "anna"]).await, "");
    let gone = run(path, &["token", "--check", &token]).await;
    assert_eq!(gone.code, Some(1));
    assert!(gone.err.contains("gone"), "{}", gone.err);
}

#[tokio::test]
async fn rooms_go_out_and_in_and_accounts_with_rooms_go_as_is_said() {
    let (here, there) = (folder(), folder());
    let (here, there) = (here.path(), there.path());
    let program = Program::start_as(here, with_mock(here)).await;
    let http = program.http();
    let (alice, bob) = (http.person("alice").await, http.person("bob").await);
    let room = http.group(&alice, "lab", &[&bob]).await;
    let mut socket = Ws::open(program.address, &bob.token).await;
    socket.say(room, "hello").await;
    socket.of_type("message").await;
    // Beside the server.
    let id = room.to_string();
    let lines = prints(here, &["export", "--room", &id]).await;
    assert_eq!(run(here, &["export", "--room", "4711"]).await.code, Some(1));
    let busy = run_with(here, &["import"], &[], &lines).await;
    assert_eq!(busy.code, Some(3), "{}", busy.err);
    assert_eq!(
        run(here, &["user", "delete", "alice", "--rooms", "delete"]).await.code,
        Some(3)
    );
    program.terminate().await;
    assert_eq!(program.ends_with().await, Some(0));

    for bad in ["", "{}", "hello"] {
        let refused = run_with(there, &["import"], &[], bad).await;
        assert_eq!(refused.code, Some(2), "{}", refused.err);
    }
    let made = run_with(there, &["import"], &[], &lines).await;
    assert_eq!((made.code, made.out.trim()), (Some(0), "1"), "{}", made.err);
    assert_eq!(prints(there, &["export", "--room", "1"]).await, lines);
    std::fs::write(there.join("lines"), &lines).unwrap();
    assert_eq!(prints(there, &["import", "lines"]).await, "2");

    let refused = run(there, &["user", "delete", "alice"]).await;
    assert_eq!(refused.code, Some(1));
    assert!(
        refused.err.contains("--rooms") && refused.err.contains("lab"),
        "{}",
        refused.err
    );
    prints(there, &["user", "delete", "alice", "--rooms", "hand-over"]).await;
    prints(there, &["user", "delete", "bob", "--rooms", "delete", "--purge"]).await;
    assert_eq!(run(there, &["export", "--room", "1"]).await.code, Some(1));
}

#[tokio::test]
async fn a_password_in_an_address_is_not_shown() {
    let folder = folder();
    let url = "postgres://anna:hush@127.0.0.1:1/coop";
    let secret = [("COOP_JWT_SECRET", "a secret of more than thirty-two bytes")];
    for verb in [
        &["serve", "--log", "trace"][..],
        &["migrate"],
        &["user", "password", "anna"],
    ] {
        let arguments = [verb, &["--database", url, "--listen", "127.0.0.1:0"]].concat();
        let ended = run_with(folder.path(), &arguments, &secret, "").await;
        assert_eq!(ended.code, Some(3), "{verb:?}: {}", ended.err);
        assert!(!(ended.out + &ended.err).contains("hush"), "{verb:?}");
    }
    let ended = run(folder.path(), &["--database", url]).await;
    assert_eq!(ended.code, Some(2), "a secret is required: {}", ended.err);
}

#[tokio::test]
async fn a_probe_is_told_of_a_server_that_lives_and_one_that_does_not() {
    let folder = folder();
    let path = folder.path();
    let (program, _) = started(path, &[], &[]).await;
    let url = format!("http://{}", program.address);
    let listen = program.address.to_string();
    assert_eq!(run(path, &["health", "--url", &url]).await.code, Some(0));
    assert_eq!(run(path, &["health", "--listen", &listen]).await.code, Some(0));
    assert_eq!(run(path, &["health", "--url", "https://x"]).await.code, Some(2));
    program.terminate().await;
    assert_eq!(program.ends_with().await, Some(0));
    let absent = run(path, &["health", "--url", &url]).await;
    assert_eq!((absent.code, absent.out.as_str()), (Some(1), ""), "{}", absent.err);
}

/// While an answer goes on a server that was told to end lets it, and says that it is not ready; then it ends by itself.
#[tokio::test]
async fn told_to_end_it_lets_an_answer_end() {
    let folder = folder();
    let path = folder.path();
    let program = Program::start_graceful(path, with_mock(path), "60s").await;
    let url = format!("http://{}", program.address);
    let http = program.http();
    let alice = http.person("alice").await;
    let room = http.group(&alice, "lab", &[]).await;
    let mut socket = Ws::open(program.address, &alice.token).await;
    socket.join(room).await;
    socket.say(room, "/bot slow tell").await;
    socket.of_type("bot_stream").await;
    program.terminate().await;
    let draining = async {
        loop {
            let probe = run(path, &["health", "--url", &url]).await;
            if probe.code == Some(1) {
                return probe.err;
            }
            assert_eq!(probe.code, Some(0));
        }
    };
    let words = timeout(PATIENCE, draining).await.expect("it says that it is not ready");
    assert!(words.contains("503"), "{words}");
    let mut last = Value::Null;
    while last["message"]["status"] != "done" {
        last = socket.of_type("bot_stream").await;
    }
    assert_eq!(socket.close_code().await, Some(1012));
    assert_eq!(program.ends_with().await, Some(0));
}

#[tokio::test]
async fn told_twice_it_ends_at_once() {
    let folder = folder();
    let program = Program::start_graceful(folder.path(), with_mock(folder.path()), "60s").await;
    let http = program.http();
    let alice = http.person("alice").await;
    let room = http.group(&alice, "lab", &[]).await;
    let mut socket = Ws::open(program.address, &alice.token).await;
    socket.join(room).await;
    socket.say(room, "/bot essay").await;
    socket.of_type("bot_stream").await;
    program.terminate().await;
    // Not before it has taken the first.
    while http.send("GET", "/ready", &[], None).await.status == 200 {}
    let told = Instant::now();
    program.terminate().await;
    assert_eq!(program.ends_with().await, Some(1));
    assert!(told.elapsed() < Duration::from_secs(2), "{:?}", told.elapsed());
    // What was acknowledged is there.
    let program = Program::start_as(folder.path(), command(folder.path())).await;
    let messages = program
        .http()
        .get(&alice, &format!("/api/chats/{room}/messages"))
        .await
        .json();
    assert_eq!(messages[0]["content"], "/bot essay");
    assert_eq!(messages[1]["status"], "interrupted");
}

/// Answers every request with one answer of a Gemini model, and gives back the heads of what it was asked.
async fn provider(text: &'static str) -> (SocketAddr, mpsc::UnboundedReceiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (tell, asked) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut bytes = Vec::new();
            // The body of a request ends with it, and one read is enough for so short a one.
            while !bytes.ends_with(b"}") {
                stream.read_buf(&mut bytes).await.unwrap();
            }
            let _ = tell.send(String::from_utf8(bytes).unwrap());
            let answer = format!(
                "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\ndata: {{\"candidates\":[{{\"content\":{{\"parts\":[{{\"text\":\"\
                 {text}\"}}]}},\"finishReason\":\"STOP\"}}]}}\n\n"
            );
            stream.write_all(answer.as_bytes()).await.unwrap();
            stream.shutdown().await.unwrap();
        }
    });
    (address, asked)
}

#[tokio::test]
async fn with_a_key_gemini_answers() {
    let folder = folder();
    let (address, mut asked) = provider("I am a model.").await;
    let base = format!("http://{address}");
    let variables = [
        ("GEMINI_API_KEY", "sesame-0123456789"),
        ("COOP_GEMINI_BASE_URL", base.as_str()),
        ("COOP_GEMINI_MODEL", "gemini-9"),
    ];
    let (program, said) = started(folder.path(), &["--log-format", "text", "--log", "trace"], &variables).await;
    assert!(said.contains("  bots      gemini scribe\n"), "{said}");
    let http = program.http();
    let alice = http.person("alice").await;
    let room = http.group(&alice, "lab", &[]).await;
    let mut socket = Ws::open(program.address, &alice.token).await;
    socket.join(room).await;
    socket.say(room, "/bot who are you?").await;
    let mut last = Value::Null;
    while last["message"]["status"] != "done" {
        last = socket.of_type("bot_stream").await;
    }
    assert_eq!(last["message"]["content"], "I am a model.");
    assert_eq!(last["message"]["username"], "Gemini");
    let asked = asked.recv().await.unwrap();
    assert!(
        asked.starts_with("POST /v1beta/models/gemini-9:streamGenerateContent?alt=sse "),
        "{asked}"
    );
    assert!(asked.contains("[alice] who are you?"), "{asked}");
    program.terminate().await;
    assert_eq!(program.ends_with().await, Some(0));
    let log = std::fs::read_to_string(folder.path().join("log")).unwrap();
    assert!(!log.contains("sesame"), "the key is in the log");

    let bad = [("GEMINI_API_KEY", "sesame"), ("COOP_GEMINI_BASE_URL", "nonsense")];
    let refused = run_with(folder.path(), &["config", "check"], &bad, "").await;
    assert_eq!(refused.code, Some(2));
    assert!(refused.err.contains("base URL"), "{}", refused.err);
}
