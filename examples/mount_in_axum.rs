//! The chat inside an axum application that has its own pages and its own login. Whoever is logged in there is that person
//! in the chat, without a token of ours; everybody else is nobody.
//!
//! `cargo run -p coop-examples --example mount_in_axum [ADDRESS]`, then
//!
//! ```sh
//! curl -c jar -d '' http://127.0.0.1:8080/login/alice
//! curl -b jar http://127.0.0.1:8080/
//! curl -b jar -d '{"name": "lab", "is_group": true}' -H 'Content-Type: application/json' http://127.0.0.1:8080/api/chats
//! ```

use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Router, serve};
use coop_bots::MockBot;
use coop_core::store::memory::MemoryStore;
use coop_core::{Engine, UserId};
use coop_server::{Api, Identity};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::net::TcpListener;

/// What the application knows.
#[derive(Clone)]
struct Application {
    engine: Engine,
    /// Who is logged in, by the secret in their cookie.
    sessions: Arc<Mutex<HashMap<String, UserId>>>,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:8080".into());
    let engine = Engine::builder(MemoryStore::new())
        .bot(MockBot::named("mock"))
        .build()
        .await?;
    // The one line that says: believe this application about who somebody is.
    let chat = Api::builder(engine.clone()).trust_identity(true).build()?;
    let application = Application {
        engine: engine.clone(),
        sessions: Arc::default(),
    };
    let app = Router::new()
        .route("/", get(home))
        .route("/login/{name}", post(log_in))
        // Everything else is the chat's: its HTTP interface below /api, its WebSocket at /ws.
        .fallback_service(chat.clone())
        .layer(from_fn_with_state(application.clone(), identify))
        .with_state(application);
    let listener = TcpListener::bind(address).await?;
    println!("http://{}", listener.local_addr()?);
    serve(listener, app)
        .with_graceful_shutdown(async move {
            let _ = tokio::signal::ctrl_c().await;
            chat.close_sockets().await;
        })
        .await?;
    engine.close(Duration::from_secs(10)).await;
    Ok(())
}

/// The application's own login, as simple as it can be: whoever says that they are somebody is.
async fn log_in(State(application): State<Application>, Path(name): Path<String>) -> Result<Response, StatusCode> {
    let known = match application.engine.find_user(&name).await {
        Ok(user) => Ok(user),
        Err(_) => application.engine.create_user(&name).await,
    };
    let user = known.map_err(|_| StatusCode::BAD_REQUEST)?;
    let mut secret = [0; 16];
    getrandom::fill(&mut secret).map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)?;
    let secret: String = secret.iter().map(|byte| format!("{byte:02x}")).collect();
    let cookie = format!("session={secret}; HttpOnly; SameSite=Strict; Path=/");
    let mut sessions = application.sessions.lock().unwrap_or_else(PoisonError::into_inner);
    sessions.insert(secret, user.id());
    Ok(([(header::SET_COOKIE, cookie)], "Welcome.\n").into_response())
}

/// The application's own middleware: finds out who sends a request, and puts that where the chat looks for it.
async fn identify(State(application): State<Application>, mut request: Request, next: Next) -> Response {
    let user = session(request.headers()).and_then(|secret| {
        let sessions = application.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        sessions.get(secret).copied()
    });
    if let Some(user) = user {
        request.extensions_mut().insert(Identity::of(user));
    }
    next.run(request).await
}

fn session(headers: &HeaderMap) -> Option<&str> {
    let cookies = headers.get(header::COOKIE)?.to_str().ok()?;
    cookies
        .split(';')
        .find_map(|cookie| cookie.trim().strip_prefix("session="))
}

/// A page of the application's own.
async fn home(State(application): State<Application>, request: Request) -> String {
    let user = match session(request.headers()) {
        None => None,
        Some(secret) => {
            let sessions = application.sessions.lock().unwrap_or_else(PoisonError::into_inner);
            sessions.get(secret).copied()
        }
    };
    let Some(user) = user else {
        return "Log in first.\n".to_owned();
    };
    match application.engine.user(user).await {
        Ok(user) => match user.rooms().await {
            Ok(rooms) => format!("{} has {} rooms.\n", user.name(), rooms.len()),
            Err(error) => format!("{error}\n"),
        },
        Err(error) => format!("{error}\n"),
    }
}
