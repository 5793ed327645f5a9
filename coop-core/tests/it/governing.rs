//! Rooms as their members govern and use them: who may do what, what the others are told, what counts as unread, whom
//! a text asks, and how messages are changed and found again.

use crate::scene::{A_MOMENT, Scene, a_moment, kind, ms, next, puppet, reads, settled, to_the_end};
use coop_core::store::memory::MemoryStore;
use coop_core::store::plan::MAX_MEMBERS;
use coop_core::store::sqlite::SqliteStore;
use coop_core::{
    BotLimits, Bounds, Draft, Engine, ErrorKind, Event, GoneReason, HintKind, Message, MessageId, Meta, Range, Result,
    Role, Room, RoomDraft, RoomId, Seq, Subscription, TurnStatus, User,
};
use std::sync::Arc;
use tokio::time::{Instant, sleep};

// Who may do what.

/// Everything that can be done with a room.
#[derive(Clone, Copy, Debug)]
enum Action {
    Entry,
    Members,
    History,
    OneMessage,
    Subscribe,
    Resume,
    Send,
    EditOwn,
    EditOthers,
    DeleteOwn,
    DeleteOthers,
    Stop,
    StopAnswer,
    Retry,
    RetryAnswer,
    OpenTurns,
    Receipt,
    Usage,
    Settings,
    Configure,
    MarkRead,
    MarkAllRead,
    Typing,
    Presence,
    Invite,
    RemoveOther,
    RemoveOneself,
    Leave,
    Rename,
    HandOver,
    DeleteRoom,
}

const ALLOWED: Option<ErrorKind> = None;
const FORBIDDEN: Option<ErrorKind> = Some(ErrorKind::Forbidden);

/// Every action, and what becomes of it for the owner and for a member. For who is no member (any more) there is no
/// such room.
const TABLE: &[(Action, Option<ErrorKind>, Option<ErrorKind>)] = &[
    (Action::Entry, ALLOWED, ALLOWED),
    (Action::Members, ALLOWED, ALLOWED),
    (Action::History, ALLOWED, ALLOWED),
    (Action::OneMessage, ALLOWED, ALLOWED),
    (Action::Subscribe, ALLOWED, ALLOWED),
    (Action::Resume, ALLOWED, ALLOWED),
    (Action::Send, ALLOWED, ALLOWED),
    (Action::EditOwn, ALLOWED, ALLOWED),
    (Action::EditOthers, FORBIDDEN, FORBIDDEN),
    (Action::DeleteOwn, ALLOWED, ALLOWED),
    (Action::DeleteOthers, ALLOWED, FORBIDDEN),
    (Action::Stop, ALLOWED, ALLOWED),
    (Action::StopAnswer, ALLOWED, ALLOWED),
    (Action::Retry, ALLOWED, ALLOWED),
    (Action::RetryAnswer, ALLOWED, ALLOWED),
    (Action::OpenTurns, ALLOWED, ALLOWED),
    (Action::Receipt, ALLOWED, ALLOWED),
    (Action::Usage, ALLOWED, ALLOWED),
    (Action::Settings, ALLOWED, ALLOWED),
    (Action::Configure, ALLOWED, FORBIDDEN),
    (Action::MarkRead, ALLOWED, ALLOWED),
    (Action::MarkAllRead, ALLOWED, ALLOWED),
    (Action::Typing, ALLOWED, ALLOWED),
    (Action::Presence, ALLOWED, ALLOWED),
    (Action::Invite, ALLOWED, ALLOWED),
    (Action::RemoveOther, ALLOWED, FORBIDDEN),
    (
        Action::RemoveOneself,
        Some(ErrorKind::BadRequest),
        Some(ErrorKind::BadRequest),
    ),
    (Action::Leave, Some(ErrorKind::Conflict), ALLOWED),
    (Action::Rename, ALLOWED, FORBIDDEN),
    (Action::HandOver, ALLOWED, FORBIDDEN),
    (Action::DeleteRoom, ALLOWED, FORBIDDEN),
];

/// Alice owns the room, bob and dave are members, erin has been removed; each but dave has said something.
struct House {
    scene: Scene,
    dave: User,
    /// The room as erin has held it since she was a member.
    erins: Room,
    said: [(User, MessageId); 3],
}

