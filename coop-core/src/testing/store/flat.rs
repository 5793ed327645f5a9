//! A room to try rules in: short words for what the rules do in it. Anything unexpected panics.

use crate::event::Event;
use crate::id::{MessageId, RoomId, Seq, TurnId, UserId};
use crate::model::{Budgets, Message, RoomEntry, TurnEnd, TurnInfo};
use crate::store::{Batch, Committed, Intent, NewRoom, Outcome, Post, RoomStore};
use crate::time::Timestamp;
use crate::{Error, Result};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

pub(super) const ANNE: UserId = UserId(11);
pub(super) const BOB: UserId = UserId(12);
pub(super) const CARL: UserId = UserId(13);
pub(super) const DORA: UserId = UserId(14);

pub(super) fn name_of(user: UserId) -> String {
    format!("user-{user}")
}

pub(super) fn new_room(name: &str, owner: UserId, members: &[UserId]) -> NewRoom {
    NewRoom {
        name: name.to_owned(),
        owner: (owner, name_of(owner)),
        members: members.iter().map(|user| (*user, name_of(*user))).collect(),
        is_group: true,
        is_ai_chat: false,
        greeting: None,
        now: Timestamp(1_000),
    }
}

/// A hash as the engine makes one: different for different bodies, which is all that matters here.
pub(super) fn body_hash(text: &str) -> [u8; 32] {
    let mut hash = [0_u8; 32];
    for (at, byte) in text.bytes().enumerate() {
        hash[at % 32] = hash[at % 32].rotate_left(3) ^ byte;
    }
    hash
}

pub(super) fn post(author: UserId, text: &str) -> Post {
    Post {
        author,
        name: name_of(author),
        client_id: None,
        body_hash: body_hash(text),
        text: text.to_owned(),
        reply_to: None,
        meta: None,
        asks: Vec::new(),
        asks_default: false,
        asks_if_alone: false,
        bots: Arc::from([]),
    }
}

pub(super) fn with_id(author: UserId, client_id: &str, text: &str) -> Post {
    Post {
        client_id: Some(client_id.to_owned()),
        ..post(author, text)
    }
}

pub(super) struct Flat<'a, S> {
    pub(super) store: &'a S,
    pub(super) id: RoomId,
    now: AtomicI64,
}

impl<'a, S: RoomStore> Flat<'a, S> {
    /// A room of Anne's, with these others.
    pub(super) async fn with(store: &'a S, others: &[UserId]) -> Self {
        Self::of(store, new_room("flat", ANNE, others)).await
    }

    pub(super) async fn of(store: &'a S, new: NewRoom) -> Self {
        let now = AtomicI64::new(new.now.0);
        let (info, _) = store.create_room(new).await.expect("a room can be made");
        Self {
            store,
            id: info.id,
            now,
        }
    }

    pub(super) fn now(&self) -> Timestamp {
        Timestamp(self.now.load(Ordering::Relaxed))
    }

    pub(super) async fn commit(&self, intents: Vec<Intent>) -> Committed {
        self.commit_within(Budgets::default(), intents).await
    }

    pub(super) async fn commit_within(&self, budgets: Budgets, intents: Vec<Intent>) -> Committed {
        let wanted = intents.len();
        let now = Timestamp(self.now.fetch_add(1, Ordering::Relaxed) + 1);
        let room = self.id;
        let batch = Batch {
            budgets,
            ..Batch::new(room, now, intents)
        };
        let committed = self.store.commit(batch).await.expect("the commit succeeds");
        assert_eq!(committed.outcomes.len(), wanted, "one outcome for each intent");
        let first = committed.seq.0 - i64::try_from(committed.events.len()).expect("few") + 1;
        for (seq, event) in (first..).zip(&committed.events) {
            assert_eq!(event.seq(), Some(Seq(seq)), "events have no holes and end at seq");
            assert_eq!(event.room(), room);
        }
        committed
    }

    pub(super) async fn try_one(&self, intent: Intent) -> Result<Outcome> {
        let mut committed = self.commit(vec![intent]).await;
        committed.outcomes.remove(0)
    }

    pub(super) async fn one(&self, intent: Intent) -> Outcome {
        self.try_one(intent).await.expect("the intent is allowed")
    }

    pub(super) async fn refused(&self, intent: Intent, code: &str) -> Error {
        let seq = self.seq().await;
        let error = self.try_one(intent).await.expect_err("the intent is refused");
        assert_eq!(error.code(), code, "{error}");
        assert_eq!(self.seq().await, seq, "what is refused makes no event");
        error
    }

