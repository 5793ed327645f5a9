//! Rooms and who is in them.

use super::flat::{ANNE, BOB, CARL, DORA, Flat, delete, edit, invite, name_of, new_room, post, read};
use crate::Error;
use crate::event::Event;
use crate::id::{MessageId, RoomId, Seq, UserId};
use crate::model::{Author, Range, Role};
use crate::store::plan::MAX_MEMBERS;
use crate::store::{Batch, Greeting, Intent, NewRoom, RoomStore};
use crate::time::Timestamp;

pub(super) async fn a_new_room_begins_with_its_members<S: RoomStore>(store: &S) {
    let new = NewRoom {
        is_group: false,
        is_ai_chat: true,
        ..new_room("Küche", BOB, &[ANNE, CARL])
    };
    let (info, events) = store.create_room(new).await.expect("a room can be made");
    assert_eq!((info.name.as_str(), info.owner), ("Küche", BOB));
    assert_eq!((info.is_group, info.is_ai_chat), (false, true));
    assert_eq!(info.created_at, Timestamp(1_000));
    for ((event, seq), who) in events.iter().zip(1..).zip([BOB, ANNE, CARL]) {
        let joined = Event::MemberJoined {
            room: info.id,
            seq: Seq(seq),
            user: who,
            name: name_of(who),
            by: BOB,
        };
        assert_eq!(**event, joined);
    }
    assert_eq!(events.len(), 3);
    assert_eq!(store.events(info.id, Seq(0), 10).await.expect("readable"), events);
    let head = store.room(info.id).await.expect("readable").expect("there");
    assert_eq!((head.seq, head.members, &head.info), (Seq(3), 3, &info));
    let members = store.members(info.id).await.expect("readable");
    let roles: Vec<_> = members.iter().map(|member| (member.user, member.role)).collect();
    assert_eq!(roles, [(BOB, Role::Owner), (ANNE, Role::Member), (CARL, Role::Member)]);
    let one = store.member(info.id, ANNE).await.expect("readable");
    assert_eq!(one.as_ref(), members.get(1));
    assert_eq!(store.member(info.id, DORA).await.expect("readable"), None);
    let (other, _) = store.create_room(new_room("other", BOB, &[])).await.expect("made");
    assert_ne!(other.id, info.id);
}

pub(super) async fn a_greeting_counts_as_read<S: RoomStore>(store: &S) {
    let greeting = Greeting {
        bot: "echo".into(),
        name: "Echo".into(),
        text: "I echo.".into(),
    };
    let new = NewRoom {
        greeting: Some(greeting),
        ..new_room("chat", ANNE, &[BOB])
    };
    let flat = Flat::of(store, new).await;
    let entry = flat.entry(BOB).await;
    let said = entry.last_message.expect("the greeting is a message");
    assert_eq!((said.seq, said.text.as_str()), (Seq(3), "I echo."));
    assert_eq!(said.author, Author::bot("echo", "Echo"));
    assert_eq!((entry.unread, flat.unread(ANNE).await), (0, 0));
    let log = flat.log().await;
    assert!(matches!(&*log[2], Event::MessagePosted { message, .. } if *message == said));
    assert_eq!(store.turn_of_message(flat.id, said.id).await.expect("readable"), None);
    flat.refused(edit(said.id, ANNE, "x"), "forbidden").await;
    flat.say(ANNE, "hello").await;
    assert_eq!(flat.unread(BOB).await, 1);
}

pub(super) async fn a_room_is_not_too_large<S: RoomStore>(store: &S) {
    let others: Vec<_> = (1_000..).take(MAX_MEMBERS as usize - 1).map(UserId).collect();
    let flat = Flat::with(store, &others).await;
    flat.nothing(invite(others[0], ANNE)).await;
    flat.refused(invite(BOB, ANNE), "too_large").await;
    let (by, user) = (ANNE, others[5]);
    flat.one(Intent::Remove { user, by }).await;
    flat.one(invite(BOB, ANNE)).await;
    flat.refused(invite(CARL, BOB), "too_large").await;
    let too_many: Vec<_> = others.iter().copied().chain([BOB]).collect();
    let error = store
        .create_room(new_room("x", ANNE, &too_many))
        .await
        .expect_err("refused");
    assert_eq!(error.code(), "too_large");
}

