//! What may be called what: names, texts and ids from outside, checked before anything else looks at them.
//!
//! Pure functions. They know nothing of who already has a name, nor of which bots exist: uniqueness is the store's,
//! and the engine adds its bots' handles to the reserved names.

use crate::error::{Error, Result};
use email_address::{EmailAddress, Options};
use unicode_normalization::UnicodeNormalization;

/// The fewest characters of a username or a bot's handle.
pub const MIN_NAME_CHARS: usize = 3;
/// The most characters of a username or a bot's handle.
pub const MAX_NAME_CHARS: usize = 32;
/// The most characters of a sender's own id for a message.
pub const MAX_CLIENT_ID_CHARS: usize = 64;

/// Names that would be taken for the house itself, or for everybody in it.
const RESERVED: &[&str] = &[
    "admin",
    "root",
    "system",
    "support",
    "moderator",
    "bot",
    "here",
    "all",
    "everyone",
];

/// Checks a username and returns its key: NFKC and lower case, by which it is unique, found and mentioned.
///
/// # Errors
/// Words for people about what is wrong with it.
pub fn check_name(name: &str) -> Result<String, &'static str> {
    let key = fold(name)?;
    check_shape(&key)?;
    if RESERVED.contains(&key.as_str()) || key.starts_with("gemini") {
        return Err("this name is reserved");
    }
    Ok(key)
}

/// Checks a bot's handle: shaped like a username's key, and none of the words that mean somebody else.
///
/// # Errors
/// Words for the programmer about what is wrong with it.
pub fn check_handle(handle: &str) -> Result<(), &'static str> {
    check_shape(handle)?;
    if RESERVED.contains(&handle) {
        return Err("this name is reserved");
    }
    Ok(())
}

/// The most characters of the name that a bot shows.
pub const MAX_DISPLAY_CHARS: usize = 64;

/// Checks the name that a bot shows, as people will read it.
///
/// # Errors
/// Words for the programmer about what is wrong with it.
pub fn check_display_name(name: &str) -> Result<(), &'static str> {
    if name.trim().is_empty() {
        return Err("a bot needs a name to show");
    }
    if name.chars().nth(MAX_DISPLAY_CHARS).is_some() {
        return Err("the name that a bot shows may have at most 64 characters");
    }
    if name.contains(|c: char| c.is_control() || is_invisible(c)) {
        return Err("the name that a bot shows may have no control, direction or zero-width characters");
    }
    Ok(())
}

/// Checks a room's name.
///
/// # Errors
/// `BadRequest` if it is blank, longer than so many characters, or has control characters.
pub fn check_room_name(name: &str, most: usize) -> Result<()> {
    if name.trim().is_empty() {
        return Err(Error::bad_request("a room needs a name"));
    }
    if name.chars().nth(most).is_some() {
        return Err(Error::bad_request(format!(
            "a room's name may have at most {most} characters"
        )));
    }
    if name.contains(char::is_control) {
        return Err(Error::bad_request("a room's name may not have control characters"));
    }
    Ok(())
}

/// The most characters of what a room's owner tells its bots.
pub const MAX_SYSTEM_CHARS: usize = 4_000;

/// Checks what a room's owner tells its bots.
///
/// # Errors
/// `TooLarge` if it is too long, `BadRequest` if it has control characters other than tabs and ends of lines.
pub fn check_system_text(text: &str) -> Result<()> {
    if text.chars().nth(MAX_SYSTEM_CHARS).is_some() {
        return Err(Error::too_large(
            "a room's system prompt may have at most 4,000 characters",
        ));
    }
    if text.contains(|c: char| c.is_control() && !matches!(c, '\n' | '\r' | '\t')) {
        return Err(Error::bad_request("a system prompt may not have control characters"));
    }
    Ok(())
}

/// Checks what somebody wants to say. It is stored exactly as sent, so nothing is trimmed here.
///
/// # Errors
/// `BadRequest` if it is blank or has a NUL, `TooLarge` if it has more than so many bytes.
pub fn check_text(text: &str, most: usize) -> Result<()> {
    if text.len() > most {
        return Err(Error::too_large(match most % 1024 {
            0 => format!("a message may have at most {} KiB of text", most / 1024),
            _ => format!("a message may have at most {most} bytes of text"),
        }));
    }
    if text.trim().is_empty() {
        return Err(Error::bad_request("a message may not be blank"));
    }
    if text.contains('\0') {
        return Err(Error::bad_request("a message may not have a NUL character"));
    }
    Ok(())
}

