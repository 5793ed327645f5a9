//! Counting what has not been read, against counting it again the slow way.

use super::flat::{ANNE, BOB, CARL, Flat, delete, finish, invite, post, read, start};
use crate::event::Event;
use crate::id::{MessageId, Seq, TurnId, UserId};
use crate::model::{TurnEnd, TurnStatus};
use crate::store::{Committed, Intent, Outcome, Post, RoomStore};
use std::collections::BTreeMap;

pub(super) async fn marks_only_move_forward<S: RoomStore>(store: &S) {
    let flat = Flat::with(store, &[BOB]).await;
    for text in ["one", "two", "three"] {
        flat.say(ANNE, text).await;
    }
    assert_eq!((flat.unread(BOB).await, flat.unread(ANNE).await), (3, 0));
    let at = async || {
        let member = store.member(flat.id, BOB).await.expect("readable");
        member.expect("there").read_at
    };
    assert_eq!(at().await, None, "nothing has been read");
    for (asked, stands, moves, unread) in [(4, 4, true, 1), (3, 4, false, 1), (4, 4, false, 1), (99, 5, true, 0)] {
        let before = at().await;
        let outcome = flat.nothing(read(BOB, Seq(asked))).await;
        let moved_at = if moves { Some(flat.now()) } else { before };
        assert_eq!(at().await, moved_at, "a mark keeps the time when it last moved");
        let Outcome::Read { user, name, seq, moved } = outcome else {
            panic!("{outcome:?}");
        };
        assert_eq!((user, name), (BOB, super::flat::name_of(BOB)));
        assert_eq!((seq, moved), (Seq(stands), moves));
        assert_eq!(flat.unread(BOB).await, unread);
        let member = store.member(flat.id, BOB).await.expect("readable").expect("there");
        assert_eq!(member.read, Seq(stands));
    }
    flat.say(BOB, "mine").await;
    assert_eq!(at().await, Some(flat.now()), "who writes has read what is above");
    let committed = flat
        .commit(vec![Intent::Post(post(ANNE, "four")), read(BOB, Seq(99))])
        .await;
    assert!(matches!(committed.outcomes[1], Ok(Outcome::Read { seq: Seq(7), .. })));
    assert_eq!(flat.unread(BOB).await, 0);
}

pub(super) async fn own_messages_and_answers_are_not_unread<S: RoomStore>(store: &S) {
    let flat = Flat::with(store, &[BOB]).await;
    flat.say(ANNE, "x").await;
    assert_eq!(flat.unread(BOB).await, 1);
    flat.ask(BOB, "echo").await;
    assert_eq!(flat.unread(BOB).await, 0, "who writes has read what is above");
    let (turn, answer) = flat.started("echo").await;
    assert_eq!((flat.unread(BOB).await, flat.unread(ANNE).await), (0, 2));
    flat.end(turn.id, TurnEnd::new(TurnStatus::Done), Some("x")).await;
    let queued = flat.turn(turn.id).await.ask_seq.next();
    flat.one(read(BOB, queued)).await;
    assert_eq!(
        flat.unread(BOB).await,
        0,
        "a mark below the answer does not make it unread"
    );
    flat.say(ANNE, "y").await;
    assert_eq!((flat.unread(BOB).await, flat.unread(ANNE).await), (1, 0));
    flat.one(delete(answer, ANNE)).await;
    assert_eq!(flat.unread(BOB).await, 1, "an answer is not taken out twice");
}

pub(super) async fn deleted_messages_are_not_unread<S: RoomStore>(store: &S) {
    let flat = Flat::with(store, &[BOB, CARL]).await;
    let one = flat.say(ANNE, "one").await;
    let two = flat.say(ANNE, "two").await;
    let three = flat.say(ANNE, "three").await;
    flat.one(read(CARL, two.seq)).await;
    flat.one(delete(one.id, ANNE)).await;
    flat.nothing(delete(one.id, ANNE)).await;
    assert_eq!((flat.unread(BOB).await, flat.unread(CARL).await), (2, 1));
    flat.one(delete(three.id, ANNE)).await;
    assert_eq!((flat.unread(BOB).await, flat.unread(CARL).await), (1, 0));
    flat.one(read(BOB, one.seq)).await;
    assert_eq!(flat.unread(BOB).await, 1, "what is deleted above the mark stays out");
    flat.commit(vec![
        delete(two.id, ANNE),
        read(BOB, one.seq),
        Intent::Post(post(ANNE, "four")),
    ])
    .await;
    assert_eq!((flat.unread(BOB).await, flat.unread(CARL).await), (1, 1));
}