    /// An intent that is allowed and for which there is nothing to do.
    pub(super) async fn nothing(&self, intent: Intent) -> Outcome {
        let mut committed = self.commit(vec![intent]).await;
        assert_eq!(committed.events, Vec::new(), "nothing happens");
        committed.outcomes.remove(0).expect("it is no error")
    }

    pub(super) async fn post(&self, post: Post) -> (Arc<Message>, Vec<TurnInfo>) {
        match self.one(Intent::Post(post)).await {
            Outcome::Posted {
                message,
                turns,
                duplicate: false,
            } => (message, turns),
            other => panic!("a post is posted, not {other:?}"),
        }
    }

    pub(super) async fn say(&self, author: UserId, text: &str) -> Arc<Message> {
        self.post(post(author, text)).await.0
    }

    pub(super) async fn ask(&self, author: UserId, bot: &str) -> TurnInfo {
        let ask = Post {
            asks: vec![bot.to_owned()],
            ..post(author, "a question")
        };
        let (_, mut turns) = self.post(ask).await;
        assert_eq!(turns.len(), 1, "one turn for one bot");
        turns.remove(0)
    }

    pub(super) async fn start(&self, bot: &str) -> Option<TurnInfo> {
        match self.one(start(bot)).await {
            Outcome::Started { turn, asked_by } => {
                assert_eq!(asked_by, name_of(turn.asked_by));
                Some(turn)
            }
            Outcome::Done => None,
            other => panic!("a start starts, not {other:?}"),
        }
    }

    pub(super) async fn started(&self, bot: &str) -> (TurnInfo, MessageId) {
        let turn = self.start(bot).await.expect("a turn starts");
        let message = turn.message.expect("a started turn has a message");
        (turn, message)
    }

    pub(super) async fn end(&self, turn: TurnId, end: TurnEnd, text: Option<&str>) -> (TurnInfo, bool) {
        match self.one(finish(turn, end, text)).await {
            Outcome::Ended { turn, now } => (turn, now),
            other => panic!("an end ends, not {other:?}"),
        }
    }

    pub(super) async fn seq(&self) -> Seq {
        let head = self.store.room(self.id).await.expect("rooms can be read");
        head.map_or(Seq(0), |head| head.seq)
    }

    pub(super) async fn message(&self, id: MessageId) -> Arc<Message> {
        let found = self.store.message(self.id, id).await.expect("messages can be read");
        found.expect("the message is there")
    }

    pub(super) async fn turn(&self, id: TurnId) -> TurnInfo {
        let found = self.store.turn(self.id, id).await.expect("turns can be read");
        found.expect("the turn is there")
    }

    pub(super) async fn log(&self) -> Vec<Arc<Event>> {
        let events = self.store.events(self.id, Seq(0), 100_000).await;
        events.expect("events can be read")
    }

    pub(super) async fn entry(&self, user: UserId) -> RoomEntry {
        let mut entries = self
            .store
            .rooms_of(user, Some(self.id))
            .await
            .expect("rooms can be read");
        assert_eq!(entries.len(), 1, "a member has this room");
        entries.remove(0)
    }

    pub(super) async fn unread(&self, user: UserId) -> u32 {
        self.entry(user).await.unread
    }

    pub(super) async fn members(&self) -> Vec<UserId> {
        let members = self.store.members(self.id).await.expect("members can be read");
        members.into_iter().map(|member| member.user).collect()
    }
}

pub(super) fn start(bot: &str) -> Intent {
    Intent::StartTurn {
        bot: bot.to_owned(),
        name: bot.to_uppercase(),
    }
}

pub(super) fn finish(turn: TurnId, end: TurnEnd, text: Option<&str>) -> Intent {
    let text = text.map(Into::into);
    Intent::EndTurn {
        turn,
        end,
        text,
        receipt: None,
        asks: Vec::new(),
    }
}

pub(super) fn keep(turn: TurnId, text: &str) -> Intent {
    Intent::Checkpoint {
        turn,
        text: text.into(),
        usage: None,
        receipt: None,
    }
}

pub(super) fn invite(user: UserId, by: UserId) -> Intent {
    let name = name_of(user);
    Intent::Invite { user, name, by }
}

pub(super) fn delete(message: MessageId, by: UserId) -> Intent {
    Intent::Delete { message, by }
}

pub(super) fn edit(message: MessageId, by: UserId, text: &str) -> Intent {
    let text = text.to_owned();
    Intent::Edit { message, by, text }
}

pub(super) fn read(user: UserId, seq: Seq) -> Intent {
    Intent::Read { user, seq }
}