/// Checks a sender's own id for a message.
///
/// # Errors
/// `BadRequest` if it is empty, too long or has control characters.
pub fn check_client_id(id: &str) -> Result<()> {
    if id.is_empty() || id.chars().nth(MAX_CLIENT_ID_CHARS).is_some() || id.contains(char::is_control) {
        return Err(Error::bad_request(
            "client_id must have 1 to 64 characters and no control characters",
        ));
    }
    Ok(())
}

/// Checks an e-mail address's syntax and returns its lower-case key, by which it is unique. Whether anybody reads it
/// is not known here.
///
/// # Errors
/// `BadRequest` if it is not an address of the form `name@host.example`.
pub fn check_email(email: &str) -> Result<String> {
    let options = Options::default()
        .with_required_tld()
        .without_domain_literal()
        .without_display_text();
    let visible = !email.contains(|c: char| c.is_whitespace() || c.is_control() || is_invisible(c));
    if !visible || EmailAddress::parse_with_options(email, options).is_err() {
        return Err(Error::bad_request("this is not an e-mail address"));
    }
    Ok(email.to_lowercase())
}

/// Whether a character shows nothing by itself but can change how its neighbours read: zero-width characters, and
/// those that turn the direction of writing.
pub(crate) fn is_invisible(c: char) -> bool {
    matches!(
        c,
        '\u{ad}'
            | '\u{61c}'
            | '\u{180e}'
            | '\u{200b}'..='\u{200f}'
            | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}'
            | '\u{feff}'
            | '\u{fff9}'..='\u{fffb}'
            | '\u{e0000}'..='\u{e007f}'
    )
}

/// A name's key: what it is unique, found and mentioned by. NFKC and lower case: one spelling of a name must not hide
/// behind another.
///
/// # Errors
/// A sentence for what is too long to be a name.
pub fn fold(name: &str) -> Result<String, &'static str> {
    // No name that may be had takes more room than this, and folding a larger one is work for nothing.
    if name.len() > MAX_NAME_CHARS * 16 {
        return Err("a name may have at most 32 characters");
    }
    Ok(name.nfkc().collect::<String>().to_lowercase())
}

