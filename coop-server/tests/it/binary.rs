//! The program itself: that it starts, says where it is, survives being killed, and ends in order.

use crate::client::{Http, PATIENCE, Ws};
use serde_json::json;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;
use tokio::process::{Child, Command};
use tokio::time::{sleep, timeout};

pub(crate) struct Program {
    child: Child,
    pub(crate) address: SocketAddr,
}

pub(crate) fn command(folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_coop-server"));
    command
        .current_dir(folder)
        .env_clear()
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true);
    command
}

/// With the bot that does as it is told.
pub(crate) fn with_mock(folder: &Path) -> Command {
    let mut command = command(folder);
    command.env("COOP_BOTS", "mock=mock");
    command
}

impl Program {
    async fn start(folder: &Path) -> Self {
        Self::start_as(folder, with_mock(folder)).await
    }

    /// With everything there is to log going into this file, and these variables.
    pub(crate) async fn start_logging(folder: &Path, log: &Path, variables: &[(&str, &str)]) -> Self {
        let mut command = with_mock(folder);
        command
            .args(["--log", "trace"])
            .envs(variables.iter().copied())
            .stderr(std::fs::File::create(log).unwrap());
        Self::start_as(folder, command).await
    }

    /// This command on a free port.
    pub(crate) async fn start_as(folder: &Path, command: Command) -> Self {
        Self::start_graceful(folder, command, "100ms").await
    }

    /// The same, with so much time for answers when it ends.
    pub(crate) async fn start_graceful(folder: &Path, mut command: Command, grace: &str) -> Self {
        let port_file = folder.join("port");
        let _ = std::fs::remove_file(&port_file);
        let child = command
            .args([
                "--listen",
                "127.0.0.1:0",
                "--port-file",
                "port",
                "--shutdown-grace",
                grace,
            ])
            .spawn()
            .unwrap();
        let port = timeout(PATIENCE, async {
            loop {
                if let Ok(text) = std::fs::read_to_string(&port_file) {
                    return text.trim().parse::<u16>().unwrap();
                }
                sleep(Duration::from_millis(5)).await;
            }
        });
        let port = port.await.expect("not ready");
        Self {
            child,
            address: SocketAddr::from(([127, 0, 0, 1], port)),
        }
    }

    pub(crate) fn http(&self) -> Http {
        Http::new(self.address)
    }

    /// As `kill -9` does.
    pub(crate) async fn kill(&mut self) {
        self.child.kill().await.unwrap();
    }

    pub(crate) async fn ends_with(mut self) -> Option<i32> {
        timeout(PATIENCE, self.child.wait())
            .await
            .expect("still running")
            .unwrap()
            .code()
    }

    pub(crate) async fn terminate(&self) {
        let id = self.child.id().unwrap().to_string();
        assert!(
            Command::new("kill")
                .args(["-TERM", &id])
                .status()
                .await
                .unwrap()
                .success()
        );
    }
}

#[tokio::test]
async fn killed_in_the_middle_of_an_answer_it_keeps_what_was_acknowledged() {
    let folder = tempfile::tempdir().unwrap();
    let mut program = Program::start(folder.path()).await;
    let http = program.http();
    let alice = http.person("alice").await;
    let room = http.group(&alice, "lab", &[]).await;
    let mut socket = Ws::open(program.address, &alice.token).await;
    socket.join(room).await;
    for number in 0..20 {
        socket.say(room, &number.to_string()).await;
        socket.of_type("message").await;
    }
    socket.say(room, "/bot essay").await;
    // A checkpoint is made every half second: the text of the first moments is on disk when there is a second's more.
    let early = socket.of_type("bot_stream").await["message"]["content"]
        .as_str()
        .unwrap()
        .to_owned();
    let seen = tokio::time::Instant::now();
    while seen.elapsed() < Duration::from_millis(1_200) {
        socket.of_type("bot_stream").await;
    }
    program.child.start_kill().unwrap();
    program.child.wait().await.unwrap();

    let program = Program::start(folder.path()).await;
    let http = program.http();
    // The same token: its secret was kept.
    let messages = http.get(&alice, &format!("/api/chats/{room}/messages")).await.json();
    let contents: Vec<_> = messages
        .as_array()
        .unwrap()
        .iter()
        .map(|message| message["content"].clone())
        .collect();
    let mut expected: Vec<_> = (0..20).map(|number| json!(number.to_string())).collect();
    expected.push(json!("/bot essay"));
    assert_eq!(contents[..21], expected);
    let answer = &messages[21];
    assert_eq!(
        (&answer["status"], &answer["is_bot"]),
        (&json!("interrupted"), &json!(true))
    );
    assert!(
        answer["content"].as_str().unwrap().starts_with(&early),
        "{answer} lacks {early}"
    );

    // Asked again it answers.
    let mut socket = Ws::open(program.address, &alice.token).await;
    socket.join(room).await;
    socket.say(room, "/bot again").await;
    socket.of_type("bot_stream").await;
    program.terminate().await;
    assert_eq!(socket.close_code().await, Some(1012));
    assert_eq!(program.ends_with().await, Some(0));
}