impl House {
    async fn new() -> Self {
        let scene = Scene::new().await;
        let dave = scene.engine.create_user("dave").await.unwrap();
        let erin = scene.engine.create_user("erin").await.unwrap();
        for user in [&dave, &erin] {
            scene.bobs.invite(user).await.unwrap();
        }
        let erins = erin.room(scene.room.id()).await.unwrap();
        let say = async |room: &Room| room.send("something").await.unwrap().message.id;
        let said = [
            (scene.alice.clone(), say(&scene.room).await),
            (scene.bob.clone(), say(&scene.bobs).await),
            (erin.clone(), say(&erins).await),
        ];
        scene.room.remove(erin.id()).await.unwrap();
        Self {
            scene,
            dave,
            erins,
            said,
        }
    }

    /// Tries one action on a room as somebody sees it.
    async fn act(&mut self, room: &Room, action: Action) -> Result<()> {
        let mine = |own: bool| {
            let found = self.said.iter().find(|(user, _)| (user.id() == room.user_id()) == own);
            found.expect("everyone has said something").1
        };
        let stranger = &self.scene.carol;
        match action {
            Action::Entry => drop(room.entry().await?),
            Action::Members => drop(room.members().await?),
            Action::History => drop(room.history(Range::Newest, 10).await?),
            Action::OneMessage => drop(room.message(mine(true)).await?),
            Action::Subscribe => drop(room.subscribe().await?),
            Action::Resume => drop(room.resume(coop_core::Position::default()).await?),
            Action::Send => drop(room.send("hello").await?),
            Action::EditOwn => drop(room.edit(mine(true), "changed").await?),
            Action::EditOthers => drop(room.edit(mine(false), "forged").await?),
            Action::DeleteOwn => room.delete(mine(true)).await?,
            Action::DeleteOthers => room.delete(mine(false)).await?,
            Action::Stop | Action::StopAnswer => {
                let turn = self.scene.room.send("/ann talk").await.unwrap().turn.unwrap();
                let _answering = self.scene.ann.next().await;
                let answer = self.scene.room.history(Range::Newest, 1).await.unwrap().messages[0].id;
                match action {
                    Action::Stop => room.stop(turn.id()).await?,
                    _ => room.stop_answer(answer).await?,
                }
                assert_eq!(turn.ended().await.unwrap().by, Some(room.user_id()));
            }
            Action::Retry | Action::RetryAnswer | Action::Receipt => {
                let turn = self.scene.room.send("/ann talk").await.unwrap().turn.unwrap();
                self.scene.ann.next().await.finish();
                turn.ended().await.unwrap();
                let answer = self.scene.room.history(Range::Newest, 1).await.unwrap().messages[0].id;
                match action {
                    Action::Retry => drop(room.retry(turn.id()).await?),
                    Action::RetryAnswer => drop(room.retry_answer(answer).await?),
                    _ => drop(room.receipt(answer).await?),
                }
            }
            Action::OpenTurns => drop(room.open_turns().await?),
            Action::Usage => drop(room.usage(coop_core::UsageFilter::default()).await?),
            Action::Settings => drop(room.settings().await?),
            Action::Configure => room.configure(coop_core::RoomSettings::default()).await?,
            Action::MarkRead => room.mark_read(Seq(1)).await?,
            Action::MarkAllRead => room.mark_all_read().await?,
            Action::Typing => room.typing().await?,
            Action::Presence => room.presence(true).await?,
            Action::Invite => room.invite(stranger).await?,
            Action::RemoveOther => room.remove(self.dave.id()).await?,
            Action::RemoveOneself => room.remove(room.user_id()).await?,
            Action::Leave => room.leave().await?,
            Action::Rename => room.rename("mine").await?,
            Action::HandOver => room.hand_over(self.dave.id()).await?,
            Action::DeleteRoom => room.delete_room().await?,
        }
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn everyone_may_do_what_is_theirs_and_nothing_else() {
    for &(action, for_owner, for_member) in TABLE {
        for (who, expected) in [
            ("owner", for_owner),
            ("member", for_member),
            ("removed", Some(ErrorKind::NotFound)),
        ] {
            let mut house = House::new().await;
            let room = match who {
                "owner" => house.scene.room.clone(),
                "member" => house.scene.bobs.clone(),
                _ => house.erins.clone(),
            };
            let expected = match action {
                // Refused before anything is looked at.
                Action::RemoveOneself => Some(ErrorKind::BadRequest),
                _ => expected,
            };
            let before = log(&house.scene.room).await;
            let done = house.act(&room, action).await;
            assert_eq!(
                done.as_ref().err().map(|error| error.kind()),
                expected,
                "{action:?} as {who}: {done:?}"
            );
            let speaks_first = matches!(
                action,
                Action::Stop | Action::StopAnswer | Action::Retry | Action::RetryAnswer | Action::Receipt
            );
            if done.is_err() && !speaks_first {
                assert_eq!(
                    log(&house.scene.room).await,
                    before,
                    "a refusal leaves no trace: {action:?} as {who}"
                );
            }
            house.scene.close().await;
        }
    }
}

/// Where the log stands, and everything a member can see.
async fn log(room: &Room) -> String {
    let (snapshot, _) = reads(room).await;
    format!("{snapshot:?}")
}

#[tokio::test(start_paused = true)]
async fn strangers_cannot_tell_a_foreign_room_from_none() {
    let scene = Scene::new().await;
    let foreign = scene.carol.room(scene.room.id()).await.unwrap_err();
    let unknown = scene.carol.room(RoomId(4_711)).await.unwrap_err();
    assert_eq!((foreign.kind(), foreign.words()), (unknown.kind(), unknown.words()));
    assert_eq!(foreign.kind(), ErrorKind::NotFound);
    assert!(scene.carol.rooms().await.unwrap().is_empty());
    // For hosts that tell them apart.
    assert_eq!(
        scene.engine.room_info(scene.room.id()).await.unwrap().owner,
        scene.alice.id()
    );
    assert_eq!(kind(scene.engine.room_info(RoomId(4_711)).await), ErrorKind::NotFound);
    scene.close().await;
}

#[tokio::test(start_paused = true)]
async fn members_come_go_and_come_back() {
    let scene = Scene::new().await;
    let mut alice = reads(&scene.room).await.1;
    scene.bobs.invite(&scene.carol).await.unwrap();
    scene.room.invite(&scene.carol).await.unwrap();
    let carols = scene.carol.room(scene.room.id()).await.unwrap();
    carols.leave().await.unwrap();
    assert_eq!(kind(scene.room.remove(scene.carol.id()).await), ErrorKind::NotFound);
    assert_eq!(kind(carols.send("still?").await), ErrorKind::NotFound);
    scene.room.invite(&scene.carol).await.unwrap();
    carols.send("a handle is good again").await.unwrap();
    scene.room.remove(scene.carol.id()).await.unwrap();
    let (a, b, c) = (scene.alice.id(), scene.bob.id(), scene.carol.id());
    let seen: Vec<_> = settled(&mut alice)
        .await
        .iter()
        .filter_map(|event| match event {
            Event::MemberJoined { user, by, .. } => Some(('+', *user, *by)),
            Event::MemberLeft { user, by, .. } => Some(('-', *user, *by)),
            _ => None,
        })
        .collect();
    assert_eq!(
        seen,
        [('+', c, b), ('-', c, c), ('+', c, a), ('-', c, a)],
        "inviting a member again is no event"
    );
    let members: Vec<_> = scene.room.members().await.unwrap();
    let members: Vec<_> = members
        .iter()
        .map(|member| (member.name.as_str(), member.role))
        .collect();
    assert_eq!(members, [("alice", Role::Owner), ("bob", Role::Member)]);
    scene.close().await;
}

#[tokio::test(start_paused = true)]
async fn a_room_is_renamed_and_handed_over() {
    let scene = Scene::new().await;
    let mut bob = scene.bob_reads().await;
    scene.room.rename("Labor für Ä").await.unwrap();
    assert!(matches!(next(&mut bob).await, Event::RoomUpdated { info, .. } if info.name == "Labor für Ä"));
    for bad in ["", "  ", "a\nb", &"x".repeat(101)] {
        assert_eq!(kind(scene.room.rename(bad).await), ErrorKind::BadRequest, "{bad:?}");
    }
    assert_eq!(kind(scene.room.hand_over(scene.carol.id()).await), ErrorKind::NotFound);
    scene.room.hand_over(scene.alice.id()).await.unwrap();
    scene.room.hand_over(scene.bob.id()).await.unwrap();
    let Event::RoomUpdated { info, by, .. } = next(&mut bob).await else {
        panic!("handing it to oneself is no event")
    };
    assert_eq!((info.owner, by), (scene.bob.id(), scene.alice.id()));
    assert_eq!(kind(scene.room.rename("mine").await), ErrorKind::Forbidden);
    assert_eq!(kind(scene.bobs.leave().await), ErrorKind::Conflict);
    assert_eq!(scene.room.entry().await.unwrap().role, Role::Member);
    scene.room.leave().await.unwrap();
    scene.bobs.delete_room().await.unwrap();
    scene.close().await;
}

#[tokio::test(start_paused = true)]
async fn a_deleted_room_is_gone_for_everyone_and_its_id_never_comes_back() {
    let scene = Scene::new().await;
    let mut bob = scene.bob_reads().await;
    scene.room.send("something").await.unwrap();
    let id = scene.room.id();
    scene.room.delete_room().await.unwrap();
    let gone = |event: &Event| {
        matches!(
            event,
            Event::Gone {
                reason: GoneReason::Deleted,
                ..
            }
        )
    };
    assert!(to_the_end(&mut bob).await.iter().all(gone));
    assert_eq!(kind(scene.room.send("hello?").await), ErrorKind::NotFound);
    assert_eq!(kind(scene.room.delete_room().await), ErrorKind::NotFound);
    assert_eq!(kind(scene.bob.room(id).await), ErrorKind::NotFound);
    assert!(scene.alice.rooms().await.unwrap().is_empty());
    assert!(scene.alice.create_room("another").await.unwrap().id() > id);
    scene.close().await;
}

#[tokio::test(start_paused = true)]
async fn bounds_are_as_they_are_set() {
    let mut bounds = Bounds::default();
    bounds.text_bytes = 10;
    bounds.room_members = 2;
    bounds.room_name_chars = 5;
    bounds.page = 3;
    let engine = Engine::builder(MemoryStore::new()).bounds(bounds.clone());
    let engine = engine.build().await.unwrap();
    assert_eq!(engine.bounds(), &bounds);
    let [ann, ben, cleo] = ["ann", "ben", "cleo"];
    let [ann, ben, cleo] = [
        engine.create_user(ann).await.unwrap(),
        engine.create_user(ben).await.unwrap(),
        engine.create_user(cleo).await.unwrap(),
    ];
    assert_eq!(kind(ann.create_room("kitche").await), ErrorKind::BadRequest);
    let all = RoomDraft::named("all").with([ben.clone(), cleo.clone()]);
    assert_eq!(kind(ann.create_room(all).await), ErrorKind::TooLarge);
    let room = ann.create_room(RoomDraft::default().with([ben])).await.unwrap();
    assert_eq!(room.entry().await.unwrap().info.name, "ann");
    assert_eq!(kind(room.invite(&cleo).await), ErrorKind::TooLarge);
    assert_eq!(kind(room.rename("kitche").await), ErrorKind::BadRequest);
    let said = room.send("0123456789").await.unwrap().message;
    assert_eq!(kind(room.send("0123456789.").await), ErrorKind::TooLarge);
    assert_eq!(kind(room.edit(said.id, "0123456789.").await), ErrorKind::TooLarge);
    assert_eq!(kind(room.history(Range::Newest, 4).await), ErrorKind::BadRequest);
    assert_eq!(kind(room.search("0123456789", None, 4).await), ErrorKind::BadRequest);
    room.history(Range::Newest, 3).await.unwrap();
    engine.close(ms(0)).await;

    // What is above its ceiling is the ceiling, and nothing is one.
    bounds.text_bytes = usize::MAX;
    bounds.room_members = u32::MAX;
    bounds.room_name_chars = usize::MAX;
    bounds.page = 0;
    let engine = Engine::builder(MemoryStore::new())
        .bounds(bounds)
        .build()
        .await
        .unwrap();
    let mut within = Bounds::CEILING;
    within.page = 1;
    assert_eq!(engine.bounds(), &within);
    engine.close(ms(0)).await;
}

#[tokio::test(start_paused = true)]
async fn a_room_has_a_thousand_members_at_most() {
    let engine = Engine::builder(MemoryStore::new()).build().await.unwrap();
    let mut users = Vec::new();
    for n in 0..=MAX_MEMBERS {
        users.push(engine.create_user(&format!("user{n}")).await.unwrap());
    }
    let most = MAX_MEMBERS as usize;
    let all = RoomDraft::named("all").with(users[1..].iter().cloned());
    assert_eq!(kind(users[0].create_room(all).await), ErrorKind::TooLarge);
    // Named twice, and oneself: counted once.
    let again = users[..most].iter().chain(&users[..10]).cloned();
    let room = users[0].create_room(RoomDraft::default().with(again)).await.unwrap();
    assert_eq!(room.members().await.unwrap().len(), most);
    assert!(room.entry().await.unwrap().info.name.chars().count() <= 100);
    assert_eq!(kind(room.invite(&users[most]).await), ErrorKind::TooLarge);
    room.remove(users[1].id()).await.unwrap();
    room.invite(&users[most]).await.unwrap();
    engine.close(ms(0)).await;
}

#[tokio::test(start_paused = true)]
async fn rooms_are_listed_by_their_newest_activity() {
    let now = Arc::new(std::sync::atomic::AtomicI64::new(1));
    struct Counting(Arc<std::sync::atomic::AtomicI64>);
    impl coop_core::Clock for Counting {
        fn now(&self) -> coop_core::Timestamp {
            coop_core::Timestamp(self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed))
        }
    }
    let scene = Scene::with(MemoryStore::new(), |builder| builder.clock(Counting(now))).await;
    let den = scene.alice.create_room("den").await.unwrap();
    let names = async || {
        let rooms = scene.alice.rooms().await.unwrap();
        rooms.into_iter().map(|entry| entry.info.name).collect::<Vec<_>>()
    };
    assert_eq!(names().await, ["den", "lab"]);
    scene.bobs.send("hello").await.unwrap();
    assert_eq!(names().await, ["lab", "den"]);
    den.send("here").await.unwrap();
    assert_eq!(names().await, ["den", "lab"]);
    let draft = RoomDraft::default().with([scene.bob.clone(), scene.carol.clone()]);
    let unnamed = scene
        .alice
        .create_room(draft.not_a_group())
        .await
        .unwrap()
        .entry()
        .await
        .unwrap();
    assert_eq!(unnamed.info.name, "alice, bob, carol");
    assert!(!unnamed.info.is_group && den.entry().await.unwrap().info.is_group);
    scene.close().await;
}

// Reading and being there.

async fn unread(room: &Room) -> u32 {
    room.entry().await.unwrap().unread
}

#[tokio::test(start_paused = true)]
async fn unread_messages_are_counted_without_ones_own_and_what_one_asked_for() {
    let mut scene = Scene::new().await;
    for n in 0..3 {
        scene.room.send(n.to_string()).await.unwrap();
    }
    assert_eq!((unread(&scene.room).await, unread(&scene.bobs).await), (0, 3));
    let turn = scene.bobs.send("/ann tell me").await.unwrap().turn.unwrap();
    scene.ann.next().await.finish();
    turn.ended().await.unwrap();
    assert_eq!(
        unread(&scene.bobs).await,
        0,
        "whoever speaks has read, and their answer is theirs"
    );
    assert_eq!(unread(&scene.room).await, 2, "for others an answer is a message");
    let last = scene.bobs.send("gone soon").await.unwrap().message;
    assert_eq!(unread(&scene.room).await, 3);
    scene.bobs.delete(last.id).await.unwrap();
    assert_eq!(unread(&scene.room).await, 2, "what is deleted cannot be read");
    scene.room.mark_all_read().await.unwrap();
    sleep(ms(300)).await;
    assert_eq!(unread(&scene.room).await, 0);
    scene.bobs.invite(&scene.carol).await.unwrap();
    let carols = scene.carol.room(scene.room.id()).await.unwrap();
    assert_eq!(unread(&carols).await, 0, "who comes late begins there");
    scene.close().await;
}

async fn marks(events: &mut Subscription) -> Vec<(coop_core::UserId, Seq)> {
    let mark = |event: Event| match event {
        Event::Hint(hint) => match hint.what {
            HintKind::Read { seq } => Some((hint.user, seq)),
            _ => None,
        },
        _ => None,
    };
    settled(events).await.into_iter().filter_map(mark).collect()
}

#[tokio::test(start_paused = true)]
async fn read_marks_gather_and_are_stored_before_they_are_told() {
    let scene = Scene::new().await;
    let mut said = Vec::new();
    for n in 0..5 {
        said.push(scene.room.send(n.to_string()).await.unwrap().message.seq);
    }
    let mut alice = reads(&scene.room).await.1;
    let stored = async || {
        let members = scene.room.members().await.unwrap();
        members
            .iter()
            .find(|member| member.user == scene.bob.id())
            .unwrap()
            .read
    };
    let before = stored().await;
    let started = Instant::now();
    for seq in [said[0], said[2], said[1]] {
        scene.bobs.mark_read(seq).await.unwrap();
    }
    a_moment().await;
    assert_eq!(stored().await, before, "they gather");
    let Event::Hint(hint) = next(&mut alice).await else {
        panic!("a mark is a hint")
    };
    assert_eq!(
        (hint.user, hint.what),
        (scene.bob.id(), HintKind::Read { seq: said[2] })
    );
    assert!(
        (ms(250)..ms(300)).contains(&started.elapsed()),
        "{:?}",
        started.elapsed()
    );
    assert_eq!(stored().await, said[2]);
    assert_eq!(unread(&scene.bobs).await, 2);
    // Never back, and then nobody is told.
    scene.bobs.mark_read(said[0]).await.unwrap();
    sleep(ms(300)).await;
    assert_eq!(stored().await, said[2]);
    assert!(marks(&mut alice).await.is_empty());
    // With a commit that comes by they go at once. Beyond the end is the end.
    scene.bobs.mark_read(Seq(1_000_000)).await.unwrap();
    let last = scene.room.send("by the way").await.unwrap().message.seq;
    assert_eq!(marks(&mut alice).await, [(scene.bob.id(), last)]);
    scene.close().await;
}

#[tokio::test]
async fn read_marks_are_in_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("chat.db");
    let scene = Scene::on(SqliteStore::open(&path).await.unwrap()).await;
    for n in 0..4 {
        scene.room.send(n.to_string()).await.unwrap();
    }
    scene.bobs.mark_all_read().await.unwrap();
    // Closing does not lose what still gathers.
    scene.close().await;
    let engine = Engine::builder(SqliteStore::open(&path).await.unwrap())
        .build()
        .await
        .unwrap();
    let rooms = engine.find_user("bob").await.unwrap().rooms().await.unwrap();
    assert_eq!(rooms[0].unread, 0);
    engine.close(ms(0)).await;
}