pub(super) async fn unknown_rooms_and_strangers_look_alike<S: RoomStore>(store: &S) {
    let flat = Flat::with(store, &[BOB]).await;
    let said = flat.say(ANNE, "x").await;
    let words = "no such room";
    for intent in everything_by(DORA, said.id) {
        assert_eq!(flat.refused(intent, "not_found").await.words(), words);
    }
    let batch = Batch::new(RoomId(999_999), Timestamp(5), everything_by(ANNE, said.id));
    let committed = store.commit(batch).await.expect("an unknown room is no failure");
    assert_eq!((committed.seq, committed.events.len()), (Seq(0), 0));
    for outcome in committed.outcomes {
        assert_eq!(outcome.expect_err("nothing is there").words(), words);
    }
    let nowhere = RoomId(999_999);
    assert_eq!(store.room(nowhere).await.expect("readable"), None);
    assert_eq!(store.members(nowhere).await.expect("readable"), Vec::new());
    assert_eq!(store.snapshot(nowhere, 5).await.expect("readable"), None);
    assert_eq!(store.events(nowhere, Seq(0), 5).await.expect("readable"), Vec::new());
    let page = store.history(nowhere, Range::Newest, 5).await.expect("readable");
    assert!(page.messages.is_empty() && !page.more);
    assert_eq!(store.rooms_of(DORA, None).await.expect("readable"), Vec::new());
    assert_eq!(store.rooms_of(DORA, Some(flat.id)).await.expect("readable"), Vec::new());
    assert_eq!(store.message(nowhere, said.id).await.expect("readable"), None);
}

fn everything_by(by: UserId, message: MessageId) -> Vec<Intent> {
    vec![
        Intent::Post(post(by, "x")),
        edit(message, by, "y"),
        delete(message, by),
        invite(CARL, by),
        Intent::Remove { user: BOB, by },
        Intent::Remove { user: by, by },
        Intent::Rename { name: "n".into(), by },
        Intent::HandOver { to: BOB, by },
        read(by, Seq(1)),
        Intent::DeleteRoom { by },
    ]
}

pub(super) async fn inviting_is_open_to_members_and_idempotent<S: RoomStore>(store: &S) {
    let flat = Flat::with(store, &[BOB]).await;
    flat.say(ANNE, "before").await;
    let committed = flat.commit(vec![invite(CARL, BOB)]).await;
    let Event::MemberJoined { user, name, by, .. } = &*committed.events[0] else {
        panic!("{:?}", committed.events);
    };
    assert_eq!((*user, name, *by), (CARL, &name_of(CARL), BOB));
    flat.nothing(invite(CARL, ANNE)).await;
    flat.nothing(invite(ANNE, BOB)).await;
    assert_eq!(flat.members().await, [ANNE, BOB, CARL]);
    assert_eq!(flat.entry(CARL).await.role, Role::Member);
    assert_eq!(flat.unread(CARL).await, 0, "a new member has read everything");
    assert_eq!(store.room(flat.id).await.expect("readable").expect("there").members, 3);
}

pub(super) async fn leaving_and_removing<S: RoomStore>(store: &S) {
    let flat = Flat::with(store, &[BOB, CARL]).await;
    let remove = |user, by| Intent::Remove { user, by };
    flat.refused(remove(CARL, BOB), "forbidden").await;
    flat.refused(remove(ANNE, BOB), "forbidden").await;
    flat.refused(remove(ANNE, ANNE), "conflict").await;
    flat.refused(remove(DORA, ANNE), "not_found").await;
    let committed = flat.commit(vec![remove(BOB, BOB), remove(CARL, ANNE)]).await;
    for (event, (who, whose)) in committed.events.iter().zip([(BOB, BOB), (CARL, ANNE)]) {
        let Event::MemberLeft { user, name, by, .. } = &**event else {
            panic!("{event:?}");
        };
        assert_eq!((*user, name, *by), (who, &name_of(who), whose));
    }
    assert_eq!(flat.members().await, [ANNE]);
    assert_eq!(store.rooms_of(BOB, None).await.expect("readable"), Vec::new());
    flat.refused(Intent::Post(post(BOB, "still here?")), "not_found").await;
    flat.say(ANNE, "without you").await;
    flat.one(invite(BOB, ANNE)).await;
    assert_eq!(flat.members().await, [ANNE, BOB]);
    assert_eq!(flat.unread(BOB).await, 0, "coming back one has read everything");
    let committed = flat.commit(vec![remove(BOB, ANNE), invite(BOB, ANNE)]).await;
    assert_eq!(committed.events.len(), 2);
    assert_eq!(flat.members().await, [ANNE, BOB]);
}

