//! What is logged, at its loudest: no password, no token, no query and nothing that anybody has said.

use crate::binary::Program;
use crate::client::{PATIENCE, Ws};
use serde_json::json;
use tokio::time::timeout;

#[tokio::test]
async fn the_log_tells_no_secrets() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("log");
    let (password, wrong) = ("password of mine", "canary-wrong-password");
    let said = [
        "canary-message",
        "/bot canary-question",
        "canary-\u{0}",
        " ",
        "@mock canary-mention",
    ];
    let secret = "canary-secret-of-more-than-thirty-two-bytes";
    let program = Program::start_logging(folder.path(), &log, &[("COOP_JWT_SECRET", secret)]).await;
    let http = program.http();
    let alice = http.person("alice").await;
    let room = http.group(&alice, "lab", &[]).await;
    for (name, password) in [("alice", wrong), ("canary-nobody", wrong), (wrong, password)] {
        let credentials = json!({ "username": name, "password": password });
        let refused = http.send("POST", "/api/auth/login", &[], Some(&credentials)).await;
        assert_eq!(refused.status, 401);
    }
    let register = json!({ "username": "al", "email": "canary@example.org", "password": wrong });
    assert_eq!(
        http.send("POST", "/api/auth/register", &[], Some(&register))
            .await
            .status,
        400
    );
    let broken =
        format!("POST /api/auth/login HTTP/1.1\r\nHost: x\r\nContent-Length: 40\r\n\r\n{{\"password\": \"{wrong}");
    let mut stream = tokio::net::TcpStream::connect(program.address).await.unwrap();
    tokio::io::AsyncWriteExt::write_all(&mut stream, broken.as_bytes())
        .await
        .unwrap();
    drop(stream);
    assert_eq!(
        http.get(&alice, "/api/users/search?query=canary-query").await.status,
        200
    );
    assert_eq!(http.get(&alice, "/api/nothing?token=canary-query").await.status, 404);
    assert_eq!(http.get(&alice, "/api/chats?%ff=canary-query").await.status, 200);
    let bad = Ws::try_open(program.address, Ws::request(program.address, "canary.token.x")).await;
    assert_eq!(bad.map(|_| ()).unwrap_err(), 403);
    let mut socket = Ws::open(program.address, &alice.token).await;
    socket.join(room).await;
    for text in said {
        socket.say(room, text).await;
    }
    socket.send_text("canary-nonsense").await;
    socket
        .send_text("{\"type\":\"canary-type\",\"chat_id\":\"canary-id\"}")
        .await;
    socket.settle().await;
    socket.of_type("bot_stream").await;
    program.terminate().await;
    timeout(PATIENCE, program.ends_with()).await.unwrap();

    let logged = std::fs::read_to_string(&log).unwrap();
    assert!(
        logged.contains("DEBUG") && logged.contains("a socket ends"),
        "nothing is logged: {logged}"
    );
    let signature = alice.token.rsplit('.').next().unwrap();
    for secret in [
        "canary",
        password,
        alice.token.as_str(),
        signature,
        "Bearer",
        "$argon2",
        "?token",
        "query=",
    ] {
        let line = logged.lines().find(|line| line.contains(secret));
        assert_eq!(line, None, "{secret} is logged");
    }
}