#[tokio::test(start_paused = true)]
async fn typing_and_presence_are_told_at_once_and_never_stored() {
    let scene = Scene::new().await;
    let mut bob = scene.bob_reads().await;
    let before = bob.position().unwrap().clone();
    scene.room.typing().await.unwrap();
    scene.room.presence(true).await.unwrap();
    scene.room.presence(false).await.unwrap();
    let hints: Vec<_> = settled(&mut bob)
        .await
        .into_iter()
        .map(|event| match event {
            Event::Hint(hint) => (hint.user, hint.name, hint.what),
            other => panic!("{other:?}"),
        })
        .collect();
    let alice = |what| (scene.alice.id(), "alice".to_owned(), what);
    assert_eq!(
        hints,
        [alice(HintKind::Typing), alice(HintKind::Presence { here: false })],
        "the latest wins"
    );
    let mut back = scene.bobs.resume(before).await.unwrap();
    assert!(settled(&mut back).await.is_empty());
    scene.close().await;
}

// Whom a text asks.

#[tokio::test(start_paused = true)]
async fn a_text_reaches_the_bots_it_names() {
    let (ben, mut bens) = puppet("ben", BotLimits::default());
    let mut scene = Scene::with(MemoryStore::new(), |builder| builder.bot(ben)).await;
    assert_eq!(scene.engine.bots(), ["ann", "ben"]);
    for (text, asked) in [
        ("/bot what is it", vec![("ann", "what is it")]),
        ("/ben what is it", vec![("ben", "what is it")]),
        ("what is it, @ben?", vec![("ben", "what is it?")]),
        ("@BEN: what is it", vec![("ben", "what is it")]),
        (
            "tell us, @ann and @ben",
            vec![("ann", "tell us, @ann and @ben"), ("ben", "tell us, @ann and")],
        ),
        ("/shrug what is it", vec![]),
        ("/BOT what is it", vec![]),
        ("/bot", vec![]),
        (" /bot what is it", vec![]),
        ("mail ann@example.org", vec![]),
        ("just talk", vec![]),
    ] {
        let sent = scene.room.send(text).await.unwrap();
        let bots: Vec<_> = sent.turns.iter().map(|turn| turn.bot()).collect();
        assert_eq!(bots, asked.iter().map(|(bot, _)| *bot).collect::<Vec<_>>(), "{text}");
        assert_eq!(sent.turn.is_some(), !asked.is_empty());
        for (bot, prompt) in asked {
            let strings = if bot == "ann" { &mut scene.ann } else { &mut bens };
            let answering = strings.next().await;
            assert_eq!(answering.turn.prompt, prompt, "{text}");
            answering.finish();
        }
        for turn in sent.turns {
            assert_eq!(turn.ended().await.unwrap().status, TurnStatus::Done);
        }
        assert_eq!(sent.message.text, text, "it is kept as it was sent");
    }
    scene.close().await;
}

