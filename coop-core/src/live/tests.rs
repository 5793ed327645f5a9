use super::*;
use crate::id::TurnId;
use crate::model::{Author, Message};
use crate::time::Timestamp;
use std::sync::atomic::{AtomicUsize, Ordering};

const ROOM: RoomId = RoomId(1);

/// Counts what it is offered.
#[derive(Default)]
struct Counting(AtomicUsize);

impl Reader for Counting {
    fn offer(&self, _offer: &Offer<'_>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
    fn hints(&self, _hints: &[Hint], _frames: &Frames) {}
    fn behind(&self, _room: RoomId) {}
    fn gone(&self, _room: RoomId, _reason: GoneReason, _by: Option<UserId>) {}
    fn gained(&self, _room: RoomId) {}
    fn closed(&self) {}
}

fn room() -> Arc<LiveRoom> {
    LiveRoom::new(
        ROOM,
        false,
        Seq(0),
        Pace::default(),
        TaskTracker::new(),
        Arc::new(Meters::new()),
    )
}

fn message(seq: Seq, text: &str) -> Arc<Message> {
    let author = Author::person(UserId(1), "alice");
    Arc::new(Message::new(
        MessageId(seq.0),
        ROOM,
        seq,
        author,
        text.to_owned(),
        Timestamp(0),
    ))
}

fn read(live: &Arc<LiveRoom>, id: u64) -> Arc<Counting> {
    let reader = Arc::new(Counting::default());
    let user = UserId(1);
    live.attach(
        ReaderId(id),
        user,
        Arc::clone(&reader) as Arc<dyn Reader>,
        None,
        Level::Full,
    );
    reader
}

#[tokio::test(start_paused = true)]
async fn who_comes_between_a_piece_and_its_announcement_keeps_it_from_nobody() {
    let live = room();
    let first = read(&live, 1);
    live.append(&[Arc::new(Event::TurnStarted {
        room: ROOM,
        seq: Seq(1),
        turn: TurnId(1),
        bot: "bot".to_owned(),
        asked_by: UserId(1),
        message: message(Seq(1), ""),
    })]);
    tokio::time::sleep(Duration::from_secs(1)).await;
    let before = first.0.load(Ordering::Relaxed);
    live.tape(MessageId(1)).unwrap().append("a piece", usize::MAX).unwrap();
    let _second = read(&live, 2);
    live.grown();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(first.0.load(Ordering::Relaxed), before + 1);
}

#[tokio::test(start_paused = true)]
async fn the_queue_knows_its_weight_after_a_deletion() {
    let live = room();
    live.append(&[
        Arc::new(Event::MessagePosted {
            room: ROOM,
            seq: Seq(1),
            message: message(Seq(1), &"words ".repeat(100)),
        }),
        Arc::new(Event::MessageDeleted {
            room: ROOM,
            seq: Seq(2),
            message: MessageId(1),
            by: UserId(1),
        }),
    ]);
    let state = lock(&live.state);
    assert_eq!(state.bytes, state.queue.iter().map(Entry::weight).sum::<usize>());
}
