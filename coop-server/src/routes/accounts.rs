//! Making an account, getting a token, and who one is.

use crate::call::Call;
use crate::objects::UserObject;
use crate::reply::{Answer, Failure, Reply};
use coop_core::names::fold;
use coop_core::{Error, ErrorKind, User};
use serde::Deserialize;

#[derive(Deserialize)]
struct Registration {
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

#[derive(Deserialize)]
struct Credentials {
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
    let issued = call.house.tokens.issue(user.id(), user.account().token_version);
    let token = issued.map_err(|error| Error::internal("no token could be made").with_source(error))?;
    Reply::json(&serde_json::json!({ "access_token": token, "token_type": "bearer" }))
}

/// Who the token's user is.
#[allow(clippy::unused_async, reason = "endpoints are async")]
pub(crate) async fn me(_: Call, user: User) -> Answer {
    Reply::json(&UserObject::of(user.account()))
}
