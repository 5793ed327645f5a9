//! How bots are governed in a room, and what they use. Beyond the seed's contract: who is no member is told that there is
//! no such room.

use super::rooms::room;
use crate::call::Call;
use crate::reply::{Answer, Reply};
use coop_core::{Day, Room, RoomSettings, TurnPolicy, UsageFilter, UsageSum, User, WhoMayStop};
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};
use std::collections::BTreeMap;

/// The room's settings.
pub(crate) async fn settings(call: Call, user: User) -> Answer {
    Reply::json(&room(&call, &user).await?.settings().await?)
}

/// What is to be changed; what is not said stays.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Changes {
    system: Option<String>,
    /// Said as null it is nobody's.
    #[serde(default, deserialize_with = "said")]
    default_bot: Option<Option<String>>,
    policy: Option<TurnPolicy>,
    who_may_stop: Option<WhoMayStop>,
    bots_ask_bots: Option<bool>,
}

/// Tells what is null from what is not there.
fn said<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Option<String>>, D::Error> {
    Option::deserialize(deserializer).map(Some)
}

impl Changes {
    fn apply(self, settings: &mut RoomSettings) {
        if let Some(system) = self.system {
            settings.system = system;
        }
        if let Some(bot) = self.default_bot {
            settings.default_bot = bot;
        }
        if let Some(policy) = self.policy {
            settings.policy = policy;
        }
        if let Some(who) = self.who_may_stop {
            settings.who_may_stop = who;
        }
        if let Some(may) = self.bots_ask_bots {
            settings.bots_ask_bots = may;
        }
    }
}

/// Changes the room's settings. Only the owner may.
pub(crate) async fn configure(call: Call, user: User) -> Answer {
    let changes: Changes = call.json()?;
    let room = room(&call, &user).await?;
    let mut settings = room.settings().await?;
    changes.apply(&mut settings);
    room.configure(settings.clone()).await?;
    Reply::json(&settings)
}

/// What was used, today and ever.
#[derive(Serialize, JsonSchema)]
pub(crate) struct Used {
    today: UsageSum,
    ever: UsageSum,
}

#[derive(Serialize, JsonSchema)]
pub(crate) struct Usage {
    #[serde(flatten)]
    all: Used,
    /// Of each bot that there is.
    bots: BTreeMap<String, Used>,
    /// How many tokens may be used in a day, if that is limited.
    tokens_per_day: Option<u64>,
}

/// Whose usage is asked for.
enum Whose {
    Room(Room),
    User(User),
}

impl Whose {
    async fn sum(&self, bot: Option<&str>, since: Option<Day>) -> coop_core::Result<UsageSum> {
        let of = UsageFilter {
            bot: bot.map(str::to_owned),
            since,
            ..UsageFilter::default()
        };
        match self {
            Self::Room(room) => room.usage(of).await,
            Self::User(user) => user.usage(of).await,
        }
    }

    async fn used(&self, bot: Option<&str>, today: Day) -> coop_core::Result<Used> {
        Ok(Used {
            today: self.sum(bot, Some(today)).await?,
            ever: self.sum(bot, None).await?,
        })
    }
}

async fn usage(call: &Call, whose: Whose, tokens_per_day: Option<u64>) -> Answer {
    let today = call.house.engine.now().day();
    let mut bots = BTreeMap::new();
    for bot in &call.house.engine.bots() {
        bots.insert(bot.clone(), whose.used(Some(bot), today).await?);
    }
    Reply::json(&Usage {
        all: whose.used(None, today).await?,
        bots,
        tokens_per_day,
    })
}

/// The tokens that were used in a room.
pub(crate) async fn room_usage(call: Call, user: User) -> Answer {
    let room = room(&call, &user).await?;
    let budget = call.house.engine.budgets().room_tokens_per_day;
    usage(&call, Whose::Room(room), budget).await
}

/// The tokens that were used for what one has asked.
pub(crate) async fn own_usage(call: Call, user: User) -> Answer {
    let budget = call.house.engine.budgets().user_tokens_per_day;
    usage(&call, Whose::User(user), budget).await
}
