//! Making an account, getting a token, who one is, and all that ends: tokens, a password, the account.

use crate::call::Call;
use crate::objects::UserObject;
use crate::reply::{Answer, Failure, Reply};
use coop_core::names::fold;
use coop_core::{Departure, Error, ErrorKind, User};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

#[derive(Deserialize, JsonSchema)]
pub(crate) struct Registration {
    username: String,
    email: String,
    password: String,
}

/// Makes an account.
pub(crate) async fn register(call: Call) -> Answer {
    if !call.house.registration {
        return Err(Failure::forbidden("Registration is closed"));
    }
    let asked: Registration = call.json()?;
    let engine = &call.house.engine;
    match engine.register(&asked.username, &asked.email, asked.password).await {
        Ok(user) => Reply::json(&UserObject::of(user.account())),
        Err(error) if error.kind() == ErrorKind::Conflict => {
            // What is taken is told by looking, not by the error's words.
            let name_taken = engine.find_user(&asked.username).await.is_ok();
            Err(Failure::bad_request(if name_taken {
                "Username already registered"
            } else {
                "Email already registered"
            }))
        }
        Err(error) => Err(error.into()),
    }
}

#[derive(Deserialize, JsonSchema)]
pub(crate) struct Credentials {
    username: String,
    password: String,
}

/// Gives a token to who knows the password.
pub(crate) async fn login(call: Call) -> Answer {
    let asked: Credentials = call.json()?;
    // By the account's one name, however it is spelled here; what cannot be a name is counted as it is.
    let name = fold(&asked.username).unwrap_or_else(|_| asked.username.clone());
    call.house.tolls.try_account(&name)?;
    let user = match call.house.engine.authenticate(&asked.username, asked.password).await {
        Ok(user) => user,
        // Also for a password that is too long to be one: what is wrong is not told.
        Err(error) if matches!(error.kind(), ErrorKind::Unauthorized | ErrorKind::BadRequest) => {
            return Err(Failure::unauthorized("Incorrect username or password"));
        }
        Err(error) => return Err(error.into()),
    };
    call.house.tolls.forgive_account(&name);
    token(&call, &user, user.account().token_version)
}

/// A token.
#[derive(Serialize, JsonSchema)]
pub(crate) struct TokenObject<'a> {
    access_token: &'a str,
    token_type: &'static str,
}

/// A token of this version for somebody.
fn token(call: &Call, user: &User, version: i64) -> Answer {
    let issued = call.house.tokens.issue(user.id(), version);
    let token = issued.map_err(|error| Error::internal("no token could be made").with_source(error))?;
    Reply::json(&TokenObject {
        access_token: &token,
        token_type: "bearer",
    })
}

#[derive(Deserialize, JsonSchema)]
pub(crate) struct PasswordChange {
    current_password: String,
    new_password: String,
}

/// Gives somebody another password, and one new token: all others have ended.
pub(crate) async fn change_password(call: Call, user: User) -> Answer {
    let asked: PasswordChange = call.json()?;
    confirm(&call, &user, asked.current_password).await?;
    user.set_password(asked.new_password).await?;
    // The version that this very change has made: if there was another one meanwhile, this token is not good either.
    token(&call, &user, user.account().token_version + 1)
}

/// Ends all tokens of the user, and the sockets that were opened with them.
pub(crate) async fn log_out_everywhere(_: Call, user: User) -> Answer {
    user.log_out_everywhere().await?;
    Reply::message("Logged out everywhere")
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Deletion {
    password: String,
    #[serde(default)]
    rooms: OwnedRooms,
    #[serde(default)]
    messages: OwnMessages,
}

#[derive(Deserialize, Default, Clone, Copy, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum OwnedRooms {
    #[default]
    HandOver,
    Delete,
}

#[derive(Deserialize, Default, Clone, Copy, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum OwnMessages {
    #[default]
    Keep,
    Purge,
}

/// Deletes the user's account.
pub(crate) async fn delete(call: Call, user: User) -> Answer {
    let asked: Deletion = call.json()?;
    confirm(&call, &user, asked.password).await?;
    let mut how = Departure::default();
    if let OwnedRooms::Delete = asked.rooms {
        how = how.deleting_rooms();
    }
    if let OwnMessages::Purge = asked.messages {
        how = how.purging_messages();
    }
    user.delete_account(how).await?;
    Reply::message("Account deleted")
}

/// Makes sure that it is the user themselves and not somebody who has found their token: by their password, which costs as
/// much to guess as at a login.
async fn confirm(call: &Call, user: &User, password: String) -> Result<(), Failure> {
    call.house.tolls.try_account(user.name())?;
    // Not 401: the token is good.
    if !user.has_password(password).await? {
        return Err(Failure::forbidden("Incorrect password"));
    }
    call.house.tolls.forgive_account(user.name());
    Ok(())
}

/// Who the token's user is.
#[allow(clippy::unused_async, reason = "endpoints are async")]
pub(crate) async fn me(_: Call, user: User) -> Answer {
    Reply::json(&UserObject::of(user.account()))
}
