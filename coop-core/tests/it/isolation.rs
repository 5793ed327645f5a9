//! What one reader, or one room of a reader, may cost the others.

use coop_core::live::{Encoder, Entry, Frames, Level, Offer, Reader};
use coop_core::store::memory::MemoryStore;
use coop_core::{Engine, Event, GoneReason, Hint, HintKind, RoomId, Start, UserId};
use futures::StreamExt;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::time::{sleep, timeout};

const LONG: Duration = Duration::from_secs(60);

/// A reader whose encoder has a defect.
pub(crate) struct Defective;

impl Reader for Defective {
    fn offer(&self, _offer: &Offer<'_>) {}
    fn hints(&self, _hints: &[Hint], _frames: &Frames) {}
    fn behind(&self, _room: RoomId) {}
    fn gone(&self, _room: RoomId, _reason: GoneReason, _by: Option<UserId>) {}
    fn gained(&self, _room: RoomId) {}
    fn closed(&self) {}
}

impl Encoder for Defective {
    fn delta_interval(&self) -> Duration {
        Duration::ZERO
    }
    fn encode(&self, _level: Level, _entries: &[Entry], _frames: &mut Frames) {
        panic!("a defect in an encoder")
    }
    fn encode_hint(&self, _hint: &Hint, _frames: &mut Frames) {}
}

#[tokio::test(start_paused = true)]
async fn a_panic_in_an_encoder_does_not_silence_a_room() {
    let engine = Engine::builder(MemoryStore::new()).build().await.unwrap();
    let alice = engine.create_user("alice").await.unwrap();
    let room = alice.create_room("lab").await.unwrap();
    let defective = alice.attach(Arc::new(Defective), Arc::new(Defective));
    defective.enter_all().await.unwrap();
    let mut events = room.subscribe().await.unwrap();
    assert!(matches!(events.next().await, Some(Ok(Event::Snapshot(_)))));
    room.send("one").await.unwrap();
    sleep(Duration::from_secs(1)).await;
    drop(defective);
    room.send("two").await.unwrap();
    for text in ["one", "two"] {
        let next = timeout(LONG, events.next()).await.expect("silence");
        assert_eq!(next.unwrap().unwrap().message().unwrap().text, text);
    }
    engine.close(LONG).await;
}

#[tokio::test(start_paused = true)]
async fn a_busy_room_does_not_keep_the_others_of_its_reader_waiting() {
    let engine = Engine::builder(MemoryStore::new()).build().await.unwrap();
    let alice = engine.create_user("alice").await.unwrap();
    let (quiet, busy) = (
        alice.create_room("quiet").await.unwrap(),
        alice.create_room("busy").await.unwrap(),
    );
    let mut events = alice.subscribe().await.unwrap();
    // Everything there is, until nothing comes.
    while let Ok(Some(_)) = timeout(Duration::from_secs(1), events.next()).await {}
    quiet.send("only this").await.unwrap();
    for _ in 0..20 {
        // Never slower than its reader.
        busy.send("and another").await.unwrap();
        sleep(Duration::from_millis(20)).await;
        if events.next().await.unwrap().unwrap().room() == quiet.id() {
            return engine.close(LONG).await;
        }
    }
    panic!("the quiet room was never looked at");
}

/// Keeps what hints it is told of, by the names of who they are about.
#[derive(Default)]
struct Told(Mutex<Vec<(Vec<String>, Vec<u8>)>>);

impl Reader for Told {
    fn offer(&self, _offer: &Offer<'_>) {}
    fn hints(&self, hints: &[Hint], frames: &Frames) {
        let names = hints.iter().map(|hint| hint.name.clone()).collect();
        self.0.lock().unwrap().push((names, frames.bytes.clone()));
    }
    fn behind(&self, _room: RoomId) {}
    fn gone(&self, _room: RoomId, _reason: GoneReason, _by: Option<UserId>) {}
    fn gained(&self, _room: RoomId) {}
    fn closed(&self) {}
}

/// Encodes hints as names.
struct Names;

impl Encoder for Names {
    fn delta_interval(&self) -> Duration {
        Duration::ZERO
    }
    fn encode(&self, _level: Level, _entries: &[Entry], _frames: &mut Frames) {}
    fn encode_hint(&self, hint: &Hint, frames: &mut Frames) {
        frames.bytes.extend_from_slice(hint.name.as_bytes());
    }
}

#[tokio::test(start_paused = true)]
async fn hints_that_come_together_are_told_together_and_to_nobody_of_themselves() {
    let engine = Engine::builder(MemoryStore::new()).build().await.unwrap();
    let alice = engine.create_user("alice").await.unwrap();
    let room = alice.create_room("lab").await.unwrap();
    let (encoder, mut all): (Arc<dyn Encoder>, _) = (Arc::new(Names), Vec::new());
    for name in ["bob", "carol", "dave"] {
        let user = engine.create_user(name).await.unwrap();
        room.invite(&user).await.unwrap();
        let told = Arc::new(Told::default());
        let attachment = user.attach(Arc::clone(&told) as Arc<dyn Reader>, Arc::clone(&encoder));
        let (_, feed, _) = attachment.enter(room.id()).await.unwrap().expect("a member");
        attachment.join(&feed, Start::Snapshot).await.unwrap();
        all.push((told, attachment, feed));
    }
    for (_, attachment, feed) in &all {
        attachment.hint(feed, HintKind::Typing);
    }
    sleep(Duration::from_secs(1)).await;
    for (index, expected) in [["carol", "dave"], ["bob", "dave"], ["bob", "carol"]]
        .iter()
        .enumerate()
    {
        let told = all[index].0.0.lock().unwrap();
        let expected = expected.map(str::to_owned).to_vec();
        assert_eq!(*told, [(expected.clone(), expected.concat().into_bytes())]);
    }
    engine.close(LONG).await;
}
