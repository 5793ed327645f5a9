//! What a store must do: every rule of [`RoomStore`] and [`UserStore`](crate::store::UserStore), each tried on a store of its own.
//!
//! ```no_run
//! # async fn example() {
//! use coop_core::store::memory::MemoryStore;
//! coop_core::testing::store::store_contract(|| async { MemoryStore::new() }).await;
//! # }
//! ```

mod flat;
mod governing;
mod members;
mod messages;
mod reads;
mod turns;
mod unread;
mod users;

use crate::store::{RoomStore, Store};
use std::future::Future;

/// Says which rule was being tried if it panics.
struct Rule(&'static str);

impl Drop for Rule {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the store breaks the rule `{}`", self.0);
        }
    }
}

macro_rules! try_rules {
    ($make:expr; $($group:ident :: { $($rule:ident),* $(,)? })*) => {$($({
        let store = $make().await;
        let rule = Rule(concat!(stringify!($group), "::", stringify!($rule)));
        $group::$rule(&store).await;
        drop(rule);
        store.close().await;
    })*)*};
}

/// Tries everything on stores from `make`, each of which must be empty and independent of the others.
///
/// # Panics
/// If a rule is broken; the rule's name is printed.
pub async fn store_contract<S, F, Made>(make: F)
where
    S: Store,
    F: Fn() -> Made + Send + Sync,
    Made: Future<Output = S> + Send,
{
    room_store_contract(&make).await;
    user_store_contract(&make).await;
}

/// The half of rooms, for an application whose users live elsewhere.
///
/// # Panics
/// If a rule is broken; the rule's name is printed.
pub async fn room_store_contract<S, F, Made>(make: F)
where
    S: RoomStore,
    F: Fn() -> Made + Send + Sync,
    Made: Future<Output = S> + Send,
{
    try_rules!(make;
        members::{
            a_new_room_begins_with_its_members, a_greeting_counts_as_read, a_room_is_not_too_large,
            unknown_rooms_and_strangers_look_alike, inviting_is_open_to_members_and_idempotent,
            leaving_and_removing, renaming_and_handing_over, deleting_a_room_leaves_nothing_and_frees_no_id,
        }
        messages::{
            a_post_appears_once_for_everyone, a_resend_is_the_same_message_for_ever,
            a_resend_within_a_batch_is_a_duplicate, one_client_id_of_two_authors_is_two_messages,
            replies_stay_in_their_room, words_are_found_in_their_room, only_authors_edit, deleting_scrubs_everywhere,
            all_that_somebody_has_written_can_go,
            every_text_comes_back_as_it_was, a_batch_is_applied_in_order_and_fails_piecemeal,
        }
        turns::{
            an_ask_is_admitted_with_its_message, an_ai_chat_of_one_is_always_an_ask, a_bot_has_one_turn_at_a_time,
            only_so_many_wait, an_answer_streams_and_ends_once, a_waiting_turn_ends_without_a_message,
            failures_keep_text_and_words, deleting_an_ask_stops_what_waits_for_it, answers_are_deleted_by_the_owner,
            a_turn_belongs_to_its_room,
        }
        governing::{
            settings_are_the_owners, the_default_bot_is_the_rooms, a_retry_is_a_new_turn_of_the_same_ask,
            an_ask_may_interrupt, only_what_one_may_stop_is_interrupted, answers_ask_others_where_the_room_allows_it,
            bots_alone_come_to_an_end, receipts_stay_with_their_answers, usage_is_charged_and_summed_up,
            budgets_refuse_and_cut_off, a_budget_is_not_given_back, open_turns_are_told_by_room,
        }
        unread::{
            marks_only_move_forward, own_messages_and_answers_are_not_unread, deleted_messages_are_not_unread,
            counting_agrees_with_recounting,
        }
        reads::{
            events_replay_what_was_committed, events_come_in_pages, history_comes_in_pages,
            a_snapshot_is_of_one_moment, rooms_come_newest_first, parallel_commits_of_many_rooms,
            a_closed_store_says_so,
        }
    );
}

/// The half of users.
///
/// # Panics
/// If a rule is broken; the rule's name is printed.
pub async fn user_store_contract<S, F, Made>(make: F)
where
    S: Store,
    F: Fn() -> Made + Send + Sync,
    Made: Future<Output = S> + Send,
{
    try_rules!(make;
        users::{
            accounts_are_found_again, names_and_addresses_are_unique, passwords_can_be_replaced, tokens_end_with_their_version,
            a_hash_is_renewed_only_for_the_same_password,
            search_takes_characters_as_they_are,
            a_deleted_account_is_gone_and_its_id_never_comes_back,
        }
    );
}