/// Random numbers that are the same every time (xorshift).
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % end.max(1) as u64) as usize
    }

    fn one_of<T: Copy>(&mut self, all: &[T]) -> Option<T> {
        all.get(self.below(all.len())).copied()
    }
}

/// What the outcomes so far say about who has read what: nothing is counted here.
#[derive(Default)]
struct Known {
    marks: BTreeMap<UserId, Seq>,
    /// Who asked for which answer.
    askers: BTreeMap<MessageId, UserId>,
    messages: Vec<MessageId>,
    turns: Vec<TurnId>,
}

impl Known {
    fn intent(&self, dice: &mut Dice, head: Seq) -> Option<Intent> {
        let user = dice.one_of(&[ANNE, BOB, CARL])?;
        let bot = dice.one_of(&["echo", "gemini"])?;
        Some(match dice.below(12) {
            0 | 1 => Intent::Post(post(user, "x")),
            2 | 3 => Intent::Post(Post {
                asks: vec![bot.to_owned()],
                ..post(user, "x")
            }),
            4 | 5 => start(bot),
            6 => finish(dice.one_of(&self.turns)?, TurnEnd::new(TurnStatus::Done), Some("y")),
            7 => delete(dice.one_of(&self.messages)?, ANNE),
            8 => invite(CARL, ANNE),
            9 if dice.below(3) == 0 => Intent::Remove { user: CARL, by: ANNE },
            _ => read(user, Seq(head.0 - 12 + dice.below(18) as i64)),
        })
    }

    fn learn(&mut self, committed: &Committed) {
        for event in &committed.events {
            match &**event {
                Event::MemberJoined { seq, user, .. } => {
                    self.marks.insert(*user, Seq(seq.0 - 1));
                }
                Event::MemberLeft { user, .. } => {
                    self.marks.remove(user);
                }
                Event::MessagePosted { message, .. } => self.messages.push(message.id),
                Event::TurnQueued { turn, .. } => self.turns.push(*turn),
                Event::TurnStarted { message, asked_by, .. } => {
                    self.askers.insert(message.id, *asked_by);
                    self.messages.push(message.id);
                }
                _ => {}
            }
        }
        for outcome in committed.outcomes.iter().flatten() {
            let (user, seq) = match outcome {
                Outcome::Posted { message, .. } => (message.author.user, message.seq),
                Outcome::Read { user, seq, .. } => (Some(*user), *seq),
                _ => continue,
            };
            let mark = user.and_then(|user| self.marks.get_mut(&user));
            if let Some(mark) = mark {
                *mark = seq.max(*mark);
            }
        }
    }
}

pub(super) async fn counting_agrees_with_recounting<S: RoomStore>(store: &S) {
    for seed in 1..=6_u64 {
        let flat = Flat::with(store, &[BOB, CARL]).await;
        let mut dice = Dice(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        let mut known = Known {
            marks: [ANNE, BOB, CARL].map(|user| (user, Seq(3))).into(),
            ..Known::default()
        };
        for step in 0..120 {
            let head = flat.seq().await;
            let size = 1 + dice.below(4);
            let intents: Vec<_> = (0..size).filter_map(|_| known.intent(&mut dice, head)).collect();
            let told = format!("seed {seed}, step {step}: {intents:?}");
            let committed = flat.commit(intents).await;
            known.learn(&committed);
            let page = store.history(flat.id, crate::Range::After(Seq(0)), 100_000).await;
            let there = page.expect("readable").messages;
            for (user, mark) in &known.marks {
                let unread = there.iter().filter(|message| message.seq > *mark);
                let unread = unread.filter(|message| known.askers.get(&message.id) != Some(user));
                assert_eq!(flat.unread(*user).await as usize, unread.count(), "user {user}, {told}");
                let member = store.member(flat.id, *user).await.expect("readable").expect("there");
                assert_eq!(member.read, *mark, "user {user}, {told}");
            }
        }
    }
}
