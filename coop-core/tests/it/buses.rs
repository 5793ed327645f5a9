//! Every bus keeps the shipped contract, and what is particular to Redis: it may be away, restarted, flushed, paused.

use coop_core::bus::memory::MemoryBus;
use coop_core::testing::bus_contract;
use coop_core::{Engine, ErrorKind};

#[tokio::test(start_paused = true)]
async fn the_bus_in_memory_keeps_the_contract() {
    let bus = MemoryBus::new();
    bus_contract(|| bus.join()).await;
}

#[tokio::test]
async fn a_bus_beside_a_store_for_one_engine_is_refused() {
    let store = coop_core::store::memory::MemoryStore::new();
    let refused = Engine::builder(store).bus(MemoryBus::new()).build().await;
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::BadRequest);
}

#[cfg(feature = "redis")]
mod redis {
    use coop_core::ErrorKind;
    use coop_core::bus::redis::RedisBus;
    use coop_core::bus::{Bus, BusItem, BusState};
    use coop_core::testing::bus_contract;
    use coop_core::testing::redis::Redis;
    use coop_core::{RoomId, UserId};
    use futures::StreamExt;
    use futures::stream::BoxStream;
    use std::time::Duration;
    use tokio::time::{sleep, timeout};

    const SOON: Duration = Duration::from_secs(15);

    #[tokio::test]
    async fn redis_keeps_the_contract() {
        let Some(redis) = Redis::start("redis_keeps_the_contract") else {
            return;
        };
        bus_contract(|| RedisBus::new(&redis.url()).unwrap()).await;
    }

    #[test]
    fn an_address_that_is_none_is_refused() {
        for url in [
            "",
            "localhost",
            "http://localhost:1",
            "redis://[",
            "redis://localhost:port",
        ] {
            let refused = RedisBus::new(url).expect_err(url);
            assert_eq!(refused.kind(), ErrorKind::BadRequest, "{url}");
        }
        for url in [
            "redis://localhost",
            "redis://:secret@localhost:7/2",
            "rediss://localhost",
        ] {
            RedisBus::new(url).expect(url);
        }
    }

    struct Pair {
        one: RedisBus,
        other: RedisBus,
        heard: BoxStream<'static, BusItem>,
    }

    impl Pair {
        async fn new(redis: &Redis) -> Self {
            let [one, other] = [(); 2].map(|()| RedisBus::new(&redis.url()).unwrap());
            drop(one.listen("store").await);
            let heard = other.listen("store").await;
            other.follow(RoomId(1));
            let mut pair = Self { one, other, heard };
            pair.settle().await;
            pair
        }

        async fn until(&mut self, state: BusState) {
            let (one, other) = (&self.one, &self.other);
            let is = async {
                while (one.state(), other.state()) != (state, state) {
                    sleep(Duration::from_millis(10)).await;
                }
            };
            timeout(SOON, is)
                .await
                .unwrap_or_else(|_| panic!("it is not {state:?}"));
        }

        /// What is said arrives, in a room that was followed before, and for everybody.
        async fn talk(&mut self) {
            for item in [
                BusItem::Deleted {
                    room: RoomId(1),
                    by: None,
                },
                BusItem::TokensEnded(UserId(1)),
            ] {
                // What is said the moment a connection is made again may be lost, and the store has it: so, a few times.
                let one = &self.one;
                let say = async {
                    loop {
                        one.publish(item.clone());
                        sleep(Duration::from_millis(300)).await;
                    }
                };
                let heard = async { while self.heard.next().await.unwrap() != item {} };
                tokio::select! {
                    heard = timeout(SOON, heard) => heard.expect("it is heard"),
                    () = say => {}
                }
            }
        }

        async fn gap(&mut self) {
            let gap = async { while self.heard.next().await.unwrap() != BusItem::Gap {} };
            timeout(SOON, gap).await.expect("the loss is told");
        }

        async fn settle(&mut self) {
            while timeout(Duration::from_millis(200), self.heard.next()).await.is_ok() {}
        }
    }

    #[tokio::test]
    async fn one_that_comes_later_is_found() {
        if Redis::start("one_that_comes_later_is_found").is_none() {
            return;
        }
        let redis = Redis::later();
        let mut pair = Pair::new(&redis).await;
        pair.until(BusState::Down).await;
        redis.start_again();
        pair.until(BusState::Up).await;
        pair.gap().await;
        pair.talk().await;
    }

    #[tokio::test]
    async fn one_that_was_killed_is_found_again() {
        let Some(redis) = Redis::start("one_that_was_killed_is_found_again") else {
            return;
        };
        let mut pair = Pair::new(&redis).await;
        pair.talk().await;
        pair.settle().await;
        redis.kill();
        pair.until(BusState::Down).await;
        redis.start_again();
        pair.until(BusState::Up).await;
        pair.gap().await;
        pair.talk().await;
    }

    #[tokio::test]
    async fn one_that_hangs_counts_as_away() {
        let Some(redis) = Redis::start("one_that_hangs_counts_as_away") else {
            return;
        };
        let mut pair = Pair::new(&redis).await;
        pair.settle().await;
        redis.pause();
        pair.until(BusState::Down).await;
        redis.resume();
        pair.until(BusState::Up).await;
        pair.gap().await;
        pair.talk().await;
    }

    #[tokio::test]
    async fn connections_that_are_cut_are_made_again() {
        let Some(redis) = Redis::start("connections_that_are_cut_are_made_again") else {
            return;
        };
        let mut pair = Pair::new(&redis).await;
        for kind in ["pubsub", "normal"] {
            pair.settle().await;
            redis.run(&["CLIENT", "KILL", "TYPE", kind]);
            pair.until(BusState::Up).await;
            if kind == "pubsub" {
                pair.gap().await;
            }
            pair.talk().await;
        }
        redis.run(&["FLUSHALL"]);
        redis.run(&["CLIENT", "PAUSE", "700"]);
        pair.talk().await;
    }

    #[tokio::test]
    async fn what_another_version_says_is_a_gap() {
        let Some(redis) = Redis::start("what_another_version_says_is_a_gap") else {
            return;
        };
        let mut pair = Pair::new(&redis).await;
        for said in ["", "0123456789abcdef[{\"unheard_of\":1}]", "0123456789abcdef", "\u{e9}"] {
            pair.settle().await;
            assert_eq!(redis.run(&["PUBLISH", "coop1:store:all", said]), "2");
            pair.gap().await;
        }
        pair.talk().await;
    }
}