pub(super) async fn renaming_and_handing_over<S: RoomStore>(store: &S) {
    let flat = Flat::with(store, &[BOB]).await;
    let rename = |name: &str, by| Intent::Rename {
        name: name.to_owned(),
        by,
    };
    let hand_over = |to, by| Intent::HandOver { to, by };
    flat.refused(rename("x", BOB), "forbidden").await;
    flat.refused(hand_over(BOB, BOB), "forbidden").await;
    flat.refused(hand_over(DORA, ANNE), "not_found").await;
    flat.nothing(hand_over(ANNE, ANNE)).await;
    let intents = vec![
        rename("one", ANNE),
        hand_over(BOB, ANNE),
        rename("two", BOB),
        rename("three", ANNE),
    ];
    let committed = flat.commit(intents).await;
    let code = committed.outcomes[3].as_ref().err().map(Error::code);
    assert_eq!(code, Some("forbidden"));
    let expected = [("one", ANNE, ANNE), ("one", BOB, ANNE), ("two", BOB, BOB)];
    assert_eq!(committed.events.len(), expected.len());
    for (event, (name, owner, whose)) in committed.events.iter().zip(expected) {
        let Event::RoomUpdated { info, by, .. } = &**event else {
            panic!("{event:?}");
        };
        assert_eq!((info.name.as_str(), info.owner, *by), (name, owner, whose));
    }
    let info = flat.entry(ANNE).await.info;
    assert_eq!((info.name.as_str(), info.owner), ("two", BOB));
    assert_eq!(flat.entry(ANNE).await.role, Role::Member);
    assert_eq!(flat.entry(BOB).await.role, Role::Owner);
    assert_eq!(flat.members().await, [ANNE, BOB], "the order of joining stays");
    // Also for a store that remembers who they were.
    flat.refused(rename("three", ANNE), "forbidden").await;
    flat.one(rename("three", BOB)).await;

    let message = flat.say(BOB, "not yet read").await;
    flat.say(BOB, "nor this").await;
    flat.one(delete(message.id, BOB)).await;
    flat.one(hand_over(ANNE, BOB)).await;
    assert_eq!(
        flat.unread(ANNE).await,
        1,
        "handing over changes nothing of what is unread"
    );
}

pub(super) async fn deleting_a_room_leaves_nothing_and_frees_no_id<S: RoomStore>(store: &S) {
    let flat = Flat::with(store, &[BOB]).await;
    let turn = flat.ask(ANNE, "echo").await;
    let (_, answer) = flat.started("echo").await;
    flat.ask(BOB, "echo").await;
    flat.refused(Intent::DeleteRoom { by: BOB }, "forbidden").await;
    let gone = Intent::DeleteRoom { by: ANNE };
    let committed = flat.commit(vec![gone, Intent::Post(post(ANNE, "late"))]).await;
    assert_eq!(committed.events, Vec::new(), "no event tells it");
    assert!(committed.outcomes[0].is_ok());
    let code = committed.outcomes[1].as_ref().err().map(Error::code);
    assert_eq!(code, Some("not_found"));
    assert_eq!(store.room(flat.id).await.expect("readable"), None);
    assert_eq!(flat.members().await, Vec::new());
    assert_eq!(flat.log().await, Vec::new());
    assert_eq!(store.message(flat.id, answer).await.expect("readable"), None);
    assert_eq!(store.turn(flat.id, turn.id).await.expect("readable"), None);
    assert_eq!(store.open_turns(None).await.expect("readable"), Vec::new());
    assert_eq!(store.rooms_of(ANNE, None).await.expect("readable"), Vec::new());
    let next = Flat::with(store, &[]).await;
    assert!(next.id > flat.id, "a room's id never comes back");
    assert!(next.say(ANNE, "x").await.id > answer, "nor a message's");
    assert!(next.ask(ANNE, "echo").await.id > turn.id, "nor a turn's");
}
