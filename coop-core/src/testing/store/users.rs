//! Accounts.

use crate::id::UserId;
use crate::model::Account;
use crate::store::{NewAccount, Store};
use crate::time::Timestamp;

fn account(name: &str, email: Option<&str>) -> NewAccount {
    NewAccount {
        name: name.to_owned(),
        email: email.map(str::to_owned),
        password: Some(format!("hash of {name}")),
        now: Timestamp(7),
    }
}

async fn make<S: Store>(store: &S, name: &str) -> Account {
    let made = store.create_user(account(name, None)).await;
    made.expect("an account can be made")
}

pub(super) async fn accounts_are_found_again<S: Store>(store: &S) {
    let made = store
        .create_user(account("änne", Some("Anne@Example.org")))
        .await
        .expect("made");
    let expected = Account::new(made.id, "änne", Some("Anne@Example.org".into()), Timestamp(7));
    assert_eq!(made, expected);
    let other = make(store, "bob").await;
    assert_ne!(other.id, made.id);
    assert_eq!(store.user(made.id).await.expect("readable"), Some(made.clone()));
    assert_eq!(store.user_by_name("änne").await.expect("readable"), Some(made.clone()));
    let credentials = store.credentials("änne").await.expect("readable");
    assert_eq!(credentials, Some((made, "hash of änne".to_owned())));
    assert_eq!(store.user(UserId(999_999)).await.expect("readable"), None);
    for unknown in ["anne", "Änne", "", "%"] {
        assert_eq!(
            store.user_by_name(unknown).await.expect("readable"),
            None,
            "names are compared as given"
        );
        assert_eq!(store.credentials(unknown).await.expect("readable"), None);
    }
}

pub(super) async fn names_and_addresses_are_unique<S: Store>(store: &S) {
    store
        .create_user(account("anne", Some("Ännë@Example.org")))
        .await
        .expect("made");
    let error = store.create_user(account("anne", None)).await.expect_err("taken");
    assert_eq!(error.code(), "conflict");
    assert!(error.words().contains("name"), "the words say what is taken: {error}");
    let error = store
        .create_user(account("bob", Some("äNNË@exAmple.org")))
        .await
        .expect_err("taken");
    assert_eq!(error.code(), "conflict");
    assert!(
        error.words().contains("address"),
        "the words say what is taken: {error}"
    );
    make(store, "carl").await;
    make(store, "dora").await;
    assert_eq!(store.user_by_name("bob").await.expect("readable"), None);
}

pub(super) async fn passwords_can_be_replaced<S: Store>(store: &S) {
    let anne = make(store, "anne").await;
    store.set_password(anne.id, "new").await.expect("replaced");
    let credentials = store.credentials("anne").await.expect("readable");
    assert_eq!(
        credentials,
        Some((anne.clone().with_token_version(1), "new".to_owned())),
        "with the password all tokens end"
    );
    let error = store.set_password(UserId(999_999), "x").await.expect_err("nobody");
    assert_eq!(error.code(), "not_found");
    let without = NewAccount {
        password: None,
        ..account("bob", None)
    };
    store.create_user(without).await.expect("made");
    assert_eq!(
        store.credentials("bob").await.expect("readable"),
        None,
        "without a password nobody logs in"
    );
}

pub(super) async fn tokens_end_with_their_version<S: Store>(store: &S) {
    let (anne, bob) = (make(store, "anne").await, make(store, "bob").await);
    assert_eq!((anne.token_version, bob.token_version), (0, 0));
    for version in 1..=3 {
        store.end_tokens(anne.id).await.expect("ended");
        let now = store.user(anne.id).await.expect("readable").expect("there");
        assert_eq!(now, anne.clone().with_token_version(version));
        let by_name = store.user_by_name("anne").await.expect("readable");
        assert_eq!(by_name, Some(now));
    }
    let found = store.search("anne", 10, bob.id).await.expect("readable");
    assert_eq!(found, [anne.with_token_version(3)]);
    let others = store.user(bob.id).await.expect("readable");
    assert_eq!(others, Some(bob), "others keep theirs");
    let error = store.end_tokens(UserId(999_999)).await.expect_err("nobody");
    assert_eq!(error.code(), "not_found");
}

pub(super) async fn a_hash_is_renewed_only_for_the_same_password<S: Store>(store: &S) {
    let anne = make(store, "anne").await;
    store.rehash(anne.id, "hash of anne", "fresh").await.expect("renewed");
    let credentials = store.credentials("anne").await.expect("readable");
    assert_eq!(credentials, Some((anne.clone(), "fresh".to_owned())), "tokens stay");
    store.set_password(anne.id, "new").await.expect("replaced");
    for (user, from) in [(anne.id, "fresh"), (anne.id, ""), (UserId(999_999), "new")] {
        store.rehash(user, from, "too late").await.expect("of no effect");
    }
    let credentials = store.credentials("anne").await.expect("readable");
    assert_eq!(credentials, Some((anne.with_token_version(1), "new".to_owned())));
}

pub(super) async fn search_takes_characters_as_they_are<S: Store>(store: &S) {
    let mut ids = Vec::new();
    for name in ["zoe_1", "anna", "joanna", "100%", "a\\b", "hannah", "änna"] {
        ids.push(make(store, name).await.id);
    }
    let names = async |text: &str, limit, except| -> Vec<String> {
        let found = store.search(text, limit, except).await.expect("readable");
        found.into_iter().map(|account| account.name).collect()
    };
    let nobody = UserId(0);
    assert_eq!(
        names("anna", 10, nobody).await,
        ["anna", "hannah", "joanna"],
        "in the order of names"
    );
    assert_eq!(names("anna", 2, nobody).await, ["anna", "hannah"]);
    assert_eq!(names("anna", 10, ids[1]).await, ["hannah", "joanna"]);
    assert_eq!(names("%", 10, nobody).await, ["100%"]);
    assert_eq!(
        names("example.org", 10, nobody).await,
        [""; 0],
        "addresses are nobody's to find"
    );
    assert_eq!(names("_", 10, nobody).await, ["zoe_1"]);
    assert_eq!(names("\\", 10, nobody).await, ["a\\b"]);
    assert_eq!(names("änn", 10, nobody).await, ["änna"]);
    assert_eq!(names("' OR 1=1", 10, nobody).await, [""; 0]);
}

pub(super) async fn a_deleted_account_is_gone_and_its_id_never_comes_back<S: Store>(store: &S) {
    let bob = make(store, "bob").await;
    let new = account("anne", Some("Anne@example.org"));
    let anne = store.create_user(new.clone()).await.expect("made");
    store.delete_user(anne.id).await.expect("deleted");
    assert_eq!(store.user(anne.id).await.expect("readable"), None);
    assert_eq!(store.user_by_name("anne").await.expect("readable"), None);
    assert_eq!(store.credentials("anne").await.expect("readable"), None);
    let found = store.search("anne", 10, bob.id).await.expect("readable");
    assert_eq!(found, [], "search");
    let error = store.delete_user(anne.id).await.expect_err("nobody");
    assert_eq!(error.code(), "not_found");
    assert_eq!(store.user(bob.id).await.expect("readable"), Some(bob.clone()));
    let again = store.create_user(new).await.expect("name and address are free again");
    assert!(
        again.id > anne.id && anne.id > bob.id,
        "{:?} after {:?}",
        again.id,
        anne.id
    );
}