#[tokio::test(start_paused = true)]
async fn what_a_bot_writes_asks_nobody() {
    let (ben, bens) = puppet("ben", BotLimits::default());
    let mut scene = Scene::with(MemoryStore::new(), |builder| builder.bot(ben)).await;
    let (turn, answering) = scene.ask("talk").await;
    answering.say("/ben go on, @ben").await.unwrap();
    answering.finish();
    turn.ended().await.unwrap();
    a_moment().await;
    assert!(!bens.has_next() && !scene.ann.has_next());
    scene.close().await;
}

#[tokio::test(start_paused = true)]
async fn an_ai_chat_greets_and_takes_everything_as_an_ask_while_one_is_alone() {
    let mut scene = Scene::new().await;
    let chat = scene.alice.create_room(RoomDraft::default().ai_chat()).await.unwrap();
    let entry = chat.entry().await.unwrap();
    assert_eq!(
        (entry.info.name.as_str(), entry.info.is_ai_chat, entry.info.is_group),
        ("AI Chat", true, false)
    );
    let greeting = entry.last_message.unwrap();
    assert_eq!(
        (greeting.author.bot.as_deref(), greeting.text.as_str()),
        (Some("ann"), "I am ann, a bot.")
    );
    assert_eq!(entry.unread, 0);
    let turn = chat.send("how are you?").await.unwrap().turn.unwrap();
    let answering = scene.ann.next().await;
    assert_eq!(answering.turn.prompt, "how are you?");
    answering.finish();
    turn.ended().await.unwrap();
    chat.invite(&scene.bob).await.unwrap();
    assert!(chat.send("now we are two").await.unwrap().turn.is_none());
    let asked = chat.send("/bot still there?").await.unwrap();
    scene.ann.next().await.finish();
    asked.turn.unwrap().ended().await.unwrap();
    chat.remove(scene.bob.id()).await.unwrap();
    assert!(chat.send("alone again").await.unwrap().turn.is_some());
    scene.close().await;
}

