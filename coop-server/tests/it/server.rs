//! A server on a free port, and a bot that writes what a test tells it.

use crate::client::{Http, Person, Ws};
use coop_core::password::Cost;
use coop_core::store::memory::MemoryStore;
use coop_core::{BotError, BotErrorKind, Engine, EngineBuilder, Finish};
use coop_server::{Api, ApiBuilder, Limits, serve};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::{Mutex, mpsc, oneshot};
use tokio::task::JoinHandle;

pub(crate) const SECRET: &str = "a secret of at least thirty-two bytes";
pub(crate) const PAGE: &str = "http://localhost:3000";

/// What the bot does next.
pub(crate) enum Say {
    Piece(String),
    Done,
    Fail(&'static str),
}

pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) engine: Engine,
    pub(crate) bot: mpsc::UnboundedSender<Say>,
    end: Option<oneshot::Sender<()>>,
    pub(crate) task: JoinHandle<()>,
}

impl Server {
    pub(crate) async fn start() -> Self {
        Self::start_with(|api| api, None).await
    }

    /// With other settings, and with sockets that send so many bytes ahead.
    pub(crate) async fn start_with(set: impl FnOnce(ApiBuilder) -> ApiBuilder, send_buffer: Option<u32>) -> Self {
        Self::start_as(Cost::cheap_for_tests(), set, send_buffer).await
    }

    /// The same, with passwords of this cost.
    pub(crate) async fn start_as(
        cost: Cost,
        set: impl FnOnce(ApiBuilder) -> ApiBuilder,
        send_buffer: Option<u32>,
    ) -> Self {
        let (bot, script) = mpsc::unbounded_channel();
        let script = Arc::new(Mutex::new(script));
        let engine = Engine::builder(MemoryStore::new())
            .password_cost(cost)
            .bot_fn("teller", move |_, out| {
                let script = Arc::clone(&script);
                async move {
                    let mut script = script.lock().await;
                    loop {
                        match script.recv().await {
                            Some(Say::Piece(piece)) => out.push(piece).await?,
                            Some(Say::Fail(words)) => return Err(BotError::new(BotErrorKind::Server, words)),
                            Some(Say::Done) | None => return Ok(Finish::stop()),
                        }
                    }
                }
            });
        Self {
            bot,
            ..Self::on(engine, set, send_buffer).await
        }
    }

    /// On another engine, whose bots are its own.
    pub(crate) async fn on(
        engine: EngineBuilder,
        set: impl FnOnce(ApiBuilder) -> ApiBuilder,
        send_buffer: Option<u32>,
    ) -> Self {
        let engine = engine.build().await.unwrap();
        let api = Api::builder(engine.clone())
            .jwt_secret(SECRET)
            .cors_origins([PAGE.to_owned()])
            // Tests of limits set those they try.
            .limits(Limits::off());
        let api = set(api).build().unwrap();
        let listener = listen(send_buffer);
        let address = listener.local_addr().unwrap();
        let (end, ended) = oneshot::channel::<()>();
        let server = serve(listener, api)
            .with_graceful_shutdown(async move {
                let _ = ended.await;
            })
            .and_close_engine(Duration::from_millis(200));
        let task = tokio::spawn(server.into_future());
        Self {
            address,
            engine,
            bot: mpsc::unbounded_channel().0,
            end: Some(end),
            task,
        }
    }

    /// With these limits and no others.
    pub(crate) async fn limited(set: impl FnOnce(&mut Limits)) -> Self {
        let mut limits = Limits::off();
        set(&mut limits);
        Self::start_with(|api| api.limits(limits), None).await
    }

    pub(crate) fn end(&mut self) {
        drop(self.end.take());
    }

    pub(crate) fn http(&self) -> Http {
        Http::new(self.address)
    }

    /// Registers and logs in.
    pub(crate) async fn person(&self, name: &str) -> Person {
        self.http().person(name).await
    }

    pub(crate) async fn socket(&self, person: &Person) -> Ws {
        Ws::open(self.address, &person.token).await
    }

    pub(crate) fn piece(&self, text: &str) {
        self.bot.send(Say::Piece(text.to_owned())).unwrap();
    }

    pub(crate) fn done(&self) {
        self.bot.send(Say::Done).unwrap();
    }
}

fn listen(send_buffer: Option<u32>) -> TcpListener {
    let socket = TcpSocket::new_v4().unwrap();
    if let Some(size) = send_buffer {
        socket.set_send_buffer_size(size).unwrap();
    }
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    socket.listen(1_024).unwrap()
}
