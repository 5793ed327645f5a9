//! The promises of a bus. Whatever is lost in between, these hold while nothing is wrong with it.

use crate::bus::{Bus, BusItem, BusState};
use crate::event::{Event, Hint, HintKind};
use crate::id::{MessageId, RoomId, Seq, TurnId, UserId};
use crate::model::{Author, Finish, Message, Meta, TurnEnd, TurnStatus, Usage};
use crate::time::Timestamp;
use futures::StreamExt;
use futures::stream::BoxStream;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;

/// How long something may take that must come.
const SOON: Duration = Duration::from_secs(10);
/// How long to wait for what must not come.
const QUIET: Duration = Duration::from_millis(200);

const ROOM: RoomId = RoomId(7);
const OTHER_ROOM: RoomId = RoomId(8);

/// Runs every rule. `join` makes another engine's place on one and the same bus.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build()?.block_on(async {
/// use coop_core::bus::memory::MemoryBus;
///
/// let bus = MemoryBus::new();
/// coop_core::testing::bus_contract(|| bus.join()).await;
/// # });
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// ```
///
/// # Panics
/// If a rule is broken.
pub async fn bus_contract<B: Bus>(join: impl Fn() -> B + Send + Sync) {
    all_others_hear_everything_whole_and_in_order(&join).await;
    what_concerns_everybody_needs_no_following(&join).await;
    to_follow_is_answered_by_a_gap(&join).await;
    other_stores_hear_nothing(&join).await;
    a_gap_cannot_be_published(&join).await;
    a_flood_keeps_nobody_waiting(&join).await;
    who_closes_says_and_hears_no_more(&join).await;
}

/// An engine, as far as a bus knows it.
struct Member<B> {
    bus: B,
    heard: BoxStream<'static, BusItem>,
}

impl<B: Bus> Member<B> {
    async fn new(join: &(impl Fn() -> B + Sync), store: &str) -> Self {
        let bus = join();
        let heard = bus.listen(store).await;
        assert_eq!(bus.state(), BusState::Up, "a bus that is there is up once it listens");
        Self { bus, heard }
    }

    /// One that hears of both rooms.
    async fn in_the_rooms(join: &(impl Fn() -> B + Sync), store: &str) -> Self {
        let mut member = Self::new(join, store).await;
        for room in [ROOM, OTHER_ROOM] {
            member.follow(room).await;
        }
        member
    }

    async fn follow(&mut self, room: RoomId) {
        // What there was of gaps before is not what answers this.
        while timeout(QUIET, self.heard.next()).await.is_ok() {}
        self.bus.follow(room);
        let gap = timeout(SOON, self.heard.next()).await;
        assert_eq!(gap.ok().flatten(), Some(BusItem::Gap), "to follow is answered by a gap");
    }

    /// The next item that is no gap.
    async fn next(&mut self) -> BusItem {
        loop {
            let next = timeout(SOON, self.heard.next()).await;
            match next.unwrap_or_else(|_| panic!("nothing is heard")) {
                Some(BusItem::Gap) => {}
                Some(item) => return item,
                None => panic!("the stream has ended"),
            }
        }
    }

    async fn hears_nothing(&mut self, why: &str) {
        loop {
            match timeout(QUIET, self.heard.next()).await {
                Ok(Some(BusItem::Gap)) => {}
                Ok(Some(item)) => panic!("{why}, and {item:?} is heard"),
                Ok(None) | Err(_) => return,
            }
        }
    }
}