#[tokio::test(start_paused = true)]
async fn without_bots_there_is_nobody_to_ask() {
    let engine = Engine::builder(MemoryStore::new()).build().await.unwrap();
    let alice = engine.create_user("alice").await.unwrap();
    let chat = alice.create_room(RoomDraft::named("alone").ai_chat()).await.unwrap();
    for text in ["/bot hello", "@ann hello", "hello"] {
        assert!(chat.send(text).await.unwrap().turn.is_none());
    }
    engine.close(ms(0)).await;
}

// Messages.

async fn messages(room: &Room, range: Range, limit: u32) -> Vec<Arc<Message>> {
    room.history(range, limit).await.unwrap().messages
}

/// What goes with a message comes back from both stores as it was.
#[tokio::test]
async fn messages_keep_what_goes_with_them() {
    for scene in [
        Scene::new().await,
        Scene::on(SqliteStore::memory().await.unwrap()).await,
    ] {
        let mut bob = scene.bob_reads().await;
        let first = scene
            .bobs
            .send("  as it is \u{1f9d1}\u{200d}\u{1f680}\r\n\t")
            .await
            .unwrap()
            .message;
        assert_eq!(first.text, "  as it is \u{1f9d1}\u{200d}\u{1f680}\r\n\t");
        let meta = Meta::from_json(r#"{"b": 1, "a": [null, "ä"]}"#).unwrap();
        let draft = Draft::text("an answer")
            .client_id("c1")
            .reply_to(first.id)
            .meta(meta.clone());
        let sent = scene.room.send(draft.clone()).await.unwrap();
        let stored = scene.bobs.message(sent.message.id).await.unwrap();
        assert_eq!(stored, sent.message);
        assert_eq!((stored.reply_to, stored.meta.as_ref()), (Some(first.id), Some(&meta)));
        assert_eq!(stored.client_id.as_deref(), Some("c1"));
        assert_eq!(stored.author.user, Some(scene.alice.id()));
        next(&mut bob).await;
        assert_eq!(next(&mut bob).await.message(), Some(&stored), "everyone gets the same");
        // An edit changes the text and nothing else, for everyone.
        let edited = scene.room.edit(stored.id, "a better answer").await.unwrap();
        assert!(edited.edited_at.is_some());
        let mut expected = Message::clone(&stored);
        expected.text = "a better answer".into();
        expected.edited_at = edited.edited_at;
        expected.edits = 1;
        assert_eq!(*edited, expected);
        let Event::MessageEdited { message, .. } = next(&mut bob).await else {
            panic!("an edit is an event")
        };
        assert_eq!(message, edited);
        // Sent again it is what it has become.
        let again = scene.room.send(draft).await.unwrap();
        assert!(again.duplicate);
        assert_eq!(again.message, edited);
        scene.room.delete(stored.id).await.unwrap();
        scene.room.delete(stored.id).await.unwrap();
        assert_eq!(kind(scene.room.edit(stored.id, "undead").await), ErrorKind::NotFound);
        assert_eq!(kind(scene.room.message(stored.id).await), ErrorKind::NotFound);
        let left = messages(&scene.room, Range::Newest, 10).await;
        assert_eq!(left, [first]);
        scene.close().await;
    }
}

#[tokio::test]
async fn an_answer_can_be_answered_and_is_an_answer() {
    let mut scene = Scene::new().await;
    let (turn, answering) = scene.ask("hello").await;
    answering.finish();
    turn.ended().await.unwrap();
    let all = messages(&scene.room, Range::Newest, 10).await;
    let [ask, answer] = &all[..] else { panic!("{all:?}") };
    assert_eq!(answer.reply_to, Some(ask.id));
    assert_eq!(kind(scene.room.edit(answer.id, "forged").await), ErrorKind::Forbidden);
    let draft = Draft::text("thank you").reply_to(answer.id);
    assert_eq!(scene.bobs.send(draft).await.unwrap().message.reply_to, Some(answer.id));
    scene.close().await;
}

#[tokio::test]
async fn history_is_read_in_pages_in_both_directions() {
    for scene in [
        Scene::new().await,
        Scene::on(SqliteStore::memory().await.unwrap()).await,
    ] {
        let mut said = Vec::new();
        for n in 0..10 {
            said.push(scene.room.send(n.to_string()).await.unwrap().message);
        }
        scene.room.delete(said[4].id).await.unwrap();
        let mut back = Vec::new();
        let mut range = Range::Newest;
        loop {
            let page = scene.bobs.history(range, 4).await.unwrap();
            let seqs: Vec<_> = page.messages.iter().map(|message| message.seq).collect();
            assert!(seqs.is_sorted());
            let first = page.messages.first().unwrap();
            let at = said.iter().position(|message| message.id == first.id).unwrap();
            assert_eq!(page.older as usize, at, "deleted ones counted");
            range = Range::Before(first.seq);
            back.extend(page.messages.iter().rev().map(|message| message.text.clone()));
            if !page.more {
                break;
            }
        }
        assert_eq!(back.concat(), "987653210");
        let mut on = Vec::new();
        let mut range = Range::After(Seq(0));
        loop {
            let page = scene.bobs.history(range, 4).await.unwrap();
            on.extend(page.messages.iter().map(|message| message.text.clone()));
            range = Range::After(page.messages.last().unwrap().seq);
            if !page.more {
                break;
            }
        }
        assert_eq!(on.concat(), "012356789");
        assert!(messages(&scene.bobs, Range::Before(Seq(1)), 5).await.is_empty());
        assert!(messages(&scene.bobs, Range::After(Seq(i64::MAX)), 5).await.is_empty());
        for limit in [0, 201] {
            assert_eq!(
                kind(scene.bobs.history(Range::Newest, limit).await),
                ErrorKind::BadRequest
            );
        }
        scene.close().await;
    }
}

/// I5: whatever comes of the connection in between, and for however long.
#[tokio::test(start_paused = true)]
async fn sending_again_is_safe_at_any_time() {
    let mut scene = Scene::new().await;
    let mut bob = scene.bob_reads().await;
    let draft = || Draft::text("/ann once").client_id("c1");
    // Dropped in the middle, several times, then all at once.
    for _ in 0..3 {
        let _ = tokio::time::timeout(ms(0), scene.room.send(draft())).await;
    }
    let sending = (0..10).map(|_| scene.room.send(draft()));
    let sent = futures::future::join_all(sending).await;
    let ids: std::collections::BTreeSet<_> = sent.iter().map(|sent| sent.as_ref().unwrap().message.id).collect();
    assert_eq!(ids.len(), 1);
    let turns: std::collections::BTreeSet<_> = sent.iter().map(|sent| sent.as_ref().unwrap().turns[0].id()).collect();
    assert_eq!(turns.len(), 1);
    scene.ann.next().await.finish();
    a_moment().await;
    assert!(!scene.ann.has_next());
    // Another's id of the same letters is another message.
    assert!(!scene.bobs.send(draft()).await.unwrap().duplicate);
    let posted = |event: &&Event| matches!(event, Event::MessagePosted { .. });
    assert_eq!(settled(&mut bob).await.iter().filter(posted).count(), 2);
    tokio::time::sleep(A_MOMENT).await;
    scene.close().await;
}