#[tokio::test]
async fn a_second_program_on_the_same_file_does_not_start() {
    let folder = tempfile::tempdir().unwrap();
    let program = Program::start(folder.path()).await;
    let second = command(folder.path()).args(["--listen", "127.0.0.1:0"]).status();
    assert_eq!(timeout(PATIENCE, second).await.unwrap().unwrap().code(), Some(3));
    assert_eq!(program.http().send("GET", "/ready", &[], None).await.status, 200);
}

#[tokio::test]
async fn what_it_cannot_be_is_told_by_its_exit_code() {
    let folder = tempfile::tempdir().unwrap();
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = port.local_addr().unwrap().to_string();
    for (arguments, code) in [
        (&["--listen", "nowhere"][..], 2),
        (&["--listen", "0.0.0.0:0"], 2),
        (&["--bot", "x=gpt"], 2),
        (&["--bot", "a=mock"], 2),
        (&["--bot", "bob=mock", "--bot", "bob=mock"], 2),
        (&["--database", "mysql://x"], 2),
        (&["--token-ttl", "soon"], 2),
        (&["--trusted-proxy", "nonsense"], 2),
        (&["--log", "a=b=c"], 2),
        (&["--database", "sqlite:nowhere/coop.db"], 3),
        (&["--listen", &taken], 4),
    ] {
        let ended = command(folder.path())
            .args(
                ["--listen", "127.0.0.1:0"]
                    .iter()
                    .filter(|_| !arguments.contains(&"--listen")),
            )
            .args(arguments)
            .status();
        let ended = timeout(PATIENCE, ended)
            .await
            .unwrap_or_else(|_| panic!("{arguments:?} runs"));
        assert_eq!(ended.unwrap().code(), Some(code), "{arguments:?}");
        let made = std::fs::read_dir(folder.path()).unwrap().count();
        assert!(code != 2 || made == 0, "{arguments:?} has made something");
    }
    let short = command(folder.path())
        .args(["--listen", "127.0.0.1:0"])
        .env("COOP_JWT_SECRET", "short")
        .status();
    assert_eq!(timeout(PATIENCE, short).await.unwrap().unwrap().code(), Some(2));
}

/// Accounts are looked after beside a running server, which sees it at the next request.
#[tokio::test]
async fn accounts_are_made_and_changed_beside_a_server() {
    let folder = tempfile::tempdir().unwrap();
    let program = Program::start(folder.path()).await;
    let tool = async |arguments: &[&str]| {
        let output = command(folder.path()).args(arguments).stdout(Stdio::piped()).output();
        let output = timeout(PATIENCE, output).await.unwrap().unwrap();
        (
            output.status.code(),
            String::from_utf8(output.stdout).unwrap().trim().to_owned(),
        )
    };
    let http = program.http();
    let login = async |password: &str| {
        let body = json!({ "username": "anna", "password": password });
        http.send("POST", "/api/auth/login", &[], Some(&body)).await.status
    };
    let (code, first) = tool(&["user", "add", "anna", "--email", "anna@example.org"]).await;
    assert_eq!((code, login(&first).await), (Some(0), 200));
    let (_, token) = tool(&["token", "--user", "anna", "-q"]).await;
    let bearer = format!("Bearer {token}");
    let me = async || {
        let headers = [("Authorization", bearer.as_str())];
        http.send("GET", "/api/auth/me", &headers, None).await.status
    };
    assert_eq!(me().await, 200);
    let (code, second) = tool(&["user", "password", "anna"]).await;
    assert_eq!(code, Some(0));
    assert_eq!((login(&first).await, login(&second).await, me().await), (401, 200, 401));
    assert_eq!(
        tool(&["user", "delete", "anna"]).await.0,
        Some(3),
        "the server has the rooms"
    );
    assert_eq!(tool(&["migrate", "--status"]).await.0, Some(0));
}