/// `[a-z0-9][a-z0-9_.-]{2,31}`
fn check_shape(key: &str) -> Result<(), &'static str> {
    if key.chars().nth(MIN_NAME_CHARS - 1).is_none() {
        return Err("a name needs at least 3 characters");
    }
    if key.chars().nth(MAX_NAME_CHARS).is_some() {
        return Err("a name may have at most 32 characters");
    }
    if !key
        .chars()
        .all(|c| matches!(c, 'a'..='z' | '0'..='9' | '_' | '.' | '-'))
    {
        return Err("a name may have only letters a to z, digits, and the characters _ . -");
    }
    if key.starts_with(['_', '.', '-']) {
        return Err("a name must begin with a letter or a digit");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;
    use proptest::prelude::*;

    const MOST: usize = 64 << 10;

    #[test]
    fn names_fold_to_their_key() {
        for (name, key) in [
            ("alice", "alice"),
            ("Alice", "alice"),
            ("ＡＬＩＣＥ", "alice"),
            ("ﬁona", "fiona"),
            ("\u{212a}elvin", "kelvin"),
            ("a_b.c-d", "a_b.c-d"),
            ("0ab", "0ab"),
            ("botanist", "botanist"),
        ] {
            assert_eq!(check_name(name).as_deref(), Ok(key), "{name:?}");
        }
    }

    #[test]
    fn what_nobody_may_be_called() {
        let long = "a".repeat(33);
        let huge = "a".repeat(1 << 20);
        for name in [
            "",
            "a",
            "ab",
            "_ab",
            ".ab",
            "-ab",
            "a b",
            "alice ",
            "al\u{200b}ice",
            "al\u{202e}ice",
            "älice",
            "а\u{301}lice",
            "al\0ice",
            "al/ice",
            "al@ice",
            &long,
            &huge,
            "admin",
            "ADMIN",
            "Ｒoot",
            "system",
            "support",
            "moderator",
            "bot",
            "here",
            "all",
            "everyone",
            "gemini",
            "Gemini",
            "gemini2",
            "gemini.pro",
            "İstanbul",
        ] {
            assert!(check_name(name).is_err(), "{name:?}");
        }
        assert!(check_name(&"a".repeat(32)).is_ok());
    }

    #[test]
    fn a_handle_is_a_key_already() {
        assert!(check_handle("gemini").is_ok());
        assert!(check_handle("mock2").is_ok());
        for name in ["Gemini", "日本 bot", &"é".repeat(64)] {
            assert!(check_display_name(name).is_ok(), "{name:?}");
        }
        for name in ["", " ", "a\nb", "admin\u{202e}", "a\u{200b}b", &"é".repeat(65)] {
            assert!(check_display_name(name).is_err(), "{name:?}");
        }
        for handle in ["bot", "all", "Gemini", "a", "", "has space"] {
            assert!(check_handle(handle).is_err(), "{handle:?}");
        }
    }

    #[test]
    fn rooms_texts_and_client_ids() {
        assert!(check_room_name("Plans", 100).is_ok());
        assert!(check_room_name(&"é".repeat(100), 100).is_ok());
        for name in ["", " \u{3000}", "a\nb", "a\u{7f}", &"é".repeat(101)] {
            assert_eq!(
                check_room_name(name, 100).unwrap_err().kind(),
                ErrorKind::BadRequest,
                "{name:?}"
            );
        }

        assert!(check_text(" hi\n", MOST).is_ok());
        assert!(check_text(&"é".repeat(MOST / 2), MOST).is_ok());
        // What a client of the seed sends: 20,000 characters of whatever script.
        assert!(check_text(&"語".repeat(20_000), MOST).is_ok());
        for text in ["", " \n\t", "a\0b"] {
            assert_eq!(
                check_text(text, MOST).unwrap_err().kind(),
                ErrorKind::BadRequest,
                "{text:?}"
            );
        }
        let over = "é".repeat(MOST / 2 + 1);
        assert_eq!(check_text(&over, MOST).unwrap_err().kind(), ErrorKind::TooLarge);

        assert!(check_client_id("x").is_ok());
        assert!(check_client_id(&"é".repeat(64)).is_ok());
        for id in ["", "a\nb", &"x".repeat(65)] {
            assert_eq!(check_client_id(id).unwrap_err().kind(), ErrorKind::BadRequest, "{id:?}");
        }
    }

    #[test]
    fn e_mail_addresses() {
        for (email, key) in [
            ("a@b.example", "a@b.example"),
            ("Alice.B+c@Example.ORG", "alice.b+c@example.org"),
            ("üñ@exämple.org", "üñ@exämple.org"),
        ] {
            assert_eq!(check_email(email).unwrap(), key);
        }
        let long = format!("{}@example.org", "a".repeat(65));
        for email in [
            "",
            "a",
            "@",
            "a@",
            "@b.example",
            "a@localhost",
            "a@b..example",
            "a@b.example.",
            "a b@c.example",
            " a@b.example",
            "a@b.example\n",
            "A <a@b.example>",
            "a@[127.0.0.1]",
            "a@b@c.example",
            "a@-b.example",
            ".a@b.example",
            "a..b@c.example",
            "a\u{202e}@b.example",
            "\"a b\"@c.example",
            &long,
        ] {
            assert_eq!(
                check_email(email).unwrap_err().kind(),
                ErrorKind::BadRequest,
                "{email:?}"
            );
        }
    }

    proptest! {
        #[test]
        fn a_key_is_its_own_key(name: String) {
            if let Ok(key) = check_name(&name) {
                prop_assert_eq!(check_name(&key), Ok(key.clone()));
                prop_assert!(check_handle(&key).is_ok());
            }
            let _ = (check_room_name(&name, 100), check_text(&name, MOST), check_client_id(&name));
            if let Ok(key) = check_email(&name) {
                prop_assert_eq!(check_email(&key).unwrap(), key);
            }
        }
    }
}
