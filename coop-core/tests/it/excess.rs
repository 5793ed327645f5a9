//! What goes wrong beneath an engine or is asked of it in excess costs what it must and nothing else.

use crate::faults::FaultyStore;
use coop_core::error::ErrorKind;
use coop_core::model::TurnStatus;
use coop_core::store::RoomStore;
use coop_core::store::memory::MemoryStore;
use coop_core::{Bot, BotError, BotProfile, Engine, Finish, ReplyWriter, Turn};
use std::time::Duration;
use tokio::time::{sleep, timeout};

const LONG: Duration = Duration::from_secs(60);

/// A bot that answers at once and whose limits are as wide as they can be.
struct Boundless;

#[coop_core::async_trait]
impl Bot for Boundless {
    fn profile(&self) -> BotProfile {
        let mut profile = BotProfile::new("wide");
        profile.limits.time = Duration::MAX;
        profile.limits.text_bytes = usize::MAX;
        profile
    }

    async fn reply(&self, _turn: Turn, out: ReplyWriter) -> Result<Finish, BotError> {
        out.push("here").await?;
        Ok(Finish::stop())
    }
}

#[tokio::test(start_paused = true)]
async fn a_stop_of_a_start_in_doubt_lets_the_next_turn_begin() {
    let store = FaultyStore::default();
    let engine = Engine::builder(store.clone())
        .bot_fn("echo", |_, _| async { Ok(Finish::stop()) })
        .build()
        .await
        .unwrap();
    let alice = engine.create_user("alice").await.unwrap();
    let room = alice.create_room("lab").await.unwrap();
    store.set(|faults| faults.doubt = 1);
    let (one, two) = tokio::join!(room.send("/echo one"), room.send("/echo two"));
    assert_eq!(one.unwrap_err().kind(), ErrorKind::Unavailable);
    assert_eq!(two.unwrap_err().kind(), ErrorKind::Unavailable);
    // The first has started, but the engine has not looked yet. The second waits behind it.
    let open = store.open_turns(None).await.unwrap();
    let [first, second] = open.as_slice() else {
        panic!("both were asked: {open:?}");
    };
    assert_eq!(first.status, TurnStatus::Streaming);
    room.stop(first.id).await.unwrap();
    sleep(LONG).await;
    let second = store.turn(room.id(), second.id).await.unwrap().unwrap();
    assert_eq!(second.status, TurnStatus::Done, "nobody let it begin");
    engine.close(LONG).await;
}

#[tokio::test(start_paused = true)]
async fn a_panic_in_a_store_costs_one_commit() {
    let store = FaultyStore::default();
    let engine = Engine::builder(store.clone())
        .bot_fn("echo", |_, _| async { Ok(Finish::stop()) })
        .build()
        .await
        .unwrap();
    let alice = engine.create_user("alice").await.unwrap();
    let room = alice.create_room("lab").await.unwrap();
    store.set(|faults| faults.panic = 1);
    let lost = room.send("lost").await.unwrap_err();
    assert_eq!(lost.kind(), ErrorKind::Unavailable, "the engine is not closed");
    let sent = room.send("/echo and on").await.unwrap();
    let end = timeout(LONG, sent.turn.unwrap().ended()).await;
    assert_eq!(end.unwrap().unwrap().status, TurnStatus::Done);
    engine.close(LONG).await;
}

#[tokio::test(start_paused = true)]
async fn times_without_bounds_are_no_panic() {
    for extreme in [Duration::ZERO, Duration::MAX] {
        let engine = Engine::builder(MemoryStore::new())
            .bot(Boundless)
            .checkpoint_every(extreme)
            .idle_after(extreme)
            .patience(extreme.max(LONG))
            .build()
            .await
            .unwrap();
        let alice = engine.create_user("alice").await.unwrap();
        let room = alice.create_room("lab").await.unwrap();
        let sent = room.send("/wide how long?").await.unwrap();
        let end = timeout(LONG, sent.turn.unwrap().ended()).await;
        assert_eq!(end.unwrap().unwrap().status, TurnStatus::Done);
        engine.close(LONG).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_room_that_rests_early_still_keeps_read_marks() {
    let store = MemoryStore::new();
    let engine = Engine::builder(store.clone())
        .idle_after(Duration::from_millis(10))
        .build()
        .await
        .unwrap();
    let alice = engine.create_user("alice").await.unwrap();
    let bob = engine.create_user("bob").await.unwrap();
    let room = alice.create_room("lab").await.unwrap();
    room.invite(&bob).await.unwrap();
    let sent = room.send("read me").await.unwrap();
    let room = bob.room(room.id()).await.unwrap();
    room.mark_read(sent.message.seq).await.unwrap();
    sleep(Duration::from_secs(1)).await;
    assert_eq!(room.entry().await.unwrap().unread, 0);
    engine.close(LONG).await;
}

#[tokio::test(start_paused = true)]
async fn a_checkpoint_that_was_refused_is_made_again_while_the_bot_pauses() {
    let store = FaultyStore::default();
    let engine = Engine::builder(store.clone())
        .bot_fn("pensive", |_, out| async move {
            out.push("a thought").await?;
            sleep(LONG).await;
            Ok(Finish::stop())
        })
        .build()
        .await
        .unwrap();
    let alice = engine.create_user("alice").await.unwrap();
    let room = alice.create_room("lab").await.unwrap();
    let turn = room.send("/pensive and?").await.unwrap().turn.unwrap();
    store.set(|faults| faults.refuse = 1);
    sleep(Duration::from_millis(1_100)).await;
    let answer = store
        .turn(room.id(), turn.id())
        .await
        .unwrap()
        .unwrap()
        .message
        .unwrap();
    let kept = store.message(room.id(), answer).await.unwrap().unwrap();
    assert_eq!(
        kept.text, "a thought",
        "what is older than a second would be lost by a crash now"
    );
    engine.close(LONG).await;
}

/// A sender with several messages under way does not wait for the disk in between: they are one commit, in their order.
#[tokio::test(start_paused = true)]
async fn messages_under_way_are_written_together() {
    let store = FaultyStore::default();
    let engine = Engine::builder(store.clone()).build().await.unwrap();
    let alice = engine.create_user("alice").await.unwrap();
    let room = alice.create_room("lab").await.unwrap();
    let hand_over = async || {
        let mut under_way = Vec::new();
        for n in 0..8 {
            under_way.push(room.begin_send(n.to_string()).await.unwrap());
        }
        under_way
    };
    // One commit is refused, and with it all of them.
    store.set(|faults| faults.refuse = 1);
    for handed in hand_over().await {
        assert_eq!(handed.sent().await.unwrap_err().kind(), ErrorKind::Unavailable);
    }
    for (n, handed) in hand_over().await.into_iter().enumerate() {
        assert_eq!(handed.sent().await.unwrap().message.text, n.to_string());
    }
    let page = room.history(coop_core::Range::Newest, 8).await.unwrap();
    let said: Vec<_> = page.messages.iter().map(|message| message.text.as_str()).collect();
    assert_eq!(said, ["0", "1", "2", "3", "4", "5", "6", "7"]);
    engine.close(Duration::ZERO).await;
}