/// One of each kind, with everything in it that there can be.
fn everything() -> Vec<BusItem> {
    let (user, turn) = (UserId(3), TurnId(11));
    let author = Author::person(user, "ann \u{1f44b}".to_owned());
    let mut message = Message::new(
        MessageId(5),
        ROOM,
        Seq(4),
        author,
        "some \"text\"\n\u{e9}".to_owned(),
        Timestamp(1_700_000_000_123),
    );
    message.reply_to = Some(MessageId(2));
    message.client_id = Some("c-1".to_owned());
    message.meta = Meta::from_json(r#"{"a":[1,2.5,null]}"#).ok();
    let message = Arc::new(message);
    let committed = |event| BusItem::Committed(Arc::new(event));
    let mut end = TurnEnd::stopped(user);
    end.finish = Some(Finish::stop());
    end.usage = Some(Usage {
        input: Some(12),
        output: Some(3),
        ..Usage::default()
    });
    vec![
        committed(Event::MessagePosted {
            room: ROOM,
            seq: Seq(4),
            message: Arc::clone(&message),
        }),
        committed(Event::MessageEdited {
            room: ROOM,
            seq: Seq(5),
            message: Arc::clone(&message),
        }),
        committed(Event::MessageDeleted {
            room: ROOM,
            seq: Seq(6),
            message: MessageId(5),
            by: user,
        }),
        committed(Event::MemberLeft {
            room: ROOM,
            seq: Seq(7),
            user,
            name: "ann".to_owned(),
            by: UserId(1),
        }),
        committed(Event::TurnQueued {
            room: ROOM,
            seq: Seq(8),
            turn,
            bot: "bot".to_owned(),
            asked_by: user,
            ask: MessageId(5),
            position: 1,
        }),
        committed(Event::TurnStarted {
            room: ROOM,
            seq: Seq(9),
            turn,
            bot: "bot".to_owned(),
            asked_by: user,
            message,
        }),
        BusItem::Delta {
            room: ROOM,
            message: MessageId(6),
            offset: 17,
            text: "a piece \u{1f980}".into(),
        },
        committed(Event::TurnEnded {
            room: ROOM,
            seq: Seq(10),
            turn,
            bot: "bot".to_owned(),
            message: Some(MessageId(6)),
            text: "all of it".into(),
            end: Box::new(end.clone()),
        }),
        hint(HintKind::Typing),
        hint(HintKind::Presence { here: true }),
        hint(HintKind::Read { seq: Seq(9) }),
        BusItem::Stop {
            room: ROOM,
            turn,
            end: Box::new(end),
        },
        BusItem::Stop {
            room: ROOM,
            turn,
            end: Box::new(TurnEnd::failed("timeout", "too late")),
        },
        BusItem::Stop {
            room: ROOM,
            turn,
            end: Box::new(TurnEnd::new(TurnStatus::Interrupted)),
        },
        BusItem::Deleted {
            room: ROOM,
            by: Some(user),
        },
    ]
}

fn hint(what: HintKind) -> BusItem {
    BusItem::Hint(Hint {
        room: ROOM,
        user: UserId(3),
        name: "ann".to_owned(),
        what,
    })
}

async fn all_others_hear_everything_whole_and_in_order<B: Bus>(join: &(impl Fn() -> B + Sync)) {
    let mut one = Member::in_the_rooms(join, "order").await;
    let mut others = [
        Member::in_the_rooms(join, "order").await,
        Member::in_the_rooms(join, "order").await,
    ];
    let sent = everything();
    sent.iter().for_each(|item| one.bus.publish(item.clone()));
    for other in &mut others {
        for item in &sent {
            assert_eq!(&other.next().await, item, "whole and in order");
        }
        other.hears_nothing("everything was heard once").await;
    }
    one.hears_nothing("nobody hears themselves").await;
    // From two at once, each in its own order.
    const EACH: u64 = 200;
    for offset in 0..EACH {
        for (member, message) in [(&others[0], MessageId(1)), (&others[1], MessageId(2))] {
            member.bus.publish(BusItem::Delta {
                room: OTHER_ROOM,
                message,
                offset,
                text: "x".into(),
            });
        }
    }
    let mut next = [0, 0];
    while next != [EACH, EACH] {
        let item = one.next().await;
        let BusItem::Delta { message, offset, .. } = item else {
            panic!("{item:?} was not published")
        };
        let next = &mut next[usize::from(message == MessageId(2))];
        assert_eq!(offset, *next, "what one says comes in order");
        *next += 1;
    }
}

async fn what_concerns_everybody_needs_no_following<B: Bus>(join: &(impl Fn() -> B + Sync)) {
    let (one, mut other) = (Member::new(join, "all").await, Member::new(join, "all").await);
    let everybodys = [
        BusItem::Joined {
            room: ROOM,
            user: UserId(3),
        },
        BusItem::TokensEnded(UserId(4)),
    ];
    for item in everybodys {
        assert_eq!(item.room(), None);
        one.bus.publish(item.clone());
        assert_eq!(other.next().await, item);
    }
}

async fn to_follow_is_answered_by_a_gap<B: Bus>(join: &(impl Fn() -> B + Sync)) {
    let (one, mut other) = (Member::new(join, "follow").await, Member::new(join, "follow").await);
    // Again after the end, too.
    for seq in [Seq(1), Seq(2)] {
        other.follow(ROOM).await;
        one.bus.publish(hint(HintKind::Read { seq }));
        assert_eq!(
            other.next().await,
            hint(HintKind::Read { seq }),
            "what is followed is heard"
        );
        other.bus.unfollow(ROOM);
    }
}

async fn other_stores_hear_nothing<B: Bus>(join: &(impl Fn() -> B + Sync)) {
    let one = Member::in_the_rooms(join, "mine").await;
    let mut other = Member::in_the_rooms(join, "yours").await;
    one.bus.publish(hint(HintKind::Typing));
    one.bus.publish(BusItem::TokensEnded(UserId(4)));
    other.hears_nothing("it is of another store").await;
}

async fn a_gap_cannot_be_published<B: Bus>(join: &(impl Fn() -> B + Sync)) {
    let one = Member::in_the_rooms(join, "gap").await;
    let mut other = Member::in_the_rooms(join, "gap").await;
    while timeout(QUIET, other.heard.next()).await.is_ok() {}
    one.bus.publish(BusItem::Gap);
    let heard = timeout(QUIET, other.heard.next()).await;
    assert!(heard.is_err(), "a gap is the bus's own word: {heard:?}");
}

async fn a_flood_keeps_nobody_waiting<B: Bus>(join: &(impl Fn() -> B + Sync)) {
    const FLOOD: u64 = 20_000;
    let one = Member::in_the_rooms(join, "flood").await;
    let mut slow = Member::in_the_rooms(join, "flood").await;
    for offset in 0..FLOOD {
        one.bus.publish(BusItem::Delta {
            room: ROOM,
            message: MessageId(1),
            offset,
            text: "x".into(),
        });
    }
    // What there is comes in order, and afterwards the bus is as it was.
    let mut last = None;
    while let Ok(Some(item)) = timeout(Duration::from_secs(1), slow.heard.next()).await {
        if let BusItem::Delta { offset, .. } = item {
            assert!(last < Some(offset), "in order, whatever is missing");
            last = Some(offset);
        }
    }
    assert!(last.is_some());
    one.bus.publish(hint(HintKind::Typing));
    assert_eq!(slow.next().await, hint(HintKind::Typing));
}

async fn who_closes_says_and_hears_no_more<B: Bus>(join: &(impl Fn() -> B + Sync)) {
    let mut one = Member::in_the_rooms(join, "close").await;
    let mut other = Member::in_the_rooms(join, "close").await;
    one.bus.publish(hint(HintKind::Presence { here: false }));
    one.bus.close().await;
    assert_eq!(
        other.next().await,
        hint(HintKind::Presence { here: false }),
        "what was said before is carried"
    );
    other.bus.publish(hint(HintKind::Typing));
    one.hears_nothing("it has closed").await;
    one.bus.publish(hint(HintKind::Typing));
    other.hears_nothing("the other has closed").await;
    one.bus.close().await;
}
