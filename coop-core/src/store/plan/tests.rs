//! The decision alone, over facts written by hand. What follows from it over many commits is the store contract's.
#![allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use super::*;
use crate::model::{TurnEnd, TurnStatus};
use crate::store::{Outcome, Post};
use crate::time::Timestamp;

const NOW: Timestamp = Timestamp(1_000);
const ANNE: UserId = UserId(1);
const BOB: UserId = UserId(2);

fn room_of_anne() -> (Facts, NextIds) {
    let mut ids = NextIds::default();
    let new = NewRoom {
        name: "kitchen".into(),
        owner: (ANNE, "anne".into()),
        members: Vec::new(),
        is_group: false,
        is_ai_chat: true,
        greeting: None,
        now: NOW,
    };
    let creation = plan_creation(new, &mut ids).unwrap();
    let facts = Facts {
        room: Some(creation.room),
        members: creation.members,
        ..Facts::default()
    };
    (facts, ids)
}

fn post(author: UserId, client_id: &str, text: &str) -> Intent {
    Intent::Post(Post {
        author,
        name: format!("user {author}"),
        client_id: Some(client_id.into()),
        body_hash: [text.len() as u8; 32],
        text: text.into(),
        reply_to: None,
        meta: None,
        asks: Vec::new(),
        asks_default: false,
        asks_if_alone: true,
        bots: Arc::from(["echo".to_owned()]),
    })
}

fn decide(intents: Vec<Intent>) -> Plan {
    let (facts, mut ids) = room_of_anne();
    let batch = Batch::new(RoomId(1), NOW, intents);
    plan(facts, batch, &mut ids)
}

#[test]
fn a_join_and_a_post_in_one_batch_work_and_the_post_asks_nobody_then() {
    let invite = Intent::Invite {
        user: BOB,
        name: "bob".into(),
        by: ANNE,
    };
    let plan = decide(vec![post(ANNE, "a", "alone"), invite, post(BOB, "b", "hello")]);
    assert!(plan.committed.outcomes.iter().all(Result::is_ok));
    assert_eq!(plan.committed.seq, Seq(5));
    let seqs: Vec<_> = plan.committed.events.iter().filter_map(|event| event.seq()).collect();
    assert_eq!(seqs, (2..=5).map(Seq).collect::<Vec<_>>());
    assert_eq!(plan.turns.len(), 1);
    let bob = plan.members.iter().find(|row| row.member.user == BOB).unwrap();
    assert_eq!((bob.joined, bob.read_number, bob.member.read), (Seq(4), 2, Seq(5)));
    assert_eq!(bob.member.read_at, Some(NOW));
    assert!(bob.member.joined_at > NOW, "later than those the room was made with");
}

#[test]
fn a_client_id_repeated_in_one_batch_is_one_message() {
    let plan = decide(vec![
        post(ANNE, "a", "one"),
        post(ANNE, "a", "one"),
        post(ANNE, "a", "other!"),
    ]);
    assert_eq!(plan.inserted.len(), 1);
    let [
        Ok(Outcome::Posted { message, .. }),
        Ok(Outcome::Posted {
            message: again,
            turns,
            duplicate: true,
        }),
        Err(error),
    ] = &plan.committed.outcomes[..]
    else {
        panic!("{:?}", plan.committed.outcomes);
    };
    assert_eq!(message.id, again.id);
    assert_eq!(turns.len(), 1);
    assert_eq!(error.code(), "conflict");
}

#[test]
fn a_turn_may_start_and_end_in_the_batch_that_asks_for_it() {
    let start = Intent::StartTurn {
        bot: "echo".into(),
        name: "Echo".into(),
    };
    let end = Intent::EndTurn {
        turn: TurnId(1),
        end: TurnEnd::new(TurnStatus::Done),
        text: Some("hi".into()),
        receipt: None,
        asks: Vec::new(),
    };
    let plan = decide(vec![post(ANNE, "a", "hi"), start, end.clone(), end]);
    assert_eq!(plan.inserted.len(), 2);
    assert!(plan.updated.is_empty());
    assert_eq!(plan.inserted[1].message.text, "hi");
    assert!(matches!(
        plan.committed.outcomes[3],
        Ok(Outcome::Ended { now: false, .. })
    ));
    assert_eq!(plan.members[0].unread(2), 0);
}

#[test]
fn a_deleted_room_takes_the_rest_of_its_batch_along() {
    let plan = decide(vec![
        post(ANNE, "a", "x"),
        Intent::DeleteRoom { by: ANNE },
        post(ANNE, "b", "y"),
    ]);
    assert_eq!(plan.room, RoomChange::Delete);
    assert!(plan.inserted.is_empty() && plan.events.is_empty());
    assert_eq!(plan.committed.outcomes[2].as_ref().unwrap_err().code(), "not_found");
}

#[test]
fn in_an_unknown_room_nothing_is_found() {
    let batch = Batch::new(RoomId(9), NOW, vec![post(ANNE, "a", "x")]);
    let plan = plan(Facts::default(), batch, &mut NextIds::default());
    assert!(plan.is_empty());
    assert_eq!(plan.committed.seq, Seq(0));
    assert_eq!(plan.committed.outcomes[0].as_ref().unwrap_err().code(), "not_found");
}
