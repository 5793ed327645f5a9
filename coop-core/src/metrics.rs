//! What the engine counts, through the `metrics` facade: whoever wants the figures installs a recorder before the engine
//! is built, and without one nothing is counted and nothing is spent. No figure tells of a room or a person.
//!
//! | name | what |
//! | --- | --- |
//! | `coop_events_published_total` | events that rooms in memory have got |
//! | `coop_deltas_published_total` | pieces of answers, as they were gathered |
//! | `coop_offers_total{kind}` | how often one of them (`event` or `delta`) was offered to a reader |
//! | `coop_fanout_seconds` | how long an offer to all readers of a room and an encoder took |
//! | `coop_backfills_total` | readers that were brought up to date from the store |
//! | `coop_commit_seconds` | how long the store took for a commit |
//! | `coop_commit_intents_total` | what was asked of those commits: messages, marks, ends of turns … |
//! | `coop_commit_failures_total` | commits that failed or whose outcome was in doubt |
//! | `coop_turns_total{bot,end}` | turns that ended here, and how |
//! | `coop_turns_running` | turns that run here now |
//! | `coop_turn_first_piece_seconds{bot}` | from a turn's start to the first of its text |
//! | `coop_turn_tokens_total{bot,kind}` | tokens that turns have used, `input` and `output` |
//! | `coop_rooms_in_memory` | rooms that are read or written here now |
//! | `coop_bus_up` | whether other engines hear of this one at once; only with a bus |
//!
//! It decides nothing; it knows neither where figures go nor in which form.

use crate::model::{TurnEnd, TurnStatus, Usage};
use ::metrics::{
    Counter, Gauge, Histogram, Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram,
};
use std::time::Duration;

/// The handles to what is counted often.
pub(crate) struct Meters {
    pub(crate) events: Counter,
    pub(crate) deltas: Counter,
    pub(crate) events_offered: Counter,
    pub(crate) deltas_offered: Counter,
    pub(crate) fanout: Histogram,
    pub(crate) backfills: Counter,
    pub(crate) commit: Histogram,
    pub(crate) intents: Counter,
    pub(crate) commit_failures: Counter,
    pub(crate) turns_running: Gauge,
}

impl Meters {
    pub(crate) fn new() -> Self {
        let meters = Self {
            events: counter!("coop_events_published_total"),
            deltas: counter!("coop_deltas_published_total"),
            events_offered: counter!("coop_offers_total", "kind" => "event"),
            deltas_offered: counter!("coop_offers_total", "kind" => "delta"),
            fanout: histogram!("coop_fanout_seconds"),
            backfills: counter!("coop_backfills_total"),
            commit: histogram!("coop_commit_seconds"),
            intents: counter!("coop_commit_intents_total"),
            commit_failures: counter!("coop_commit_failures_total"),
            turns_running: gauge!("coop_turns_running"),
        };
        describe();
        meters
    }

    /// What only a look can tell.
    pub(crate) fn look(rooms: usize, bus_up: Option<bool>) {
        gauge!("coop_rooms_in_memory").set(rooms as f64);
        if let Some(up) = bus_up {
            gauge!("coop_bus_up").set(f64::from(u8::from(up)));
        }
    }

    /// The first of an answer's text is there.
    pub(crate) fn first_piece(bot: &str, after: Duration) {
        histogram!("coop_turn_first_piece_seconds", "bot" => bot.to_owned()).record(after);
    }

    /// A turn has ended here.
    pub(crate) fn turn_ended(bot: &str, end: &TurnEnd) {
        let how = match (&end.error, end.status) {
            (Some(error), TurnStatus::Failed) => error.code.to_string(),
            (_, status) => status.as_str().to_owned(),
        };
        counter!("coop_turns_total", "bot" => bot.to_owned(), "end" => how).increment(1);
        let Usage { input, output, .. } = end.usage.unwrap_or_default();
        for (kind, tokens) in [("input", input), ("output", output)] {
            let tokens = u64::from(tokens.unwrap_or(0));
            counter!("coop_turn_tokens_total", "bot" => bot.to_owned(), "kind" => kind).increment(tokens);
        }
    }
}

fn describe() {
    describe_counter!("coop_events_published_total", "Events that rooms in memory have got");
    describe_counter!(
        "coop_deltas_published_total",
        "Pieces of answers, as they were gathered"
    );
    describe_counter!(
        "coop_offers_total",
        "How often an event or a piece was offered to a reader"
    );
    describe_histogram!(
        "coop_fanout_seconds",
        Unit::Seconds,
        "How long an offer to all readers of a room took"
    );
    describe_counter!(
        "coop_backfills_total",
        "Readers that were brought up to date from the store"
    );
    describe_histogram!(
        "coop_commit_seconds",
        Unit::Seconds,
        "How long the store took for a commit"
    );
    describe_counter!("coop_commit_intents_total", "What was asked of the commits");
    describe_counter!(
        "coop_commit_failures_total",
        "Commits that failed or whose outcome was in doubt"
    );
    describe_counter!("coop_turns_total", "Turns that ended here, by bot and how");
    describe_gauge!("coop_turns_running", "Turns that run here now");
    describe_histogram!(
        "coop_turn_first_piece_seconds",
        Unit::Seconds,
        "From a turn's start to the first of its text"
    );
    describe_counter!("coop_turn_tokens_total", "Tokens that turns have used");
    describe_gauge!("coop_rooms_in_memory", "Rooms that are read or written here now");
    describe_gauge!("coop_bus_up", "Whether other engines hear of this one at once");
}
